package hub

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultEndpoint is the hub that is asked when HF_ENDPOINT names no other.
const DefaultEndpoint = "https://huggingface.co"

// maxToken bounds a token file; a token has 37 letters.
const maxToken = 4096

// Environment reads HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_TOKEN, HF_TOKEN_PATH and HF_HUB_OFFLINE, with the defaults and
// the older names that huggingface_hub knows.
func Environment() (Options, error) {
	o := Options{Endpoint: strings.TrimRight(first("HF_ENDPOINT"), "/"), Offline: isTrue(first("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))}
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	if u, err := url.Parse(o.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return Options{}, fmt.Errorf("HF_ENDPOINT: %q is no address of a hub: want one such as %s", o.Endpoint, DefaultEndpoint)
	}
	home := first("HF_HOME")
	if home == "" {
		under := first("XDG_CACHE_HOME")
		if under == "" {
			under = "~/.cache"
		}
		home = filepath.Join(under, "huggingface")
	}
	home, err := expand(home)
	if err != nil {
		return Options{}, err
	}
	o.Cache = first("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
	if o.Cache == "" {
		o.Cache = filepath.Join(home, "hub")
	}
	if o.Cache, err = expand(o.Cache); err != nil {
		return Options{}, err
	}
	o.Token, err = token(home)
	return o, err
}

// token is HF_TOKEN, or what `hf auth login` left in a file.
func token(home string) (string, error) {
	if t := strings.TrimSpace(first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")); t != "" {
		return t, plainToken(t, "HF_TOKEN")
	}
	path := first("HF_TOKEN_PATH")
	if path == "" {
		path = filepath.Join(home, "token")
	}
	path, err := expand(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the hub's token: %w (HF_TOKEN_PATH names another file)", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("reading the hub's token: %w", err)
	}
	t := string(bytes.TrimSpace(b))
	return t, plainToken(t, path)
}

// plainToken refuses what cannot stand in a header. It does not show the token.
func plainToken(t, from string) error {
	if len(t) > maxToken || strings.ContainsFunc(t, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return fmt.Errorf("%s holds no token of a hub: it is one word of plain letters", from)
	}
	return nil
}

// first is the value of the first of the variables that has one.
func first(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

func isTrue(v string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(v))
}

// expand replaces ~ and variables, as huggingface_hub does.
func expand(path string) (string, error) {
	path = os.ExpandEnv(path)
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("where is the hub's cache? %w; set HF_HOME", err)
	}
	return filepath.Join(home, strings.TrimPrefix(path, "~")), nil
}

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	idleTimeout  = time.Minute // a server that says nothing for so long is gone
	maxRedirects = 10
	maxTries     = 5 // without a byte of progress
	firstWait    = time.Second
	longestWait  = time.Minute
)

func newClient(idle time.Duration) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = idle
	t.DisableCompression = true // lengths and ranges are of the file itself
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// statusError is an answer that is none.
type statusError struct {
	status     int
	code       string // X-Error-Code: what the hub means
	url        string // without the query, which may hold a signature
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.url, e.status, http.StatusText(e.status))
	if e.code != "" {
		text += " (" + e.code + ")"
	}
	return text
}

// passing tells whether err may be gone at the next try: an answer that says so, or a connection that broke.
func passing(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.status >= 500 && status.status != http.StatusNotImplemented || status.status == http.StatusTooManyRequests ||
			status.status == http.StatusRequestTimeout
	}
	var broken *brokenError
	return errors.As(err, &broken)
}

// brokenError is a request that got no answer, or not all of it.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// answer is a response and what the redirects before it said of the file.
type answer struct {
	*http.Response
	commit, linkedETag, linkedSize string
}

// request sends one request and follows its redirects. The token goes to the endpoint and nowhere else. A redirect of a HEAD to another
// host is itself the answer when it describes the file.
func (r *repo) request(ctx context.Context, method, at string, header http.Header) (*answer, error) {
	a := &answer{}
	for range maxRedirects {
		u, err := url.Parse(at)
		if err != nil {
			return nil, fmt.Errorf("an address that the hub gave: %w", err)
		}
		resp, err := r.send(ctx, method, u, header)
		if err != nil {
			return nil, err
		}
		a.Response = resp
		a.describe(resp.Header)
		if resp.StatusCode < 300 || resp.StatusCode > 399 || resp.StatusCode == http.StatusNotModified {
			if resp.StatusCode >= 400 {
				resp.Body.Close()
				return nil, newStatusError(resp, u)
			}
			return a, nil
		}
		next, err := resp.Location()
		resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("%s redirects to nowhere: %w", plainURL(u), err)
		}
		if next.Scheme != "https" && next.Scheme != u.Scheme {
			return nil, fmt.Errorf("%s redirects from %s to %s: refused", plainURL(u), u.Scheme, next.Scheme)
		}
		if method == http.MethodHead && next.Host != u.Host && a.linkedETag != "" {
			return a, nil
		}
		at = next.String()
	}
	return nil, fmt.Errorf("%s redirects more than %d times", at, maxRedirects)
}

func (a *answer) describe(h http.Header) {
	for _, field := range []struct {
		to   *string
		name string
	}{{&a.commit, "X-Repo-Commit"}, {&a.linkedETag, "X-Linked-Etag"}, {&a.linkedSize, "X-Linked-Size"}} {
		if *field.to == "" {
			*field.to = h.Get(field.name)
		}
	}
}

func (r *repo) send(ctx context.Context, method string, u *url.URL, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "lift")
	req.Header.Set("Accept-Encoding", "identity")
	if home, err := url.Parse(r.o.Endpoint); err == nil && r.o.Token != "" && home.Scheme == u.Scheme && home.Host == u.Host {
		req.Header.Set("Authorization", "Bearer "+r.o.Token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var inner *url.Error // its text has the query, which may hold a signature
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, &brokenError{fmt.Errorf("%s does not answer: %w", plainURL(u), err)}
	}
	return resp, nil
}

func newStatusError(resp *http.Response, u *url.URL) error {
	e := &statusError{status: resp.StatusCode, url: plainURL(u)}
	if code := resp.Header.Get("X-Error-Code"); plainFile.MatchString(code) {
		e.code = code[:min(len(code), 64)]
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.retryAfter = min(time.Duration(s), longestWait/time.Second) * time.Second
	}
	return e
}

func plainURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// try calls f until it succeeds, or fails in a way that another try will not mend, or has failed r.tries times without progress: f
// tells whether it made any.
func (r *repo) try(ctx context.Context, f func() (progress bool, err error)) error {
	pause := firstWait
	for tries := 1; ; tries++ {
		progress, err := f()
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		if progress {
			tries, pause = 1, firstWait
		}
		if tries >= r.tries {
			if tries == 1 {
				return err
			}
			return fmt.Errorf("tried %d times: %w", tries, err)
		}
		d := pause
		var status *statusError
		if errors.As(err, &status) {
			d = max(d, status.retryAfter)
		}
		if err := r.o.wait(ctx, d); err != nil {
			return err
		}
		pause = min(2*pause, longestWait)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// address is the URL of path parts at the endpoint, each escaped.
func (r *repo) address(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return r.o.Endpoint + "/" + strings.Join(escaped, "/")
}

// watched reads a body and gives up when nothing comes for a while.
type watched struct {
	body  io.Reader
	timer *time.Timer
	idle  time.Duration
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.body.Read(b)
	w.timer.Reset(w.idle)
	return n, err
}

var errIdle = errors.New("the server fell silent")

// watch returns a context for one answer, which ends when its body, read through wrap, stays silent for too long.
func (r *repo) watch(ctx context.Context) (inner context.Context, wrap func(io.Reader) io.Reader, done func()) {
	inner, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(r.o.idle, func() { cancel(errIdle) })
	wrap = func(body io.Reader) io.Reader { return &watched{body, timer, r.o.idle} }
	return inner, wrap, func() { timer.Stop(); cancel(nil) }
}

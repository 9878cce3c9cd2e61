package text

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxVocabularyFile = 64 << 20 // bytes, unpacked
	// openAIMerges is how many lines of OpenAI's file its tokenizer reads: the file has more.
	openAIMerges = 49152 - 256 - 2
)

// The files of a vocabulary, as directories hold them.
const (
	vocabJSON     = "vocab.json"
	mergesTxt     = "merges.txt"
	tokenizerJSON = "tokenizer.json"
	openAIFiles   = "bpe_simple_vocab*.txt.gz"
)

// OpenTokenizer reads a vocabulary: OpenAI's bpe_simple_vocab_16e6.txt.gz, a merges.txt (with the vocab.json beside it, if there is one), a
// tokenizer.json, or a directory that holds any of these. That a directory holds none is an error that wraps [fs.ErrNotExist].
func OpenTokenizer(path string) (*Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("vocabulary: %w", err)
	}
	if info.IsDir() {
		if path, err = vocabularyIn(path); err != nil {
			return nil, fmt.Errorf("vocabulary: %w", err)
		}
	}
	v, err := readVocabulary(path)
	if err != nil {
		return nil, fmt.Errorf("vocabulary %s: %w", path, err)
	}
	return &Tokenizer{v}, nil
}

// vocabularyIn finds the file of a directory to begin with.
func vocabularyIn(dir string) (string, error) {
	has := func(name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && !info.IsDir()
	}
	packed, err := filepath.Glob(filepath.Join(escapeGlob(dir), openAIFiles))
	if err != nil {
		return "", err
	}
	switch {
	case has(mergesTxt) && has(vocabJSON):
		return filepath.Join(dir, mergesTxt), nil
	case has(tokenizerJSON):
		return filepath.Join(dir, tokenizerJSON), nil
	case len(packed) > 0:
		return slices.Min(packed), nil
	case has(mergesTxt):
		return filepath.Join(dir, mergesTxt), nil
	}
	return "", fmt.Errorf("%s holds none of %s with %s, %s and %s: %w", dir, mergesTxt, vocabJSON, tokenizerJSON, openAIFiles, fs.ErrNotExist)
}

// escapeGlob makes path mean itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// readVocabulary tells the form of a file by what it holds.
func readVocabulary(path string) (*vocabulary, error) {
	b, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(b, []byte{0x1F, 0x8B}):
		if b, err = unpack(b); err != nil {
			return nil, err
		}
		return parsePacked(b)
	case bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")):
		if v, err := parseTokenizerJSON(b); v != nil || err != nil {
			return v, err
		}
		return withMerges(b, filepath.Join(filepath.Dir(path), mergesTxt))
	}
	ids, err := readBounded(filepath.Join(filepath.Dir(path), vocabJSON))
	if errors.Is(err, fs.ErrNotExist) {
		return parseMerges(b, nil)
	}
	if err != nil {
		return nil, err
	}
	return parseMerges(b, ids)
}

// withMerges is a vocab.json with the merges beside it.
func withMerges(ids []byte, path string) (*vocabulary, error) {
	b, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("it has tokens and no merges: %w", err)
	}
	return parseMerges(b, ids)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, maxVocabularyFile)
}

// readAll reads at most so many bytes, and knows when there are more.
func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("it is over %d MiB", most>>20)
	}
	return b, err
}

func unpack(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return readAll(z, maxVocabularyFile)
}

// parsePacked reads OpenAI's file: a line of no account, then merges.
func parsePacked(b []byte) (*vocabulary, error) {
	_, b, _ = bytes.Cut(b, []byte("\n"))
	merges, err := parseLines(b, openAIMerges)
	if err != nil {
		return nil, err
	}
	return newVocabulary(numbered(merges), merges)
}

// parseMerges reads a merges.txt, with a vocab.json or, without one, OpenAI's numbers.
func parseMerges(b, vocab []byte) (*vocabulary, error) {
	if first, rest, _ := bytes.Cut(b, []byte("\n")); bytes.Contains(first, []byte("#version")) {
		b = rest
	}
	merges, err := parseLines(b, maxTokens)
	if err != nil {
		return nil, err
	}
	if vocab == nil {
		return newVocabulary(numbered(merges), merges)
	}
	var ids map[string]int32
	if err := json.Unmarshal(vocab, &ids); err != nil {
		return nil, fmt.Errorf("%s beside it: %w", vocabJSON, err)
	}
	return newVocabulary(ids, merges)
}

// parseLines reads merges, two tokens a line, up to a number of them.
func parseLines(b []byte, most int) ([]pair, error) {
	var merges []pair
	for line := range bytes.Lines(b) {
		if len(merges) == most {
			break
		}
		fields := bytes.Fields(line)
		switch {
		case len(fields) == 0 && len(bytes.TrimSpace(line)) == 0:
			continue
		case len(fields) != 2:
			return nil, fmt.Errorf("merge %d is %.40q; wanted two tokens and a space between them", len(merges)+1, line)
		}
		merges = append(merges, pair{string(fields[0]), string(fields[1])})
	}
	if len(merges) == 0 {
		return nil, errors.New("it holds no merges")
	}
	return merges, nil
}

// parseTokenizerJSON reads Hugging Face's tokenizer.json; nil without an error: it is none.
func parseTokenizerJSON(b []byte) (*vocabulary, error) {
	var file struct {
		Added []struct {
			ID      int32  `json:"id"`
			Content string `json:"content"`
		} `json:"added_tokens"`
		Model *struct {
			Type   string            `json:"type"`
			Suffix string            `json:"end_of_word_suffix"`
			Vocab  map[string]int32  `json:"vocab"`
			Merges []json.RawMessage `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field == "model" {
			return nil, nil // a vocab.json: "model" is a token
		}
		return nil, err
	}
	if file.Model == nil {
		return nil, nil
	}
	if m := file.Model; m.Type != "BPE" || m.Suffix != wordEnd {
		return nil, fmt.Errorf("its model is %q with words ending in %q; CLIP's is BPE with %s", m.Type, m.Suffix, wordEnd)
	}
	ids := file.Model.Vocab
	if ids == nil {
		ids = map[string]int32{}
	}
	for _, a := range file.Added {
		ids[a.Content] = a.ID
	}
	merges := make([]pair, len(file.Model.Merges))
	for i, m := range file.Model.Merges {
		var err error
		if merges[i], err = parseMerge(m); err != nil {
			return nil, fmt.Errorf("merge %d: %w", i+1, err)
		}
	}
	return newVocabulary(ids, merges)
}

// parseMerge reads "a b" or ["a", "b"].
func parseMerge(b json.RawMessage) (pair, error) {
	var two []string
	if json.Unmarshal(b, &two) != nil {
		var line string
		if err := json.Unmarshal(b, &line); err != nil {
			return pair{}, err
		}
		two = strings.Split(line, " ")
	}
	if len(two) != 2 {
		return pair{}, fmt.Errorf("%.40q; wanted two tokens", b)
	}
	return pair{two[0], two[1]}, nil
}

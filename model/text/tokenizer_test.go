package text

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// small opens the made-up vocabulary of testdata: 15 merges, whose tokens are 512 to 526.
func small(t testing.TB) *Tokenizer {
	t.Helper()
	tok, err := OpenTokenizer("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestEncode(t *testing.T) {
	tok := small(t)
	end := func(c byte) int32 { return tok.vocabulary.lastBytes[c] }
	in := func(c byte) int32 { return tok.vocabulary.bytes[c] }
	for text, want := range map[string][]int32{
		"":                   {},
		" \n\t":              {},
		"photo":              {515},
		"Photo OF the cat's": {515, 518, 523, 517, 521},
		"photos":             {514, in('o'), end('s')},
		"cat.":               {517, end('.')},
		"dog12":              {520, end('1'), end('2')},
		"café cafÃ© cafe\u0301 caf&eacute; caf&amp;eacute;": {526, 526, 526, 526, 526},
		"a<|endoftext|>b": {end('a'), 528, end('b')},
		"<|STARTOFTEXT|>": {527},
		"<|endoftext":     {in('<'), end('|'), in('e'), in('n'), 519, in('f'), in('t'), in('e'), in('x'), end('t')}, // do, and an "of" that ends no word
		"ÅΣ":              {in(0xC3), in(0xA5), in(0xCF), end(0x82)},
		"a\u0345b":        {end('a'), end('b')},
		"'ſ":              {in('\''), in(0xC5), end(0xBF)},
	} {
		ids, err := tok.Encode(text, 77)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if want = append(append([]int32{527}, want...), 528); !slices.Equal(ids, want) {
			t.Errorf("%q gives %v, want %v", text, ids, want)
		}
	}
}

func TestTooLong(t *testing.T) {
	tok := small(t)
	if ids, err := tok.Encode(strings.Repeat("cat ", 75), 77); err != nil || len(ids) != 77 {
		t.Errorf("75 words give %d tokens, %v", len(ids), err)
	}
	for _, text := range []string{strings.Repeat("cat ", 76), strings.Repeat("z", 1<<13), strings.Repeat(" ", maxText+1)} {
		_, err := tok.Encode(text, 77)
		var long *TooLongError
		if !errors.As(err, &long) || long.Context != 77 || !strings.Contains(err.Error(), "more than 75 tokens") || len(err.Error()) > 400 {
			t.Errorf("%.20q…: %v", text, err)
		}
	}
}

// The same vocabulary in every form in which it comes.
func TestForms(t *testing.T) {
	want := small(t).vocabulary
	lines, err := os.ReadFile("testdata/merges.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(lines, []byte("\n"))
	merges, err := parseLines(body, maxTokens)
	if err != nil {
		t.Fatal(err)
	}
	ids := numbered(merges)
	vocab := asJSON(t, ids)
	joined, paired := []string{}, [][2]string{}
	for _, m := range merges {
		joined, paired = append(joined, m.first+" "+m.second), append(paired, [2]string{m.first, m.second})
	}
	whole := func(merges any) []byte {
		return asJSON(t, map[string]any{"version": "1.0", "added_tokens": []any{map[string]any{"id": 528, "content": endToken, "special": true}},
			"model": map[string]any{"type": "BPE", "end_of_word_suffix": wordEnd, "vocab": ids, "merges": merges}})
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprintf(z, "a heading\n%s", body)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string][]byte{
		"merges alone":       {"merges.txt": lines},
		"without heading":    {"merges.txt": body},
		"Hugging Face, slow": {"merges.txt": lines, "vocab.json": vocab},
		"Hugging Face, fast": {"tokenizer.json": whole(joined)},
		"pairs":              {"tokenizer.json": whole(paired)},
		"all":                {"tokenizer.json": whole(paired), "merges.txt": lines, "vocab.json": vocab, "bpe_simple_vocab_x.txt.gz": packed.Bytes()},
		"OpenAI":             {"bpe_simple_vocab_16e6.txt.gz": packed.Bytes()},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "[a*")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			paths := []string{dir}
			for file, b := range files {
				paths = append(paths, filepath.Join(dir, file))
				if err := os.WriteFile(paths[len(paths)-1], b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range paths {
				tok, err := OpenTokenizer(path)
				if err != nil {
					t.Fatal(err)
				}
				got := tok.vocabulary
				if got.bytes != want.bytes || got.lastBytes != want.lastBytes || got.start != want.start || got.end != want.end ||
					fmt.Sprint(got.merges) != fmt.Sprint(want.merges) {
					t.Errorf("%s gives another vocabulary", path)
				}
			}
		})
	}
}

func asJSON(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBadVocabularies(t *testing.T) {
	for name, c := range map[string]struct {
		file, text, says string
	}{
		"three parts":     {"merges.txt", "#version: 0.2\na b c\n", `merge 1 is "a b c\n"`},
		"unknown part":    {"merges.txt", "a b\nabc d\n", `merge 2, "abc" and "d"`},
		"empty":           {"merges.txt", "", "no merges"},
		"no merges":       {"vocab.json", `{"a": 1}`, "tokens and no merges"},
		"not JSON":        {"tokenizer.json", `{"model": `, "unexpected end"},
		"WordPiece":       {"tokenizer.json", `{"model": {"type": "WordPiece"}}`, "WordPiece"},
		"no start":        {"tokenizer.json", `{"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": 0}}}`, "<|startoftext|>"},
		"huge number":     {"tokenizer.json", `{"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": 2000000}}}`, "2000000"},
		"long token":      {"merges.txt", strings.Repeat("a", 400) + " b\n", "wanted up to 256"},
		"not a merge":     {"tokenizer.json", `{"model": {"type": "BPE", "end_of_word_suffix": "</w>", "merges": [3]}}`, "merge 1"},
		"truncated gzip":  {"bpe_simple_vocab.txt.gz", "\x1f\x8b\x08\x00", "EOF"},
		"nothing of kind": {"readme.txt", "", "holds none of"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			path := dir
			if c.file == "vocab.json" {
				path = filepath.Join(dir, c.file)
			}
			_, err := OpenTokenizer(path)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("the error is %v; wanted one with %q", err, c.says)
			}
			if name == "nothing of kind" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v is not fs.ErrNotExist", err)
			}
		})
	}
}

// Any file is read or refused, in bounded time; one that is read can encode or says why not.
func FuzzVocabulary(f *testing.F) {
	merges, err := os.ReadFile("testdata/merges.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(merges, []byte(nil))
	f.Add([]byte("a b\nab c</w>\n"), []byte(`{"a": 0, "b": 1, "ab": 2, "c</w>": 3, "abc</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}`))
	f.Add([]byte(`{"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"<|startoftext|>": 5, "<|endoftext|>": 6}}}`), []byte(nil))
	f.Fuzz(func(t *testing.T, b, vocab []byte) {
		if len(vocab) == 0 {
			vocab = nil
		}
		var read []*vocabulary
		for _, parse := range []func() (*vocabulary, error){
			func() (*vocabulary, error) { return parseMerges(b, vocab) },
			func() (*vocabulary, error) { return parsePacked(b) },
			func() (*vocabulary, error) { return parseTokenizerJSON(b) },
		} {
			if v, err := parse(); err == nil && v != nil {
				read = append(read, v)
			}
		}
		for _, v := range read {
			ids, err := (&Tokenizer{v}).Encode("the photo of a cat, café", 77)
			if err == nil && (ids[0] != v.start || ids[len(ids)-1] != v.end || len(ids) > 77) {
				t.Errorf("%v", ids)
			}
		}
	})
}

// A text gives the tokens of what cleaning makes of it, between start and end and no more than asked for.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{"a photo of a cat.", "it's", "<|endoftext|>", "cafÃ©", "&amp;lt;", "ΟΔΟΣ İ", "\xff", "\u0345", "'ſ 'S"} {
		f.Add(s)
	}
	tok := small(f)
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<12 {
			t.Skip("slow")
		}
		ids, err := tok.Encode(s, 20)
		var long *TooLongError
		if err != nil {
			if !errors.As(err, &long) {
				t.Error(err)
			}
			return
		}
		if len(ids) < 2 || len(ids) > 20 || ids[0] != 527 || ids[len(ids)-1] != 528 {
			t.Errorf("%+q gives %v", s, ids)
		}
		for _, w := range words(clean(s)) {
			if w != strings.TrimSpace(w) || w == "" {
				t.Errorf("%+q has the word %+q", s, w)
			}
		}
	})
}

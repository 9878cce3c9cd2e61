package text

import (
	"fmt"
	"strings"
)

// Bounds on a vocabulary from outside. CLIP's has 49,408 tokens of up to 38 bytes or so.
const (
	maxTokens   = 1 << 20
	maxTokenLen = 256 // bytes of text
)

// wordEnd marks a token that ends a word.
const wordEnd = "</w>"

// vocabulary is what the tokenizer merges with: bytes, and pairs of tokens that make a token, the first ones first.
type vocabulary struct {
	bytes, lastBytes [256]int32 // tokens of one byte, within a word and at its end; -1: none
	merges           map[[2]int32]merge
	start, end       int32
	longest          int // bytes of the longest token
}

// merge says what two tokens make, and when: the lowest rank first.
type merge struct {
	rank  int
	token int32
}

// alphabet writes each byte as a character that can be seen, as vocabularies do: most of Latin-1 as itself, the other bytes from U+0100 on.
var alphabet = func() (a [256]rune) {
	next := rune(256)
	for b := range a {
		switch r := rune(b); {
		case r >= '!' && r <= '~', r >= '¡' && r <= '¬', r >= '®' && r <= 'ÿ':
			a[b] = r
		default:
			a[b] = next
			next++
		}
	}
	return a
}()

// ordered returns the bytes in the order in which a vocabulary of merges alone numbers them: those that are themselves first.
func ordered() []byte {
	var same, others []byte
	for b, r := range alphabet {
		if r < 256 {
			same = append(same, byte(b))
		} else {
			others = append(others, byte(b))
		}
	}
	return append(same, others...)
}

// pair is one line of the merges: the tokens to be joined.
type pair struct{ first, second string }

// numbered gives tokens the numbers that OpenAI's tokenizer gives them: bytes, bytes that end a word, merges, start, end.
func numbered(merges []pair) map[string]int32 {
	ids := make(map[string]int32, len(merges)+514)
	n := int32(0)
	add := func(token string) {
		ids[token] = n // of two equal ones the last counts
		n++
	}
	for _, suffix := range []string{"", wordEnd} {
		for _, b := range ordered() {
			add(string(alphabet[b]) + suffix)
		}
	}
	for _, m := range merges {
		add(m.first + m.second)
	}
	add(startToken)
	add(endToken)
	return ids
}

// newVocabulary puts tokens and merges together, and refuses what does not fit: a merge of what is no token, or into none.
func newVocabulary(ids map[string]int32, merges []pair) (*vocabulary, error) {
	v := &vocabulary{merges: make(map[[2]int32]merge, len(merges))}
	for token, id := range ids {
		if id < 0 || id >= maxTokens {
			return nil, fmt.Errorf("token %q has the number %d; wanted 0 to %d", token, id, maxTokens-1)
		}
		n := len([]rune(strings.TrimSuffix(token, wordEnd)))
		if n > maxTokenLen {
			return nil, fmt.Errorf("token %.40q… has %d bytes; wanted up to %d", token, n, maxTokenLen)
		}
		v.longest = max(v.longest, n)
	}
	find := func(token string) int32 {
		if id, ok := ids[token]; ok {
			return id
		}
		return -1
	}
	for b, r := range alphabet {
		v.bytes[b], v.lastBytes[b] = find(string(r)), find(string(r)+wordEnd)
	}
	for rank, m := range merges {
		first, second, both := find(m.first), find(m.second), find(m.first+m.second)
		if first < 0 || second < 0 || both < 0 {
			return nil, fmt.Errorf("merge %d, %q and %q: they and %q must all be tokens", rank+1, m.first, m.second, m.first+m.second)
		}
		v.merges[[2]int32{first, second}] = merge{rank, both}
	}
	if v.start, v.end = find(startToken), find(endToken); v.start < 0 || v.end < 0 {
		return nil, fmt.Errorf("it has no tokens %s and %s: it is not CLIP's", startToken, endToken)
	}
	return v, nil
}

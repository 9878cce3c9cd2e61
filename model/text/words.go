package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The two tokens that stand for themselves, also within a text.
const (
	startToken = "<|startoftext|>"
	endToken   = "<|endoftext|>"
)

// wholes are words whatever stands around them, in the order in which they are tried. An s may be a long one, ſ: the original ignores case.
var wholes = []string{startToken, endToken, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// iotaSubscript is a mark whose other cases are letters. Ignoring case, the original's expression finds it neither among the letters nor among what is
// no letter, and so leaves it out.
const iotaSubscript = '\u0345'

// words cuts a clean text into what the tokenizer merges within: the wholes, runs of letters, single digits, runs of anything else but
// white space.
func words(s string) []string {
	var out []string
	for s != "" {
		n := wordLength(s)
		if n == 0 {
			_, n = utf8.DecodeRuneInString(s)
		} else {
			out = append(out, s[:n])
		}
		s = s[n:]
	}
	return out
}

// wordLength is the length of the word at the start of s in bytes, 0 where there is none.
func wordLength(s string) int {
	for _, w := range wholes {
		if n := prefixLength(s, w); n > 0 {
			return n
		}
	}
	first, n := utf8.DecodeRuneInString(s)
	switch {
	case isLetter(first):
		return span(s, isLetter)
	case isNumber(first):
		return n
	case isGap(first):
		return 0
	}
	return span(s, func(r rune) bool { return !isLetter(r) && !isNumber(r) && !isGap(r) })
}

// prefixLength is how many bytes of s spell w, 0 if they do not.
func prefixLength(s, w string) int {
	n := 0
	for i := range len(w) {
		switch {
		case n < len(s) && s[n] == w[i]:
			n++
		case w[i] == 's' && strings.HasPrefix(s[n:], "ſ"):
			n += len("ſ")
		default:
			return 0
		}
	}
	return n
}

// span is the length of the run at the start of s of runes that f holds for.
func span(s string, f func(rune) bool) int {
	if n := strings.IndexFunc(s, func(r rune) bool { return !f(r) }); n >= 0 {
		return n
	}
	return len(s)
}

func isLetter(r rune) bool { return unicode.IsLetter(r) || unicode.Is(newLetters, r) }
func isGap(r rune) bool    { return unicode.IsSpace(r) || r == iotaSubscript }
func isNumber(r rune) bool { return unicode.IsNumber(r) || unicode.Is(newNumbers, r) }

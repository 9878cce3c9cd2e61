package repair

import (
	"slices"

	"golang.org/x/text/unicode/norm"
)

// compose returns s in Unicode's composed form, NFC. x/text's own NFC is the stream-safe one, which breaks up runs of more than 30 marks, and so
// is used on single characters and pairs alone.
func compose(s string) string {
	if norm.NFC.IsNormalString(s) {
		return s
	}
	text := make([]rune, 0, len(s))
	for _, r := range s {
		text = append(text, []rune(norm.NFD.String(string(r)))...)
	}
	classes := make([]uint8, len(text))
	for i, r := range text {
		classes[i] = markClass(r)
	}
	for i := 0; i < len(text); {
		end := i + 1
		for end < len(text) && classes[end] != 0 {
			end++
		}
		from := i
		if classes[i] == 0 {
			from++
		}
		slices.SortStableFunc(text[from:end], func(a, b rune) int { return int(markClass(a)) - int(markClass(b)) })
		i = end
	}
	return string(composePairs(text))
}

// markClass is the canonical combining class.
func markClass(r rune) uint8 { return norm.NFD.PropertiesString(string(r)).CCC() }

// composePairs joins each starter with the marks after it that it has a composed form with and that no mark of the same class blocks.
func composePairs(text []rune) []rune {
	out := text[:0]
	starter, last := -1, uint8(0) // of out; last is the class of the last mark kept since
	for _, r := range text {
		class := markClass(r)
		adjacent := starter == len(out)-1
		if starter >= 0 && (adjacent || last < class && last != 0) {
			if c, ok := pair(out[starter], r); ok {
				out[starter] = c
				continue
			}
		}
		if class == 0 {
			starter = len(out)
		}
		last = class
		out = append(out, r)
	}
	return out
}

// pair is the character composed of a and b, if there is one.
func pair(a, b rune) (rune, bool) {
	c := []rune(norm.NFC.String(string([]rune{a, b})))
	return c[0], len(c) == 1
}

package text

import (
	"strings"
	"unicode"

	"lift/model/text/repair"
)

// clean is what the tokenizer does to a text before it cuts it into words: repaired, HTML's references replaced twice, white space made single
// spaces, lower case.
func clean(s string) string {
	s = repair.UnescapeHTML(repair.UnescapeHTML(repair.Text(s)))
	return lower(strings.Join(strings.Fields(s), " "))
}

// lower is s in lower case as Python has it: one character at a time by Unicode's table, but for İ, which becomes two, and Σ, which has another
// form at the end of a word.
func lower(s string) string {
	var out strings.Builder
	text := []rune(s)
	for i, r := range text {
		switch {
		case r == 'İ':
			out.WriteString("i\u0307")
		case r == 'Σ' && endsWord(text, i):
			out.WriteRune('ς')
		default:
			out.WriteRune(unicode.ToLower(r))
		}
	}
	return out.String()
}

// endsWord says whether a cased letter precedes text[i] and none follows, marks and apostrophes apart.
func endsWord(text []rune, i int) bool {
	before := i - 1
	for before >= 0 && caseless(text[before]) {
		before--
	}
	if before < 0 || !cased(text[before]) {
		return false
	}
	after := i + 1
	for after < len(text) && caseless(text[after]) {
		after++
	}
	return after == len(text) || !cased(text[after])
}

// cased is Unicode's property Cased.
func cased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

// caseless is Unicode's property Case_Ignorable: marks, and punctuation that stands within words.
func caseless(r rune) bool {
	return strings.ContainsRune("'.:\u00B7\u0387\u055F\u05F4\u2018\u2019\u2024\u2027\uFE13\uFE52\uFE55\uFF07\uFF0E\uFF1A", r) ||
		unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk)
}

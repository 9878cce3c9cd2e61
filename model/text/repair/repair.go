// Package repair undoes what wrong decoding, typesetting and terminals have done to text, with the results of Python's ftfy 6.3 (fix_text with its
// defaults), which CLIP's tokenizer runs first: a text must give the tokens that it gave when the weights were trained.
//
//	for each line, until nothing changes any more:
//	  HTML entities ─► wrong decodings, one upon the other ─► C1 controls, ligatures, widths, quotes, line breaks, escapes, controls ─► NFC
package repair

import "strings"

// Text repairs s. Invalid UTF-8 in s counts as the replacement character.
func Text(s string) string {
	var out strings.Builder
	entities := true // until a line has a "<": then it is HTML, and so is what follows
	for line := range strings.Lines(s) {
		entities = entities && !strings.Contains(line, "<")
		out.WriteString(repairLine(strings.ToValidUTF8(line, "\uFFFD"), entities))
	}
	return out.String()
}

// repairLine repairs one line until it stays as it is. Every pass that changes a line makes it shorter or its characters simpler; the bound on
// passes is only there so that a mistake in that reasoning cannot hang.
func repairLine(s string, entities bool) string {
	for range len(s) + 16 {
		before := s
		if entities {
			s = unescapeNamed(s)
		}
		s = fixDecoding(s)
		s = fixCharacters(s)
		s = compose(s)
		if s == before {
			break
		}
	}
	return s
}

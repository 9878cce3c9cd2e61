package repair

import "strings"

// place is what may stand at one place of a sequence: a character of some kinds, or one of a few.
type place struct {
	of  kind
	one string
	not bool // anything but that
}

func of(k kind) place               { return place{of: k} }
func one(s string) place            { return place{one: s} }
func either(k kind, s string) place { return place{of: k, one: s} }
func except(k kind, s string) place { return place{of: k, one: s, not: true} }
func (p place) holds(r rune, k kind) bool {
	return (k&p.of != 0 || p.one != "" && strings.ContainsRune(p.one, r)) != p.not
}

// sequences are what nobody means: characters of kinds that hardly follow each other in any language, and what certain decodings make
// of frequent characters.
var sequences = makeSequences()

func makeSequences() [][]place {
	const letters = latinUpper | latinLower
	symbols := accented | box | opening | closing | currency | numeric | law
	arabic := either(common|currency|bad|numeric|opening, "ŸŠ®°µ»")
	return [][]place{
		{of(c1)},
		{of(bad | symbols), of(bad)},
		{of(letters), of(lowerPlain | upperPlain), of(bad)},
		{of(bad), of(symbols)},
		{of(lowerAccented | lowerPlain | box | closing | currency | numeric), of(upperAccented)},
		{of(box | closing | currency | numeric), of(lowerAccented)},
		{of(lowerAccented | box | closing), of(currency)},
		{of(space), of(upperAccented), of(currency)},
		{of(upperAccented | box), of(numeric | law)},
		{of(accented | box | currency | closing), of(opening), of(numeric)},
		{of(accented | currency | numeric | box | law), of(closing), of(opening)},
		{of(currency | numeric | box), of(opening)},
		{of(latinLower), of(upperAccented), of(opening | currency)},
		{of(box), of(face)},
		{of(accented | currency | numeric | opening | closing | law), of(box)},
		{of(box), of(closing)},
		{of(accented), of(opening | closing), of(word)},
		{one("Œœ"), except(letters, "")},
		{of(upperAccented), one("°")},
		// Windows-1252: frequent pairs; Arabic, of which four are wanted, for its characters are frequent; South Asian scripts.
		{one("ÂÃÎÐ"), either(opening|closing, "€œŠš¢£Ÿž\u00A0\u00AD®©°·»–—´")},
		{one("×"), one("²³")},
		{one("ØÙ"), arabic, one("ØÙ"), arabic},
		{one("à"), one("²µ¹¼½¾")},
		// MacRoman.
		{one("√"), one("±∂†≠®™´≤≥¥µø")},
		{one("≈"), one("°¢")},
		{one("‚"), one("Ä"), one("ìîïòôúùû†°¢π")},
		{one("‚"), one("âó"), one("àä°ê")},
		// Windows-1251: of U+2000 and on; of Latin-1 and Cyrillic, of which three are wanted; of Windows-1252 on top of Latin-1 beside Latin letters.
		{one("в"), one("Ђ")},
		{one("ВГРС"), either(c1|bad|opening|closing|currency, "°µ"), one("ВГРС")},
		{one("Г"), one("ў"), one("В"), one("Ђ"), one("В"), except(0, "\n"), either(letters, " ")},
		// A no-break space, à and á in Windows-1252.
		{one("Ã"), one("\u00A0¡")},
		{of(latinLower), of(space), one("ÃÂ"), one(" ")},
		{of(latinLower), one("ÃÂ"), one(" ")},
		{either(latinLower|closing, ".,?!"), one("Â"), either(opening|closing, " ")},
		// Windows-1253: of U+2000 and on; of Latin-1 and Greek.
		{one("β"), one("€"), one("™\u00A0Ά\u00AD®°")},
		{one("ΒΓΞΟ"), either(c1|bad|opening|closing|currency, "°"), one("ΒΓΞΟ")},
		// Windows-1257.
		{one("ā"), one("€")},
	}
}

// unlikely says whether s looks wrongly decoded.
func unlikely(s string) bool {
	text := []rune(s)
	of := make([]kind, len(text))
	for i, r := range text {
		of[i] = kindsOf(r)
	}
	if len(text) > 1 && strings.ContainsRune("ÃÂ", text[0]) && text[1] == ' ' {
		return true
	}
	for i := range text {
		if text[i] < 0x80 && (i+1 == len(text) || text[i+1] < 0x80) && (i+2 >= len(text) || text[i+2] < 0x80) {
			continue // every sequence has something beyond ASCII among its first three
		}
		for _, seq := range sequences {
			if matches(seq, text[i:], of[i:]) {
				return true
			}
		}
	}
	return false
}

func matches(seq []place, text []rune, of []kind) bool {
	if len(text) < len(seq) {
		return false
	}
	for i, p := range seq {
		if !p.holds(text[i], of[i]) {
			return false
		}
	}
	return true
}

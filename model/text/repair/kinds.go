package repair

import "unicode"

// kind is a set of kinds of characters. Those of high numbers come from wrong decodings of UTF-8, and how they
// follow each other tells whether somebody meant them.
type kind uint32

const (
	common   kind = 1 << iota // in text of many sorts
	c1                        // the controls U+0080 to U+009F
	bad                       // hardly ever meant
	law                       // of legal texts
	currency                  //
	opening                   // punctuation that begins something
	closing                   // punctuation that ends something
	numeric                   // digits, fractions, operators
	face                      // letters that emoticons of Japan are drawn with
	upperAccented
	lowerAccented
	upperPlain // Greek and Cyrillic
	lowerPlain
	box // drawings
	latinUpper
	latinLower
	space
	word // letters, digits, the underscore
	other
)

const accented = upperAccented | lowerAccented

// members are the kinds' characters.
var members = map[kind]string{
	common:        "\u00A0\u00AD·´–—―…’",
	bad:           "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\uFFFDªº",
	law:           "¶§",
	currency:      "¢£¥₧€",
	opening:       "¡«¿©\u0384\u0385‘‚“„•‹\uF8FF",
	closing:       "®»˝”›™",
	numeric:       "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№",
	face:          "ŐŌŪŲ°",
	upperAccented: "ØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ",
	lowerAccented: "ßăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ",
	upperPlain:    "ÞΆΈΉΊΌΎΏΪΫ",
	lowerPlain:    "άέήίΰ",
	box:           "│┌┐┘├┤┬┼▀▄█▌▐░▒▓",
}

// spans are the kinds' runs of characters.
var spans = []struct {
	of       kind
	from, to rune
}{
	{c1, 0x80, 0x9F},
	{face, 'Ò', 'Ö'}, {face, 'Ù', 'Ü'}, {face, 'ò', 'ö'}, {face, 'ø', 'ü'},
	{upperAccented, 'À', 'Ñ'}, {lowerAccented, 'à', 'ñ'},
	{upperPlain, 'Α', 'Ω'}, {upperPlain, 'Ё', 'Я'},
	{lowerPlain, 'α', 'ω'}, {lowerPlain, 'а', 'џ'},
	{box, '═', '╬'},
	{latinUpper, 'A', 'Z'}, {latinLower, 'a', 'z'},
}

var kinds = makeKinds()

func makeKinds() map[rune]kind {
	m := map[rune]kind{}
	for k, characters := range members {
		for _, r := range characters {
			m[r] |= k
		}
	}
	for _, s := range spans {
		for r := s.from; r <= s.to; r++ {
			m[r] |= s.of
		}
	}
	return m
}

// kindsOf are all kinds that r is of.
func kindsOf(r rune) kind {
	k := kinds[r]
	if unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F { // Python's isspace
		k |= space
	}
	if r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) {
		k |= word
	}
	return k | other
}

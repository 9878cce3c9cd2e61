package repair

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// ligatures are single characters for several Latin letters, most of them there for the looks. Those that languages write on purpose, such as æ,
// are not among them.
var ligatures = map[rune]string{
	'Ĳ': "IJ", 'ĳ': "ij", 'ŉ': "\u02BCn",
	'Ǆ': "DŽ", 'ǅ': "Dž", 'ǆ': "dž", 'Ǉ': "LJ", 'ǈ': "Lj", 'ǉ': "lj",
	'Ǌ': "NJ", 'ǋ': "Nj", 'ǌ': "nj", 'Ǳ': "DZ", 'ǲ': "Dz", 'ǳ': "dz",
	'ﬀ': "ff", 'ﬁ': "fi", 'ﬂ': "fl", 'ﬃ': "ffi", 'ﬄ': "ffl", 'ﬅ': "ſt", 'ﬆ': "st",
}

// fixCharacters makes single characters plain: C1 controls, ligatures, full and half widths, curly quotes, line breaks; then it takes terminal
// escapes and invisible controls out. (ftfy also joins surrogates here. A Go string holds none.)
func fixCharacters(s string) string {
	var out strings.Builder
	for _, r := range fixC1(s) {
		if letters, ok := ligatures[r]; ok {
			out.WriteString(letters)
			continue
		}
		switch {
		case r == '\u3000':
			out.WriteByte(' ')
		case r >= 0xFF01 && r <= 0xFFEF:
			out.WriteString(norm.NFKC.String(string(r)))
		default:
			out.WriteRune(r)
		}
	}
	return dropControls(dropEscapes(breakLines(strings.Map(uncurl, out.String()))))
}

func uncurl(r rune) rune {
	switch {
	case r == '\u02BC' || r >= '\u2018' && r <= '\u201B':
		return '\''
	case r >= '\u201C' && r <= '\u201F':
		return '"'
	}
	return r
}

var breaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n", "\u0085", "\n")

func breakLines(s string) string { return breaks.Replace(s) }

// dropEscapes takes out what tells a terminal its colours: ESC [ digits and semicolons, a letter.
func dropEscapes(s string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "\x1b[")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		rest := strings.TrimLeftFunc(after, func(r rune) bool { return r == ';' || unicode.IsDigit(r) })
		if rest != "" && (rest[0] >= 'a' && rest[0] <= 'z' || rest[0] >= 'A' && rest[0] <= 'Z') {
			s = rest[1:]
			continue
		}
		out.WriteString("\x1b[")
		s = after
	}
}

// dropControls takes out controls that show nothing. What breaks lines, joins letters or sets their direction stays.
func dropControls(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x20 && r != '\t' && r != '\n' && r != '\f' && r != '\r', r == 0x7F,
			r >= 0x206A && r <= 0x206F, r == 0xFEFF, r >= 0xFFF9 && r <= 0xFFFC:
			return -1
		}
		return r
	}, s)
}

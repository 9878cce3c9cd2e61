package repair

// Where the bytes of UTF-8 land when a page like Latin-1 decodes them. A character may be several of these, in several pages.
const (
	leads2    = 1 << iota // C2 to DF: the first of two
	leads3                // E0 to EF: the first of three
	leads4                // F0 and F3: the first of four; others lead to no assigned character
	continues             // 80 to BF; and a space, which a no-break space (A0) often becomes
	garbled               // of these, what hardly stands for itself beside wrongly decoded text
)

var clues = makeClues()

func makeClues() map[rune]uint8 {
	m := map[rune]uint8{}
	for _, p := range latinLike {
		for b := 0x80; b < 0x100; b++ {
			switch r := p.decode[b]; {
			case b < 0xC0:
				m[r] |= continues | garbled
			case b >= 0xC2 && b < 0xE0:
				m[r] |= leads2
			case b >= 0xE0 && b < 0xF0:
				m[r] |= leads3
			case b == 0xF0 || b == 0xF3:
				m[r] |= leads4
			}
		}
	}
	m[' '] |= continues
	for _, r := range "–—―‘’‚“”„•…" {
		m[r] &^= garbled
	}
	return m
}

// utf8Like returns the length of the stretch at from that looks like wrongly decoded UTF-8, 0 for none. It does not begin inside a longer garble.
func utf8Like(text []rune, from int) int {
	if from > 0 && clues[text[from-1]]&garbled != 0 {
		return 0
	}
	end := from
	for n := charLike(text[end:]); n > 0; n = charLike(text[end:]) {
		end += n
	}
	return end - from
}

// charLike is the length of one wrongly decoded character at the start of text, 0 for none.
func charLike(text []rune) int {
	if len(text) == 0 {
		return 0
	}
	first := clues[text[0]]
	for i, lead := range []uint8{leads2, leads3, leads4} {
		if first&lead != 0 && continuesFor(text[1:], i+1) {
			return i + 2
		}
	}
	return 0
}

func continuesFor(text []rune, n int) bool {
	if len(text) < n {
		return false
	}
	for _, r := range text[:n] {
		if clues[r]&continues == 0 {
			return false
		}
	}
	return true
}

package repair

import "bytes"

// restoreSpaces puts back the byte A0 where somebody took it for a space (20) within what else would be UTF-8.
func restoreSpaces(b []byte) []byte {
	if !anySpaced(b) {
		return b
	}
	b = restoreAGrave(b)
	out := bytes.Clone(b)
	for i := 0; i < len(out); {
		n := spaced(b[i:])
		for j := i; j < i+n; j++ {
			if out[j] == ' ' {
				out[j] = 0xA0
			}
		}
		i += max(n, 1)
	}
	return out
}

func anySpaced(b []byte) bool {
	for i := range b {
		if spaced(b[i:]) > 0 {
			return true
		}
	}
	return false
}

// restoreAGrave handles the most frequent case, "à" as a word: C3 A0 20 whose two spaces became one. Some words of Portuguese that
// begin with à keep the one.
func restoreAGrave(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); i++ {
		out = append(out, b[i])
		if b[i] != 0xC3 || i+1 >= len(b) || b[i+1] != ' ' || beginsAWord(b[i+2:]) {
			continue
		}
		out = append(out, 0xA0)
	}
	return out
}

func beginsAWord(rest []byte) bool {
	for _, s := range []string{" ", "quele", "quela", "quilo", "s "} {
		if bytes.HasPrefix(rest, []byte(s)) {
			return true
		}
	}
	return false
}

// spaced is the length of a UTF-8 sequence at the start of b in which one A0 has become a space, 0 for none. Only first bytes
// that lead to likely characters count.
func spaced(b []byte) int {
	at := func(i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	space := func(i int) bool { return at(i) == ' ' }
	next := func(i int) bool { return at(i) >= 0x80 && at(i) <= 0xBF }
	but := func(i int) bool { return next(i) && at(i) != 0x85 && at(i) != 0xA0 }
	switch c := at(0); {
	case (c == 0xC2 || c == 0xC3 || c == 0xC5 || c == 0xCE || c == 0xD0 || c == 0xD9) && space(1):
		return 2
	case (c == 0xE2 || c == 0xE3) && space(1) && but(2):
		return 3
	case c >= 0xE0 && c <= 0xE3 && but(1) && space(2):
		return 3
	case c == 0xF0 && (space(1) && next(2) && next(3) || next(1) && space(2) && next(3) || next(1) && next(2) && space(3)):
		return 4
	}
	return 0
}

// replaceLost makes U+FFFD of each UTF-8 sequence that has lost a byte: the substitute, or in places a question mark, stands where it was.
func replaceLost(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); {
		if n := lossy(b[i:]); n > 0 {
			out = append(out, "\uFFFD"...)
			i += n
			continue
		}
		out = append(out, b[i])
		i++
	}
	return out
}

// lossy is the length of a UTF-8 or CESU-8 sequence at the start of b that has lost bytes, 0 for none. One of them at most is a question mark.
func lossy(b []byte) int {
	at := func(i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	in := func(i int, from, to byte) bool { return at(i) >= from && at(i) <= to }
	lost := func(i int) bool { return at(i) == substitute || at(i) == '?' && i < len(b) }
	next := func(i int) bool { return at(i) == substitute || in(i, 0x80, 0xBF) }
	switch {
	case in(0, 0xC2, 0xDF) && at(1) == substitute, in(0, 0xC2, 0xC3) && at(1) == '?':
		return 2
	case at(0) == 0xED && in(1, 0xA0, 0xAF) && at(3) == 0xED && in(4, 0xB0, 0xBF) &&
		(lost(2) && (lost(5) || next(5)) || (lost(2) || next(2)) && lost(5)):
		return 6
	case in(0, 0xE0, 0xEF) && (lost(1) && next(2) || next(1) && lost(2)):
		return 3
	case in(0, 0xF0, 0xF4) && (lost(1) && next(2) && next(3) || next(1) && lost(2) && next(3) || next(1) && next(2) && lost(3)):
		return 4
	case at(0) == substitute:
		return 1
	}
	return 0
}

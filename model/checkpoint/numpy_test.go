package checkpoint

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// npy is an array of NumPy's, version 1.
func npy(header string, data ...byte) string {
	b := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	return string(append(append(b, header...), data...))
}

func TestNumPyOffencesAreNamed(t *testing.T) {
	const bytes4 = "\x00\x00\x80\x3f"
	with := func(descr, fortran, shape string) string {
		return "{'descr': " + descr + ", 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n"
	}
	for name, c := range map[string]struct{ member, content, want string }{
		"objects":          {"x.npy", npy(with("'|O'", "False", "(1,)")), "Python objects"},
		"records":          {"x.npy", npy(with("[('a', '<f4')]", "False", "(1,)")), "records"},
		"big-endian":       {"x.npy", npy(with("'>f4'", "False", "(1,)")), "big-endian"},
		"complex":          {"x.npy", npy(with("'<c8'", "False", "(1,)")), `"<c8"`},
		"shape lies":       {"x.npy", npy(with("'<f4'", "False", "(2,)")) + bytes4, "reaches element 1 of a storage that has 1"},
		"too many bytes":   {"x.npy", npy(with("'<f4'", "False", "(1,)")) + bytes4 + bytes4, "needs 4 bytes, it has 8"},
		"empty with bytes": {"x.npy", npy(with("'<f4'", "False", "(0,)")) + bytes4, "needs 0 bytes"},
		"part of a number": {"x.npy", npy(with("'<f4'", "False", "(1,)")) + bytes4 + "x", "needs 4 bytes, it has 5"},
		"negative":         {"x.npy", npy(with("'<f4'", "False", "(-1,)")), "where a size belongs"},
		"overflow":         {"x.npy", npy(with("'<f4'", "False", "(1099511627776, 1099511627776)")), "overflows"},
		"wraps to little":  {"x.npy", npy(with("'<f4'", "True", "(281474976710656, 65536, 1)")), "overflows"},
		"nine dimensions":  {"x.npy", npy(with("'<f4'", "False", "("+strings.Repeat("1, ", 9)+")")), "over 8 dimensions"},
		"twice":            {"x.npy", npy("{'descr': '<f4', 'descr': '<f4', 'shape': ()}"), "twice"},
		"unknown key":      {"x.npy", npy("{'descr': '<f4', 'order': 'C', 'shape': ()}"), "unknown key"},
		"missing key":      {"x.npy", npy("{'descr': '<f4', 'shape': ()}"), "must all be there"},
		"more after it":    {"x.npy", npy(with("'<f4'", "False", "()") + "{}"), "goes on"},
		"a call":           {"x.npy", npy("__import__('os').system('true')"), "where \"{\" belongs"},
		"not closed":       {"x.npy", npy("{'descr': '<f4', 'shape': ("), "where a size belongs"},
		"no quotes":        {"x.npy", npy("{descr: '<f4'}"), "in quotes"},
		"long header":      {"x.npy", "\x93NUMPY\x02\x00\xff\xff\xff\xff" + strings.Repeat(" ", 100), "header claims 4294967295 bytes"},
		"cut header":       {"x.npy", "\x93NUMPY\x01\x00\x40\x00{", "header claims 64 bytes"},
		"short version 2":  {"x.npy", "\x93NUMPY\x02\x00\x00\x00", "within its header"},
		"version 4":        {"x.npy", "\x93NUMPY\x04\x00\x00\x00", "version is 4"},
		"no array":         {"x.npy", "hello", "does not begin"},
		"other member":     {"readme.txt", "hello", "is no array"},
	} {
		f, err := Open(tempFile(t, archiveOf(t, c.member, c.content, "good.npy", npy(with("'<f4'", "False", "()"), 0, 0, 0, 0))))
		if err == nil {
			f.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		var format *FormatError
		if !errors.As(err, &format) || format.Format != NumPy || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.member) {
			t.Errorf("%s: %v; wanted %q", name, err, c.want)
		}
	}
}

func TestNumPyChecksumIsHeld(t *testing.T) {
	b := archiveOf(t, "x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 1, 2, 3, 4))
	b[strings.Index(string(b), "\x01\x02\x03\x04")]++
	if _, err := Open(tempFile(t, b)); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("%v", err)
	}
}

// FuzzNpyHeader: no text panics, and what is accepted has strides for its shape.
func FuzzNpyHeader(f *testing.F) {
	for _, s := range []string{
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }          \n", "{'shape': (), 'fortran_order': True, 'descr': '|b1'}",
		"{\"descr\": \"<i8\", 'fortran_order': False, 'shape': (3L,)}", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "{'descr': '|O'", "{(((",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseNpyHeader(text)
		if err == nil && (v.dtype.Size() == 0 || len(v.shape) > maxRank || len(v.strides) != len(v.shape)) {
			t.Fatalf("%+v", v)
		}
	})
}

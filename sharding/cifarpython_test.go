package sharding

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"
)

// pickler writes pickles of protocol 2 as Python 2 did: with byte strings, numbers of one or four bytes.
type pickler struct{ strings.Builder }

func (p *pickler) text(s string) *pickler {
	p.WriteByte('T')
	binary.Write(p, binary.LittleEndian, uint32(len(s)))
	p.WriteString(s)
	return p
}

func (p *pickler) number(n int) *pickler {
	p.WriteByte('J')
	binary.Write(p, binary.LittleEndian, int32(n))
	return p
}

func (p *pickler) op(s string) *pickler { p.WriteString(s); return p }

// array writes an array of bytes [n, width], of NumPy.
func (p *pickler) array(data string, n, width int, columnsFirst bool, kind string) *pickler {
	order := "\x89" // False
	if columnsFirst {
		order = "\x88"
	}
	p.op("cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n").number(0).op("\x85").text("b").op("\x87R")
	p.op("(").number(1).number(n).number(width).op("\x86")
	p.op("cnumpy\ndtype\n").text(kind).number(0).number(1).op("\x87R(").number(3).text("|").op("NNN").number(-1).number(-1).number(0).op("tb")
	return p.op(order).text(data).op("tb")
}

// writeCIFARPython is writeCIFARBinary for the Python version.
func writeCIFARPython(t testing.TB, dir, split string, n int, columnsFirst bool) {
	t.Helper()
	rows := make([]byte, n*cifarPixels)
	p := new(pickler).op("\x80\x02}(").text("fine_labels").op("](")
	for i := range n {
		p.number(7 * i % cifarClasses)
		for k, v := range cifarImage(i) {
			if columnsFirst {
				rows[k*n+i] = v
			} else {
				rows[i*cifarPixels+k] = v
			}
		}
	}
	p.op("e").text("data").array(string(rows), n, cifarPixels, columnsFirst, "u1").text("batch_label").text(split).op("u.")
	writeFile(t, filepath.Join(dir, split), []byte(p.String()))
	p = new(pickler).op("\x80\x02}").text("fine_label_names").op("](")
	for _, name := range cifarNames() {
		p.text(name)
	}
	writeFile(t, filepath.Join(dir, "meta"), []byte(p.op("es.").String()))
}

func TestOpenCIFARPython(t *testing.T) {
	for _, columnsFirst := range []bool{false, true} {
		dir := t.TempDir()
		python := filepath.Join(dir, "cifar-100-python")
		writeCIFARPython(t, python, "train", 30, columnsFirst)
		writeCIFARPython(t, python, "test", 3, columnsFirst)
		d := openTestSet(t, Source{Format: "cifar100", Path: dir, Split: "train"})
		checkCIFAR(t, d, "train", 30)
		checkCIFAR(t, openTestSet(t, Source{Format: "cifar100", Path: python, Split: "test"}), "test", 3)
		// Both versions are the same set.
		binaryDir := t.TempDir()
		writeCIFARBinary(t, binaryDir, "train", 30)
		b := openTestSet(t, Source{Format: "cifar100", Path: binaryDir, Split: "train"})
		one, err := sourceDigest(d)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := sourceDigest(b); err != nil || one != other || d.Digest() != b.Digest() {
			t.Errorf("the versions differ: %x and %x, %v", one, other, err)
		}
	}
}

// Python 3 writes bytes for Python 2 as a call that encodes a text.
func TestBytesOfPython3ForPython2(t *testing.T) {
	image := cifarImage(3)
	text := make([]rune, len(image))
	for i, v := range image {
		text[i] = rune(v)
	}
	p := new(pickler).op("\x80\x02}(").text("fine_labels").op("]").number(5).op("a").text("data")
	p.op("cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n").number(0).op("\x85").text("b").op("\x87R")
	p.op("(").number(1).number(1).number(cifarPixels).op("\x86cnumpy\ndtype\n").text("u1").number(0).number(1).op("\x87R\x89")
	p.op("c_codecs\nencode\nX")
	binary.Write(p, binary.LittleEndian, uint32(len(string(text))))
	p.op(string(text)).text("latin1").op("\x86Rtbu.")
	file := filepath.Join(t.TempDir(), "train")
	writeFile(t, file, []byte(p.String()))
	store, labels, err := readCIFARPython(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(store.data, image) || len(labels) != 1 || labels[0] != 5 {
		t.Errorf("labels %v, or other pixels than were written", labels)
	}
}

func TestBadCIFARPython(t *testing.T) {
	image := string(cifarImage(0))
	whole := func(labels, data func(p *pickler)) string {
		p := new(pickler).op("\x80\x02}(").text("fine_labels")
		labels(p)
		p.text("data")
		data(p)
		return p.op("u.").String()
	}
	one := func(p *pickler) { p.op("]").number(5).op("a") }
	array := func(data string, n, width int, kind string) func(p *pickler) {
		return func(p *pickler) { p.array(data, n, width, false, kind) }
	}
	good := whole(one, array(image, 1, cifarPixels, "u1"))
	for _, c := range []struct{ text, want string }{
		{"", "truncated"}, {"\x80\x02N.", "a dict"}, {"\x80\x02}.", "fine_labels"}, {good[:len(good)-20], "pickle"},
		{"\x80\x02cos\nsystem\n(S'true'\ntR.", "os.system"},
		{whole(one, func(p *pickler) { p.op("N") }), "None, where an array"},
		{whole(one, func(p *pickler) { p.text(image) }), "where an array"},
		{whole(one, array(image, 1, cifarPixels, "f4")), `"f4"`},
		{whole(one, array(image, 2, cifarPixels, "u1")), "[2 3072]"},
		{whole(one, array(image, 1, cifarPixels-1, "u1")), "[1 3071]"},
		{whole(one, array(image[1:], 1, cifarPixels, "u1")), "3071 bytes"},
		{whole(one, array("", 1<<30, 1<<30, "u1")), "0 bytes"},
		{whole(func(p *pickler) { p.op("]").number(100).op("a") }, array(image, 1, cifarPixels, "u1")), "label 0 is 100"},
		{whole(func(p *pickler) { p.op("]").text("a").op("a") }, array(image, 1, cifarPixels, "u1")), "label 0 is a"},
	} {
		dir := t.TempDir()
		writeCIFARPython(t, dir, "test", 1, false)
		writeFile(t, filepath.Join(dir, "train"), []byte(c.text))
		if _, err := Open(Source{Format: "cifar100", Path: dir, Split: "train"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want an error with %q", c.text, err, c.want)
		}
	}
	dir := t.TempDir()
	writeCIFARPython(t, dir, "train", 1, false)
	for _, c := range []struct{ meta, want string }{{"\x80\x02}.", "fine_label_names is None"}, {"\x80\x02}U\x10fine_label_names](Ns.", ""}} {
		writeFile(t, filepath.Join(dir, "meta"), []byte(c.meta))
		if _, err := Open(Source{Format: "cifar100", Path: dir, Split: "train"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("names %q: %v, want an error with %q", c.meta, err, c.want)
		}
	}
}

func FuzzCIFARPython(f *testing.F) {
	dir := f.TempDir()
	p := new(pickler).op("\x80\x02}(").text("fine_labels").op("]").number(5).op("a").text("data")
	f.Add([]byte(p.array(string(cifarImage(0)), 1, cifarPixels, true, "u1").op("u.").String()))
	path := filepath.Join(dir, "train")
	f.Fuzz(func(t *testing.T, data []byte) {
		writeFile(t, path, data)
		s, labels, err := readCIFARPython(path)
		if err != nil {
			return
		}
		for i, label := range labels {
			if pixels, err := s.read(i, nil); err != nil || len(pixels) != len(cifarHeader)+cifarPixels || label >= cifarClasses {
				t.Fatalf("image %d of %d: label %d, %d bytes, %v", i, len(labels), label, len(pixels), err)
			}
		}
	})
}

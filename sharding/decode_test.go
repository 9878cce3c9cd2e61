package sharding

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lift/stream"
	"pgregory.net/rapid"
)

// testImages returns the JPEGs and PNGs of testdata, of all kinds that differ in
// decoding, and made-up ones.
func testImages(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/images/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test images: %v", err)
	}
	images := map[string][]byte{}
	for _, f := range files {
		if images[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	images["photo.jpg"] = jpegBytes(t, photo(333, 217, 1), 90)
	if !readsJPEG {
		maps.DeleteFunc(images, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".jpg") })
	}
	images["photo.png"] = pngBytes(t, photo(61, 43, 2))
	return images
}

// wholeImage decodes all of an image into pixels of four bytes.
func wholeImage(t testing.TB, data []byte) *picture {
	t.Helper()
	c, width, height, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	var d decoder
	pic, err := d.region(c, data, width, height, Box{0, 0, height, width})
	if err != nil {
		t.Fatal(err)
	}
	return pic
}

// A region must have the pixels of the whole image, to the bit: rows and columns
// that are not decoded must not show at its edges.
func TestRegionsAreCutsOfTheWhole(t *testing.T) {
	for name, data := range testImages(t) {
		t.Run(name, func(t *testing.T) {
			whole := wholeImage(t, data)
			var d decoder // reused, as by the loader
			rapid.Check(t, func(t *rapid.T) {
				var b Box
				b.Height = rapid.IntRange(1, whole.height).Draw(t, "height")
				b.Width = rapid.IntRange(1, whole.width).Draw(t, "width")
				b.Top = rapid.IntRange(0, whole.height-b.Height).Draw(t, "top")
				b.Left = rapid.IntRange(0, whole.width-b.Width).Draw(t, "left")
				c, width, height, err := open(data)
				if err != nil {
					t.Fatal(err)
				}
				pic, err := d.region(c, data, width, height, b)
				if err != nil {
					t.Fatal(err)
				}
				for y := range b.Height {
					at := 4 * ((b.Top+y-pic.region.Top)*pic.region.Width + b.Left - pic.region.Left)
					got, want := pic.pix[at:at+4*b.Width], whole.pix[4*((b.Top+y)*whole.width+b.Left):][:4*b.Width]
					for x := range b.Width {
						if !bytes.Equal(got[4*x:4*x+3], want[4*x:4*x+3]) {
							t.Fatalf("pixel (%d,%d) of %+v is %v, in the whole image %v", x, y, b, got[4*x:4*x+3], want[4*x:4*x+3])
						}
					}
				}
			})
		})
	}
}

// image/png is the second opinion on PNGs without alpha, palette or 16 bits.
func TestPNGAgreesWithImagePNG(t *testing.T) {
	grey := image.NewGray(image.Rect(0, 0, 37, 23))
	paletted := image.NewPaletted(grey.Rect, color.Palette{color.RGBA{1, 2, 3, 255}, color.RGBA{200, 100, 50, 255}, color.RGBA{9, 8, 7, 255}})
	s := stream.New(1, stream.Synthetic, 0, 0)
	for i := range grey.Pix {
		grey.Pix[i] = byte(s.Uint64n(256))
		paletted.Pix[i] = byte(s.Uint64n(3))
	}
	for name, img := range map[string]image.Image{
		"rgb": photo(61, 43, 2), "noise": grey, "palette": paletted, "row": photo(90, 1, 3), "column": photo(1, 90, 3),
	} {
		data := pngBytes(t, img)
		got, err := DecodeRGB(data)
		if err != nil {
			t.Fatal(err)
		}
		want, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for y := range got.H {
			for x := range got.W {
				r, g, b, _ := want.At(x, y).RGBA()
				p := got.Pix[3*(y*got.W+x):]
				if p[0] != byte(r>>8) || p[1] != byte(g>>8) || p[2] != byte(b>>8) {
					t.Fatalf("%s: pixel (%d,%d) is %v, want %d %d %d", name, x, y, p[:3], r>>8, g>>8, b>>8)
				}
			}
		}
	}
}

// chunk appends a PNG chunk.
func chunk(data []byte, kind string, body []byte) []byte {
	data = binary.BigEndian.AppendUint32(data, uint32(len(body)))
	start := len(data)
	data = append(append(data, kind...), body...)
	return binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data[start:]))
}

// rawPNG makes a PNG of unfiltered rows.
func rawPNG(width, height, depth, colour, interlace int, raw []byte) []byte {
	header := binary.BigEndian.AppendUint32(nil, uint32(width))
	header = binary.BigEndian.AppendUint32(header, uint32(height))
	header = append(header, byte(depth), byte(colour), 0, 0, byte(interlace))
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(raw)
	w.Close()
	data := chunk([]byte(pngSignature), "IHDR", header)
	return chunk(chunk(data, "IDAT", z.Bytes()), "IEND", nil)
}

func TestInterlacedPNG(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width, height := rapid.IntRange(1, 20).Draw(t, "width"), rapid.IntRange(1, 20).Draw(t, "height")
		pixel := func(x, y int) byte { return byte(x*13 + y*7) }
		var raw []byte
		for _, p := range adam7 {
			for y := p[1]; y < height && p[0] < width; y += p[3] {
				raw = append(raw, 0)
				for x := p[0]; x < width; x += p[2] {
					raw = append(raw, pixel(x, y))
				}
			}
		}
		img, err := DecodeRGB(rawPNG(width, height, 8, pngGrey, 1, raw))
		if err != nil {
			t.Fatal(err)
		}
		for y := range height {
			for x := range width {
				if got := img.Pix[3*(y*width+x)]; got != pixel(x, y) {
					t.Fatalf("pixel (%d,%d) is %d, want %d", x, y, got, pixel(x, y))
				}
			}
		}
	})
}

func TestGreyDepths(t *testing.T) {
	for _, c := range []struct {
		depth int
		row   []byte
		want  []byte
	}{
		{1, []byte{0b10100000}, []byte{255, 0, 255}},
		{2, []byte{0b00011011}, []byte{0, 85, 170}},
		{4, []byte{0x1f, 0x80}, []byte{17, 255, 136}},
		{16, []byte{0, 7, 1, 0, 0, 255}, []byte{7, 255, 255}}, // clipped, as PIL
	} {
		img, err := DecodeRGB(rawPNG(3, 1, c.depth, pngGrey, 0, append([]byte{0}, c.row...)))
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range c.want {
			if img.Pix[3*i] != w || img.Pix[3*i+1] != w || img.Pix[3*i+2] != w {
				t.Errorf("%d bits: pixel %d is %v, want %d", c.depth, i, img.Pix[3*i:3*i+3], w)
			}
		}
	}
}

func TestBadImagesAreErrors(t *testing.T) {
	if !readsJPEG {
		t.Skip("this build reads no JPEG: cgo is off")
	}
	good := testImages(t)
	jpg, pngImage := good["jpeg-420.jpg"], good["png-rgb16.png"]
	damaged := append([]byte(nil), pngImage...)
	damaged[len(damaged)/2] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"text", []byte("this is no image"), "not an image"},
		{"gif", []byte("GIF89a\x10\x00\x00\x00\x00\x00\x00"), "GIF is not a format"},
		{"jpeg cut in half", jpg[:len(jpg)/2], "truncated"},
		{"jpeg without end", jpg[:len(jpg)-2], "truncated"},
		{"jpeg headers only", jpg[:160], "truncated"},
		{"png cut in half", pngImage[:len(pngImage)/2], "truncated"},
		{"png damaged", damaged, "checksum"},
		{"png of 60000 × 60000", rawPNG(60000, 60000, 8, pngRGB, 0, nil), "60000 × 60000"},
		{"png of 10000 × 10000 without data", rawPNG(10000, 10000, 8, pngRGBA, 1, nil), "cannot hold"},
		{"png of no pixels", rawPNG(0, 5, 8, pngGrey, 0, nil), "0 × 5"},
		{"png of a strange depth", rawPNG(5, 5, 3, pngGrey, 0, nil), "3 bits"},
		{"png with too few rows", rawPNG(4, 4, 8, pngGrey, 0, make([]byte, 5*3)), "truncated"},
		{"png with a filter that is none", rawPNG(1, 1, 8, pngGrey, 0, []byte{9, 0}), "filter 9"},
		{"png without palette", rawPNG(1, 1, 8, pngPalette, 0, []byte{0, 0}), "palette"},
		{"pgm cut", []byte("P5\n4 4\n255\n123"), "truncated"},
		{"pgm without size", []byte("P5\n"), "header"},
	} {
		if _, err := DecodeRGB(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	var unsupported *UnsupportedFormatError
	if _, err := DecodeRGB([]byte("GIF89a\x10\x00\x00\x00\x00\x00\x00")); !errors.As(err, &unsupported) || unsupported.Format != "GIF" {
		t.Errorf("a GIF gives %v, want *UnsupportedFormatError", err)
	}
}

// A region at the top of a file that is cut below it must be refused too, or the
// same file would be good in one epoch and bad in the next.
func TestTruncatedJPEGIsRefusedForEveryRegion(t *testing.T) {
	if !readsJPEG {
		t.Skip("this build reads no JPEG: cgo is off")
	}
	data := testImages(t)["photo.jpg"]
	for _, n := range []int{len(data) - 2, len(data) * 9 / 10} {
		c, width, height, err := open(data[:n])
		if err != nil {
			t.Fatal(err)
		}
		var d decoder
		if _, err := d.region(c, data[:n], width, height, Box{0, 0, 8, 8}); err == nil {
			t.Errorf("%d of %d bytes: the first rows decode, want an error", n, len(data))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, data := range testImages(f) {
		f.Add(data)
	}
	f.Add([]byte("P5\n2 2\n255\nabcd"))
	f.Add([]byte("P6\n1 1\n255\nabc"))
	f.Add(rawPNG(3, 3, 1, pngGrey, 1, make([]byte, 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, width, height, err := open(data)
		if err != nil || width*height > 1<<22 {
			return // what such an image costs is bounded by its header, but not small
		}
		img, err := DecodeRGB(data)
		if err == nil && (img.W != width || img.H != height || len(img.Pix) != 3*width*height) {
			t.Fatalf("%d × %d with %d bytes, the header says %d × %d", img.W, img.H, len(img.Pix), width, height)
		}
		var w worker
		tr := smallTransform
		dst := make([]float32, 3*tr.Resolution*tr.Resolution)
		for id := range 4 { // some regions
			w.transform(data, &tr, 0, 0, id, dst)
		}
	})
}

package sharding

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// The hashes are of the bytes that PIL's convert("RGB") makes of the files: lossy ones too are equal to the bit.
func TestWebPIsPILs(t *testing.T) {
	images := testImages(t)
	for name, want := range map[string]string{
		"webp-animation.webp":      "d13c112ecf91fc10", // 40 × 30
		"webp-lossless-alpha.webp": "2946d1f5da381c5d", // 20 × 24
		"webp-lossless.webp":       "b045f29eb12726e3", // 21 × 19
		"webp-lossy-alpha.webp":    "0ff4790a0ee6308a", // 32 × 30
		"webp-lossy.webp":          "b506b0a182084257", // 53 × 37
	} {
		img, err := DecodeRGB(images[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(img.Pix))[:16]; got != want {
			t.Errorf("%s: %s, PIL makes %s", name, got, want)
		}
	}
}

// riff makes a WebP file of chunks.
func riff(chunks ...[]byte) []byte {
	body := bytes.Join(chunks, nil)
	data := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(body)))
	return append(append(data, "WEBP"...), body...)
}

func webpChunkOf(kind string, body []byte) []byte {
	data := binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(body)))
	data = append(data, body...)
	return append(data, make([]byte, len(body)%2)...)
}

// vp8xOf is the header of an extended file with these flags and canvas.
func vp8xOf(flags byte, width, height int) []byte {
	w, h := width-1, height-1
	return webpChunkOf("VP8X", []byte{flags, 0, 0, 0, byte(w), byte(w >> 8), byte(w >> 16), byte(h), byte(h >> 8), byte(h >> 16)})
}

func TestBadWebP(t *testing.T) {
	images := testImages(t)
	lossy, lossless := images["webp-lossy.webp"], images["webp-lossless.webp"]
	huge := func(kind string, head ...byte) []byte {
		return riff(webpChunkOf(kind, append(head, make([]byte, 40)...)))
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"header alone", lossy[:12], "truncated"},
		{"cut in half", lossy[:len(lossy)/2], "truncated"},
		{"lossless, cut in half", lossless[:len(lossless)/2], "truncated"},
		{"lossless, cut and mended", riff(webpChunkOf("VP8L", lossless[20:len(lossless)*2/3])), "truncated"},
		{"lossy, cut and mended", riff(webpChunkOf("VP8 ", lossy[20:len(lossy)*2/3])), "truncated"},
		{"no chunk", riff(), "truncated"},
		{"no image", riff(webpChunkOf("EXIF", nil)), "no image"},
		{"short VP8X", riff(webpChunkOf("VP8X", []byte{0})), "VP8X"},
		{"another canvas", riff(vp8xOf(0, 50, 37), lossy[12:]), "canvas of 50 × 37"},
		{"no frame", riff(vp8xOf(2, 50, 37), webpChunkOf("ANIM", make([]byte, 6))), "without frames"},
		{"short frame", riff(vp8xOf(2, 50, 37), webpChunkOf("ANMF", make([]byte, 9))), "truncated"},
		{"frame of another size", riff(vp8xOf(2, 99, 99), webpChunkOf("ANMF", append(make([]byte, 16), lossy[12:]...))), "1 × 1"},
		{"VP8 of 16383 × 16383 in 50 bytes", huge("VP8 ", 0x10, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f), "16383 × 16383"},
		{"VP8L of 16384 × 16384 in 50 bytes", huge("VP8L", 0x2f, 0xff, 0xff, 0xff, 0x0f), "16384 × 16384"},
		{"VP8 of no pixels", huge("VP8 ", 0x10, 0, 0, 0x9d, 1, 0x2a, 0, 0, 5, 0), "0 × 5"},
		{"VP8 that is no key frame", huge("VP8 ", 0x11, 0, 0), "damaged"},
	} {
		if _, err := DecodeRGB(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// The first frame of an animation may be smaller than the canvas, which is black.
func TestFirstFrameLiesOnTheCanvas(t *testing.T) {
	lossy := testImages(t)["webp-lossy.webp"]
	frame := append([]byte{5, 0, 0, 3, 0, 0, 52, 0, 0, 36, 0, 0, 0, 0, 0, 0}, lossy[12:]...) // 53 × 37 at (10, 6)
	img, err := DecodeRGB(riff(vp8xOf(2, 70, 50), webpChunkOf("ANIM", make([]byte, 6)), webpChunkOf("ANMF", frame)))
	if err != nil {
		t.Fatal(err)
	}
	inside := Box{6, 10, 37, 53}
	want, err := DecodeRGB(lossy)
	if err != nil || !bytes.Equal(cropOf(img, inside, false).Pix, want.Pix) {
		t.Errorf("the frame differs from its image: %v", err)
	}
	for y := range img.H {
		for x := range img.W {
			within := y >= 6 && y < 43 && x >= 10 && x < 63
			if p := img.Pix[3*(y*img.W+x):][:3]; !within && !bytes.Equal(p, []byte{0, 0, 0}) {
				t.Fatalf("pixel (%d,%d) beside the frame is %v", x, y, p)
			}
		}
	}
}

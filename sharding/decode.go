package sharding

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits on images. PIL refuses more pixels than this too.
const (
	maxPixels = 2 * 89478485
	maxSide   = 1 << 20
)

// UnsupportedFormatError reports an image of a format that lift does not read.
type UnsupportedFormatError struct{ Format string }

func (e *UnsupportedFormatError) Error() string {
	return e.Format + " is not a format that lift reads; convert the image to JPEG, PNG or WebP"
}

// errEmptyImage is returned for an image file of no bytes.
var errEmptyImage = errors.New("the image file is empty")

// Box is a rectangle of an image, in pixels.
type Box struct{ Top, Left, Height, Width int }

// with returns the smallest box that holds b and c; a box of no pixels holds nothing.
func (b Box) with(c Box) Box {
	if b.Width == 0 {
		return c
	}
	top, left := min(b.Top, c.Top), min(b.Left, c.Left)
	return Box{top, left, max(b.Top+b.Height, c.Top+c.Height) - top, max(b.Left+b.Width, c.Left+c.Width) - left}
}

// RGB is an image of three bytes a pixel, rows from the top: Pix[(y*W+x)*3+c].
type RGB struct {
	W, H int
	Pix  []byte
}

// picture is a decoded image, or the part of one that Region says: four bytes a
// pixel (red, green, blue, unused), for whole pixels are quicker to move than
// three bytes. pix has Region.Height × Region.Width pixels.
type picture struct {
	width, height int // of the whole image
	region        Box // what pix holds of it
	pix           []byte
}

// codec is one image format.
type codec struct {
	name string
	// size reads the header's width and height. It must agree with decode.
	size func(data []byte) (width, height int, err error)
	// decode fills pic.pix with at least pic.region of the image, whose size has been
	// checked, and sets pic.region to what it filled.
	decode func(d *decoder, data []byte, pic *picture) error
}

var (
	jpegCodec = &codec{"JPEG", jpegSize, decodeJPEG}
	pngCodec  = &codec{"PNG", pngSize, decodePNG}
	pnmCodec  = &codec{"PNM", pnmSize, decodePNM}
	webpCodec = &codec{"WebP", webpSize, decodeWebP}
)

// sniff finds the format of an image by its first bytes.
func sniff(data []byte) (*codec, error) {
	switch {
	case len(data) == 0:
		return nil, errEmptyImage
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return jpegCodec, nil
	case bytes.HasPrefix(data, []byte(pngSignature)):
		return pngCodec, nil
	case bytes.HasPrefix(data, []byte("P5")), bytes.HasPrefix(data, []byte("P6")):
		return pnmCodec, nil
	case bytes.HasPrefix(data, []byte("RIFF")) && len(data) >= 12 && string(data[8:12]) == "WEBP":
		return webpCodec, nil
	}
	for _, other := range []struct{ name, at0, at8 string }{
		{"GIF", "GIF8", ""}, {"BMP", "BM", ""},
		{"TIFF", "II*\x00", ""}, {"TIFF", "MM\x00*", ""}, {"AVIF or HEIF", "\x00\x00\x00", "av"},
	} {
		if bytes.HasPrefix(data, []byte(other.at0)) && len(data) >= 12 && bytes.HasPrefix(data[8:], []byte(other.at8)) {
			return nil, &UnsupportedFormatError{other.name}
		}
	}
	return nil, fmt.Errorf("not an image: it begins %x", data[:min(8, len(data))])
}

// decoder decodes images one after the other, reusing its memory. The zero value
// is ready; it is not safe for concurrent use.
type decoder struct {
	png pngState
	pix []byte
}

// open finds an image's format and size, and refuses sizes that cannot be meant.
func open(data []byte) (c *codec, width, height int, err error) {
	if c, err = sniff(data); err != nil {
		return nil, 0, 0, err
	}
	if width, height, err = c.size(data); err != nil {
		return nil, 0, 0, fmt.Errorf("%s: %w", c.name, err)
	}
	if width < 1 || height < 1 || width > maxSide || height > maxSide || width*height > maxPixels {
		return nil, 0, 0, fmt.Errorf("%s: the header claims %d × %d pixels; lift takes up to %d", c.name, width, height, maxPixels)
	}
	return c, width, height, nil
}

// region decodes at least a box of an image that open has accepted. The picture is
// valid until the next call.
func (d *decoder) region(c *codec, data []byte, width, height int, box Box) (*picture, error) {
	pic := &picture{width: width, height: height, region: box}
	if err := c.decode(d, data, pic); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return pic, nil
}

// pixels returns n pixels of scratch memory.
func (d *decoder) pixels(n int) []byte {
	if cap(d.pix) < 4*n {
		d.pix = make([]byte, 4*n)
	}
	return d.pix[:4*n]
}

// DecodeRGB decodes a JPEG, PNG, WebP or binary PGM or PPM image as PIL's convert("RGB")
// does: orientation tags are ignored, alpha is dropped, 16-bit grey is clipped at
// 255 and 16-bit colour cut to its high byte.
func DecodeRGB(data []byte) (*RGB, error) {
	c, width, height, err := open(data)
	if err != nil {
		return nil, err
	}
	var d decoder
	pic, err := d.region(c, data, width, height, Box{0, 0, height, width})
	if err != nil {
		return nil, err
	}
	img := &RGB{W: width, H: height, Pix: make([]byte, 3*width*height)}
	for i := range width * height {
		copy(img.Pix[3*i:3*i+3], pic.pix[4*i:])
	}
	return img, nil
}

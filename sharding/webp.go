package sharding

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"

	"golang.org/x/image/vp8"
	"golang.org/x/image/vp8l"
)

// WebP is decoded by golang.org/x/image's VP8 and VP8L; the container, the interpolation of
// chroma and the conversion to RGB are lift's, for x/image repeats chroma where libwebp and so
// PIL interpolates it. Alpha is dropped unread. Of an animation the first frame counts.

// Bounds on the pixels that a byte of WebP can stand for, and the pixels up to which they are not
// applied. A macroblock of VP8's 256 pixels takes three bits at the least; VP8L can hold a
// single colour in no bits, which large photographs are not.
const (
	vp8PixelsPerByte  = 1024
	vp8Slack          = 1 << 20
	vp8lPixelsPerByte = 1 << 14
	vp8lSlack         = 1 << 24
)

// webpFile is what the container says.
type webpFile struct {
	width, height int    // of the canvas
	frame         Box    // of the first image, on the canvas
	lossless      bool   // VP8L, else VP8
	data          []byte // its chunk
}

// webpChunk cuts the next chunk off the body of a RIFF file.
func webpChunk(data []byte) (kind string, body, rest []byte, err error) {
	if len(data) < 8 {
		return "", nil, nil, errors.New("the file is truncated")
	}
	n := int(binary.LittleEndian.Uint32(data[4:]))
	if n > len(data)-8 {
		return "", nil, nil, fmt.Errorf("the file is truncated in chunk %q", data[:4])
	}
	end := min(8+n+n%2, len(data)) // the last chunk may lack its padding
	return string(data[:4]), data[8 : 8+n], data[end:], nil
}

// parseWebP finds the image, or the first of an animation.
func parseWebP(data []byte) (w webpFile, err error) {
	const head = 12 // RIFF, size, WEBP
	if len(data) < head {
		return w, errors.New("the file is truncated")
	}
	size := int(binary.LittleEndian.Uint32(data[4:]))
	if size < 4 || size > len(data)-8 {
		return w, errors.New("the file is truncated")
	}
	chunks := data[head : 8+size]
	kind, body, rest, err := webpChunk(chunks)
	if err != nil {
		return w, err
	}
	if kind != "VP8X" {
		if err := w.setImage(chunks); err != nil {
			return w, err
		}
		w.width, w.height = w.frame.Width, w.frame.Height
		return w, nil
	}
	if len(body) < 10 {
		return w, errors.New("the VP8X chunk is truncated")
	}
	w.width, w.height = 1+int24(body[4:]), 1+int24(body[7:])
	const animated = 2
	animation := body[0]&animated != 0
	if animation {
		err = w.setFrame(rest)
	} else {
		err = w.setImage(rest)
	}
	if err != nil {
		return w, err
	}
	right, bottom := w.frame.Left+w.frame.Width, w.frame.Top+w.frame.Height
	if right > w.width || bottom > w.height || !animation && w.frame != (Box{0, 0, w.height, w.width}) {
		return w, fmt.Errorf("an image of %d × %d does not lie on the canvas of %d × %d", w.frame.Width, w.frame.Height, w.width, w.height)
	}
	return w, nil
}

// setFrame looks for the first frame of an animation.
func (w *webpFile) setFrame(chunks []byte) error {
	for len(chunks) > 0 {
		kind, body, rest, err := webpChunk(chunks)
		if err != nil {
			return err
		}
		if kind != "ANMF" {
			chunks = rest
			continue
		}
		const head = 16
		if len(body) < head {
			return errors.New("the first frame is truncated")
		}
		if err := w.setImage(body[head:]); err != nil {
			return err
		}
		w.frame.Left, w.frame.Top = 2*int24(body), 2*int24(body[3:])
		if wide, high := 1+int24(body[6:]), 1+int24(body[9:]); wide != w.frame.Width || high != w.frame.Height {
			return fmt.Errorf("the first frame says %d × %d, its image %d × %d", wide, high, w.frame.Width, w.frame.Height)
		}
		return nil
	}
	return errors.New("an animation without frames")
}

// setImage looks for the image's chunk, and reads its size.
func (w *webpFile) setImage(chunks []byte) error {
	for len(chunks) > 0 {
		kind, body, rest, err := webpChunk(chunks)
		if err != nil {
			return err
		}
		switch kind {
		case "VP8 ":
			var d vp8.Decoder
			d.Init(bytes.NewReader(body), len(body))
			header, err := d.DecodeFrameHeader()
			if err != nil || !header.KeyFrame {
				return errors.New("the header of its VP8 image is damaged")
			}
			w.frame.Width, w.frame.Height, w.data = header.Width, header.Height, body
			return w.checkSize(vp8PixelsPerByte, vp8Slack)
		case "VP8L":
			config, err := vp8l.DecodeConfig(bytes.NewReader(body))
			if err != nil {
				return fmt.Errorf("the header of its VP8L image is damaged: %w", err)
			}
			w.frame.Width, w.frame.Height, w.data, w.lossless = config.Width, config.Height, body, true
			return w.checkSize(vp8lPixelsPerByte, vp8lSlack)
		}
		chunks = rest
	}
	return errors.New("no image in the file")
}

// checkSize refuses an image that its bytes cannot hold.
func (w *webpFile) checkSize(pixelsPerByte, slack int) error {
	if n := w.frame.Width * w.frame.Height; n > slack && n > pixelsPerByte*len(w.data) {
		return fmt.Errorf("%d bytes are too few for %d × %d pixels", len(w.data), w.frame.Width, w.frame.Height)
	}
	return nil
}

func int24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

func webpSize(data []byte) (width, height int, err error) {
	w, err := parseWebP(data)
	return w.width, w.height, err
}

// decodeWebP decodes the whole image. What a first frame does not cover is black.
func decodeWebP(d *decoder, data []byte, pic *picture) error {
	w, err := parseWebP(data)
	if err != nil {
		return err
	}
	pic.region = Box{0, 0, pic.height, pic.width}
	pic.pix = d.pixels(pic.width * pic.height)
	if w.frame != pic.region {
		clear(pic.pix)
	}
	if w.lossless {
		return decodeVP8L(pic, &w)
	}
	return decodeVP8(pic, &w)
}

func decodeVP8L(pic *picture, w *webpFile) error {
	decoded, err := vp8l.Decode(bytes.NewReader(w.data))
	if err != nil {
		return shortRead(err)
	}
	img, ok := decoded.(*image.NRGBA)
	if !ok || img.Rect.Dx() != w.frame.Width || img.Rect.Dy() != w.frame.Height {
		return errors.New("its VP8L image is not of the size that its header says")
	}
	for y := range w.frame.Height {
		copy(pic.row(w.frame, y), img.Pix[y*img.Stride:])
	}
	return nil
}

func decodeVP8(pic *picture, w *webpFile) error {
	var d vp8.Decoder
	d.Init(bytes.NewReader(w.data), len(w.data))
	if _, err := d.DecodeFrameHeader(); err != nil {
		return shortRead(err)
	}
	img, err := d.DecodeFrame()
	if err != nil {
		return shortRead(err)
	}
	for y := range w.frame.Height {
		convertVP8Row(pic.row(w.frame, y), img, y)
	}
	return nil
}

// row returns the pixels of row y of a frame.
func (p *picture) row(frame Box, y int) []byte {
	return p.pix[4*((frame.Top+y)*p.width+frame.Left):][:4*frame.Width]
}

// convertVP8Row makes pixels of row y. Chroma has half of the image's width and height: each pixel's is 9/16 of the
// nearest sample, 3/16 of the nearest beside it and of the nearest above or below it, and 1/16 of the one across,
// with libwebp's roundings; in the outermost columns, 3/4 and 1/4 of two samples.
func convertVP8Row(dst []byte, img *image.YCbCr, y int) {
	width, height := img.Rect.Dx(), img.Rect.Dy()
	luma := img.Y[y*img.YStride:]
	near := y / 2
	far := min(max(near-1+2*(y%2), 0), (height+1)/2-1)
	cb, cbFar := img.Cb[near*img.CStride:], img.Cb[far*img.CStride:]
	cr, crFar := img.Cr[near*img.CStride:], img.Cr[far*img.CStride:]
	for x := range width {
		k := x / 2
		var u, v int
		if x == 0 || x == width-1 && width%2 == 0 {
			u = (3*int(cb[k]) + int(cbFar[k]) + 2) >> 2
			v = (3*int(cr[k]) + int(crFar[k]) + 2) >> 2
		} else {
			side := k - 1 + 2*(x%2)
			u = blendChroma(int(cb[k]), int(cb[side]), int(cbFar[k]), int(cbFar[side]))
			v = blendChroma(int(cr[k]), int(cr[side]), int(crFar[k]), int(crFar[side]))
		}
		vp8Pixel(dst[4*x:4*x+4], int(luma[x]), u, v)
	}
}

// blendChroma is (9·near + 3·beside + 3·above + across)/16, rounded in two steps.
func blendChroma(near, beside, above, across int) int {
	diagonal := (near + 3*beside + 3*above + across + 8) >> 3
	return (near + diagonal) >> 1
}

// vp8Pixel converts from Y'CbCr of a limited range (BT.601), in libwebp's 14 bits of fixed point.
func vp8Pixel(dst []byte, y, u, v int) {
	level := y * 19077 >> 8
	dst[0] = vp8Byte(level + v*26149>>8 - 14234)
	dst[1] = vp8Byte(level - u*6419>>8 - v*13320>>8 + 8708)
	dst[2] = vp8Byte(level + u*33050>>8 - 17685)
	dst[3] = 0
}

func vp8Byte(v int) byte { return byte(min(max(v>>6, 0), 255)) }

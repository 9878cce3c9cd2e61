package sharding

import (
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// PNG is decoded here rather than by image/png, which allocates what the header
// claims before it has seen a pixel, allocates anew for each image, and refuses
// files that PIL reads.

const pngSignature = "\x89PNG\r\n\x1a\n"

// deflateRatio bounds how much DEFLATE can expand: 258 bytes for 2 bits.
const deflateRatio = 1032

// PNG colour types.
const (
	pngGrey      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGreyAlpha = 4
	pngRGBA      = 6
)

// pngState is the reused memory of PNG decoding.
type pngState struct {
	inflate io.ReadCloser // also a zlib.Resetter
	data    chunkReader
	raw     []byte
	palette [256][3]byte
}

// pngHeader is a checked IHDR chunk.
type pngHeader struct {
	width, height int
	depth, colour int
	interlaced    bool
}

// channels returns the values of a pixel.
func (h pngHeader) channels() int {
	switch h.colour {
	case pngRGB:
		return 3
	case pngGreyAlpha:
		return 2
	case pngRGBA:
		return 4
	}
	return 1
}

// rowBytes returns the bytes of a row of that width, without its filter byte.
func (h pngHeader) rowBytes(width int) int { return (width*h.channels()*h.depth + 7) / 8 }

func parsePNGHeader(b []byte) (h pngHeader, err error) {
	if len(b) != 13 {
		return h, fmt.Errorf("header chunk of %d bytes", len(b))
	}
	width, height := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if width > 1<<31-1 || height > 1<<31-1 {
		return h, fmt.Errorf("size %d × %d", width, height)
	}
	h = pngHeader{int(width), int(height), int(b[8]), int(b[9]), b[12] == 1}
	depths := 0 // a bit for each that is allowed
	switch h.colour {
	case pngGrey:
		depths = 1<<1 | 1<<2 | 1<<4 | 1<<8 | 1<<16
	case pngPalette:
		depths = 1<<1 | 1<<2 | 1<<4 | 1<<8
	case pngRGB, pngGreyAlpha, pngRGBA:
		depths = 1<<8 | 1<<16
	}
	if depths>>h.depth&1 == 0 || b[10] != 0 || b[11] != 0 || b[12] > 1 {
		return h, fmt.Errorf("colour type %d of %d bits, compression %d, filter %d, interlace %d", h.colour, h.depth, b[10], b[11], b[12])
	}
	return h, nil
}

// nextChunk cuts the next chunk off data, and checks its sum.
func nextChunk(data []byte) (kind string, body, rest []byte, err error) {
	if len(data) < 12 {
		return "", nil, nil, errors.New("the file is truncated")
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-12) {
		return "", nil, nil, fmt.Errorf("the file is truncated in chunk %q", data[4:8])
	}
	body = data[8 : 8+n]
	if crc32.ChecksumIEEE(data[4:8+n]) != binary.BigEndian.Uint32(data[8+n:]) {
		return "", nil, nil, fmt.Errorf("chunk %q: checksum mismatch", data[4:8])
	}
	return string(data[4:8]), body, data[12+n:], nil
}

func pngSize(data []byte) (width, height int, err error) {
	kind, body, _, err := nextChunk(data[len(pngSignature):])
	if err != nil {
		return 0, 0, err
	}
	if kind != "IHDR" {
		return 0, 0, fmt.Errorf("the first chunk is %q", kind)
	}
	h, err := parsePNGHeader(body)
	return h.width, h.height, err
}

// chunkReader reads the bodies of the IDAT chunks as one stream.
type chunkReader struct {
	body, rest []byte // of the current chunk; the file after it
	err        error
}

func (r *chunkReader) more() error {
	for len(r.body) == 0 {
		if r.err != nil {
			return r.err
		}
		kind, body, rest, err := nextChunk(r.rest)
		if err == nil && kind != "IDAT" {
			err = io.ErrUnexpectedEOF
		}
		r.body, r.rest, r.err = body, rest, err
	}
	return nil
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if err := r.more(); err != nil {
		return 0, err
	}
	n := copy(p, r.body)
	r.body = r.body[n:]
	return n, nil
}

// ReadByte spares the decompressor a buffer of its own.
func (r *chunkReader) ReadByte() (byte, error) {
	if len(r.body) == 0 {
		if err := r.more(); err != nil {
			return 0, err
		}
	}
	b := r.body[0]
	r.body = r.body[1:]
	return b, nil
}

func decodePNG(d *decoder, data []byte, pic *picture) error {
	_, body, rest, err := nextChunk(data[len(pngSignature):])
	if err != nil {
		return err
	}
	h, err := parsePNGHeader(body)
	if err != nil {
		return err
	}
	hasPalette := false
	for {
		kind, body, after, err := nextChunk(rest)
		if err != nil {
			return err
		}
		switch kind {
		case "PLTE":
			hasPalette = true
			if err := d.png.setPalette(body); err != nil {
				return err
			}
		case "IEND":
			return errors.New("no image data")
		case "IDAT":
			if h.colour == pngPalette && !hasPalette {
				return errors.New("a palette image without palette")
			}
			return d.decodePixels(h, rest, pic)
		}
		rest = after
	}
}

// setPalette reads a PLTE chunk. Entries beyond it are grey, as in PIL.
func (s *pngState) setPalette(body []byte) error {
	if len(body) == 0 || len(body)%3 != 0 || len(body) > 768 {
		return fmt.Errorf("palette of %d bytes", len(body))
	}
	for i := range s.palette {
		s.palette[i] = [3]byte{byte(i), byte(i), byte(i)}
		if 3*i < len(body) {
			s.palette[i] = [3]byte(body[3*i:])
		}
	}
	return nil
}

// adam7 is the first column and row and the distances of the seven passes.
var adam7 = [7][4]int{{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}}

// onePass is an image that is not interlaced.
var onePass = [1][4]int{{0, 0, 1, 1}}

// decodePixels inflates, unfilters and converts the image; rest begins with its first
// IDAT chunk.
func (d *decoder) decodePixels(h pngHeader, rest []byte, pic *picture) error {
	passes := onePass[:]
	if h.interlaced {
		passes = adam7[:]
	}
	size := 0
	for _, p := range passes {
		if w, rows := passSize(h, p); w > 0 {
			size += rows * (1 + h.rowBytes(w))
		}
	}
	if size > deflateRatio*len(rest) {
		return fmt.Errorf("the file is truncated: %d bytes cannot hold %d × %d pixels", len(rest), h.width, h.height)
	}
	raw, err := d.png.inflateAll(rest, size)
	if err != nil {
		return fmt.Errorf("image data: %w", shortRead(err))
	}
	pic.region = Box{0, 0, h.height, h.width}
	pic.pix = d.pixels(h.width * h.height)
	for _, p := range passes {
		w, rows := passSize(h, p)
		if w == 0 {
			continue
		}
		n := 1 + h.rowBytes(w)
		var above []byte
		for y := range rows {
			row := raw[y*n : (y+1)*n]
			if err := unfilter(row[0], row[1:], above, max(1, h.channels()*h.depth/8)); err != nil {
				return err
			}
			above = row[1:]
			at := 4 * ((p[1]+y*p[3])*h.width + p[0])
			d.png.convertRow(h, pic.pix[at:], above, w, 4*p[2])
		}
		raw = raw[rows*n:]
	}
	return nil
}

func passSize(h pngHeader, p [4]int) (width, rows int) {
	return (h.width - p[0] + p[2] - 1) / p[2], (h.height - p[1] + p[3] - 1) / p[3]
}

// inflateAll returns the size bytes of the image data.
func (s *pngState) inflateAll(rest []byte, size int) ([]byte, error) {
	s.data = chunkReader{rest: rest}
	defer func() { s.data = chunkReader{} }() // keep no file alive
	var err error
	if s.inflate == nil {
		s.inflate, err = zlib.NewReader(&s.data)
	} else {
		err = s.inflate.(zlib.Resetter).Reset(&s.data, nil)
	}
	if err != nil {
		s.inflate = nil
		return nil, err
	}
	if cap(s.raw) < size {
		s.raw = make([]byte, size)
	}
	raw := s.raw[:size]
	if _, err := io.ReadFull(s.inflate, raw); err != nil {
		return nil, err
	}
	// One byte more, so that the checksum is reached. Data to spare is ignored.
	var spare [1]byte
	if _, err := s.inflate.Read(spare[:]); err != nil && err != io.EOF {
		return nil, err
	}
	return raw, nil
}

// unfilter undoes a row's filter in place; step is the bytes of a pixel, above the
// row before or nil.
func unfilter(filter byte, row, above []byte, step int) error {
	if above == nil { // outside the image everything is 0
		switch filter {
		case 2:
			return nil
		case 3:
			for i := step; i < len(row); i++ {
				row[i] += row[i-step] / 2
			}
			return nil
		case 4:
			filter = 1
		}
	}
	switch filter {
	case 0:
	case 1:
		for i := step; i < len(row); i++ {
			row[i] += row[i-step]
		}
	case 2:
		for i, v := range above[:len(row)] {
			row[i] += v
		}
	case 3:
		for i := range row {
			left := 0
			if i >= step {
				left = int(row[i-step])
			}
			row[i] += byte((left + int(above[i])) / 2)
		}
	case 4:
		for i := range row {
			var left, corner byte
			if i >= step {
				left, corner = row[i-step], above[i-step]
			}
			row[i] += paeth(left, above[i], corner)
		}
	default:
		return fmt.Errorf("row filter %d", filter)
	}
	return nil
}

// paeth returns whichever of left, up and corner is closest to left+up-corner.
func paeth(left, up, corner byte) byte {
	a, b := int(up)-int(corner), int(left)-int(corner)
	c := a + b
	a, b, c = max(a, -a), max(b, -b), max(c, -c)
	if a <= b && a <= c {
		return left
	}
	if b <= c {
		return up
	}
	return corner
}

// convertRow writes the n pixels of a row, stride bytes apart.
func (s *pngState) convertRow(h pngHeader, dst, row []byte, n, stride int) {
	if h.colour == pngGrey || h.colour == pngPalette {
		s.convertSingle(h, dst, row, n, stride)
		return
	}
	bytesOf := h.depth / 8 // of 16 bits, the high byte counts and comes first
	step := h.channels() * bytesOf
	for i := range n {
		p, q := dst[i*stride:i*stride+4], row[i*step:]
		if h.colour == pngGreyAlpha {
			p[0], p[1], p[2] = q[0], q[0], q[0]
		} else {
			p[0], p[1], p[2] = q[0], q[bytesOf], q[2*bytesOf]
		}
		p[3] = 0
	}
}

// convertSingle writes a row of grey or palette pixels.
func (s *pngState) convertSingle(h pngHeader, dst, row []byte, n, stride int) {
	if h.colour == pngGrey && h.depth == 8 && stride == 4 {
		spreadGrey(dst, row[:n])
		return
	}
	scale := 1
	if h.colour == pngGrey && h.depth < 8 {
		scale = 255 / (1<<h.depth - 1)
	}
	for i := range n {
		var v byte
		switch {
		case h.depth == 8:
			v = row[i]
		case h.depth == 16: // PIL clips 16-bit grey instead of scaling it
			v = 255
			if row[2*i] == 0 {
				v = row[2*i+1]
			}
		default:
			bit := i * h.depth
			v = row[bit/8] >> (8 - h.depth - bit%8) & (1<<h.depth - 1) * byte(scale)
		}
		p := dst[i*stride : i*stride+4]
		if h.colour == pngPalette {
			c := &s.palette[v]
			p[0], p[1], p[2], p[3] = c[0], c[1], c[2], 0
		} else {
			p[0], p[1], p[2], p[3] = v, v, v, 0
		}
	}
}

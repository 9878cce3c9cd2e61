package sharding

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// jpegPixelsPerByte bounds how many pixels a byte of JPEG can stand for: a block of
// 64 takes a bit at the least, in a scan of constant blocks.
const jpegPixelsPerByte = 1024

// jpegSlack is the size up to which that bound is not applied, in pixels.
const jpegSlack = 1 << 20

// jpegSize finds the frame header.
func jpegSize(data []byte) (width, height int, err error) {
	at := 2
	for at+4 <= len(data) {
		if data[at] != 0xff { // stray bytes between segments are passed over
			at++
			continue
		}
		marker := data[at+1]
		switch {
		case marker == 0xff: // fill byte
			at++
			continue
		case marker == 0 || marker == 1 || 0xd0 <= marker && marker <= 0xd8: // no segment follows
			at += 2
			continue
		case marker == 0xd9 || marker == 0xda:
			return 0, 0, errors.New("no frame header before the image data")
		}
		segment := data[at+2:]
		n := int(binary.BigEndian.Uint16(segment))
		isFrame := 0xc0 <= marker && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc
		if !isFrame {
			at += 2 + n
			continue
		}
		if len(segment) < 8 || n < 8 {
			break
		}
		height, width = int(binary.BigEndian.Uint16(segment[3:])), int(binary.BigEndian.Uint16(segment[5:]))
		if c := segment[7]; c != 1 && c != 3 && c != 4 {
			return 0, 0, fmt.Errorf("a frame of %d components; lift reads 1, 3 and 4", c)
		}
		if width*height > jpegSlack && width*height > jpegPixelsPerByte*len(data) {
			return 0, 0, fmt.Errorf("the file is truncated: %d bytes cannot hold %d × %d pixels", len(data), width, height)
		}
		return width, height, nil
	}
	return 0, 0, errors.New("the file is truncated before the frame header")
}

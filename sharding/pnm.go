package sharding

import "errors"

var errPNM = errors.New("the header is not that of a binary 8-bit image (P5 or P6, width, height, 255)")

// pnmHeader reads the header of a binary PGM or PPM image of one byte a value,
// without comments. It is the form in which an IDX file's raw pixels are handed out.
func pnmHeader(data []byte) (channels, width, height int, pixels []byte, err error) {
	channels = 1
	if len(data) > 1 && data[1] == '6' {
		channels = 3
	}
	at := 2
	var fields [3]int
	for i := range fields {
		if at >= len(data) || !isSpace(data[at]) {
			return 0, 0, 0, nil, errPNM
		}
		for at < len(data) && isSpace(data[at]) {
			at++
		}
		digits := at
		for at < len(data) && '0' <= data[at] && data[at] <= '9' && at-digits < 8 {
			fields[i] = fields[i]*10 + int(data[at]-'0')
			at++
		}
		if at == digits {
			return 0, 0, 0, nil, errPNM
		}
	}
	if fields[2] != 255 || at >= len(data) || !isSpace(data[at]) {
		return 0, 0, 0, nil, errPNM
	}
	return channels, fields[0], fields[1], data[at+1:], nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func pnmSize(data []byte) (width, height int, err error) {
	_, width, height, _, err = pnmHeader(data)
	return width, height, err
}

func decodePNM(d *decoder, data []byte, pic *picture) error {
	channels, _, _, pixels, err := pnmHeader(data)
	if err != nil {
		return err
	}
	n := pic.width * pic.height
	if len(pixels) < n*channels {
		return errors.New("the file is truncated")
	}
	pic.region = Box{0, 0, pic.height, pic.width}
	pic.pix = d.pixels(n)
	if channels == 1 {
		spreadGrey(pic.pix, pixels[:n])
	} else {
		spreadRGB(pic.pix, pixels[:3*n])
	}
	return nil
}

// spreadGrey makes a pixel of each grey byte.
func spreadGrey(dst, src []byte) {
	for i, v := range src {
		p := dst[4*i : 4*i+4 : 4*i+4]
		p[0], p[1], p[2], p[3] = v, v, v, 0
	}
}

// spreadRGB makes a pixel of each three bytes.
func spreadRGB(dst, src []byte) {
	for i := 0; 3*i+2 < len(src); i++ {
		p, q := dst[4*i:4*i+4:4*i+4], src[3*i:3*i+3:3*i+3]
		p[0], p[1], p[2], p[3] = q[0], q[1], q[2], 0
	}
}

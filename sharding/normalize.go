package sharding

// Normalize writes an image as three planes of float32, (byte/255 - mean) / std:
// dst is [3, H, W].
func Normalize(dst []float32, img *RGB, mean, std [3]float32) {
	var table normTable
	table.set(mean, std)
	pix := make([]byte, 4*img.W*img.H)
	spreadRGB(pix, img.Pix)
	table.planes(dst, pix, img.W, img.W, img.H, false)
}

// normTable holds the normalised value of each byte of each channel.
type normTable struct {
	mean, std [3]float32
	value     [3][256]float32
	ready     bool
}

// set fills the table as torchvision's ToTensor and Normalize compute: a division,
// a subtraction and a division, each rounded to float32.
func (n *normTable) set(mean, std [3]float32) {
	if n.ready && n.mean == mean && n.std == std {
		return
	}
	n.mean, n.std, n.ready = mean, std, true
	for c := range n.value {
		for v := range n.value[c] {
			n.value[c][v] = float32(float32(float32(v)/255)-mean[c]) / std[c]
		}
	}
}

// planes writes width × height pixels of four bytes, in rows stride pixels apart, as three planes, mirrored with flip.
func (n *normTable) planes(dst []float32, pix []byte, stride, width, height int, flip bool) {
	plane := width * height
	for c := range 3 {
		table, out := &n.value[c], dst[c*plane:(c+1)*plane]
		for y := range height {
			row, src := out[y*width:(y+1)*width], pix[4*y*stride:][:4*width]
			if flip {
				for x := range row {
					row[width-1-x] = table[src[4*x+c]]
				}
				continue
			}
			for x := range row {
				row[x] = table[src[4*x+c]]
			}
		}
	}
}

package sharding

import "fmt"

// ResizedCrop cuts a box out of an image and resamples it to size × size; flip then
// mirrors it. It panics if the box is not inside.
func ResizedCrop(img *RGB, b Box, size int, flip bool, filter Interpolation) *RGB {
	if b.Top < 0 || b.Left < 0 || b.Width < 1 || b.Height < 1 || b.Left+b.Width > img.W || b.Top+b.Height > img.H {
		panic(fmt.Sprintf("sharding: box %+v of an image of %d × %d", b, img.W, img.H))
	}
	var w worker
	w.plan.add(b, size, size, crop{flip: flip})
	return w.images(img, size, filter)[0]
}

// TestCrops resamples an image so that its shorter side is shorter, and its longer side in
// proportion, cut down to an integer; then it cuts out size × size pixels, not more than
// shorter: n is 1 for the centre, 5 for top left, top right, bottom left, bottom right and
// the centre, 10 for these and those of the mirror image.
func TestCrops(img *RGB, shorter, size, n int, filter Interpolation) []*RGB {
	if size < 1 || size > shorter || n != 1 && n != 5 && n != 10 {
		panic(fmt.Sprintf("sharding: %d crops of %d out of %d", n, size, shorter))
	}
	var w worker
	w.plan.whole(img.W, img.H, shorter, size, n)
	return w.images(img, size, filter)
}

// images renders w.plan's crops of R×R.
func (w *worker) images(img *RGB, R int, filter Interpolation) []*RGB {
	pic := &picture{width: img.W, height: img.H, region: Box{0, 0, img.H, img.W}, pix: make([]byte, 4*img.W*img.H)}
	spreadRGB(pic.pix, img.Pix)
	out := make([]*RGB, len(w.plan.crops))
	for i := range w.plan.views {
		w.prepare(&w.plan.views[i], R, filter)
		w.render(pic, &w.plan.views[i], func(k int, pix []byte, stride int) {
			out[k] = cut(pix, stride, R, w.plan.crops[k].flip)
		})
	}
	return out
}

// cut makes an image of R×R pixels of four bytes, in rows stride pixels apart, mirrored with flip.
func cut(pix []byte, stride, R int, flip bool) *RGB {
	out := &RGB{W: R, H: R, Pix: make([]byte, 3*R*R)}
	for y := range R {
		for x := range R {
			to := x
			if flip {
				to = R - 1 - x
			}
			copy(out.Pix[3*(y*R+to):][:3], pix[4*(y*stride+x):])
		}
	}
	return out
}

package sharding

import "fmt"

// Resize returns an image resampled to width × height (bilinear, antialiased, as
// PIL). It panics unless both are at least 1.
func Resize(img *RGB, width, height int) *RGB {
	return ResizedCropTo(img, Box{0, 0, img.H, img.W}, width, height)
}

// ResizeShorter returns an image resampled so that its shorter side is size and its
// longer side in proportion, cut down to an integer.
func ResizeShorter(img *RGB, size int) *RGB {
	w, h := shorterSide(img.W, img.H, size)
	return Resize(img, w, h)
}

// ResizedCrop cuts a box out of an image and resamples it to size × size; flip then
// mirrors it.
func ResizedCrop(img *RGB, b Box, size int, flip bool) *RGB {
	out := ResizedCropTo(img, b, size, size)
	if flip {
		return Mirror(out)
	}
	return out
}

// ResizedCropTo cuts a box out of an image and resamples it to width × height.
func ResizedCropTo(img *RGB, b Box, width, height int) *RGB {
	checkBox(img, b)
	var w worker
	w.horizontal.set(b.Width, width, 0, width)
	w.vertical.set(b.Height, height, 0, height)
	pic := &picture{width: img.W, height: img.H, region: Box{0, 0, img.H, img.W}, pix: make([]byte, 4*img.W*img.H)}
	spreadRGB(pic.pix, img.Pix)
	w.resample(pic, b, width, height)
	out := &RGB{W: width, H: height, Pix: make([]byte, 3*width*height)}
	for i := range width * height {
		copy(out.Pix[3*i:3*i+3], w.out[4*i:])
	}
	return out
}

func checkBox(img *RGB, b Box) {
	if b.Top < 0 || b.Left < 0 || b.Width < 1 || b.Height < 1 || b.Left+b.Width > img.W || b.Top+b.Height > img.H {
		panic(fmt.Sprintf("sharding: box %+v of an image of %d × %d", b, img.W, img.H))
	}
}

// Crop returns a copy of a box of an image. It panics if the box is not inside.
func Crop(img *RGB, b Box) *RGB {
	checkBox(img, b)
	out := &RGB{W: b.Width, H: b.Height, Pix: make([]byte, 3*b.Width*b.Height)}
	for y := range b.Height {
		copy(out.Pix[3*y*b.Width:3*(y+1)*b.Width], img.Pix[3*((b.Top+y)*img.W+b.Left):])
	}
	return out
}

// CenterCrop returns the central size × size pixels. It panics if the image is smaller.
func CenterCrop(img *RGB, size int) *RGB {
	return Crop(img, Box{centre(img.H, size), centre(img.W, size), size, size})
}

// FiveCrop returns the four corners (top left, top right, bottom left, bottom right)
// and the centre, size × size each. It panics if the image is smaller.
func FiveCrop(img *RGB, size int) [5]*RGB {
	right, bottom := img.W-size, img.H-size
	return [5]*RGB{
		Crop(img, Box{0, 0, size, size}), Crop(img, Box{0, right, size, size}),
		Crop(img, Box{bottom, 0, size, size}), Crop(img, Box{bottom, right, size, size}),
		CenterCrop(img, size),
	}
}

// TenCrop returns the five crops of the image and those of its mirror image.
func TenCrop(img *RGB, size int) [10]*RGB {
	a, b := FiveCrop(img, size), FiveCrop(Mirror(img), size)
	return [10]*RGB(append(a[:], b[:]...))
}

// Mirror returns the image with left and right exchanged.
func Mirror(img *RGB) *RGB {
	out := &RGB{W: img.W, H: img.H, Pix: make([]byte, len(img.Pix))}
	for y := range img.H {
		for x := range img.W {
			copy(out.Pix[3*(y*img.W+img.W-1-x):][:3], img.Pix[3*(y*img.W+x):])
		}
	}
	return out
}

// Normalize writes an image as three planes of float32, (byte/255 - mean) / std:
// dst is [3, H, W].
func Normalize(dst []float32, img *RGB, mean, std [3]float32) {
	var table normTable
	table.set(mean, std)
	pix := make([]byte, 4*img.W*img.H)
	spreadRGB(pix, img.Pix)
	table.planes(dst, pix, img.W, img.H, false)
}

package sharding

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"lift/stream"
	"pgregory.net/rapid"
)

// The two implementations of the passes must agree to the bit: a node built without
// one of them would compute another result.
func TestResampleInCAndGoAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, out := rapid.IntRange(1, 90).Draw(t, "in"), rapid.IntRange(1, 70).Draw(t, "out")
		rows := rapid.IntRange(1, 9).Draw(t, "rows")
		from := rapid.IntRange(0, out-1).Draw(t, "from")
		var a axis
		filter := rapid.SampledFrom([]Interpolation{Bilinear, Bicubic}).Draw(t, "filter")
		a.set(in, out, filter, outputs{from, from + rapid.IntRange(1, out-from).Draw(t, "n")})
		src := noise(4 * in * (rows + 2))
		got, want := make([]byte, 4*rows*len(a.first)), make([]byte, 4*rows*len(a.first))
		resampleRows(got, src, rows, in, &a)
		resampleRowsGo(want, src, rows, in, &a)
		if !bytes.Equal(got, want) {
			t.Fatal("rows differ")
		}
		resampleColumns(got, src, rows, rows+1, &a)
		resampleColumnsGo(want, src, rows, rows+1, &a)
		if !bytes.Equal(got, want) {
			t.Fatal("columns differ")
		}
	})
}

func noise(n int) []byte {
	s := stream.New(uint64(n), stream.Synthetic, 0, 0)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.Uint64n(256))
	}
	return b
}

// resize resamples all of an image in two passes: what Pillow does, step by step.
func resize(img *RGB, width, height int, filter Interpolation) *RGB {
	var columns, rows axis
	columns.set(img.W, width, filter, outputs{0, width})
	rows.set(img.H, height, filter, outputs{0, height})
	src := make([]byte, 4*img.W*img.H)
	spreadRGB(src, img.Pix)
	dst := make([]byte, 4*width*height)
	if verticalFirst(Box{0, 0, img.H, img.W}, width, height) {
		middle := make([]byte, 4*img.W*height)
		resampleColumnsGo(middle, src, img.W, img.W, &rows)
		resampleRowsGo(dst, middle, height, img.W, &columns)
	} else {
		middle := make([]byte, 4*width*img.H)
		resampleRowsGo(middle, src, img.H, img.W, &columns)
		resampleColumnsGo(dst, middle, width, width, &rows)
	}
	out := &RGB{W: width, H: height, Pix: make([]byte, 3*width*height)}
	for i := range width * height {
		copy(out.Pix[3*i:3*i+3], dst[4*i:])
	}
	return out
}

// cropOf copies a box of an image, mirrored with flip.
func cropOf(img *RGB, b Box, flip bool) *RGB {
	out := &RGB{W: b.Width, H: b.Height}
	for y := range b.Height {
		for x := range b.Width {
			if flip {
				x = b.Width - 1 - x
			}
			out.Pix = append(out.Pix, img.Pix[3*((b.Top+y)*img.W+b.Left+x):][:3]...)
		}
	}
	return out
}

func TestResizeKeepsFlatColourAndIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		side := rapid.IntRange(1, 40).Draw(t, "side")
		filter := rapid.SampledFrom([]Interpolation{Bilinear, Bicubic}).Draw(t, "filter")
		img := &RGB{W: side, H: side, Pix: noise(3 * side * side)}
		whole := Box{0, 0, side, side}
		if same := ResizedCrop(img, whole, side, false, filter); !bytes.Equal(same.Pix, img.Pix) {
			t.Fatal("a resize to the same size changes the image")
		}
		c := byte(rapid.IntRange(0, 255).Draw(t, "colour"))
		for i := range img.Pix {
			img.Pix[i] = c
		}
		out := ResizedCrop(img, whole, rapid.IntRange(1, 60).Draw(t, "size"), true, filter)
		if i := slices.IndexFunc(out.Pix, func(v byte) bool { return v != c }); i >= 0 {
			t.Fatalf("flat colour %d became %d", c, out.Pix[i])
		}
	})
}

// allKinds has a Transform of each kind.
func allKinds() map[string]Transform {
	all := map[string]Transform{
		"train": {Kind: Train}, "test": {Kind: Test}, "plain": {Kind: Plain}, "five": {Kind: TestFive, Expand: 3}, "ten": {Kind: TestTen, Expand: 6},
		"random": {Kind: TestRandom, Times: 3}, "minimalist": {Kind: TrainMinimalist, Schedule: CropsConvex, Epochs: 4},
	}
	for name, t := range all {
		t.Mean, t.Std = clipTransform.Mean, clipTransform.Std
		all[name] = t
	}
	return all
}

// The loader's one pass over a region must be what the whole chain of the reference
// does step by step: decode, resize, crop, mirror, normalise.
func TestTransformIsTheChainOfItsSteps(t *testing.T) {
	for name, data := range testImages(t) {
		img, err := DecodeRGB(data)
		if err != nil {
			t.Fatal(err)
		}
		var w worker
		for kind, tr := range allKinds() {
			for id := range 8 {
				tr.Resolution, tr.Interpolation = 20+id, Interpolation(id%2)
				got := make([]float32, tr.values())
				if err := w.transform(data, &tr, 5, 2, id, got); err != nil {
					t.Fatal(err)
				}
				if tr.Kind != Train && tr.Kind != TrainMinimalist && (tr.Kind != TestRandom || id == 0) {
					if alone, err := tr.Image(data, 5); err != nil || !slices.Equal(alone, got) {
						t.Fatalf("%s: Image differs from the sample: %v", name, err)
					}
				}
				var want []float32
				for _, crop := range chain(img, &tr, 5, 2, id) {
					values := make([]float32, len(crop.Pix))
					Normalize(values, crop, tr.Mean, tr.Std)
					want = append(want, values...)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%s, %s, sample %d: the pass differs from its steps", name, kind, id)
				}
			}
		}
	}
}

// chain is what tr makes of an image, step by step.
func chain(img *RGB, tr *Transform, seed uint64, epoch, id int) []*RGB {
	R := tr.Resolution
	cut := func(b Box, flip bool) *RGB {
		return cropOf(resize(cropOf(img, b, false), R, R, tr.Interpolation), Box{0, 0, R, R}, flip)
	}
	crops := stream.New(seed, stream.Crop, uint64(epoch), uint64(id))
	flips := stream.New(seed, stream.Flip, uint64(epoch), uint64(id))
	switch tr.Kind {
	case Train:
		return []*RGB{cut(RandomResizedCropBox(&crops, img.W, img.H, cropScale, cropRatio), flips.Float64() < 0.5)}
	case TrainMinimalist:
		return []*RGB{cut(MinimalistBox(&crops, img.W, img.H, tr.Schedule.minScale(epoch, tr.Epochs)), false)}
	case TestRandom:
		var all []*RGB
		for n := range tr.Times {
			s := stream.New(seed, stream.Expand, uint64(n), uint64(id))
			box := RandomResizedCropBox(&s, img.W, img.H, cropScale, cropRatio)
			all = append(all, cut(box, s.Float64() < 0.5))
		}
		return all
	}
	shorter := map[TransformKind]int{Test: R * 8 / 7, Plain: R, TestFive: R + tr.Expand, TestTen: R + tr.Expand}[tr.Kind]
	w, h := shorterSide(img.W, img.H, shorter)
	big := resize(img, w, h, tr.Interpolation)
	five := func(big *RGB) []*RGB {
		middle := Box{centre(h, R), centre(w, R), R, R}
		var all []*RGB
		for _, b := range []Box{{0, 0, R, R}, {0, w - R, R, R}, {h - R, 0, R, R}, {h - R, w - R, R, R}, middle} {
			all = append(all, cropOf(big, b, false))
		}
		return all
	}
	switch all := five(big); tr.Kind {
	case TestFive:
		return all
	case TestTen:
		return append(all, five(cropOf(big, Box{0, 0, h, w}, true))...)
	default:
		return all[4:]
	}
}

func TestFlipsAreHalf(t *testing.T) {
	flips := 0
	for id := range 4000 {
		var p plan
		if clipTransform.plan(&p, 50, 40, 1, 0, id); p.crops[0].flip {
			flips++
		}
	}
	if flips < 1850 || flips > 2150 { // 4.7 standard deviations
		t.Errorf("%d of 4000 images flipped", flips)
	}
}

func TestTransformAllocatesNothingInTheSteadyState(t *testing.T) {
	images := [][]byte{append([]byte("P5\n40 50\n255\n"), noise(2000)...)}
	if readsJPEG {
		images = append(images, testImages(t)["photo.jpg"])
	}
	var w worker
	for kind, tr := range allKinds() {
		tr.Resolution = 32
		dst := make([]float32, tr.values())
		run := func() {
			for id := range 20 {
				if err := w.transform(images[id%len(images)], &tr, 1, 0, id, dst); err != nil {
					t.Fatal(err)
				}
			}
		}
		run()
		if n := testing.AllocsPerRun(5, run); n > 20*2 { // a picture and a message buffer each
			t.Errorf("%s: %v allocations for 20 images, want at most two small ones each", kind, n)
		}
	}
}

// A thread of an image becomes very long when its shorter side is resized; only the
// part that is kept may cost anything.
func TestExtremeShapes(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {1, 1000000}, {1000000, 1}, {2, 300000}} {
		header := fmt.Appendf(nil, "P5\n%d %d\n255\n", size[0], size[1])
		data := append(header, make([]byte, size[0]*size[1])...)
		var w worker
		for kind, tr := range allKinds() {
			tr.Resolution, tr.Interpolation = 224, Bicubic
			dst := make([]float32, tr.values())
			if err := w.transform(data, &tr, 1, 0, 0, dst); err != nil {
				t.Fatal(err)
			}
			if want := (0 - tr.Mean[2]) / tr.Std[2]; dst[len(dst)-1] != want {
				t.Errorf("%v, %s: black became %v, want %v", size, kind, dst[len(dst)-1], want)
			}
			if n := cap(w.middle) + cap(w.out) + cap(w.horizontal.weights) + cap(w.vertical.weights); n > 32<<20 {
				t.Errorf("%v, %s: %d values of scratch", size, kind, n)
			}
		}
	}
}

// Several crops of an image share its decoding.
func TestImagesAreDecodedOnce(t *testing.T) {
	decode, decoded := pnmCodec.decode, 0
	defer func() { pnmCodec.decode = decode }()
	pnmCodec.decode = func(d *decoder, data []byte, pic *picture) error {
		decoded++
		return decode(d, data, pic)
	}
	data := append([]byte("P5\n40 50\n255\n"), noise(2000)...)
	for kind, tr := range allKinds() {
		tr.Resolution, decoded = 16, 0
		var w worker
		if err := w.transform(data, &tr, 1, 0, 0, make([]float32, tr.values())); err != nil || decoded != 1 {
			t.Errorf("%s: decoded %d times, %v", kind, decoded, err)
		}
	}
}

package sharding

import (
	"bytes"
	"fmt"
	"math"
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
		a.set(in, out, from, rapid.IntRange(1, out-from).Draw(t, "n"))
		src := noise(4 * in * rows)
		got, want := make([]byte, 4*rows*len(a.first)), make([]byte, 4*rows*len(a.first))
		resampleRows(got, src, rows, in, &a)
		resampleRowsGo(want, src, rows, in, &a)
		if !bytes.Equal(got, want) {
			t.Fatal("rows differ")
		}
		resampleColumns(got, src, rows, &a)
		resampleColumnsGo(want, src, rows, &a)
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

func TestResizeKeepsFlatColourAndIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 40).Draw(t, "w"), rapid.IntRange(1, 40).Draw(t, "h")
		img := &RGB{W: w, H: h, Pix: noise(3 * w * h)}
		if same := Resize(img, w, h); !bytes.Equal(same.Pix, img.Pix) {
			t.Fatal("a resize to the same size changes the image")
		}
		c := byte(rapid.IntRange(0, 255).Draw(t, "colour"))
		for i := range img.Pix {
			img.Pix[i] = c
		}
		out := Resize(img, rapid.IntRange(1, 60).Draw(t, "W"), rapid.IntRange(1, 60).Draw(t, "H"))
		if i := slices.IndexFunc(out.Pix, func(v byte) bool { return v != c }); i >= 0 {
			t.Fatalf("flat colour %d became %d", c, out.Pix[i])
		}
	})
}

// The loader's one pass over a region must be what the whole chain of the reference
// does step by step: decode, crop, resize, flip, normalise.
func TestTransformIsTheChainOfItsSteps(t *testing.T) {
	for name, data := range testImages(t) {
		img, err := DecodeRGB(data)
		if err != nil {
			t.Fatal(err)
		}
		var w worker
		for _, kind := range []TransformKind{Train, Test, Plain} {
			for id := range 8 {
				tr := clipTransform
				tr.Kind, tr.Resolution = kind, 20+id
				got := make([]float32, 3*tr.Resolution*tr.Resolution)
				if err := w.transform(data, &tr, 5, 2, id, got); err != nil {
					t.Fatal(err)
				}
				want := make([]float32, len(got))
				if kind != Train {
					if alone, err := tr.Image(data); err != nil || !slices.Equal(alone, got) {
						t.Fatalf("%s: Image differs from the sample: %v", name, err)
					}
				}
				Normalize(want, chain(img, &tr, 5, 2, id), tr.Mean, tr.Std)
				if !slices.Equal(got, want) {
					t.Fatalf("%s, transform %d, sample %d: the pass differs from its steps", name, kind, id)
				}
			}
		}
	}
}

func chain(img *RGB, tr *Transform, seed uint64, epoch, id int) *RGB {
	switch tr.Kind {
	case Test:
		return CenterCrop(ResizeShorter(img, tr.Resolution*8/7), tr.Resolution)
	case Plain:
		return CenterCrop(ResizeShorter(img, tr.Resolution), tr.Resolution)
	}
	crop := stream.New(seed, stream.Crop, uint64(epoch), uint64(id))
	flip := stream.New(seed, stream.Flip, uint64(epoch), uint64(id))
	box := RandomResizedCropBox(&crop, img.W, img.H, cropScale, cropRatio)
	return ResizedCrop(img, box, tr.Resolution, flip.Float64() < 0.5)
}

func TestFlipsAreHalf(t *testing.T) {
	flips := 0
	for id := range 4000 {
		if clipTransform.plan(50, 40, 1, 0, id).flip {
			flips++
		}
	}
	if flips < 1850 || flips > 2150 { // 4.7 standard deviations
		t.Errorf("%d of 4000 images flipped", flips)
	}
}

func TestCropBoxesAreInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 3000).Draw(t, "w"), rapid.IntRange(1, 3000).Draw(t, "h")
		s := stream.New(rapid.Uint64().Draw(t, "seed"), stream.Crop, 0, 0)
		b := RandomResizedCropBox(&s, w, h, cropScale, cropRatio)
		if b.Width < 1 || b.Height < 1 || b.Left < 0 || b.Top < 0 || b.Left+b.Width > w || b.Top+b.Height > h {
			t.Fatalf("box %+v of %d × %d", b, w, h)
		}
	})
}

func TestExp(t *testing.T) {
	for x := -8.0; x < 8; x += 0.0137 {
		if got, want := exp(x), math.Exp(x); math.Abs(got-want) > 4e-14*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
}

func TestTransformAllocatesNothingInTheSteadyState(t *testing.T) {
	images := [][]byte{append([]byte("P5\n40 50\n255\n"), noise(2000)...)}
	if readsJPEG {
		images = append(images, testImages(t)["photo.jpg"])
	}
	var w worker
	tr := clipTransform
	tr.Resolution = 32
	dst := make([]float32, 3*32*32)
	run := func() {
		for id := range 20 {
			if err := w.transform(images[id%len(images)], &tr, 1, 0, id, dst); err != nil {
				t.Fatal(err)
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(5, run); n > 20*2 { // a picture and a message buffer each
		t.Errorf("%v allocations for 20 images, want at most two small ones each", n)
	}
}

// A thread of an image becomes very long when its shorter side is resized; only the
// part that is kept may cost anything.
func TestExtremeShapes(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {1, 1000000}, {1000000, 1}, {2, 300000}} {
		header := fmt.Appendf(nil, "P5\n%d %d\n255\n", size[0], size[1])
		data := append(header, make([]byte, size[0]*size[1])...)
		var w worker
		for _, kind := range []TransformKind{Train, Test, Plain} {
			tr := clipTransform
			tr.Kind = kind
			dst := make([]float32, 3*224*224)
			if err := w.transform(data, &tr, 1, 0, 0, dst); err != nil {
				t.Fatal(err)
			}
			if want := (0 - tr.Mean[2]) / tr.Std[2]; dst[len(dst)-1] != want {
				t.Errorf("%v: black became %v, want %v", size, dst[len(dst)-1], want)
			}
		}
		if n := len(w.middle) + len(w.horizontal.weights) + len(w.vertical.weights); n > 32<<20 {
			t.Errorf("%v: %d values of scratch", size, n)
		}
	}
}

package peft

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lift/model/vit"
	"lift/stream"
)

// A choice has exactly n positions, whatever n, and is the same for the same stream.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 500).Draw(t, "total")
		n := rapid.IntRange(0, total+3).Draw(t, "n")
		seed := rapid.Uint64().Draw(t, "seed")
		pick := func() (all []int) {
			s := stream.New(seed, stream.Mask, 0, 1)
			chosen := choose(&s, total, n)
			for p := range total {
				if chosen(p) {
					all = append(all, p)
				}
			}
			return all
		}
		if got := pick(); len(got) != min(n, total) || !slices.Equal(got, pick()) {
			t.Fatalf("%d of %d positions: %v", n, total, got)
		}
	})
}

// Each position is chosen as often as any other, also where the positions that stay are drawn.
func TestChooseIsFair(t *testing.T) {
	const total, draws = 20, 4000
	for _, n := range []int{3, 10, 17} {
		var times [total]float64
		for id := range uint64(draws) {
			s := stream.New(1, stream.Mask, 0, id)
			chosen := choose(&s, total, n)
			for p := range total {
				if chosen(p) {
					times[p]++
				}
			}
		}
		share := float64(n) / total
		sigma := math.Sqrt(draws * share * (1 - share))
		for p, k := range times {
			if math.Abs(k-draws*share) > 4.5*sigma {
				t.Errorf("position %d of %d is chosen %v times of %d; wanted about %v", p, total, k, draws, draws*share)
			}
		}
	}
}

// A mask has the reference's number of ones over a layer's weight and bias together; aft's over each.
func TestMaskCounts(t *testing.T) {
	w := timm(t, 2)
	for _, ratio := range []float64{0.01, 0.3, 0.8, 1} {
		counts := func(method string) map[string]int {
			n := map[string]int{}
			tuner := attach(t, w, Options{Methods: []string{method}, MaskRatio: ratio, AFTRatio: ratio})
			for _, m := range tuner.Masks {
				n[m.Name] = len(m.Index)
			}
			return n
		}
		joint, apart := counts("mask"), counts("aft")
		if len(joint) != 16 || len(apart) != 16 {
			t.Fatalf("%d and %d masks; wanted 16", len(joint), len(apart))
		}
		for block := range 2 {
			for _, l := range maskedLayers {
				weight := w.Block(block, l.part)
				out, in := weight.Dims[0], weight.Dims[1]
				name := func(list, of string) string {
					return "tuner." + list + "." + string(rune('0'+block)) + "." + l.name + "." + of
				}
				got := joint[name("masked_linear_list", "weight")] + joint[name("masked_linear_list", "bias")]
				if want := MaskedCount(out, in, ratio); got != want {
					t.Errorf("mask of %v, %s: %d positions; wanted %d", ratio, l.name, got, want)
				}
				ofWeight, ofBias := apart[name("aft_list", "weight")], apart[name("aft_list", "bias")]
				if ofWeight != int(float64(out*in)*ratio) || ofBias != int(float64(out)*ratio) {
					t.Errorf("aft of %v, %s: %d and %d positions", ratio, l.name, ofWeight, ofBias)
				}
			}
		}
	}
}

// Masks are a function of seed and layer alone, differ between layers and seeds, and read back what they write.
func TestMasksAreKeyed(t *testing.T) {
	w := timm(t, 2)
	for _, method := range []string{"mask", "aft"} {
		o := Options{Methods: []string{method}, MaskRatio: 0.2, AFTRatio: 0.2, MaskSeed: 7}
		all := attach(t, w, o).Masks
		o.Partial = []int{1}
		for i, m := range attach(t, w, o).Masks {
			if other := all[8+i]; m.Name != other.Name || !slices.Equal(m.Index, other.Index) {
				t.Errorf("%s depends on what else is masked", m.Name)
			}
			if first := all[i]; slices.Equal(m.Index, first.Index) && len(m.Index) > 3 {
				t.Errorf("%s and %s are the same", m.Name, first.Name)
			}
		}
		o.MaskSeed++
		if other := attach(t, w, o).Masks[0]; slices.Equal(other.Index, all[8].Index) {
			t.Errorf("%s: another seed, the same mask", method)
		}
		o.Masks = map[string]Mask{}
		for _, m := range all[8:] {
			back, err := NewMask(m.Name, m.Bytes())
			if err != nil || !slices.Equal(back.Index, m.Index) {
				t.Errorf("%s reads back as %v, %v", m.Name, back.Index, err)
			}
			o.Masks[m.Name] = back
		}
		tuner := attach(t, w, o)
		for i, m := range tuner.Masks {
			if want := all[8+i]; !slices.Equal(m.Index, want.Index) || !slices.Equal(m.Dims, want.Dims) {
				t.Errorf("%s is not the mask that was given", m.Name)
			}
		}
		own := w.Block(1, vit.QKVWeight)
		for _, p := range tuner.Params {
			if strings.HasSuffix(p.Name, "attn_in.optimized_weight") {
				values := make([]float32, p.Dims[0])
				p.Init(values, nil)
				for i, v := range values {
					if v != own.Values[tuner.Masks[0].Index[i]] {
						t.Fatalf("%s: value %d does not start at the backbone's", p.Name, i)
					}
				}
			}
		}
	}
}

func TestBadMasks(t *testing.T) {
	w := timm(t, 1)
	good := func() map[string]Mask {
		masks := map[string]Mask{}
		for _, m := range attach(t, w, Options{Methods: []string{"mask"}, MaskRatio: 0.1}).Masks {
			masks[m.Name] = m
		}
		return masks
	}
	const name = "tuner.masked_linear_list.0.mlp_in.bias"
	for want, change := range map[string]func(masks map[string]Mask){
		"the mask " + name + " is missing": func(m map[string]Mask) { delete(m, name) },
		"wanted shape [24], found [23]":    func(m map[string]Mask) { m[name] = Mask{Dims: []int{23}} },
		"not sorted within the shape":      func(m map[string]Mask) { m[name] = Mask{Dims: []int{24}, Index: []int32{4, 4}} },
		"the shape [24]":                   func(m map[string]Mask) { m[name] = Mask{Dims: []int{24}, Index: []int32{24}} },
		"other is of no layer":             func(m map[string]Mask) { m["other"] = Mask{} },
	} {
		masks := good()
		change(masks)
		if _, err := New(w, Options{Methods: []string{"mask"}, Masks: masks}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
	}
	if _, err := NewMask("m", []byte{0, 1, 2}); err == nil || !strings.Contains(err.Error(), "value 2 is 2") {
		t.Errorf("a mask of 2: %v", err)
	}
}

func TestAFTRatio(t *testing.T) {
	for loc, want := range map[string]float64{locAttn: 100.0 / (3 * (12*4 + 4)), locMLP: 100.0 / (3 * (12*8 + 5)), locAll: 100.0 / (3 * (12*12 + 9))} {
		if got := aftRatio(100, 3, 12, loc); got != want {
			t.Errorf("%s: %v; wanted %v", loc, got, want)
		}
	}
	if got := aftRatio(10000, 1, 2, locAttn); got != 1 {
		t.Errorf("the ratio is %v", got)
	}
	tuner := attach(t, timm(t, 1), Options{Methods: []string{"aft"}, AFTLoc: locMLP, Classes: 5})
	for _, m := range tuner.Masks {
		if !strings.Contains(m.Name, ".mlp_") {
			t.Errorf("aft of the MLP masks %s", m.Name)
		}
	}
}

//go:build cgo

package vit

import (
	"math"
	"testing"

	"lift/model/autograd"
	"lift/model/tensor"
	"lift/model/tensor/cpu/cputest"
	"lift/stream"
)

// onDevice runs f with a tape on a CPU device.
func onDevice(t *testing.T, f func(tape *autograd.Tape)) {
	t.Helper()
	tape := autograd.New(cputest.Open(t))
	defer tape.Close()
	f(tape)
}

func frozen(x *Tensor) *autograd.Param {
	return &autograd.Param{Name: x.Name, Value: tensor.FromF32(x.Values, x.Dims...)}
}

func randoms(id uint64, n int) []float32 {
	s := stream.New(7, stream.Synthetic, 1, id)
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(s.Normal())
	}
	return out
}

// everyHook uses every point as some method of LIFT does: prompts, scales and shifts, low-rank additions, a masked weight, a branch.
func everyHook(a Arch) *Hooks {
	d := a.Width
	scale := func(id uint64, n int) *autograd.Param {
		v := randoms(id, n)
		for i := range v {
			v[i] = 1 + 0.1*v[i]
		}
		return &autograd.Param{Value: tensor.FromF32(v, n)}
	}
	ssf := func(id uint64, n int) ValueHook {
		s, b := scale(id, n), &autograd.Param{Value: tensor.FromF32(randoms(id+50, n), n)}
		return func(t *autograd.Tape, x *autograd.Var) *autograd.Var { return t.ScaleShift(x, t.Use(s), t.Use(b)) }
	}
	ssfOut := func(id uint64, n int) OutputHook {
		s, b := scale(id, n), &autograd.Param{Value: tensor.FromF32(randoms(id+50, n), n)}
		return func(t *autograd.Tape, _, y *autograd.Var, from, to int) *autograd.Var {
			return t.ScaleShift(y, t.Rows(t.Use(s), from, to), t.Rows(t.Use(b), from, to))
		}
	}
	added := &autograd.Param{Value: tensor.FromF32(randoms(3, 3*d*d), 3*d, d)} // depends on the layer's input
	branch := &autograd.Param{Value: tensor.FromF32(randoms(4, d*d), d, d)}
	prompt := &autograd.Param{Value: tensor.FromF32(randoms(5, 2*d), 2, d)}
	h := NewHooks(a.Layers)
	for i := range h.Blocks {
		b := &h.Blocks[i]
		b.Tokens, b.Reads = []ValueHook{func(t *autograd.Tape, x *autograd.Var) *autograd.Var {
			return t.ConcatTokens(x, a.Tokens(), t.Use(prompt))
		}}, a.Tokens()
		b.LN1, b.LN2 = []ValueHook{ssf(10, d)}, []ValueHook{ssf(11, d)}
		b.QKV.Weight = []WeightHook{func(t *autograd.Tape, w, bias *autograd.Var) (*autograd.Var, *autograd.Var) {
			return t.Scale(w, 0.9), t.Scale(bias, 1.1)
		}}
		b.QKV.Output = []OutputHook{func(t *autograd.Tape, x, y *autograd.Var, from, to int) *autograd.Var {
			return t.Add(y, t.Scale(t.Linear(x, t.Rows(t.Use(added), from, to), nil), 0.05))
		}, ssfOut(12, 3*d)}
		b.Out.Output = []OutputHook{ssfOut(13, d)}
		b.MLPIn.Output = []OutputHook{ssfOut(14, a.MLP)}
		b.MLPOut.Output = []OutputHook{ssfOut(15, d)}
		b.Branch = []BranchHook{func(t *autograd.Tape, x, y *autograd.Var) *autograd.Var {
			return t.Add(y, t.Scale(t.Linear(x, t.Use(branch), nil), 0.1))
		}}
	}
	return h
}

// forwardWhole is Forward with all tokens carried through every block.
func (m *Model) forwardWhole(t *autograd.Tape, images *autograd.Var, h *Hooks) *autograd.Var {
	x := m.embed(t, images)
	for i := range m.blocks {
		x = m.block(t, i, x, h.block(i), 0, nil)
	}
	return m.norm(t, t.SliceTokens(x, 0, 1), m.stem[lnPostGain], m.stem[lnPostBias])
}

// What nobody reads is not computed, and the features are those of carrying every token through every block, hooks or not.
func TestOnlyWhatIsRead(t *testing.T) {
	for family, a := range small {
		w, err := Random(a, 3)
		if err != nil {
			t.Fatal(err)
		}
		for name, hooks := range map[string]*Hooks{"no hooks": nil, "every hook": everyHook(a)} {
			t.Run(string(family)+"/"+name, func(t *testing.T) {
				onDevice(t, func(tape *autograd.Tape) {
					const images = 3
					m := NewModel(w, frozen)
					in := randoms(1, images*3*a.Resolution*a.Resolution)
					run := func(forward func(*autograd.Tape, *autograd.Var, *Hooks) *autograd.Var) []float32 {
						tape.Reset(false)
						x := tape.Input(tensor.FromF32(in, images, 3, a.Resolution, a.Resolution))
						return append([]float32(nil), forward(tape, x, hooks).Value().F32()...)
					}
					short, whole := run(m.Forward), run(m.forwardWhole)
					if len(short) != images*a.Width || len(whole) != len(short) {
						t.Fatalf("%d and %d values; wanted %d", len(short), len(whole), images*a.Width)
					}
					for i := range short {
						if d := math.Abs(float64(short[i] - whole[i])); !(d < 2e-5) {
							t.Fatalf("value %d: %v, carried through whole %v", i, short[i], whole[i])
						}
					}
				})
			})
		}
	}
}

// Each hook point must change the features; one that nobody calls would not.
func TestEveryHookPointIsReached(t *testing.T) {
	a := small[CLIP]
	w, err := Random(a, 3)
	if err != nil {
		t.Fatal(err)
	}
	points := map[string]func(to, from *BlockHooks){
		"tokens":    func(to, from *BlockHooks) { to.Tokens = from.Tokens },
		"ln1":       func(to, from *BlockHooks) { to.LN1 = from.LN1 },
		"qkvWeight": func(to, from *BlockHooks) { to.QKV.Weight = from.QKV.Weight },
		"qkv":       func(to, from *BlockHooks) { to.QKV.Output = from.QKV.Output },
		"out":       func(to, from *BlockHooks) { to.Out = from.Out },
		"ln2":       func(to, from *BlockHooks) { to.LN2 = from.LN2 },
		"mlpIn":     func(to, from *BlockHooks) { to.MLPIn = from.MLPIn },
		"mlpOut":    func(to, from *BlockHooks) { to.MLPOut = from.MLPOut },
		"branch":    func(to, from *BlockHooks) { to.Branch = from.Branch },
	}
	all := everyHook(a)
	onDevice(t, func(tape *autograd.Tape) {
		m := NewModel(w, frozen)
		in := randoms(1, 3*a.Resolution*a.Resolution)
		features := func(h *Hooks) []float32 {
			tape.Reset(false)
			x := tape.Input(tensor.FromF32(in, 1, 3, a.Resolution, a.Resolution))
			return append([]float32(nil), m.Forward(tape, x, h).Value().F32()...)
		}
		plain := features(nil)
		for name, set := range points {
			for block := range a.Layers {
				h := NewHooks(a.Layers)
				set(&h.Blocks[block], &all.Blocks[block])
				change := 0.0
				for i, v := range features(h) {
					change = max(change, math.Abs(float64(v-plain[i])))
				}
				if !(change > 1e-3) {
					t.Errorf("%s of block %d changes the features by %v", name, block, change)
				}
			}
		}
	})
}

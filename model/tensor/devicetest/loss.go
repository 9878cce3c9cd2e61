package devicetest

import (
	"fmt"
	"math"

	"lift/model/tensor"
)

// CrossEntropy is the sum over rows of c logits of the loss that terms describe.
func CrossEntropy(logits []float64, labels []int32, c int, terms tensor.LossTerms) float64 {
	total := 0.0
	for r, l := range labels {
		loss, _ := crossEntropyOf(logits[r*c:(r+1)*c], int(l), terms)
		total += loss
	}
	return total
}

// crossEntropyOf is one row's loss and its derivative written out.
func crossEntropyOf(logits []float64, label int, terms tensor.LossTerms) (loss float64, slope []float64) {
	z := append([]float64(nil), logits...)
	top := math.Inf(-1)
	for i := range z {
		if terms.Adjust != nil {
			z[i] += float64(terms.Adjust[i])
		}
		if terms.Margin != nil && i == label {
			z[i] -= float64(terms.Margin[i])
		}
		top = math.Max(top, z[i])
	}
	rest := 0.0
	for i, v := range z {
		if i != label {
			rest += math.Exp(v - top)
		}
	}
	own := math.Exp(z[label] - top)
	w, nll := 1.0, math.Log(rest+own)+top-z[label]
	if z[label] == top {
		nll = math.Log1p(rest)
	}
	if terms.Weight != nil {
		w = float64(terms.Weight[label])
	}
	p, q := own/(rest+own), rest/(rest+own)
	loss, k := w*nll, w
	if terms.Focal {
		loss, k = w*q*q*nll, w*(q*q+2*p*q*nll)
	}
	for i, v := range z {
		slope = append(slope, k*math.Exp(v-top)/(rest+own))
		if i == label {
			slope[i] = -k * q
		}
	}
	return loss, slope
}

// LADE is what Kernels.LADE adds to the loss.
func LADE(logits []float64, labels []int32, c int, terms tensor.LADETerms) float64 {
	loss, _, _, _ := ladeOf(logits, labels, c, terms)
	return loss
}

// ladeOf is LADE and its derivative written out, and how far each moves, over e, when all sums of exponentials and each class's share of them are off by
// a share of e.
func ladeOf(logits []float64, labels []int32, c int, terms tensor.LADETerms) (loss float64, slope []float64, moves float64, slopeMoves []float64) {
	m := len(labels)
	slope, slopeMoves = make([]float64, m*c), make([]float64, m*c)
	for k := range c {
		first, own, top, sum := 0.0, 0.0, math.Inf(-1), 0.0
		for r, l := range labels {
			if int(l) == k {
				first += logits[r*c+k]
				own++
			}
			top = math.Max(top, logits[r*c+k])
		}
		for r := range labels {
			sum += math.Exp(logits[r*c+k] - top)
		}
		own = math.Max(own, 1)
		second := math.Log(sum/float64(m)) + top + float64(terms.Shift[k])
		weight, lambda := float64(terms.Weight)*float64(terms.Prior[k]), float64(terms.Lambda)
		loss -= weight * (first/own - second - lambda*second*second)
		moves += math.Abs(weight) * (1 + 2*lambda*math.Abs(second))
		for r, l := range labels {
			share := math.Exp(logits[r*c+k]-top) / sum
			slope[r*c+k] = weight * (1 + 2*lambda*second) * share
			slopeMoves[r*c+k] = math.Abs(weight) * (math.Abs(1+2*lambda*second) + 2*lambda) * share
			if int(l) == k {
				slope[r*c+k] -= weight / own
				slopeMoves[r*c+k] += math.Abs(weight) / own
			}
		}
	}
	return loss, slope, moves, slopeMoves
}

// tiny is what may be lost where an exponential is too small for a float32.
const tiny = 0x1p-120

// lossShapes are rows and classes: within one vector, across several, and as many classes as there are species in iNaturalist 2018.
var lossShapes = [][2]int{{1, 1}, {3, 10}, {4, 33}, {2, 1000}, {3, 8142}}

func (s *suite) crossEntropy() {
	for _, shape := range lossShapes {
		m, n := shape[0], shape[1]
		labels := make([]int32, m)
		for i := range labels {
			labels[i] = int32((i*7 + n - 1) % n)
		}
		by := func(seed uint64, scale float64) []float32 {
			v := values(seed, n)
			for i := range v {
				v[i] = float32(scale * math.Abs(float64(v[i])))
			}
			return v
		}
		out := by(8, 1)
		out[n/2] = float32(math.Inf(-1)) // a class that is never seen
		for name, terms := range map[string]tensor.LossTerms{
			"plain": {}, "adjusted": {Adjust: by(5, -3)}, "with margins": {Margin: by(6, 12)}, "weighted": {Weight: by(7, 2)},
			"focal": {Focal: true}, "all": {Adjust: by(5, -3), Margin: by(6, 1), Weight: by(7, 2), Focal: true}, "without a class": {Adjust: out},
		} {
			if n < 3 && terms.Adjust != nil && math.IsInf(float64(terms.Adjust[n/2]), -1) {
				continue
			}
			for _, scale := range []float32{1, 64, 1024} { // of the last, one class has all, wherever it is
				s.crossEntropyCase(fmt.Sprint(name, shape, scale), m, n, scale, 0, labels, terms)
			}
			s.crossEntropyCase(fmt.Sprint(name, shape, " sure"), m, n, 1, 14, labels, terms)
		}
	}
}

// crossEntropyCase checks one loss on normal logits times size, to which at each row's own class sure is added: of a large one the loss is small, and
// must not be a difference.
//
// With u = 2^-24 and |z| <= top, adjustment and margin cost top u each, z - (the largest z) costs 2 top u: so much is an exponential off, as a share of
// itself, and 8 u for exp; a sum of exponentials is off by 16 u more, for so many are added up in float32 before they meet in double. The odds of a
// row's own class then are off by a share of e = (24 + 8 top) u, the row's loss by e times its slope at the label, and a slope by 4 e of itself
// (focal: three factors and a logarithm).
func (s *suite) crossEntropyCase(name string, m, n int, size, sure float32, labels []int32, terms tensor.LossTerms) {
	v := values(uint64(n), m*n)
	for r, l := range labels {
		v[r*n+int(l)] += sure
	}
	logits := make([]float64, m*n)
	top := 0.0
	for i := range v {
		v[i] *= size
		logits[i] = float64(v[i])
		top = math.Max(top, math.Abs(logits[i])+finite(terms.Adjust, i%n)+finite(terms.Margin, i%n))
	}
	z := s.put(f32, v, 0, m, n)
	loss, dz := s.poison(f32, 1), s.poison(f32, m, n)
	const scale = 0.25
	s.dev.SoftmaxCrossEntropy(loss, dz, z, labels, terms, scale)
	e := (24 + 8*top) * 0x1p-24
	want, slope, limit := 0.0, []float64(nil), tiny
	for r, l := range labels {
		own, d := crossEntropyOf(logits[r*n:(r+1)*n], int(l), terms)
		want += own
		limit += e*math.Abs(d[l]) + 0x1p-23*own
		slope = append(slope, scaled(d, scale)...)
	}
	s.within("loss "+name, loss, []float64{want}, func(int) float64 { return limit })
	s.within("dlogits "+name, dz, slope, func(i int) float64 { return 4*e*math.Abs(slope[i]) + tiny })
	// What a row's own class loses the others gain, however sure the row is of its class.
	got := s.get(dz)
	for r, l := range labels {
		sum, rest := 0.0, 1e-30
		for i, x := range got[r*n : (r+1)*n] {
			sum += float64(x)
			if i != int(l) {
				rest += math.Abs(float64(x))
			}
		}
		if math.Abs(sum) > (16+float64(n)/8)*0x1p-24*rest {
			s.Errorf("%s: the slopes of row %d add up to %g, of %g", name, r, sum, rest)
		}
	}
	s.dev.SoftmaxCrossEntropy(loss, none, z, labels, terms, scale)
	s.within("loss alone "+name, loss, []float64{want}, func(int) float64 { return limit })
}

// finite is the magnitude of a value that may be infinite or not there.
func finite(v []float32, i int) float64 {
	if v == nil || math.IsInf(float64(v[i]), 0) {
		return 0
	}
	return math.Abs(float64(v[i]))
}

// lade checks LADE. With u = 2^-24 and |logits| <= top, an exponential is off by a share of (2 top + 8) u, a sum over m rows by m u more, of
// exponentials or of a class's own logits, which are top at most.

func (s *suite) lade() {
	for _, shape := range append(lossShapes, [2]int{37, 21}) {
		m, n := shape[0], shape[1]
		labels := make([]int32, m)
		for i := range labels {
			labels[i] = int32(i * i % min(n, 5)) // most classes are absent, some come twice
		}
		terms := tensor.LADETerms{Prior: make([]float32, n), Shift: values(4, n), Lambda: 0.1, Weight: 0.1 * float32(m)}
		for i := range terms.Prior {
			terms.Prior[i] = float32(2*i+1) / float32(n*n)
		}
		for _, size := range []float32{1, 64} {
			v := values(uint64(n), m*n)
			logits, top := make([]float64, m*n), 0.0
			for i := range v {
				v[i] *= size
				logits[i] = float64(v[i])
				top = math.Max(top, math.Abs(logits[i]))
			}
			z := s.put(f32, v, 0, m, n)
			loss, dz := s.poison(f32, 1), s.poison(f32, m, n)
			want, slope, moves, slopeMoves := ladeOf(logits, labels, n, terms)
			name := fmt.Sprint(shape, size)
			e := (2*(2*top+8) + float64(m)) * 0x1p-24
			// What is there is small, so that it does not hide what is added; and not zero, so that it is seen to stay.
			before := float32(0.25 / float64(n*n))
			s.dev.Fill(loss, before)
			s.dev.Fill(dz, before)
			for times := 1.0; times <= 2; times++ {
				s.dev.LADE(loss, dz, z, labels, terms, 0.25)
				s.within("loss "+name, loss, []float64{float64(before) + times*want}, func(int) float64 {
					return times * (e*(moves+top*float64(terms.Weight)) + 0x1p-24*(math.Abs(want)+float64(before)))
				})
				s.within("dlogits "+name, dz, sum(scaled(slope, 0.25*times), constant(float64(before), m*n)), func(i int) float64 {
					return times * (e*0.25*slopeMoves[i] + 2*0x1p-24*(float64(before)+0.25*slopeMoves[i]) + tiny)
				})
			}
			s.dev.LADE(loss, none, z, labels, terms, 0.25)
			s.within("loss alone "+name, loss, []float64{float64(before) + 3*want}, func(int) float64 {
				return 3 * (e*(moves+top*float64(terms.Weight)) + 0x1p-24*(math.Abs(want)+float64(before)))
			})
		}
	}
}

func constant(c float64, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = c
	}
	return v
}

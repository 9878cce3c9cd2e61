package node

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// probeBits are the fraction bits of the sums over all members in fixed point: as many as let no sum leave int64.
type probeBits struct{ gradient, value, moments int }

// valueReach is the binary logarithm of the mean loss up to which values are told apart: the search turns away from any larger.
const valueReach = 20

// measure looks at all members' features before the search. It finds, exactly,
//   - their mean, weighed as the loss weighs them: without it the intercepts and W move independently, and fewer digits are lost;
//   - how large a sum can become;
//   - their second moments, from which the metric is made.
func (p *probe) measure(ctx context.Context, counts []int, encode func(fixed []int64, features []float32) error, bits int) error {
	p.work = make([]probeMemory, p.pool.size)
	if err := p.findCentre(ctx, counts, encode, bits); err != nil {
		return err
	}
	moments, err := p.secondMoments(ctx)
	if err != nil || !p.first {
		return err
	}
	p.metric, err = newMetric(p.logistic, moments)
	return err
}

// exponents are those of a float32, from -150.
const exponents = 300

// findCentre sums the features by class. The largest exponent is a sum too: each member marks those that it has.
func (p *probe) findCentre(ctx context.Context, counts []int, encode func(fixed []int64, features []float32) error, bits int) error {
	sums := make([]int64, (p.width+1)*p.classes+exponents)
	byClass, there, seen := sums[:p.width*p.classes], sums[p.width*p.classes:][:p.classes], sums[(p.width+1)*p.classes:]
	fixed := make([]int64, p.width)
	for i, label := range p.labels {
		if label < 0 {
			continue
		}
		row := p.features[i*p.width : (i+1)*p.width]
		if err := encode(fixed, row); err != nil {
			return err
		}
		if err := addByClass(byClass, fixed, []int32{label}, counts); err != nil {
			return err
		}
		there[label]++
		for _, v := range row {
			_, e := math.Frexp(float64(v))
			seen[e+exponents/2] = 1
		}
	}
	if err := p.reducer.Reduce(ctx, sums); err != nil {
		return err
	}
	total := 0.0
	p.centre = make([]float64, p.width)
	for c, n := range there {
		if n == 0 {
			return fmt.Errorf("none of class %d's training images decodes, so a linear probe cannot tell it: drop the class or mend its images", c)
		}
		total += p.weights[c] * float64(n)
		for j := range p.centre {
			p.centre[j] += p.weights[c] * math.Ldexp(float64(byClass[c*p.width+j]), -bits)
		}
	}
	for j := range p.centre {
		p.centre[j] /= total
	}
	largest := 0 // exponent of the most that can be left of a feature without the centre
	for e, members := range seen {
		if members > 0 {
			largest = max(largest, e-exponents/2+1)
		}
	}
	_, n := math.Frexp(p.total)
	p.bits = probeBits{gradient: 61 - n - largest, value: 61 - n - valueReach, moments: 61 - n - 2*largest}
	return nil
}

// rows are this member's block i in float64, without the centre.
func (p *probe) rows(i int, m *probeMemory) []float64 {
	if m.x == nil {
		m.x = make([]float64, p.blockRows*p.width)
	}
	for r := range p.blockRows {
		from := p.features[(i*p.blockRows+r)*p.width:][:p.width]
		to := m.x[r*p.width:][:p.width]
		for j, v := range from {
			to[j] = float64(v) - p.centre[j]
		}
	}
	return m.x
}

// secondMoments is the sum over all members' rows of w x xᵀ, [width, width]; only the upper triangle is set.
func (p *probe) secondMoments(ctx context.Context) ([]float64, error) {
	p.sums = make([]int64, p.width*p.width)
	err := p.pool.each(ctx, len(p.labels)/p.blockRows, func(d *device, i int) error {
		m := &p.work[d.id]
		if m.moments == nil {
			m.moments = make([]float64, p.width*p.width)
		}
		clear(m.moments)
		x := p.rows(i, m)
		for r, label := range p.labels[i*p.blockRows : (i+1)*p.blockRows] {
			if label >= 0 {
				triangle := blas64.Symmetric{N: p.width, Stride: p.width, Data: m.moments, Uplo: blas.Upper}
				blas64.Syr(p.weights[label], vector(x[r*p.width:(r+1)*p.width]), triangle)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		addFixed(p.sums, m.moments, p.bits.moments)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range p.work {
		p.work[i].moments = nil // not needed again
	}
	if err := p.reducer.Reduce(ctx, p.sums); err != nil {
		return nil, err
	}
	moments := make([]float64, len(p.sums))
	for i, s := range p.sums {
		moments[i] = math.Ldexp(float64(s), -p.bits.moments)
	}
	return moments, nil
}

// addFixed adds values in fixed point to sums.
func addFixed(sums []int64, values []float64, bits int) {
	for i, v := range values {
		sums[i] += int64(math.RoundToEven(math.Ldexp(v, bits)))
	}
}

// metric is a change of variables after which the function curves about alike in all directions. A backbone's features vary in some directions a
// thousand times more than in others, and the search would take thousands of steps along them. With W = U L⁻¹, where L Lᵀ is the
// function's second derivative for one class while all classes are equally likely, it takes a few hundred.
type metric struct {
	classes, width int
	l              blas64.Triangular
	intercept      float64
}

// newMetric makes the metric of features with the given second moments.
func newMetric(l *logistic, moments []float64) (*metric, error) {
	curve := mat.NewSymDense(l.width, nil)
	for i := range l.width {
		for j := i; j < l.width; j++ {
			curve.SetSym(i, j, moments[i*l.width+j]/float64(l.classes))
		}
		curve.SetSym(i, i, curve.At(i, i)+1) // the penalty's
	}
	var factor mat.Cholesky
	if !factor.Factorize(curve) {
		return nil, errors.New("the features of the training images are too large for a linear probe: the weights are damaged")
	}
	var lower mat.TriDense
	factor.LTo(&lower)
	return &metric{l.classes, l.width, lower.RawTriangular(), 1 / math.Sqrt(l.total/float64(l.classes))}, nil
}

// variables writes W and b for the searched u.
func (m *metric) variables(x, u []float64) { m.change(x, u, blas.NoTrans) }

// slopes writes the gradient by u for that by W and b.
func (m *metric) slopes(slopes, gradient []float64) { m.change(slopes, gradient, blas.Trans) }

// change is the same map for both, but for the triangle's orientation: rows times L⁻¹ or its transpose.
func (m *metric) change(to, from []float64, orientation blas.Transpose) {
	copy(to, from)
	n := m.classes * m.width
	rows := blas64.General{Rows: m.classes, Cols: m.width, Stride: m.width, Data: to[:n]}
	blas64.Trsm(blas.Right, orientation, 1, m.l, rows)
	for i := n; i < len(to); i++ {
		to[i] *= m.intercept
	}
}

package node

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/optimize"
)

// minimiser minimises a smooth convex function by L-BFGS. Directions come from gonum; the steps along them are its own, for near the minimum
// of a sum over many samples the function's last digits are noise, while slopes still tell.
type minimiser struct {
	// eval writes the gradient at x and returns the function's value there.
	eval func(x, gradient []float64) (float64, error)
	// done says whether a point is near enough to the minimum.
	done func(x, gradient []float64) bool

	at, next optimize.Location
	dir      []float64
}

const (
	minimiserMemory     = 10   // pairs of steps and changes of gradient
	minimiserIterations = 1000 // directions
	minimiserTrials     = 60   // steps along one direction
	slopeLeft           = 0.9  // of the slope's magnitude, at the end of a search: Wolfe's curvature condition
	valueNoise          = 1e-10
)

// run starts at zeros of n variables and returns the best point and whether it is done there: false means that it could get no nearer.
func (m *minimiser) run(n int) (x []float64, done bool, err error) {
	m.at = optimize.Location{X: make([]float64, n), Gradient: make([]float64, n)}
	m.next = optimize.Location{X: make([]float64, n), Gradient: make([]float64, n)}
	m.dir = make([]float64, n)
	if m.at.F, err = m.eval(m.at.X, m.at.Gradient); err != nil {
		return nil, false, err
	}
	lbfgs := &optimize.LBFGS{Store: minimiserMemory}
	for i := range minimiserIterations {
		if m.done(m.at.X, m.at.Gradient) {
			return m.at.X, true, nil
		}
		step := 0.0
		if i == 0 {
			step = lbfgs.InitDirection(&m.at, m.dir)
		} else {
			step = lbfgs.NextDirection(&m.at, m.dir)
		}
		if moved, err := m.search(step); err != nil || !moved {
			return m.at.X, false, err
		}
	}
	return m.at.X, m.done(m.at.X, m.at.Gradient), nil
}

// search moves along the direction to a point where the slope has become smaller and the value is not larger. It looks
// between a step too short (the slope is still steep) and one too long (it rises steeply, or the value has grown).
func (m *minimiser) search(step float64) (moved bool, err error) {
	start := floats.Dot(m.at.Gradient, m.dir)
	if !(start < 0) {
		return false, nil // rounding is all that is left
	}
	short, long := point{0, start}, point{math.Inf(1), 0}
	for range minimiserTrials {
		floats.AddScaledTo(m.next.X, m.at.X, step, m.dir)
		if m.next.F, err = m.eval(m.next.X, m.next.Gradient); err != nil {
			return false, err
		}
		here := point{step, floats.Dot(m.next.Gradient, m.dir)}
		grown := m.next.F > m.at.F+valueNoise*(1+math.Abs(m.at.F))
		switch {
		case grown || here.slope > -slopeLeft*start:
			long = here
		case here.slope < slopeLeft*start:
			short = here
		default:
			m.at, m.next = m.next, m.at
			return true, nil
		}
		step = between(short, long)
		if step <= short.at || step >= long.at {
			return false, nil
		}
	}
	return false, nil
}

// point is a step along a direction and the slope there.
type point struct{ at, slope float64 }

// between is the step to try next: where a straight line through both slopes is zero, but well inside; beyond short while nothing was too long.
func between(short, long point) float64 {
	if math.IsInf(long.at, 1) {
		return 4 * short.at
	}
	share := 0.5
	if long.slope > 0 {
		share = -short.slope / (long.slope - short.slope)
	}
	return short.at + min(max(share, 0.1), 0.9)*(long.at-short.at)
}

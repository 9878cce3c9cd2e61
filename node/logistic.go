package node

import (
	"math"

	"gonum.org/v1/gonum/blas/blas64"
)

// logistic is a multinomial logistic regression with balanced classes: over rows x of label y it minimises
//
//	sum w[y] (logsumexp(W x + b) - (W x + b)[y]) + |W|²/2,   w[c] = rows / (classes · rows of class c)
//
// The intercepts b are not penalised. Its variables are W [classes, width], then b [classes].
type logistic struct {
	classes, width int
	weights        []float64 // w
	total          float64   // rows, and the sum of their weights
}

func newLogistic(counts []int, width int) *logistic {
	total := 0
	for _, n := range counts {
		total += n
	}
	l := &logistic{classes: len(counts), width: width, total: float64(total)}
	for _, n := range counts {
		l.weights = append(l.weights, l.total/(float64(len(counts))*float64(n)))
	}
	return l
}

// variables is their number.
func (l *logistic) variables() int { return l.classes * (l.width + 1) }

// block is the sum's part of some rows: x [m, width] with labels, of which those below 0 do not count. It assigns
// the gradient and returns the value. logits has room for [m, classes].
func (l *logistic) block(variables []float64, x []float64, labels []int32, gradient, logits []float64) float64 {
	l.products(variables, x, len(labels), logits)
	value := 0.0
	for i, label := range labels {
		row := logits[i*l.classes : (i+1)*l.classes]
		if label < 0 {
			clear(row)
			continue
		}
		value += l.softmax(row, int(label))
	}
	l.gather(x, len(labels), logits, gradient)
	return value
}

// products are W x + b for each row.
func (l *logistic) products(variables, x []float64, m int, logits []float64) {
	intercepts := variables[l.classes*l.width:]
	for c := range l.classes {
		w := vector(variables[c*l.width : (c+1)*l.width])
		for i := range m {
			logits[i*l.classes+c] = blas64.Dot(w, vector(x[i*l.width:(i+1)*l.width])) + intercepts[c]
		}
	}
}

// softmax turns a row's logits into the derivative by them, and returns the row's loss.
func (l *logistic) softmax(row []float64, label int) float64 {
	top := row[0]
	for _, z := range row {
		top = max(top, z)
	}
	own, sum := row[label], 0.0
	for c, z := range row {
		row[c] = math.Exp(z - top)
		sum += row[c]
	}
	w := l.weights[label]
	for c := range row {
		row[c] *= w / sum
	}
	row[label] -= w
	return w * (math.Log(sum) + (top - own))
}

// gather sums the derivatives by the logits, times the rows, into the gradient.
func (l *logistic) gather(x []float64, m int, slopes, gradient []float64) {
	clear(gradient)
	intercepts := gradient[l.classes*l.width:]
	for c := range l.classes {
		g := vector(gradient[c*l.width : (c+1)*l.width])
		for i := range m {
			s := slopes[i*l.classes+c]
			if s == 0 {
				continue
			}
			blas64.Axpy(s, vector(x[i*l.width:(i+1)*l.width]), g)
			intercepts[c] += s
		}
	}
}

func vector(v []float64) blas64.Vector { return blas64.Vector{N: len(v), Inc: 1, Data: v} }

// penalty adds that of W to the gradient and returns its value.
func (l *logistic) penalty(variables, gradient []float64) float64 {
	w := vector(variables[:l.classes*l.width])
	blas64.Axpy(1, w, vector(gradient[:l.classes*l.width]))
	return blas64.Dot(w, w) / 2
}

// probeAccuracy is how near to the best W a probe comes, as a share of its length.
const probeAccuracy = 1e-6

// distance is how far W is from the best one, 1 being as near as it has to come. For the penalty makes the
// function curve by 1 at least in every direction of W, so W is off by the gradient's length at most, or nearly so.
func (l *logistic) distance(variables, gradient []float64) float64 {
	const rounding = 1e-13
	reach := probeAccuracy*blas64.Nrm2(vector(variables[:l.classes*l.width])) + rounding*l.total
	return blas64.Nrm2(vector(gradient)) / reach
}

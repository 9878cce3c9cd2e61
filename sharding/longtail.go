package sharding

import (
	"math"
	"math/big"
)

// LongTailCounts returns the training images of each of n classes of an
// exponential long tail: largest × factor^(i/(n-1)), cut down to an integer, for
// class i; factor is 1/ρ. It is the reference's rule in the reference's float64
// operations, so that the last class can be one less than largest × factor.
func LongTailCounts(n, largest int, factor float64) []int {
	counts := make([]int, max(n, 0))
	for i := range counts {
		exponent := 0.0
		if n > 1 {
			exponent = float64(i) / (float64(n) - 1)
		}
		counts[i] = int(float64(largest) * pow(factor, exponent))
	}
	return counts
}

// powBits is the precision of pow's intermediate values.
const powBits = 192

// pow returns x^y for x > 0, correctly rounded. math.Pow is an ulp off at times,
// which would move a count by one wherever the product is meant to be an integer;
// the reference's pow, of the C library, is not.
func pow(x, y float64) float64 {
	if x <= 0 || math.IsInf(x, 0) || math.IsNaN(x) || math.IsNaN(y) || math.IsInf(y, 0) {
		return math.Pow(x, y)
	}
	product := newBig(y)
	product.Mul(product, bigLog(x))
	v, _ := bigExp(product).Float64()
	return v
}

func newBig(x float64) *big.Float { return new(big.Float).SetPrec(powBits).SetFloat64(x) }

// bigLog returns ln x = k ln 2 + ln m, with x = m 2^k and 1/2 <= m < 1.
func bigLog(x float64) *big.Float {
	m, k := math.Frexp(x)
	ln2 := newBig(float64(k))
	ln2.Mul(ln2, atanhSeries(newBig(2)))
	return ln2.Add(ln2, atanhSeries(newBig(m)))
}

// atanhSeries returns ln m = 2 atanh((m-1)/(m+1)), for m between 1/2 and 2.
func atanhSeries(m *big.Float) *big.Float {
	one := newBig(1)
	z := newBig(0).Sub(m, one)
	z.Quo(z, newBig(0).Add(m, one))
	square := newBig(0).Mul(z, z)
	sum, power := newBig(0), newBig(0).Set(z)
	for i := 1; i < powBits; i += 2 { // |z| <= 1/3: over three bits a term
		sum.Add(sum, newBig(0).Quo(power, newBig(float64(i))))
		power.Mul(power, square)
	}
	return sum.Mul(sum, newBig(2))
}

// bigExp returns e^x, halving x until the series is short and squaring back.
func bigExp(x *big.Float) *big.Float {
	halvings := max(0, x.MantExp(nil)+4)
	reduced := newBig(0).SetMantExp(x, -halvings)
	sum, term := newBig(1), newBig(1)
	for i := 1; i < 40; i++ { // |reduced| < 1/16: (1/16)^40/40! is below 2^-300
		term.Mul(term, reduced)
		term.Quo(term, newBig(float64(i)))
		sum.Add(sum, term)
	}
	for range halvings {
		sum.Mul(sum, sum)
	}
	return sum
}

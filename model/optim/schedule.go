package optim

import "math"

// CosineLR returns the learning rate of an epoch (from 0) of a run of epochs: half a cosine
// from base towards zero, which it would reach after the last. It is stepped once an epoch.
func CosineLR(base float64, epoch, epochs int) float64 {
	return base * (1 + cosPi(float64(epoch)/float64(epochs))) / 2
}

// cosPi returns cos(πx) for x from 0 to 1. The library's cosine may differ in its last bit
// between processors; this one rounds each product by itself, hence the same everywhere.
func cosPi(x float64) float64 {
	switch {
	case x > 0.5:
		return -cosPi(1 - x)
	case x > 0.25:
		return sinSeries(float64(math.Pi * (0.5 - x)))
	}
	return cosSeries(float64(math.Pi * x))
}

// cosSeries and sinSeries sum Taylor's series, which nine terms exhaust below π/4.
func cosSeries(a float64) float64 {
	square, sum := float64(a*a), 1.0
	for k := 18.0; k > 0; k -= 2 {
		sum = 1 - float64(float64(square*sum)/float64(k*(k-1)))
	}
	return sum
}

func sinSeries(a float64) float64 {
	square, sum := float64(a*a), 1.0
	for k := 18.0; k > 0; k -= 2 {
		sum = 1 - float64(float64(square*sum)/float64(k*(k+1)))
	}
	return float64(a * sum)
}

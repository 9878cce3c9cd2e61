package peft

import (
	"math"

	"lift/stream"
)

// start fills a parameter's values, which are zeros.
type start = func(values []float32, s *stream.Stream)

func zeros([]float32, *stream.Stream) {}

func ones(values []float32, _ *stream.Stream) {
	for i := range values {
		values[i] = 1
	}
}

// normal draws values of that mean and standard deviation.
func normal(mean, std float64) start {
	return func(values []float32, s *stream.Stream) {
		for i := range values {
			values[i] = float32(mean + float64(std*s.Normal())) // the product rounded by itself: equal on every processor
		}
	}
}

// uniform draws values within ±bound.
func uniform(bound float64) start {
	return func(values []float32, s *stream.Stream) {
		for i := range values {
			values[i] = float32(bound * (2*s.Float64() - 1))
		}
	}
}

// kaimingUniform is uniform within 1/√fanIn: Kaiming's bound with a slope of √5, as the reference calls it.
func kaimingUniform(fanIn int) start { return uniform(1 / math.Sqrt(float64(fanIn))) }

// kaimingNormal has the same variance.
func kaimingNormal(fanIn int) start { return normal(0, math.Sqrt(1/(3*float64(fanIn)))) }

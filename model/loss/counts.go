package loss

import (
	"errors"
	"fmt"
)

// shares are the shares of the classes in the training set. A class without samples has the share 0.
func shares(counts []int) ([]float64, error) {
	total := 0.0
	for class, n := range counts {
		if n < 0 {
			return nil, fmt.Errorf("class %d has %d training samples", class, n)
		}
		total += float64(n)
	}
	if total == 0 {
		return nil, errors.New("it needs the number of training samples of each class, and there are none")
	}
	s := make([]float64, len(counts))
	for class, n := range counts {
		s[class] = float64(n) / total
	}
	return s, nil
}

// mustBePresent refuses a class without samples, whose value would be infinite.
func mustBePresent(counts []int, value string) error {
	if _, err := shares(counts); err != nil {
		return err
	}
	for class, n := range counts {
		if n == 0 {
			return fmt.Errorf("class %d has no training samples, so its %s is infinite: remove the class or use another loss", class, value)
		}
	}
	return nil
}

// unitMean divides values by their mean.
func unitMean(values []float64) []float32 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	out := make([]float32, len(values))
	for i, v := range values {
		out[i] = float32(v * float64(len(values)) / sum)
	}
	return out
}

package node

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"lift/model/checkpoint"
)

// tensors reads a safetensors file of a case into memory.
func (c *conformanceCase) tensors(name string) (map[string]checkpoint.NamedTensor, error) {
	f, err := checkpoint.OpenSafetensors(c.file(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[string]checkpoint.NamedTensor{}
	for _, n := range f.Names() {
		t, _ := f.Tensor(n)
		t.Data = slices.Clone(t.Data)
		all[n] = t
	}
	return all, nil
}

// compare holds got against the case's expected tensors: each must be there, in number of values and
// within its tolerance. It logs the closest shave.
func (c *conformanceCase) compare(got map[string][]float32) error {
	expected, err := c.tensors(c.Expected)
	if err != nil {
		return err
	}
	var faults []string
	if len(expected) == 0 {
		faults = append(faults, "nothing is expected")
	}
	worst, worstName := 0.0, ""
	for name, t := range expected {
		want, err := t.Float32s()
		if err != nil {
			return err
		}
		tolerance, ok := c.Tolerance[name]
		switch {
		case !ok:
			faults = append(faults, name+" has no tolerance")
			continue
		case got[name] == nil:
			faults = append(faults, name+" is expected but was not computed")
			continue
		case len(got[name]) != len(want):
			faults = append(faults, fmt.Sprintf("%s has %d values; wanted %d", name, len(got[name]), len(want)))
			continue
		}
		d := largestDifference(got[name], want)
		if !(d <= tolerance) {
			faults = append(faults, fmt.Sprintf("%s is off by %.3g; allowed %.3g", name, d, tolerance))
		}
		if share := d / tolerance; share > worst {
			worst, worstName = share, name
		}
	}
	for name := range c.Tolerance {
		if _, ok := expected[name]; !ok {
			faults = append(faults, name+" has a tolerance but is not expected")
		}
	}
	if len(faults) > 0 {
		slices.Sort(faults)
		return fmt.Errorf("%d of %d tensors:\n  %s", len(faults), len(expected), strings.Join(faults, "\n  "))
	}
	c.t.Logf("%d tensors within their tolerances; the largest error is %.0f%% of it (%s)", len(expected), 100*worst, worstName)
	return nil
}

// largestDifference is NaN if any value is.
func largestDifference(got, want []float32) float64 {
	worst := 0.0
	for i := range got {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			return d
		}
		worst = max(worst, d)
	}
	return worst
}

// near says whether got is want within the case's relative and absolute tolerance.
func (c *conformanceCase) near(got, want float64) bool {
	return math.Abs(got-want) <= c.Tolerance["absolute"]+c.Tolerance["relative"]*math.Abs(want)
}

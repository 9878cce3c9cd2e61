package launch

import (
	"slices"
	"testing"
)

func TestShareGPUs(t *testing.T) {
	for _, c := range []struct {
		visible        string
		count, n, each int
		want           []string
	}{
		{"", 4, 2, 0, []string{"0,1", "2,3"}},
		{"", 5, 2, 0, []string{"0,1", "2,3"}},
		{"", 4, 2, 1, []string{"0", "1"}},
		{"2,5,7", 3, 3, 0, []string{"2", "5", "7"}},
		{"GPU-a,GPU-b", 2, 1, 0, []string{"GPU-a,GPU-b"}},
		{"2,9", 1, 1, 0, []string{"2"}}, // CUDA stops at the first number that is no GPU
		{"", 1, 2, 0, nil},
		{"", 4, 2, 3, nil},
		{"", 0, 1, 0, nil},
	} {
		got, err := shareGPUs(c.visible, c.count, c.n, c.each)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

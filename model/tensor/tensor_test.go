package tensor

import (
	"slices"
	"testing"
)

func TestViews(t *testing.T) {
	x := FromF32([]float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 2, 3, 2)
	if x.Rows() != 6 || x.Cols() != 2 || x.Dim(-2) != 3 || x.Bytes() != 48 {
		t.Errorf("%v: %d rows of %d, %d bytes", x.Dims(), x.Rows(), x.Cols(), x.Bytes())
	}
	y := x.Slice(1, 2)
	if !slices.Equal(y.Dims(), []int{1, 3, 2}) || !slices.Equal(y.F32(), []float32{6, 7, 8, 9, 10, 11}) {
		t.Errorf("slice is %v: %v", y.Dims(), y.F32())
	}
	y.Reshape(6).F32()[0] = -1
	if x.F32()[6] != -1 {
		t.Error("a view does not share its memory")
	}
	if none := (Tensor{}); !none.IsNone() || x.IsNone() || x.Slice(0, 0).IsNone() {
		t.Error("IsNone is true of the zero Tensor alone")
	}
}

func TestWrongShapesPanic(t *testing.T) {
	x := FromF32(make([]float32, 6), 2, 3)
	for name, f := range map[string]func(){
		"reshape":       func() { x.Reshape(4) },
		"slice":         func() { x.Slice(1, 3) },
		"dimension":     func() { x.Dim(2) },
		"values":        func() { FromF32(make([]float32, 5), 2, 3) },
		"rank":          func() { x.Reshape(1, 1, 1, 2, 3) },
		"memory":        func() { New(Memory{Bytes: 20}, 0, F32, 6) },
		"negative":      func() { New(Memory{}, 0, F32, -1) },
		"device memory": func() { New(Memory{Bytes: 64}, 0, F32, 2).F32() },
		"type":          func() { New(Memory{Bytes: 64, Host: true}, 0, BF16, 2).F32() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// npyDTypes are NumPy's names of the element types, little-endian.
var npyDTypes = map[string]DType{
	"<f8": F64, "<f4": F32, "<f2": F16, "<i8": I64, "<i4": I32, "<i2": "I16", "|i1": "I8", "<u8": "U64", "<u4": "U32", "<u2": "U16",
	"|u1": U8, "|b1": Bool,
}

// parseNpyHeader reads the header of an array, which is a Python dict of exactly the keys descr, fortran_order and shape.
func parseNpyHeader(text string) (view, error) {
	p := npyParser{text}
	var v view
	var seen []string
	fortran := false
	err := p.expect("{")
	for err == nil && !p.take("}") {
		var key string
		if key, err = p.quoted(); err != nil {
			break
		}
		if slices.Contains(seen, key) {
			return v, fmt.Errorf("it names %q twice", shorten(key))
		}
		seen = append(seen, key)
		if err = p.expect(":"); err != nil {
			break
		}
		switch key {
		case "descr":
			v.dtype, err = p.dtype()
		case "fortran_order":
			fortran, err = p.bool()
		case "shape":
			v.shape, err = p.shape()
		default:
			err = fmt.Errorf("it has the unknown key %q", shorten(key))
		}
		if err == nil && !p.take(",") {
			err = p.expect("}")
			break
		}
	}
	switch {
	case err != nil:
		return v, err
	case strings.TrimSpace(p.rest) != "":
		return v, fmt.Errorf("it goes on after its end: %q", shorten(p.rest))
	case len(seen) != 3:
		return v, errors.New("descr, fortran_order and shape must all be there")
	}
	v.strides = orderStrides(v.shape, fortran)
	return v, nil
}

// orderStrides returns the strides of an array without gaps: the last dimension is the densest or, in Fortran's order, the first.
// They wrap around where the shape is too large, which view.check refuses by the shape itself.
func orderStrides(shape []int, fortran bool) []int {
	strides := make([]int, len(shape))
	next := 1
	for i := range shape {
		at := len(shape) - 1 - i
		if fortran {
			at = i
		}
		strides[at] = next
		next *= max(shape[at], 1)
	}
	return strides
}

// npyParser reads the few forms of Python text in a header.
type npyParser struct{ rest string }

// take passes over a token if it comes next.
func (p *npyParser) take(token string) bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(p.rest, " \n"), token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *npyParser) expect(token string) error {
	if !p.take(token) {
		return fmt.Errorf("found %q where %q belongs", shorten(p.rest), token)
	}
	return nil
}

func (p *npyParser) quoted() (string, error) {
	for _, quote := range []string{"'", `"`} {
		if p.take(quote) {
			s, rest, ok := strings.Cut(p.rest, quote)
			if !ok || strings.Contains(s, `\`) {
				return "", fmt.Errorf("found %q where a text in quotes belongs", shorten(p.rest))
			}
			p.rest = rest
			return s, nil
		}
	}
	return "", fmt.Errorf("found %q where a text in quotes belongs", shorten(p.rest))
}

func (p *npyParser) dtype() (DType, error) {
	if p.take("[") {
		return "", errors.New("its elements are records, which lift does not read")
	}
	s, err := p.quoted()
	if err != nil {
		return "", err
	}
	dtype, known := npyDTypes[s]
	switch {
	case known:
		return dtype, nil
	case strings.Contains(s, "O"):
		return "", errors.New("its elements are Python objects, a pickle, which lift does not read")
	case strings.HasPrefix(s, ">"):
		return "", fmt.Errorf("its elements are big-endian (%s)", shorten(s))
	}
	return "", fmt.Errorf("its elements are of type %q, which lift does not know", shorten(s))
}

func (p *npyParser) bool() (bool, error) {
	if p.take("True") {
		return true, nil
	}
	return false, p.expect("False")
}

func (p *npyParser) shape() ([]int, error) {
	shape := []int{}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	for !p.take(")") {
		rest := strings.TrimLeft(p.rest, " ")
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		n, err := strconv.ParseUint(digits, 10, 62)
		if err != nil || n > maxDim {
			return nil, fmt.Errorf("found %q in the shape where a size belongs", shorten(rest))
		}
		if len(shape) == maxRank {
			return nil, fmt.Errorf("the shape has over %d dimensions", maxRank)
		}
		shape = append(shape, int(n))
		p.rest = strings.TrimPrefix(rest[len(digits):], "L") // as Python 2 wrote them
		if !p.take(",") {
			return shape, p.expect(")")
		}
	}
	return shape, nil
}

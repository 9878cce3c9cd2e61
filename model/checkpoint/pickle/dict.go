package pickle

import (
	"errors"
	"math/big"
)

// Dict is a Python dict, an OrderedDict or a defaultdict, in order of insertion.
type Dict struct {
	Items []Item
	State Value // an OrderedDict's attributes, nil if it has none
	at    map[Value]int
}

// Item is a key and its value. A key is nil, a bool, an int64, a float64, a string or, rarely, a *Tuple.
type Item struct{ Key, Value Value }

// Get returns the value of a text key, and whether there is one.
func (d *Dict) Get(key string) (Value, bool) {
	i, ok := d.at[key]
	if !ok {
		return nil, false
	}
	return d.Items[i].Value, true
}

// set gives a key its value; a later one takes the place of an earlier one, as in Python.
func (d *Dict) set(key, value Value) error {
	switch key.(type) {
	case nil, bool, int64, float64, string:
		if i, ok := d.at[key]; ok {
			d.Items[i].Value = value
			return nil
		}
		if d.at == nil {
			d.at = map[Value]int{}
		}
		d.at[key] = len(d.Items)
	case *Tuple, *big.Int, Global: // never looked up
	default:
		return errors.New(Describe(key) + " cannot be a key of a dict")
	}
	d.Items = append(d.Items, Item{key, value})
	return nil
}

package configs

import (
	"reflect"
	"testing"
)

func TestDifferences(t *testing.T) {
	a, b := "a=1\nb=2\nc=x=y\ne=\n", "a=1\nb=3\nc=x=y\nd=4\n"
	want := []Difference{
		{Key: "b", A: "2", B: "3", InA: true, InB: true},
		{Key: "d", B: "4", InB: true},
		{Key: "e", InA: true},
	}
	if got := Differences([]byte(a), []byte(b)); !reflect.DeepEqual(got, want) {
		t.Errorf("differences %+v, want %+v", got, want)
	}
	for _, same := range []string{"", a, string(mustParse(t, small).ResultKeys())} {
		if got := Differences([]byte(same), []byte(same)); got != nil {
			t.Errorf("%q differs from itself: %+v", same, got)
		}
	}
	seed := Differences(mustParse(t, small).AgreedKeys(), mustParse(t, small, "train.seed=5").AgreedKeys())
	if len(seed) != 1 || seed[0].Key != "train.seed" || seed[0].B != "5" {
		t.Errorf("another seed: %+v", seed)
	}
}

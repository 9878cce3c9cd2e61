package metrics

import (
	"bytes"
	"encoding/csv"
	"errors"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

func TestConfusionCSV(t *testing.T) {
	c := NewConfusion([]string{"a, b", `"c"`, "d"})
	for _, p := range [][2]int{{2, 0}, {0, 1}, {0, 0}, {0, 1}} {
		c.Add(p[0], p[1])
	}
	var out bytes.Buffer
	if err := c.WriteCSV(&out); err != nil {
		t.Fatal(err)
	}
	want := "class,name,predicted,predicted_name,samples\n0,\"a, b\",0,\"a, b\",1\n0,\"a, b\",1,\"\"\"c\"\"\",2\n2,d,0,\"a, b\",1\n"
	if out.String() != want {
		t.Errorf("wrote\n%s; wanted\n%s", out.String(), want)
	}
	if err := c.WriteCSV(brokenWriter{}); err == nil {
		t.Error("a writer that fails passed")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

// The matrix and the counts are of the same samples.
func TestConfusionAgreesWithCounts(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		const classes = 4
		class := rapid.IntRange(0, classes-1)
		m, counts := NewConfusion([]string{"0", "1", "2", "3"}), NewCounts(classes)
		for range rapid.IntRange(0, 50).Draw(r, "n") {
			label, prediction := class.Draw(r, "label"), class.Draw(r, "prediction")
			m.Add(label, prediction)
			if err := counts.Add(label, prediction); err != nil {
				r.Fatal(err)
			}
		}
		var out bytes.Buffer
		if err := m.WriteCSV(&out); err != nil {
			r.Fatal(err)
		}
		lines, err := csv.NewReader(&out).ReadAll()
		if err != nil {
			r.Fatal(err)
		}
		total := int64(0)
		for _, line := range lines[1:] {
			n, _ := strconv.ParseInt(line[4], 10, 64)
			total += n
		}
		if total != counts.Samples() {
			r.Fatalf("%d samples in the file; %d were counted", total, counts.Samples())
		}
		for c := range classes {
			row := int64(0)
			for p := range classes {
				row += m.At(c, p)
			}
			if row != counts.Of(c) || m.At(c, c) != counts.correct()[c] {
				r.Fatalf("class %d: %d samples, %d right; counted %d and %d", c, row, m.At(c, c), counts.Of(c), counts.correct()[c])
			}
		}
	})
}

//go:build ignore

// Compare trains four methods on the quickstart's data with the same budget and writes what came out into
// docs/quickstart.md, with a plot beside it. Run by `make compare`. Each method's learning rate is chosen on the validation
// split, by a seed of its own; then three other seeds are trained and tested once.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// method is a row of the table: what it changes in configs/quickstart.yaml.
type method struct {
	name, color string
	overrides   []string
}

var methods = []method{
	{"head alone", "#999999", []string{"peft.adaptformer=false", "peft.adapter_dim=null"}},
	{"full fine-tuning, CE", "#d55e00", []string{"peft.adaptformer=false", "peft.adapter_dim=null", "peft.full_tuning=true", "loss.type=CE"}},
	{"full fine-tuning, LA", "#e69f00", []string{"peft.adaptformer=false", "peft.adapter_dim=null", "peft.full_tuning=true"}},
	{"LIFT (AdaptFormer, LA)", "#0072b2", nil},
}

var (
	seeds  = []int{0, 1, 2}
	rates  = []string{"0.003", "0.01", "0.03", "0.1"}
	groups = []string{"many", "medium", "few", "all"}
)

const (
	chooser = 3 // the seed that chooses the learning rate

	config = "configs/quickstart.yaml"
	page   = "docs/quickstart.md"
	plot   = "docs/compare.svg"
	begin  = "<!-- compare: written by make compare -->"
	end    = "<!-- compare: end -->"
)

// result is one run: percent by group.
type result struct{ accuracy map[string]float64 }

func main() {
	log.SetFlags(0)
	results, choices := make([][]result, len(methods)), make([]choice, len(methods))
	for i, m := range methods {
		choices[i] = choose(m)
		for _, seed := range seeds {
			r := train(m, seed, "train.lr="+choices[i].rate)
			results[i] = append(results[i], r)
		}
	}
	if err := os.WriteFile(plot, []byte(draw(results)), 0o644); err != nil {
		log.Fatal("compare: ", err)
	}
	if err := insert(table(results, choices)); err != nil {
		log.Fatal("compare: ", err)
	}
	log.Printf("wrote %s and %s", page, plot)
}

// choice is a method's learning rate, and what each of rates reached on the validation split.
type choice struct {
	rate     string
	accuracy []float64
}

// choose trains m once with each rate and keeps the best on the validation split, which has as many images of each class.
func choose(m method) choice {
	c := choice{rate: rates[0]}
	best := math.Inf(-1)
	for _, rate := range rates {
		all := train(m, chooser, "train.lr="+rate, "eval.split=val").accuracy["all"]
		c.accuracy = append(c.accuracy, all)
		if all > best {
			best, c.rate = all, rate
		}
	}
	return c
}

// train runs m with a seed and further overrides.
func train(m method, seed int, overrides ...string) result {
	r, err := tryTrain(m, seed, overrides)
	if err != nil {
		log.Fatalf("compare: %s, seed %d, %v: %v", m.name, seed, overrides, err)
	}
	log.Printf("%-24s seed %d  %v  %v", m.name, seed, overrides, r.accuracy)
	return r
}

func tryTrain(m method, seed int, overrides []string) (result, error) {
	slug := strings.NewReplacer(" ", "-", ",", "", "(", "", ")", "").Replace(strings.ToLower(m.name))
	dir := filepath.Join("runs", "compare", fmt.Sprintf("%s-%d", slug, seed))
	if err := os.RemoveAll(dir); err != nil { // a finished run would not train again
		return result{}, err
	}
	args := append([]string{"train", config, "run.dir=" + dir, fmt.Sprintf("train.seed=%d", seed)}, m.overrides...)
	args = append(args, overrides...)
	cmd := exec.Command("bin/lift", args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return result{}, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		return result{}, err
	}
	var s struct {
		Accuracy map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return result{}, err
	}
	r := result{map[string]float64{}}
	for _, g := range groups {
		var v float64
		if err := json.Unmarshal(s.Accuracy[g], &v); err != nil {
			return result{}, fmt.Errorf("%s: accuracy.%s: %w", dir, g, err)
		}
		r.accuracy[g] = v
	}
	return r, nil
}

// meanDev returns the mean and the sample standard deviation of f over the seeds.
func meanDev(rs []result, f func(result) float64) (mean, dev float64) {
	for _, r := range rs {
		mean += f(r) / float64(len(rs))
	}
	for _, r := range rs {
		dev += (f(r) - mean) * (f(r) - mean) / float64(len(rs)-1)
	}
	return mean, math.Sqrt(dev)
}

func ofGroup(g string) func(result) float64 { return func(r result) float64 { return r.accuracy[g] } }

func table(results [][]result, choices []choice) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Test accuracy in percent, mean ± standard deviation of %d seeds:\n\n", len(seeds))
	b.WriteString("| | learning rate | many | medium | few | all |\n|---|---|---|---|---|---|\n")
	for i, m := range methods {
		fmt.Fprintf(&b, "| %s | %s |", m.name, choices[i].rate)
		for _, g := range groups {
			mean, dev := meanDev(results[i], ofGroup(g))
			fmt.Fprintf(&b, " %.1f ± %.1f |", mean, dev)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n![Accuracy by group and method](compare.svg)\n\nEach row is `" + config + "` with these overrides and its learning rate, on one node:\n\n")
	for _, m := range methods {
		overrides := "none"
		if len(m.overrides) > 0 {
			overrides = "`" + strings.Join(m.overrides, " ") + "`"
		}
		fmt.Fprintf(&b, "- %s: %s\n", m.name, overrides)
	}
	fmt.Fprintf(&b, "\nThe learning rate was chosen on the validation split, accuracy of all classes in percent with seed %d:\n\n", chooser)
	b.WriteString("| | " + strings.Join(rates, " | ") + " |\n|---|" + strings.Repeat("---|", len(rates)) + "\n")
	for i, m := range methods {
		fmt.Fprintf(&b, "| %s |", m.name)
		for _, all := range choices[i].accuracy {
			fmt.Fprintf(&b, " %.1f |", all)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// insert replaces what stands between the page's marks.
func insert(text string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the marks %q and %q", page, begin, end)
	}
	return os.WriteFile(page, []byte(before+begin+"\n"+text+end+after), 0o644)
}

// The plot's sizes, in pixels.
const (
	width, height = 760, 360
	left, right   = 46, 16
	top, bottom   = 56, 34
)

// draw makes grouped bars of the means with a dot for each seed.
func draw(results [][]result) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	y := func(percent float64) float64 { return top + (100-percent)/100*(height-top-bottom) }
	for p := 0.0; p <= 100; p += 20 {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#444">%.0f</text>`+"\n",
			left, y(p), width-right, left-6, y(p)+4, p)
	}
	fmt.Fprintf(&b, `<text x="%d" y="16" fill="#222">test accuracy, percent; dots are seeds</text>`+"\n", left)
	for i, m := range methods {
		x := left + i*(width-left-right)/len(methods)
		fmt.Fprintf(&b, `<rect x="%d" y="26" width="11" height="11" fill="%s"/><text x="%d" y="36" fill="#222">%s</text>`+"\n", x, m.color, x+16, m.name)
	}
	span := float64(width-left-right) / float64(len(groups))
	bar := span * 0.8 / float64(len(methods))
	for k, g := range groups {
		x0 := left + (float64(k)+0.1)*span
		for i, m := range methods {
			mean, _ := meanDev(results[i], ofGroup(g))
			x := x0 + float64(i)*bar
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x+1, y(mean), bar-2, y(0)-y(mean), m.color)
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#fff" font-size="11">%.1f</text>`+"\n", x+bar/2, y(0)-6, mean)
			for _, r := range results[i] {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="#000" fill-opacity="0.55"/>`+"\n", x+bar/2, y(r.accuracy[g]))
			}
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#222">%s</text>`+"\n", x0+span*0.4, height-12, g)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

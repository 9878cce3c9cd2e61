package node

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"lift/configs"
	"lift/model/vit"
)

var updatePaper = flag.Bool("update", false, "write the tables of docs/cuda.md")

// The goal of docs/cuda.md.
const (
	paperDoc     = "../docs/cuda.md"
	paperConfig  = "../configs/inat2018-clip-vit-l14-336.yaml"
	paperModel   = "ViT-L/14@336px"
	paperClasses = 8142
	paperImages  = 437513
	paperEpochs  = 20
	paperBatch   = 128
	paperMicro   = 16
	goalShare    = 0.6
	goalMinutes  = 30
)

// paper is what the tables are made of.
type paper struct {
	t      *testing.T
	cfg    *configs.Config
	o      networkOptions
	ps     *paramSet
	walks  map[int]*walk // by images
	blocks map[string]*bytes.Buffer
	at     *bytes.Buffer
}

// The tables of docs/cuda.md are those that the engine's own calls give: `go test ./node -run Paper -update` writes them.
func TestPaper(t *testing.T) {
	p := newPaper(t)
	for name, table := range map[string]func(){
		"ops": p.ops, "kinds": p.kinds, "steps": p.steps, "memory": p.memory, "traffic": p.traffic, "goal": p.goal, "needed": p.needed,
		"whatif": p.whatIf, "hosts": p.hosts, "gpus": p.gpus, "attention": p.attention,
	} {
		p.at = new(bytes.Buffer)
		p.blocks[name] = p.at
		table()
	}
	was, err := os.ReadFile(paperDoc)
	if err != nil {
		t.Fatal(err)
	}
	doc := was
	for name, table := range p.blocks {
		doc = withBlock(t, doc, "paper:"+name, table.Bytes())
	}
	if bytes.Equal(doc, was) {
		return
	}
	if !*updatePaper {
		t.Fatalf("%s is not what the engine's calls give: go test ./node -run Paper -update", paperDoc)
	}
	if err := os.WriteFile(paperDoc, doc, 0o644); err != nil {
		t.Fatal(err)
	}
}

// withBlock is doc with the text between the marks of a name replaced.
func withBlock(t *testing.T, doc []byte, name string, text []byte) []byte {
	begin, end := []byte("<!-- "+name+":begin -->\n"), []byte("<!-- "+name+":end -->")
	i, j := bytes.Index(doc, begin), bytes.Index(doc, end)
	if i < 0 || j < i {
		t.Fatalf("%s has no %q … %q", paperDoc, begin, end)
	}
	return slices.Concat(doc[:i+len(begin)], text, doc[j:])
}

// onPaper is made once: several tests read it, one after the other.
var onPaper *paper

func newPaper(t *testing.T) *paper {
	t.Helper()
	if onPaper != nil {
		onPaper.t = t
		return onPaper
	}
	cfg, err := configs.Load(paperConfig, []string{"node.device=cuda", "model.precision=bf16"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := FindModel(paperModel)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Train.BatchSize != paperBatch || cfg.Train.Epochs != paperEpochs {
		t.Fatalf("%s is of batches of %d and %d epochs", paperConfig, cfg.Train.BatchSize, cfg.Train.Epochs)
	}
	p := &paper{t: t, cfg: cfg, walks: map[int]*walk{}, blocks: map[string]*bytes.Buffer{}}
	w, err := vit.Repeated(m.Arch, 0)
	if err != nil {
		t.Fatal(err)
	}
	in := StandIn{Classes: paperClasses, TrainSamples: paperImages}
	p.o = networkOptions{Weights: w, Config: cfg, Classes: paperClasses, Counts: in.counts()}
	if p.ps, err = newParams(p.o); err != nil {
		t.Fatal(err)
	}
	onPaper = p
	return p
}

// walk is a micro-batch of m images.
func (p *paper) walk(m int) *walk {
	if p.walks[m] == nil {
		w, err := walkStep(p.o, p.ps, m)
		if err != nil {
			p.t.Fatal(err)
		}
		p.walks[m] = w
	}
	return p.walks[m]
}

func (p *paper) say(format string, args ...any) { fmt.Fprintf(p.at, format, args...) }

// row writes a row of a table; head writes its first two, names that begin with a colon being of numbers.
func (p *paper) row(cells ...string) { p.say("| %s |\n", strings.Join(cells, " | ")) }

func (p *paper) head(names ...string) {
	rule := make([]string, len(names))
	for i, n := range names {
		rule[i] = "---"
		if strings.HasPrefix(n, ":") {
			names[i], rule[i] = n[1:], "---:"
		}
	}
	p.row(names...)
	p.row(rule...)
}

func num(decimals int, x float64) string { return fmt.Sprintf("%.*f", decimals, x) }

func percent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

// group is kernels of one name and shape.
type group struct {
	op
	calls, kernels int
	seconds        float64
	flops, bytes   float64
	perfect        float64        // seconds at the GPU's whole rates
	limits         map[string]int // calls by what limits them
}

// limit is what limits most calls of the group.
func (r *group) limit() string {
	best := ""
	for name, n := range r.limits {
		if n > r.limits[best] || n == r.limits[best] && name < best {
			best = name
		}
	}
	return best
}

// grouped sums ops up by what key says, the longest first.
func grouped(g GPU, ops []op, key func(o *op) string) []group {
	at := map[string]int{}
	var all []group
	for i := range ops {
		o := &ops[i]
		k := key(o)
		if _, ok := at[k]; !ok {
			at[k] = len(all)
			all = append(all, group{op: *o, limits: map[string]int{}})
		}
		r := &all[at[k]]
		s, limit := g.seconds(o)
		peak := g.Tensor
		if !o.half {
			peak = g.Float
		}
		r.calls++
		r.seconds += s
		r.kernels += 1 + int(o.more)
		r.limits[limit]++
		r.flops += float64(o.flops)
		r.bytes += float64(o.read + o.written)
		r.perfect += max(float64(o.flops)/peak, float64(o.read+o.written)/g.Memory)
	}
	slices.SortStableFunc(all, func(a, b group) int { return cmp.Compare(b.seconds, a.seconds) })
	return all
}

func secondsOf(groups []group) (sum float64) {
	for _, r := range groups {
		sum += r.seconds
	}
	return sum
}

// ops are the kernels of a micro-batch.
func (p *paper) ops() {
	g := knownGPUs["h100"]
	groups := grouped(g, p.walk(paperMicro).ops, func(o *op) string { return fmt.Sprint(o.kernel, o.shape, o.backward) })
	all := secondsOf(groups)
	p.head("operation", "shape", ":calls", ":GFLOP", ":MB", ":ms", ":of all", "limited by")
	rest := group{}
	for _, r := range groups {
		if r.seconds < 0.004*all {
			rest.calls += r.calls
			rest.seconds += r.seconds
			rest.flops += r.flops
			rest.bytes += r.bytes
			continue
		}
		name := r.kernel
		if r.backward {
			name += " ←"
		}
		p.row(name, r.shape, fmt.Sprint(r.calls), num(0, r.flops/1e9), num(0, r.bytes/1e6), num(2, 1e3*r.seconds), num(1, 100*r.seconds/all)+" %", r.limit())
	}
	p.row("all others", "", fmt.Sprint(rest.calls), num(0, rest.flops/1e9), num(0, rest.bytes/1e6), num(2, 1e3*rest.seconds), num(1, 100*rest.seconds/all)+" %", "")
	w := p.walk(paperMicro)
	sum := grouped(g, w.ops, func(*op) string { return "" })[0]
	p.row("**all**", "", fmt.Sprint(sum.calls), num(0, sum.flops/1e9), num(0, sum.bytes/1e6), num(2, 1e3*sum.seconds), "100 %", "")
}

// kindOf is what a kernel is, for people.
func kindOf(o *op) string {
	switch {
	case strings.HasPrefix(o.kernel, "Attention"):
		return "attention"
	case o.flops > 0 && o.half:
		return "products in BF16"
	case o.flops > 0:
		return "products in float32 (head)"
	case o.kernel == "add to sums":
		return "gradients to fixed point"
	}
	return "all that only reads and writes"
}

func (p *paper) kinds() {
	g := knownGPUs["h100"]
	w := p.walk(paperMicro)
	groups := grouped(g, w.ops, kindOf)
	all := secondsOf(groups)
	p.head("", ":kernels", ":GFLOP", ":MB", ":at the GPU's whole rates, ms", ":predicted, ms", ":of all")
	row := func(name string, r *group) {
		p.row(name, fmt.Sprint(r.kernels), num(0, r.flops/1e9), num(0, r.bytes/1e6), num(2, 1e3*r.perfect), num(2, 1e3*r.seconds), percent(r.seconds/all))
	}
	for i := range groups {
		row(kindOf(&groups[i].op), &groups[i])
	}
	sum := grouped(g, w.ops, func(*op) string { return "" })
	row("**all**", &sum[0])
}

// gpus are the public figures.
func (p *paper) gpus() {
	p.head("`--gpu`", "", ":dense BF16, TFLOP/s", ":float32", ":memory, TB/s", ":GB", ":SMs", ":to peers, GB/s", ":PCIe, GB/s", ":products reach", ":attention reaches")
	for _, name := range KnownGPUs() {
		g := knownGPUs[name]
		p.row("`"+name+"`", g.Name, num(0, g.Tensor/1e12), num(1, g.Float/1e12), num(2, g.Memory/1e12), num(0, float64(g.Bytes)/1e9), fmt.Sprint(g.SMs),
			num(0, g.Peer/1e9), num(0, g.Host/1e9), percent(g.Product), percent(g.Attention))
	}
}

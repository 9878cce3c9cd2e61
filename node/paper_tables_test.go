package node

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"lift/sharding"
)

// decodedByACore is images a second: docs/cuda.md says of what, and where it was measured.
const decodedByACore = 132

// host is one host of so many H100.
func host(gpus int) Cluster { return Cluster{GPU: knownGPUs["h100"], Hosts: 1, GPUs: gpus} }

// allSteps are those of 20 epochs in batches of so many images.
func allSteps(batch int) float64 {
	s := sharding.Schedule{Samples: paperImages, BatchSize: batch, MicroBatchSize: 1}
	return float64(paperEpochs * s.StepsPerEpoch())
}

// steps are those of one host.
func (p *paper) steps() {
	p.head(":GPUs", ":micro-batch", ":input", ":forward and backward", ":sums exposed", ":update", ":**step, ms**", ":images/s", ":of the peak", ":20 epochs")
	for _, c := range []struct{ gpus, micro int }{{1, 16}, {1, 64}, {8, 16}} {
		s := host(c.gpus).predict(p.walk(c.micro), paperBatch)
		ms := func(x float64) string { return num(2, 1e3*x) }
		p.row(fmt.Sprint(c.gpus), fmt.Sprintf("%d, %d in turn", c.micro, s.MicroBatches), ms(s.Input), ms(s.Compute), ms(s.Exposed), ms(s.Update),
			"**"+num(1, 1e3*s.Total())+"**", num(0, s.ImagesPerSecond()), percent(s.PeakShare), minutes(s.Total()*allSteps(paperBatch)))
	}
}

func minutes(seconds float64) string {
	if seconds >= 2*3600 {
		return num(1, seconds/3600) + " h"
	}
	return num(0, seconds/60) + " min"
}

// memory is that of one GPU.
func (p *paper) memory() {
	g := knownGPUs["h100"]
	columns := []struct{ gpus, micro int }{{1, 16}, {8, 16}, {1, 64}}
	var all []PlannedGPUMemory
	for _, c := range columns {
		m, err := gpuMemoryOf(p.o, p.walk(c.micro), c.gpus)
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, m)
	}
	p.head("GB", ":1 GPU, micro-batches of 16", ":one of 8, of 16", ":1 GPU, of 64")
	for _, part := range []struct {
		name string
		of   func(m PlannedGPUMemory) int64
	}{
		{"frozen weights (BF16 matrices)", func(m PlannedGPUMemory) int64 { return m.Weights }},
		{"trained values, momentum, sums", func(m PlannedGPUMemory) int64 { return m.Trained }},
		{"activations: the arena", func(m PlannedGPUMemory) int64 { return m.Activations }},
		{"gradients, BF16 copies of trained matrices", func(m PlannedGPUMemory) int64 { return m.Gradients }},
		{"two micro-batches of pixels", func(m PlannedGPUMemory) int64 { return m.Batches }},
		{"workspace", func(m PlannedGPUMemory) int64 { return m.Workspace }},
		{"**all, one micro-batch in flight**", PlannedGPUMemory.Total},
	} {
		cells := []string{part.name}
		for _, m := range all {
			cells = append(cells, num(3, float64(part.of(m))/1e9))
		}
		p.row(cells...)
	}
	cells := []string{"micro-batches in flight that fit"}
	for _, m := range all {
		cells = append(cells, fmt.Sprint(g.inFlight(m)))
	}
	p.row(cells...)
}

// traffic is what a step moves, of 8 GPUs a host.
func (p *paper) traffic() {
	const gpus = 8
	g, w := knownGPUs["h100"], p.walk(paperMicro)
	values := float64(w.trained)
	p.head("a step moves", "over", ":MB", ":at, GB/s", ":ms")
	row := func(what, over string, bytes, rate float64) {
		p.row(what, over, num(1, bytes/1e6), num(1, rate/1e9), num(2, 1e3*bytes/rate))
	}
	row("a micro-batch of 16, to each GPU", "PCIe", float64(w.input), g.Host)
	row("its peers' sums of its slice, 8 bytes a value, to each GPU", "NVLink", sumBytes*values*(gpus-1)/gpus, g.Peer)
	row("new values of its slice, from each GPU to its peers", "NVLink", bytesOfFloat*values*(gpus-1)/gpus, g.Peer)
	row("several hosts: packed sums of its slice, about 4 bytes a value, from each GPU", "PCIe", wireBytesAValue*values/gpus, g.Host)
	row("several hosts: sums of its slice as float32, to each GPU", "PCIe", bytesOfFloat*values/gpus, g.Host)
	for _, hosts := range []float64{2, 4} {
		row(fmt.Sprintf("%.0f hosts: from each to the next, one lane", hosts), "the ring", wireBytesAValue*values*2*(hosts-1)/hosts, laneRate)
	}
}

// parts are the seconds of a micro-batch: products and attention at all that tensor cores can do, and all other kernels as predicted.
func (p *paper) parts(g GPU, ops []op) (products, attention, rest float64) {
	whole := g
	whole.Attention = 1
	for i := range ops {
		o := &ops[i]
		s, _ := g.seconds(o)
		switch {
		case o.half && strings.HasPrefix(o.kernel, "Attention"):
			attention += whole.products(o)
		case o.half && o.flops > 0:
			products += float64(o.flops) / g.Tensor
		default:
			rest += s
		}
	}
	return products, attention, rest
}

// budgets are the seconds that a step of 8 GPUs may take.
func (p *paper) budgets() (share, time float64) {
	flops := float64(p.walk(paperMicro).flops()) * paperBatch / paperMicro
	return flops / (8 * goalShare * knownGPUs["h100"].Tensor), 60 * goalMinutes / allSteps(paperBatch)
}

// goal says what the goal is, in milliseconds.
func (p *paper) goal() {
	share, time := p.budgets()
	p.say("- %.0f %% of the peak is a step of **%.1f ms**.\n", 100*goalShare, 1e3*share)
	p.say("- %d minutes are %.0f steps of **%.1f ms** on 8 × H100, %.0f %% of the peak.\n", goalMinutes, allSteps(paperBatch), 1e3*time, 100*goalShare*share/time)
	s := host(8).predict(p.walk(paperMicro), paperBatch)
	p.say("- Predicted as built: **%.1f ms**, %.0f %% of the peak, %s.\n", 1e3*s.Total(), 100*s.PeakShare, minutes(s.Total()*allSteps(paperBatch)))
	better, its := p.changed()
	b := better.predict(&its, paperBatch)
	p.say("- Predicted after the three changes below: **%.1f ms**, %.0f %% of the peak, %s.\n", 1e3*b.Total(), 100*b.PeakShare, minutes(b.Total()*allSteps(paperBatch)))
	p.say("- Meanwhile the host decodes %.0f images a second as built, and %.0f for %d minutes: the work of %.0f and %.0f cores.\n", s.ImagesPerSecond(),
		paperBatch/time, goalMinutes, math.Ceil(s.ImagesPerSecond()/decodedByACore), math.Ceil(paperBatch/time/decodedByACore))
}

// fused is ops with bias and addend computed by the products, and with activations too if so said: these passes of their own take no time.
func fused(ops []op, activations bool) []op {
	ops = slices.Clone(ops)
	for i := range ops {
		o, product := &ops[i], &ops[max(0, i-1)]
		result := product.written
		switch {
		case o.kernel == "bias and addend":
			product.read += o.read - result
		case o.kernel == "bias and Activate" && activations:
			product.written += o.written - result
		case o.kernel == "bias and Activate":
			o.written -= result
			continue
		case o.kernel == "ActivateBackward" && activations:
			product.read += o.read - result
		default:
			continue
		}
		*o = op{kernel: "nothing", more: -1}
	}
	return ops
}

// changes are those that the tables think of, and what they do to a cluster and its work.
var changes = []struct {
	name string
	do   func(c *Cluster, w *walk)
}{
	{"bias and addend inside the products", func(_ *Cluster, w *walk) { w.ops = fused(w.ops, false) }},
	{"and activations, forward and backward", func(_ *Cluster, w *walk) { w.ops = fused(w.ops, true) }},
	{"attention at 55 % of the peak", func(c *Cluster, _ *walk) { c.GPU.Attention = 0.55 }},
}

// changed is 8 GPUs and their work after all changes.
func (p *paper) changed() (c Cluster, w walk) {
	c, w = host(8), *p.walk(paperMicro)
	for _, change := range changes {
		if !strings.HasPrefix(change.name, "bias") { // the next one has it
			change.do(&c, &w)
		}
	}
	return c, w
}

// whatIf is the step of 8 GPUs with each change alone, and with all.
func (p *paper) whatIf() {
	p.head("8 × H100, batch 128", ":step, ms", ":of the peak", ":20 epochs")
	row := func(name string, c Cluster, w walk, batch int) {
		s := c.predict(&w, batch)
		p.row(name, num(1, 1e3*s.Total()), percent(s.PeakShare), minutes(s.Total()*allSteps(batch)))
	}
	row("**as built**", host(8), *p.walk(paperMicro), paperBatch)
	for _, change := range changes {
		c, w := host(8), *p.walk(paperMicro)
		change.do(&c, &w)
		row(change.name, c, w, paperBatch)
	}
	c, w := p.changed()
	row("**all of these**", c, w, paperBatch)
	c.GPU.Product = 0.85
	row("and products at 85 % where no multiprocessor idles", c, w, paperBatch)
	s := host(8).predict(p.walk(paperMicro), paperBatch)
	perfect := grouped(c.GPU, p.walk(paperMicro).ops, func(*op) string { return "" })[0].perfect
	p.row("limit: each operation as built at the GPU's whole rates, and nothing else", num(1, 1e3*perfect), percent(s.PeakShare*s.Total()/perfect),
		minutes(perfect*allSteps(paperBatch)))
	row("as built, but batches of 256 in micro-batches of 32: another training", host(8), *p.walk(32), 256)
}

// needed is the time that is left for all else, by the shares of the peak that products and attention reach.
func (p *paper) needed() {
	shareGoal, timeGoal := p.budgets()
	c, w := host(8), p.walk(paperMicro)
	products, attention, _ := p.parts(c.GPU, w.ops)
	p.head("left for all else", ":attention at 35 %", ":at 55 %", ":at 75 %")
	for _, goal := range []struct {
		name   string
		budget float64
	}{{fmt.Sprintf("%.0f %%", 100*goalShare), shareGoal}, {fmt.Sprintf("%d minutes", goalMinutes), timeGoal}} {
		for _, share := range []float64{0.65, 0.75, 0.85} {
			cells := []string{fmt.Sprintf("%s, products at %s", goal.name, percent(share))}
			for _, a := range []float64{0.35, 0.55, 0.75} {
				left := goal.budget - products/share - attention/a
				cell := num(1, 1e3*left) + " ms"
				if left <= 0 {
					cell = "nothing"
				}
				cells = append(cells, cell)
			}
			p.row(cells...)
		}
	}
	better, its := p.changed()
	as, then := p.beside(c, *w), p.beside(better, its)
	p.say("\n- Everything else takes %.1f ms as built, and %.1f ms after all three changes.\n", 1e3*as, 1e3*then)
	p.say("- Products are predicted at %s of the peak, last waves and all.\n", percent(products/p.productSeconds(c.GPU, w.ops)))
	const attentionAt = 0.55
	p.say("- **%d minutes** take all three changes, and products at **%s** of the peak, last waves and all.\n", goalMinutes,
		percent(products/(timeGoal-then-attention/attentionAt)))
	p.say("- **%.0f %%** takes attention at 55 %%, products at 85 %%, last waves and all, and **%.1f ms** for everything else.\n", 100*goalShare,
		1e3*(shareGoal-products/0.85-attention/attentionAt))
}

// beside is what of a step is neither products in BF16 nor attention.
func (p *paper) beside(c Cluster, w walk) float64 {
	s := c.predict(&w, paperBatch)
	_, _, rest := p.parts(c.GPU, w.ops)
	return rest + s.Total() - s.Compute
}

// productSeconds is how long products in BF16 are predicted to take.
func (p *paper) productSeconds(g GPU, ops []op) (sum float64) {
	for i := range ops {
		if o := &ops[i]; o.half && o.flops > 0 && !strings.HasPrefix(o.kernel, "Attention") {
			s, _ := g.seconds(o)
			sum += s
		}
	}
	return sum
}

// best is c's step on a batch in the micro-batches, of 16 and fewer, that suit it best.
func (p *paper) best(c Cluster, batch int) (best StepTime) {
	for _, m := range []int{16, 8, 4} {
		if s := c.predict(p.walk(m), batch); best.Images == 0 || s.Total() < best.Total() {
			best = s
		}
	}
	return best
}

// hosts are several of 8 GPUs.
func (p *paper) hosts() {
	p.head(":hosts", ":images of a GPU", ":forward and backward, ms", ":sent by a host, MB", ":on one lane, ms", ":with TLS, ms")
	for _, n := range []int{1, 2, 4} {
		s := p.best(p.wired(n, 100, 1, false), paperBatch)
		p.row(fmt.Sprint(n), fmt.Sprint(paperBatch/8/n), num(1, 1e3*s.Compute), num(1, float64(s.BytesSent)/1e6), num(0, 1e3*float64(s.BytesSent)/laneRate),
			num(0, 1e3*float64(s.BytesSent)/laneRateTLS))
	}
	p.say("\nThe step at batch 128 in ms, and the smallest batch, in doublings, from which so many hosts pay. One host takes **%.1f ms**.\n\n",
		1e3*p.best(host(8), paperBatch).Total())
	p.head(":hosts", ":link, Gb/s", "TLS", ":1 lane", ":2 lanes", ":4 lanes", ":8 lanes")
	for _, n := range []int{2, 4} {
		for _, link := range []float64{25, 100, 400} {
			for _, tls := range []bool{false, true} {
				cells := []string{fmt.Sprint(n), fmt.Sprint(link), map[bool]string{true: "on", false: "off"}[tls]}
				for _, lanes := range []int{1, 2, 4, 8} {
					c := p.wired(n, link, lanes, tls)
					cells = append(cells, fmt.Sprintf("%.1f, from %s", 1e3*p.best(c, paperBatch).Total(), p.paysFrom(c)))
				}
				p.row(cells...)
			}
		}
	}
	p.say("\n")
	for _, n := range []int{2, 4} {
		p.say("- %d hosts at 100 Gb/s pay at batch 128 %s; with TLS %s.\n", n, p.lanesThatPay(n, false), p.lanesThatPay(n, true))
	}
}

// wired is so many hosts of 8 GPUs.
func (p *paper) wired(hosts int, link float64, lanes int, tls bool) Cluster {
	c := host(8)
	c.Hosts, c.Wire = hosts, Wire{Link: link * 1e9 / 8, Lanes: lanes, TLS: tls}
	return c
}

// lanesThatPay says how many lanes at 100 Gb/s make hosts pay at the paper's batch.
func (p *paper) lanesThatPay(hosts int, tls bool) string {
	for lanes := 1; lanes <= 8; lanes++ {
		if c := p.wired(hosts, 100, lanes, tls); c.pays(p.best(c, paperBatch), p.best(host(8), paperBatch)) {
			return fmt.Sprintf("from %d lanes on", lanes)
		}
	}
	return "on no number of lanes up to 8"
}

// paysFrom says on which batch c's hosts pay: see Cluster.pays.
func (p *paper) paysFrom(c Cluster) string {
	one := c
	one.Hosts = 1
	for b := paperBatch; b <= maxBatchGrowth*paperBatch; b *= 2 {
		if c.pays(p.best(c, b), p.best(one, b)) {
			return fmt.Sprint(b)
		}
	}
	return "never"
}

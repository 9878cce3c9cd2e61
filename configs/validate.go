package configs

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

const maxNameBytes = 64

// Limits that keep products of two values far from overflow. None is near a use.
const (
	maxCount  = 1 << 20
	maxBlocks = 4096
	// maxInFlight is well beyond what fills a GPU.
	maxInFlight = 16
	// All crops of an image are in memory at once.
	maxRandAug = 128
)

// validator checks values. It passes over keys whose type was already wrong.
type validator struct{ *decoder }

// check reports that key is wrong unless ok.
func (v *validator) check(ok bool, key, format string, args ...any) {
	if ok {
		return
	}
	for k := key; k != ""; k = k[:max(0, strings.LastIndexByte(k, '.'))] {
		if v.bad[k] {
			return
		}
	}
	v.problem(v.set[key], key, format, args...)
}

// number is what within can compare.
type number interface{ ~int | ~float64 }

// within checks low <= x <= high.
func within[T number](v *validator, key string, x, low, high T) {
	v.check(low <= x && x <= high, key, "must be from %v to %v, is %v", low, high, x)
}

// above checks low < x <= high.
func above[T number](v *validator, key string, x, low, high T) {
	v.check(low < x && x <= high, key, "must be greater than %v and at most %v, is %v", low, high, x)
}

// oneOf checks that x is among choices.
func (v *validator) oneOf(key, x string, choices ...string) {
	near := ""
	for _, c := range choices {
		if strings.EqualFold(c, x) || (len(x) <= 64 && editDistance(strings.ToLower(x), strings.ToLower(c)) == 1) {
			near = "; did you mean " + c + "?"
		}
	}
	v.check(slices.Contains(choices, x), key, "must be one of %s, is %q%s", strings.Join(choices, ", "), x, near)
}

func (v *validator) config(c *Config) {
	v.text(c)
	v.name("name", c.Name, true)
	v.data(&c.Data)
	v.model(&c.Model)
	v.peft(&c.PEFT)
	v.head(c)
	v.train(&c.Train)
	v.eval(c)
	v.placement(c)
}

// text checks that no string holds what a line of text should not.
func (v *validator) text(c *Config) {
	for _, k := range keys {
		f := reflect.ValueOf(c).Elem().FieldByIndex(k.field)
		if f.Kind() == reflect.String {
			odd := strings.IndexFunc(f.String(), func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })
			v.check(odd < 0, k.name, "holds a character that does not print: %q", f.String())
		}
	}
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// name checks what becomes the name of a directory, a metric's label or a member.
func (v *validator) name(key, name string, required bool) {
	if name == "" && !required {
		return
	}
	v.check(len(name) <= maxNameBytes && plainName.MatchString(name), key,
		"must be 1 to %d letters, digits, '.', '_' or '-', the first a letter or digit, is %q", maxNameBytes, name)
}

func (v *validator) data(d *Data) {
	v.source("data.train", &d.Train)
	v.check(d.Train.Format != "", "data.train.format", "missing: a run needs training images")
	v.source("data.test", &d.Test)
	v.source("data.val", &d.Val)
	if d.Imbalance != nil {
		within(v, "data.imbalance", *d.Imbalance, 1, 1e6)
	}
	within(v, "data.samples_per_shard", d.SamplesPerShard, 1, maxCount)
	within(v, "data.workers", d.Workers, 0, maxBlocks)
	within(v, "data.depth", d.Depth, 1, maxBlocks)
	v.oneOf("data.on_error", d.OnError, "stop", "skip")
	v.oneOf("data.category", d.Category, "name", "kingdom", "phylum", "class", "order", "family", "genus")
	v.oneOf("data.augment", d.Augment, "standard", "minimalist")
	v.oneOf("data.augment_schedule", d.AugmentSchedule, "min", "convex", "linear", "concave", "max")
	v.oneOf("data.interpolation", d.Interpolation, "bilinear", "bicubic")
}

// sourceNeeds are the formats and the keys that each needs.
var sourceNeeds = map[string][]string{
	"idx":      {"images", "labels"},
	"list":     {"path", "labels"},
	"folder":   {"path"},
	"shards":   {"path"},
	"cifar100": {"path"},
	"inat2018": {"path", "labels"},
}

func (v *validator) source(key string, s *Source) {
	values := []struct{ name, value string }{{"path", s.Path}, {"images", s.Images}, {"labels", s.Labels}}
	if s.Format == "" {
		for _, x := range values {
			v.check(x.value == "", key+"."+x.name, "given without %s.format", key)
		}
		return
	}
	v.oneOf(key+".format", s.Format, "idx", "list", "folder", "shards", "cifar100", "inat2018")
	needs, known := sourceNeeds[s.Format]
	for _, x := range values {
		needed := slices.Contains(needs, x.name)
		v.check(!known || !needed || x.value != "", key+"."+x.name, "missing: format %s needs it", s.Format)
		v.check(!known || needed || x.value == "", key+"."+x.name, "format %s does not take it", s.Format)
	}
}

func (v *validator) model(m *Model) {
	v.check(m.Backbone != "", "model.backbone", "missing: give the path of the weights or a Hugging Face name")
	within(v, "model.resolution", m.Resolution, 1, maxBlocks)
	v.oneOf("model.precision", m.Precision, "fp32", "bf16")
	if m.ImageMean != nil {
		for _, x := range m.ImageMean {
			within(v, "model.image_mean", x, 0, 1)
		}
	}
	if m.ImageStd != nil {
		for _, x := range m.ImageStd {
			above(v, "model.image_std", x, 0, 1000)
		}
	}
	v.check((m.ImageMean == nil) == (m.ImageStd == nil), "model.image_std", "give image_mean and image_std both, or neither")
}

func (v *validator) peft(p *PEFT) {
	v.check(!p.VPTShallow || !p.VPTDeep, "peft.vpt_deep", "vpt_shallow and vpt_deep exclude each other: turn one off")
	if p.VPTLen != nil {
		within(v, "peft.vpt_len", *p.VPTLen, 1, maxBlocks)
	}
	if p.AdapterDim != nil {
		within(v, "peft.adapter_dim", *p.AdapterDim, 1, 1<<16)
	}
	if p.LoRADim != nil {
		within(v, "peft.lora_dim", *p.LoRADim, 1, 1<<16)
	}
	if p.MaskRatio != nil {
		above(v, "peft.mask_ratio", *p.MaskRatio, 0, 1)
	}
	if p.AFTRatio != nil {
		above(v, "peft.aft_ratio", *p.AFTRatio, 0, 1)
	}
	v.oneOf("peft.aft_loc", p.AFTLoc, "attn", "mlp", "all")
	v.oneOf("peft.formula", p.Formula, "lift", "lift+")
	v.check(!p.Mask || !p.AFT, "peft.aft", "mask and aft train the same matrices: turn one off")
	v.blocks("peft.partial", p.Partial)
	on := p.Methods()
	for method, blocks := range p.LayersOf() {
		v.blocks("peft.layers."+method, blocks)
		v.check(slices.Contains(on, method), "peft.layers."+method, "given, but peft.%s is off", method)
	}
}

// blocks checks a choice of blocks.
func (v *validator) blocks(key string, b Partial) {
	switch len(b) {
	case 1:
		within(v, key, b[0], 0, maxBlocks)
	case 2:
		v.check(0 <= b[0] && b[0] < b[1] && b[1] <= maxBlocks, key,
			"[from, to] must be a range 0 <= from < to <= %d, is [%d, %d]", maxBlocks, b[0], b[1])
	}
}

func (v *validator) head(c *Config) {
	v.oneOf("head.classifier", c.Head.Classifier, "cosine", "linear", "l2normed", "layernormed")
	above(v, "head.scale", c.Head.Scale, 0, 1e6)
	v.oneOf("head.init", c.Head.Init, "none", "class_mean", "text_feat", "1_shot", "10_shot", "100_shot", "linear_probe")
	v.oneOf("head.prompt", c.Head.Prompt, "default", "classname", "ensemble", "descriptor")
	needsPrompt := func(key, value, prompt string) {
		needed := c.Head.Init == "text_feat" && c.Head.Prompt == prompt
		v.check(!needed || value != "", key, "missing: head.prompt is %s", prompt)
	}
	needsPrompt("head.templates", c.Head.Templates, "ensemble")
	needsPrompt("head.descriptors", c.Head.Descriptors, "descriptor")
	v.oneOf("loss.type", c.Loss.Type, "CE", "LA", "Focal", "LDAM", "CB", "GRW", "BS", "LADE")
}

func (v *validator) train(t *Train) {
	within(v, "train.epochs", t.Epochs, 1, maxCount)
	v.check(t.MaxSteps >= 0, "train.max_steps", "must be 0 (to the end) or a number of steps, is %d", t.MaxSteps)
	within(v, "train.batch_size", t.BatchSize, 1, maxCount)
	within(v, "train.micro_batch_size", t.MicroBatchSize, 1, maxCount)
	if t.MicroBatchSize > 0 && t.BatchSize > 0 && !v.bad["train.batch_size"] {
		v.check(t.BatchSize%t.MicroBatchSize == 0, "train.micro_batch_size", "must divide train.batch_size: %d is not a "+
			"multiple of %d", t.BatchSize, t.MicroBatchSize)
	}
	above(v, "train.lr", t.LR, 0, 1e6)
	v.check(0 <= t.Momentum && t.Momentum < 1, "train.momentum", "must be at least 0 and less than 1, is %v", t.Momentum)
	within(v, "train.weight_decay", t.WeightDecay, 0, 1e6)
}

func (v *validator) eval(c *Config) {
	e := &c.Eval
	v.oneOf("eval.split", e.Split, "test", "val", "train")
	v.oneOf("eval.tte_mode", e.TTEMode, "fivecrop", "tencrop", "randaug")
	within(v, "eval.randaug_times", e.RandAugTimes, 1, maxRandAug)
	v.check(e.Split != "test" || c.Data.Test.Format != "", "data.test.format", "missing: eval.split is test")
	v.check(e.Split != "val" || c.Data.Val.Format != "", "data.val.format", "missing: eval.split is val")
	within(v, "eval.expand", e.Expand, 0, maxBlocks)
	within(v, "eval.every_epochs", e.EveryEpochs, 0, maxCount)
	if e.GroupImbalance != nil {
		within(v, "eval.group_imbalance", *e.GroupImbalance, 1, 1e6)
	}
}

func (v *validator) placement(c *Config) {
	within(v, "reduce.fraction_bits", c.Reduce.FractionBits, 8, 52)
	within(v, "run.checkpoint_every", c.Run.CheckpointEvery, 0, 1<<40)
	within(v, "run.keep", c.Run.Keep, 1, maxBlocks)
	v.oneOf("node.device", c.Node.Device, "cpu", "cuda")
	within(v, "node.devices", c.Node.Devices, 0, maxBlocks)
	within(v, "node.in_flight", c.Node.InFlight, 0, maxInFlight)
	v.name("node.name", c.Node.Name, false)
	within(v, "coordinator.nodes", c.Coordinator.Nodes, 1, maxBlocks)
	v.timeout("node.gpu_timeout", c.Node.GPUTimeout)
	v.timeout("coordinator.join_timeout", c.Coordinator.JoinTimeout)
	v.address("node.addr", c.Node.Addr, true)
	v.address("node.gossip_addr", c.Node.GossipAddr, true)
	v.address("node.metrics_addr", c.Node.MetricsAddr, false)
	v.address("coordinator.addr", c.Coordinator.Addr, true)
	v.address("coordinator.gossip_addr", c.Coordinator.GossipAddr, true)
	v.address("coordinator.metrics_addr", c.Coordinator.MetricsAddr, false)
	within(v, "allreduce.lanes", c.AllReduce.Lanes, 1, 64)
	within(v, "allreduce.bucket_bytes", c.AllReduce.BucketBytes, 2048, 1<<30)
	v.check(c.AllReduce.BucketBytes%8 == 0, "allreduce.bucket_bytes", "must be a multiple of 8 (int64 sums), is %d", c.AllReduce.BucketBytes)
	within(v, "allreduce.chunk_bytes", c.AllReduce.ChunkBytes, 2048, 1<<28)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
}

func (v *validator) timeout(key string, d Duration) {
	v.check(d > 0 && time.Duration(d) <= 30*24*time.Hour, key, "must be greater than 0 and at most 720h, is %v", d)
}

func (v *validator) address(key, addr string, required bool) {
	if addr == "" {
		v.check(!required, key, "missing: give host:port, such as 127.0.0.1:0")
		return
	}
	if err := CheckLoopback(addr); err != nil {
		v.check(false, key, "%s", fmt.Sprint(err))
	}
}

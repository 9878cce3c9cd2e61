package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"lift/allreduce"
	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/optim"
	"lift/model/peft"
	"lift/model/tensor"
	"lift/model/vit"
)

// methodsConfig is what the configs of several kinds say of the tuning methods.
type methodsConfig struct {
	FullTuning  bool `json:"full_tuning"`
	BiasTuning  bool `json:"bias_tuning"`
	LNTuning    bool `json:"ln_tuning"`
	VPTShallow  bool `json:"vpt_shallow"`
	VPTDeep     bool `json:"vpt_deep"`
	Adapter     bool `json:"adapter"`
	AdaptFormer bool `json:"adaptformer"`
	LoRA        bool `json:"lora"`
	LoRAMLP     bool `json:"lora_mlp"`
	SSFAttn     bool `json:"ssf_attn"`
	SSFMLP      bool `json:"ssf_mlp"`
	SSFLN       bool `json:"ssf_ln"`
	Mask        bool `json:"mask"`

	Partial    json.RawMessage `json:"partial"`
	VPTLen     *int            `json:"vpt_len"`
	AdapterDim *int            `json:"adapter_dim"`
	MaskRatio  *float64        `json:"mask_ratio"`
}

// peft is the section of a config that it amounts to.
func (m *methodsConfig) peft() (*configs.PEFT, error) {
	p := &configs.Default().PEFT
	p.FullTuning, p.BiasTuning, p.LNTuning, p.VPTShallow, p.VPTDeep = m.FullTuning, m.BiasTuning, m.LNTuning, m.VPTShallow, m.VPTDeep
	p.Adapter, p.AdaptFormer, p.LoRA, p.LoRAMLP = m.Adapter, m.AdaptFormer, m.LoRA, m.LoRAMLP
	p.SSFAttn, p.SSFMLP, p.SSFLN, p.Mask = m.SSFAttn, m.SSFMLP, m.SSFLN, m.Mask
	p.VPTLen, p.AdapterDim, p.MaskRatio = m.VPTLen, m.AdapterDim, m.MaskRatio
	if s := string(m.Partial); s != "" && s != "null" {
		if !strings.HasPrefix(s, "[") {
			s = "[" + s + "]"
		}
		if err := json.Unmarshal([]byte(s), (*[]int)(&p.Partial)); err != nil {
			return nil, fmt.Errorf("partial: %w", err)
		}
	}
	return p, nil
}

// trainConfig is the config of a train case.
type trainConfig struct {
	methodsConfig

	Classifier string  `json:"classifier"`
	Scale      float64 `json:"scale"`
	Loss       string  `json:"loss_type"`

	LR             float64   `json:"lr"`
	WeightDecay    float64   `json:"weight_decay"`
	Momentum       float64   `json:"momentum"`
	Epochs         int       `json:"num_epochs"`
	BatchSize      int       `json:"batch_size"`
	MicroBatchSize int       `json:"micro_batch_size"`
	Precision      string    `json:"prec"`
	Classes        int       `json:"num_classes"`
	Counts         []int     `json:"cls_num_list"`
	LRPerEpoch     []float64 `json:"lr_per_epoch"`
	Steps          int       `json:"steps"`
}

// classifiers gives the reference's classifiers their names in lift's configs.
var classifiers = map[string]string{
	"CosineClassifier": "cosine", "LinearClassifier": "linear",
	"L2NormedClassifier": "l2normed", "LayerNormedClassifier": "layernormed",
}

func trainCase(c *conformanceCase) (func() error, error) {
	var tc trainConfig
	if err := strict(c.Config, &tc); err != nil {
		return nil, err
	}
	cfg, err := tc.config()
	if err != nil {
		return nil, err
	}
	return func() error {
		return withDevice(c.t, func(dev tensor.Device) error { return c.train(&tc, cfg, dev) })
	}, nil
}

// config is the run's config that the case amounts to.
func (tc *trainConfig) config() (*configs.Config, error) {
	cfg := configs.Default()
	p, err := tc.peft()
	if err != nil {
		return nil, err
	}
	cfg.PEFT = *p
	cfg.Head.Classifier, cfg.Head.Scale, cfg.Loss.Type = classifiers[tc.Classifier], tc.Scale, tc.Loss
	if tc.Precision != "fp32" || cfg.Head.Classifier == "" {
		return nil, fmt.Errorf("prec %q or classifier %q is not known", tc.Precision, tc.Classifier)
	}
	cfg.Train.Epochs, cfg.Train.BatchSize, cfg.Train.MicroBatchSize = tc.Epochs, tc.BatchSize, tc.MicroBatchSize
	cfg.Train.LR, cfg.Train.Momentum, cfg.Train.WeightDecay = tc.LR, tc.Momentum, tc.WeightDecay
	return cfg, nil
}

// trainingRun is a case in progress.
type trainingRun struct {
	*trainConfig
	images []float32 // [N, 3, R, R]
	pixels int       // values of one image
	labels []int32   // [N]
	net    *network
	params *paramSet
	bits   int

	steps  int
	losses []float32 // undivided mean of each micro-batch
}

// train reads what the case is about and runs it.
func (c *conformanceCase) train(tc *trainConfig, cfg *configs.Config, dev tensor.Device) error {
	inputs, err := c.tensors(c.Inputs)
	if err != nil {
		return err
	}
	w, err := openCaseBackbone(c.backboneDir())
	if err != nil {
		return err
	}
	defer w.Close()
	return c.trainOn(tc, cfg, w, inputs, dev)
}

// trainOn makes the case's steps and compares everything on the way with what the reference computed.
func (c *conformanceCase) trainOn(tc *trainConfig, cfg *configs.Config, w *vit.Weights, inputs map[string]checkpoint.NamedTensor,
	dev tensor.Device) error {
	cfg.Model.Resolution = w.Arch().Resolution
	r, err := newTrainingRun(tc, cfg, w, dev, inputs)
	if err != nil {
		return err
	}
	defer r.net.Close()
	order, err := inputs["order"].Int64s()
	if err != nil {
		return err
	}
	got := map[string][]float32{}
	n := len(r.labels)
	if len(order) != tc.Epochs*n || len(tc.LRPerEpoch) != tc.Epochs {
		return fmt.Errorf("%d positions and %d learning rates for %d epochs of %d samples", len(order), len(tc.LRPerEpoch), tc.Epochs, n)
	}
	for epoch := range tc.Epochs {
		if lr := optim.CosineLR(tc.LR, epoch, tc.Epochs); !(lr-tc.LRPerEpoch[epoch] < 1e-12 && tc.LRPerEpoch[epoch]-lr < 1e-12) {
			return fmt.Errorf("epoch %d: learning rate %v; the reference's is %v", epoch, lr, tc.LRPerEpoch[epoch])
		}
		for batch := range slices.Chunk(order[epoch*n:(epoch+1)*n], tc.BatchSize) {
			if err := r.step(epoch, batch, got); err != nil {
				return fmt.Errorf("step %d: %w", r.steps+1, err)
			}
		}
	}
	if r.steps != tc.Steps {
		return fmt.Errorf("%d steps; the reference made %d", r.steps, tc.Steps)
	}
	got["losses"] = r.losses
	return c.compare(got)
}

func newTrainingRun(tc *trainConfig, cfg *configs.Config, w *vit.Weights, dev tensor.Device, inputs map[string]checkpoint.NamedTensor) (*trainingRun, error) {
	o := networkOptions{Weights: w, Config: cfg, Classes: tc.Classes, Counts: tc.Counts}
	var err error
	if o.Masks, err = masksIn(inputs); err != nil {
		return nil, err
	}
	ps, err := newParams(o)
	if err != nil {
		return nil, err
	}
	var initial []checkpoint.NamedTensor
	for name, t := range inputs {
		if strings.HasPrefix(name, "tuner.") || strings.HasPrefix(name, "head.") {
			initial = append(initial, t)
		}
	}
	if err := ps.Load(initial, nil); err != nil {
		return nil, err
	}
	r := &trainingRun{trainConfig: tc, params: ps, bits: cfg.Reduce.FractionBits}
	if r.images, err = inputs["images"].Float32s(); err != nil {
		return nil, err
	}
	labels, err := inputs["labels"].Int64s()
	if err != nil {
		return nil, err
	}
	for _, l := range labels {
		r.labels = append(r.labels, int32(l))
	}
	r.pixels = len(r.images) / len(labels)
	r.net, err = newNetwork(dev, o, ps)
	return r, err
}

// masksIn are the masks among the inputs.
func masksIn(inputs map[string]checkpoint.NamedTensor) (map[string]peft.Mask, error) {
	values := map[string][]byte{}
	for name, t := range inputs {
		if masked, ok := strings.CutPrefix(name, maskPrefix); ok {
			values[masked] = t.Data
		}
	}
	return masksOf(values)
}

// note notes a parameter's values under each of its names.
func (r *trainingRun) note(got map[string][]float32, prefix string, i int, values []float32) {
	for _, name := range append([]string{r.params.Names()[i]}, r.params.Aliases(i)...) {
		got[prefix+name] = values
	}
}

// step makes one step over the batch of sample ids and notes in got what the reference noted.
func (r *trainingRun) step(epoch int, batch []int64, got map[string][]float32) error {
	images, labels := r.gather(batch)
	if r.steps == 0 {
		got["features"] = make([]float32, len(batch)*r.net.Dim())
		got["logits"] = make([]float32, len(batch)*r.Classes)
		if err := r.net.Features(images, len(batch), got["features"]); err != nil {
			return err
		}
		if err := r.net.Logits(images, len(batch), got["logits"]); err != nil {
			return err
		}
	}
	grads, loss, err := r.gradients(images, labels)
	if err != nil {
		return err
	}
	if r.steps == 0 {
		got["loss"] = []float32{float32(loss)}
		for i, g := range grads {
			r.note(got, "grad.", i, g)
		}
	}
	lr := float32(optim.CosineLR(r.LR, epoch, r.Epochs))
	for i, g := range grads {
		r.params.Update(i, g, lr, float32(r.Momentum), float32(r.WeightDecay))
	}
	r.params.touch()
	r.steps++
	for i := range grads {
		r.note(got, fmt.Sprintf("after.%d.", r.steps), i, slices.Clone(r.params.Values(i)))
	}
	return nil
}

// gradients computes a batch micro-batch by micro-batch and adds their gradients as nodes do: as fixed-point integers.
// It returns the sums and the batch's loss.
func (r *trainingRun) gradients(images []float32, labels []int32) (grads [][]float32, loss float64, err error) {
	sums := make([][]int64, r.params.Len())
	for i := range sums {
		sums[i] = make([]int64, len(r.params.Values(i)))
	}
	divisor := r.net.loss.Divisor(labels)
	for at := 0; at < len(labels); at += r.MicroBatchSize {
		end := min(at+r.MicroBatchSize, len(labels))
		micro := labels[at:end]
		var failed error
		sum, err := r.net.Step(images[at*r.pixels:end*r.pixels], micro, divisor, func(i int, grad []float32) {
			steps := make([]int64, len(grad))
			if err := allreduce.Encode(steps, grad, r.bits); err != nil {
				failed = fmt.Errorf("%s: %w", r.params.Names()[i], err)
			}
			for k, s := range steps {
				sums[i][k] += s
			}
		})
		if err != nil || failed != nil {
			return nil, 0, fmt.Errorf("micro-batch at %d: %w", at, firstOf(err, failed))
		}
		loss += sum / divisor
		r.losses = append(r.losses, float32(sum/r.net.loss.Divisor(micro)))
	}
	for _, s := range sums {
		g := make([]float32, len(s))
		allreduce.Decode(g, s, r.bits)
		grads = append(grads, g)
	}
	return grads, loss, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// gather copies the images and labels of the samples.
func (r *trainingRun) gather(ids []int64) (images []float32, labels []int32) {
	for _, id := range ids {
		images = append(images, r.images[int(id)*r.pixels:(int(id)+1)*r.pixels]...)
		labels = append(labels, r.labels[id])
	}
	return images, labels
}

// backboneInfo is a backbone.json, or the architecture of a loader case.
type backboneInfo struct {
	Family     string    `json:"family"`
	Width      int       `json:"width"`
	Layers     int       `json:"layers"`
	Heads      int       `json:"heads"`
	MLP        int       `json:"mlp_width"`
	Patch      int       `json:"patch"`
	Resolution int       `json:"resolution"`
	EmbedDim   int       `json:"embed_dim"`
	Eps        float32   `json:"ln_eps"`
	Activation string    `json:"activation"`
	Text       *textInfo `json:"text"`
}

// check compares what was inferred from the weights.
func (b *backboneInfo) check(a vit.Arch) error {
	want := vit.Arch{
		Family: vit.Family(b.Family), Width: b.Width, Layers: b.Layers, Heads: b.Heads, MLP: b.MLP,
		Patch: b.Patch, Resolution: b.Resolution, Eps: b.Eps,
		Activation: map[string]tensor.Activation{"gelu": tensor.GELU, "quick_gelu": tensor.QuickGELU}[b.Activation],
	}
	if b.Activation != "gelu" && b.Activation != "quick_gelu" {
		return fmt.Errorf("activation %q is not known", b.Activation)
	}
	if a != want {
		return fmt.Errorf("inferred %v; it is %v", a, want)
	}
	return nil
}

// openCaseBackbone opens a shared backbone, whose number of heads is in its backbone.json.
func openCaseBackbone(dir string) (*vit.Weights, error) {
	b, err := os.ReadFile(filepath.Join(dir, "backbone.json"))
	if err != nil {
		return nil, err
	}
	var info backboneInfo
	if err := strict(b, &info); err != nil {
		return nil, err
	}
	hints := vit.Hints{}
	if info.Family == "timm" {
		hints = vit.Hints{Heads: info.Heads, Eps: info.Eps} // nothing in the file says them
	}
	w, err := vit.OpenPathWith(filepath.Join(dir, "model.safetensors"), hints)
	if err != nil {
		return nil, err
	}
	return w, info.check(w.Arch())
}

// withDevice runs f with a device on a thread of its own: see testEngine.
func withDevice(t testing.TB, f func(dev tensor.Device) error) error {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dev, err := testEngine(t).open(0)
	if err != nil {
		return err
	}
	defer dev.Close()
	return f(dev)
}

package text

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"lift/model/checkpoint"
	"lift/model/vit"
)

// ErrNoTower says that weights hold no text transformer: they are not CLIP's, or its image side alone.
var ErrNoTower = errors.New("the weights have no text tower (CLIP's token_embedding.weight): text features need a whole CLIP")

// Weights are the weights of a text transformer. They are immutable and safe for concurrent use.
type Weights struct {
	arch       Arch
	token      *vit.Tensor // [Vocabulary, W]
	position   *vit.Tensor // [Context, W]
	blocks     [][vit.PartCount]*vit.Tensor
	gain, bias *vit.Tensor // [W], of the last LayerNorm
	projection *vit.Tensor // [E, W]
	scale      float32     // the logarithm of what similarities are multiplied by
	file       *checkpoint.File

	digest func() [sha256.Size]byte
}

// Arch returns the shape.
func (w *Weights) Arch() Arch { return w.arch }

// LogitScale is what the cosine of an image's and a text's features is multiplied by, as a logarithm.
func (w *Weights) LogitScale() float32 { return w.scale }

// Digest returns the sha256 of the shape and of all weights as float32, computed at the first call.
func (w *Weights) Digest() [sha256.Size]byte { return w.digest() }

// OpenPath opens the text transformer of the weights at path, a file or a directory. Weights without one give an error that wraps [ErrNoTower].
func OpenPath(path string) (*Weights, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	w, err := Open(f)
	if err != nil {
		f.Close() // nothing was written
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	w.file = f
	return w, nil
}

// Close closes the file if OpenPath opened it. The weights may not be used afterwards.
func (w *Weights) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

// names are the tensors outside the blocks, as OpenAI and Hugging Face call them.
type names struct {
	token, position, gain, bias, projection string
	outIn                                   bool // of the projection: [E, W]; else [W, E]
}

// logitScale is called so by both.
const logitScale = "logit_scale"

var layouts = []names{
	{"token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection", false},
	{"text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight", "text_model.final_layer_norm.weight",
		"text_model.final_layer_norm.bias", "text_projection.weight", true},
}

// Open reads a text transformer from an open file, whose tensors it shares: f must stay open for as long as the weights are used.
func Open(f *checkpoint.File) (*Weights, error) {
	for _, n := range layouts {
		if _, ok := f.Tensor(n.token); ok {
			return open(f, n)
		}
	}
	return nil, ErrNoTower
}

func open(f *checkpoint.File, n names) (w *Weights, err error) {
	w = &Weights{}
	w.digest = sync.OnceValue(w.computeDigest)
	if w.token, err = read(f, n.token, -1, -1); err != nil {
		return nil, err
	}
	width := w.token.Dims[1]
	if w.position, err = read(f, n.position, -1, width); err != nil {
		return nil, err
	}
	if w.gain, err = read(f, n.gain, width); err != nil {
		return nil, err
	}
	if w.bias, err = read(f, n.bias, width); err != nil {
		return nil, err
	}
	if w.projection, err = readProjection(f, n, width); err != nil {
		return nil, err
	}
	scale, err := read(f, logitScale)
	if err != nil {
		return nil, err
	}
	w.scale = scale.Values[0]
	if w.blocks, err = vit.ReadTextBlocks(f, width); err != nil {
		return nil, err
	}
	if len(w.blocks) == 0 {
		return nil, errors.New("its text tower has no blocks")
	}
	w.arch = Arch{
		Width: width, Layers: len(w.blocks), MLP: w.blocks[0][vit.MLPInBias].Dims[0], Vocabulary: w.token.Dims[0],
		Context: w.position.Dims[0], Embed: w.projection.Dims[0],
	}
	return w, w.arch.configure(f.Config(), f.Metadata())
}

// read returns a tensor after checking its shape; -1 is any size above 0.
func read(f *checkpoint.File, name string, want ...int) (*vit.Tensor, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("tensor %s is missing", name)
	}
	fits := len(t.Shape) == len(want) || len(want) == 0 && t.Len() == 1
	for i := range want {
		fits = fits && (t.Shape[i] == want[i] || want[i] < 0 && t.Shape[i] > 0)
	}
	if !fits {
		return nil, fmt.Errorf("tensor %s: wanted shape %v (-1: any), found %v", name, want, t.Shape)
	}
	values, err := t.Float32s()
	if err != nil {
		return nil, err
	}
	return &vit.Tensor{Name: name, Part: name, Sources: []string{name}, Dims: slices.Clone(t.Shape), Values: values}, nil
}

// readProjection reads the projection as [E, W], turning OpenAI's round.
func readProjection(f *checkpoint.File, n names, width int) (*vit.Tensor, error) {
	if n.outIn {
		return read(f, n.projection, -1, width)
	}
	t, err := read(f, n.projection, width, -1)
	if err != nil {
		return nil, err
	}
	return &vit.Tensor{Name: t.Name, Part: t.Part, Sources: t.Sources, Dims: []int{t.Dims[1], width}, Values: vit.Transposed(t.Values, t.Dims[1])}, nil
}

func (w *Weights) computeDigest() (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "lift-text-1\n%+v\n%08x\n", w.arch, math.Float32bits(w.scale))
	all := []*vit.Tensor{w.token, w.position, w.gain, w.bias, w.projection}
	for _, b := range w.blocks {
		all = append(all, b[:]...)
	}
	for i, t := range all {
		fmt.Fprintf(h, "%d %v\n", i, t.Dims)
		h.Write(checkpoint.Float32Tensor(t.Name, t.Dims, t.Values).Data)
	}
	h.Sum(sum[:0])
	return sum
}

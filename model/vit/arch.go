// Package vit is the Vision Transformer: its weights, read from CLIP and timm files, its forward pass, written once, and
// the points of it where others may hook in. It knows no method of tuning by name.
//
// Letters in shapes: B images, T tokens (1 + patches, more where a hook adds some), D width, F width inside the MLP.
package vit

import (
	"fmt"

	"lift/model/autograd"
	"lift/model/tensor"
)

// Family says whose transformer it is, which decides the tensor names and a few details of the computation.
type Family string

// The two families.
const (
	// CLIP: QuickGELU, a LayerNorm before the blocks, no bias of the patch embedding, epsilon 1e-5.
	CLIP Family = "clip"
	// Timm: GELU with erf, no LayerNorm before the blocks, a bias of the patch embedding, epsilon 1e-6.
	Timm Family = "timm"
)

// ImageStats returns the mean and standard deviation of each colour channel (red, green, blue, in [0, 1])
// that images for this family are normalised with.
func (f Family) ImageStats() (mean, std [3]float32) {
	if f == CLIP {
		return [3]float32{0.48145466, 0.4578275, 0.40821073}, [3]float32{0.26862954, 0.26130258, 0.27577711}
	}
	return [3]float32{0.5, 0.5, 0.5}, [3]float32{0.5, 0.5, 0.5}
}

// epsilon is what the family's LayerNorms add to the variance.
func (f Family) epsilon() float32 {
	if f == CLIP {
		return 1e-5
	}
	return 1e-6
}

// activation is what stands between the layers of the family's MLPs.
func (f Family) activation() tensor.Activation {
	if f == CLIP {
		return tensor.QuickGELU
	}
	return tensor.GELU
}

// HeadWidth is the number of channels of an attention head where a file does not say.
const HeadWidth = 64

// wideHeads are the widths of the models above L (H, g and G, of CLIP and timm): there are 16 heads in each, of more channels.
var wideHeads = map[int]bool{1280: true, 1408: true, 1664: true}

// Arch is the shape of a transformer, all of it inferred from its weights but Heads, Eps and Activation.
type Arch struct {
	Family     Family
	Width      int // D
	Layers     int // blocks
	Heads      int // of the attention; divides Width
	MLP        int // F
	Patch      int // pixels of a patch's side
	Resolution int // pixels of the image's side
	Eps        float32
	Activation tensor.Activation // of the MLP
}

// Patches returns the number of patches of an image.
func (a Arch) Patches() int { g := a.Resolution / a.Patch; return g * g }

// Tokens returns the number of tokens of an image: the class token and the patches.
func (a Arch) Tokens() int { return 1 + a.Patches() }

// String shows the architecture in one line.
func (a Arch) String() string {
	activation := ""
	if a.Activation != a.Family.activation() {
		activation = map[tensor.Activation]string{tensor.GELU: ", GELU", tensor.QuickGELU: ", QuickGELU"}[a.Activation]
	}
	return fmt.Sprintf("%s ViT: width %d, %d layers, %d heads, MLP %d, patch %d, resolution %d, epsilon %g%s",
		a.Family, a.Width, a.Layers, a.Heads, a.MLP, a.Patch, a.Resolution, a.Eps, activation)
}

// activate is the non-linearity of the MLP.
func (a Arch) activate(t *autograd.Tape, x *autograd.Var) *autograd.Var {
	if a.Activation == tensor.QuickGELU {
		return t.QuickGELU(x)
	}
	return t.GELU(x)
}

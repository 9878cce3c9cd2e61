package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lift/configs"
	"lift/model/checkpoint"
	"lift/model/text"
	"lift/model/vit"
)

// texts are the classes as texts: CLIP's text tower, and the prompts of each class as its tokens.
type texts struct {
	weights    *text.Weights
	tokenizer  *text.Tokenizer
	projection *vit.Tensor // of images: [D, E]
	prompts    [][][]int32 // [C][prompts of the class][tokens]; nil until setPrompts
}

// openTexts opens the text side of the CLIP whose image side is w, read from the file or directory backbone. Its vocabulary lies there too, or is
// model.vocabulary.
func openTexts(cfg *configs.Config, backbone string, w *vit.Weights) (x *texts, err error) {
	x = &texts{projection: w.Projection()}
	if x.weights, err = text.OpenPath(backbone); err != nil {
		return nil, fmt.Errorf("model.backbone: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	if a := x.weights.Arch(); x.projection == nil {
		return nil, fmt.Errorf("model.backbone: %s has no projection of its image features (CLIP's visual.proj): they cannot be compared with texts", backbone)
	} else if e := x.projection.Dims[1]; e != a.Embed {
		return nil, fmt.Errorf("model.backbone: %s projects images to %d values and texts to %d", backbone, e, a.Embed)
	}
	x.tokenizer, err = openVocabulary(cfg, backbone)
	return x, err
}

// openVocabulary opens model.vocabulary, or the one beside the backbone.
func openVocabulary(cfg *configs.Config, backbone string) (*text.Tokenizer, error) {
	if cfg.Model.Vocabulary != "" {
		tok, err := text.OpenTokenizer(cfg.Model.Vocabulary)
		if err != nil {
			return nil, fmt.Errorf("model.%w", err) // it begins with "vocabulary"
		}
		return tok, nil
	}
	dir := backbone
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	tok, err := text.OpenTokenizer(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model.vocabulary is empty, and none lies beside the backbone: give the path of CLIP's bpe_simple_vocab_16e6.txt.gz (%w)", err)
	}
	return tok, err
}

// setClasses makes the prompts that head.prompt asks for of the classes' names.
func (x *texts) setClasses(cfg *configs.Config, names []string) error {
	prompts, err := classPrompts(cfg, names)
	if err != nil {
		return err
	}
	return x.setPrompts(prompts)
}

// setPrompts turns the prompts of each class into tokens that the tower knows.
func (x *texts) setPrompts(prompts [][]string) error {
	a := x.weights.Arch()
	x.prompts = make([][][]int32, len(prompts))
	for c, of := range prompts {
		for _, prompt := range of {
			ids, err := x.tokenizer.Encode(prompt, a.Context)
			if err != nil {
				return fmt.Errorf("class %d: %w", c, err)
			}
			if top := slices.Max(ids); int(top) >= a.Vocabulary {
				return fmt.Errorf("the vocabulary has a token %d, the text tower knows %d: they are not of one model", top, a.Vocabulary)
			}
			x.prompts[c] = append(x.prompts[c], ids)
		}
	}
	return nil
}

// classPrompts are the prompts of each class that head.prompt asks for.
func classPrompts(cfg *configs.Config, names []string) (prompts [][]string, err error) {
	key := "head.prompt"
	switch cfg.Head.Prompt {
	case "default":
		prompts, err = text.TemplatePrompts(names, []string{text.DefaultTemplate})
	case "classname":
		prompts, err = text.TemplatePrompts(names, []string{"{}"})
	case "ensemble":
		key = "head.templates"
		var templates []string
		if templates, err = text.ReadTemplates(cfg.Head.Templates); err == nil {
			prompts, err = text.TemplatePrompts(names, templates)
		}
	case "descriptor":
		key = "head.descriptors"
		var descriptors map[string][]string
		if descriptors, err = text.ReadDescriptors(cfg.Head.Descriptors); err == nil {
			prompts, err = text.DescriptorPrompts(names, descriptors)
		}
	default:
		err = fmt.Errorf("%q is not known", cfg.Head.Prompt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return prompts, nil
}

// width is E, the number of values of a feature.
func (x *texts) width() int { return x.weights.Arch().Embed }

func (x *texts) close() error {
	if x == nil || x.weights == nil {
		return nil
	}
	return x.weights.Close()
}

// featuresDigest is the sha256 of what text features are computed from: the tower, and the prompts as tokens, in which the class names, the templates
// and the vocabulary have their effect.
func (x *texts) featuresDigest() (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "lift text features 1\ntower %x\n", x.weights.Digest())
	for c, of := range x.prompts {
		fmt.Fprintf(h, "class %d %d\n", c, len(of))
		for _, ids := range of {
			fmt.Fprintf(h, "%v\n", ids)
		}
	}
	h.Sum(sum[:0])
	return sum
}

// digest is the sha256 of what a head made of texts depends on.
func (x *texts) digest() (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "lift texts 1\nfeatures %x\nprojection %v\n", x.featuresDigest(), x.projection.Dims)
	h.Write(checkpoint.Float32Tensor(x.projection.Name, x.projection.Dims, x.projection.Values).Data)
	h.Sum(sum[:0])
	return sum
}

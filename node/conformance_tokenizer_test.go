package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"lift/model/text"
)

// tokenizerConfig is the config of a tokenizer case.
type tokenizerConfig struct {
	Vocabulary string `json:"vocabulary"` // relative to the root
	Context    int    `json:"context_length"`
}

func tokenizerCase(c *conformanceCase) (func() error, error) {
	var config tokenizerConfig
	if err := strict(c.Config, &config); err != nil {
		return nil, err
	}
	return func() error { return c.tokenize(&config) }, nil
}

// tokenize compares the tokens of each text of the case.
func (c *conformanceCase) tokenize(tc *tokenizerConfig) error {
	tok, err := text.OpenTokenizer(c.above(filepath.FromSlash(tc.Vocabulary)))
	if err != nil {
		return err
	}
	var texts []struct {
		Group string `json:"group"`
		Text  string `json:"text"`
	}
	var want []struct {
		IDs   []int32 `json:"ids"`
		Error bool    `json:"error"`
	}
	if err := errors.Join(c.json(c.Inputs, &texts), c.json(c.Expected, &want)); err != nil {
		return err
	}
	if len(texts) != len(want) {
		return fmt.Errorf("%d texts, %d results", len(texts), len(want))
	}
	var wrong []error
	for i, in := range texts {
		ids, err := tok.Encode(in.Text, tc.Context)
		var long *text.TooLongError
		switch {
		case want[i].Error && !errors.As(err, &long):
			wrong = append(wrong, fmt.Errorf("%s %+q: %v; wanted a text too long", in.Group, in.Text, err))
		case !want[i].Error && err != nil:
			wrong = append(wrong, fmt.Errorf("%s: %w", in.Group, err))
		case !slices.Equal(ids, want[i].IDs):
			wrong = append(wrong, fmt.Errorf("%s %+q: tokens %v, want %v", in.Group, in.Text, ids, want[i].IDs))
		}
	}
	return errors.Join(wrong...)
}

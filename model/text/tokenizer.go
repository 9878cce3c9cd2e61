// Package text is the text side of CLIP: the byte-pair tokenizer, the prompts made of class names, and the text transformer.
//
// Letters in shapes: N texts, L tokens, W width of the transformer, E width of the features shared with images, C classes.
package text

import "fmt"

// maxText bounds a text in bytes: repairing one takes a pass for each layer of damage, of which its length is the limit.
const maxText = 1 << 14

// Tokenizer turns texts into CLIP's tokens, with the results of OpenAI's own: the text is repaired, in lower case, cut into words, and in each word
// the pair of tokens that the vocabulary has first is merged until there is none. It is safe for concurrent use.
type Tokenizer struct {
	vocabulary *vocabulary
}

// TooLongError says that a text has more tokens than the transformer takes.
type TooLongError struct {
	Text    string
	Context int // the most tokens, start and end included
}

func (e *TooLongError) Error() string {
	shown := []rune(e.Text)
	dots := ""
	if len(shown) > 80 {
		shown, dots = shown[:80], "…"
	}
	return fmt.Sprintf("the text %q%s has more than %d tokens: shorten it", string(shown), dots, e.Context-2)
}

// Encode returns the tokens of a text between start and end, context at most; a longer one is a [TooLongError].
func (t *Tokenizer) Encode(text string, context int) ([]int32, error) {
	if len(text) > maxText {
		return nil, &TooLongError{text, context}
	}
	v := t.vocabulary
	tokens := []int32{v.start}
	for _, word := range words(clean(text)) {
		switch {
		case word == startToken:
			tokens = append(tokens, v.start)
		case word == endToken:
			tokens = append(tokens, v.end)
		case len(word) > context*v.longest: // spares the merging
			return nil, &TooLongError{text, context}
		default:
			var err error
			if tokens, err = v.encode(tokens, word); err != nil {
				return nil, fmt.Errorf("the text %q: %w", text, err)
			}
		}
		if len(tokens) >= context {
			return nil, &TooLongError{text, context}
		}
	}
	return append(tokens, v.end), nil
}

// encode appends the tokens of a word.
func (v *vocabulary) encode(tokens []int32, word string) ([]int32, error) {
	from := len(tokens)
	for i := range len(word) {
		id := v.bytes[word[i]]
		if i == len(word)-1 {
			id = v.lastBytes[word[i]]
		}
		if id < 0 {
			return nil, fmt.Errorf("the vocabulary has no token for the byte %#x in %q", word[i], word)
		}
		tokens = append(tokens, id)
	}
	for {
		first, second, m := v.best(tokens[from:])
		if m.rank < 0 {
			return tokens, nil
		}
		kept := tokens[:from]
		for i := from; i < len(tokens); i++ {
			if i+1 < len(tokens) && tokens[i] == first && tokens[i+1] == second {
				kept = append(kept, m.token)
				i++
			} else {
				kept = append(kept, tokens[i])
			}
		}
		tokens = kept
	}
}

// best is the pair of neighbours with the lowest rank; a negative rank: none merge.
func (v *vocabulary) best(tokens []int32) (first, second int32, found merge) {
	found.rank = -1
	for i := range len(tokens) - 1 {
		m, ok := v.merges[[2]int32{tokens[i], tokens[i+1]}]
		if ok && (found.rank < 0 || m.rank < found.rank) {
			first, second, found = tokens[i], tokens[i+1], m
		}
	}
	return first, second, found
}

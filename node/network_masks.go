package node

import (
	"lift/model/checkpoint"
	"lift/model/peft"
)

// Masks returns the masks by the names of what they mask; nil where nothing is masked. They are shared: never write to them.
func (ps *paramSet) Masks() map[string]peft.Mask {
	var masks map[string]peft.Mask
	for _, m := range ps.masks {
		if masks == nil {
			masks = map[string]peft.Mask{}
		}
		masks[m.Name] = m
	}
	return masks
}

// MaskTensors returns the masks as files hold them: mask.NAME, one byte a value, 1 where it is trained.
func (ps *paramSet) MaskTensors() []checkpoint.NamedTensor {
	var out []checkpoint.NamedTensor
	for _, m := range ps.masks {
		out = append(out, checkpoint.NamedTensor{Name: maskPrefix + m.Name, DType: checkpoint.U8, Shape: m.Dims, Data: m.Bytes()})
	}
	return out
}

// masksOf reads masks of one byte a value, by the names of what they mask; nil where there are none. Whether they are those of a network,
// peft finds out.
func masksOf(values map[string][]byte) (map[string]peft.Mask, error) {
	var masks map[string]peft.Mask
	for name, v := range values {
		m, err := peft.NewMask(name, v)
		if err != nil {
			return nil, err
		}
		if masks == nil {
			masks = map[string]peft.Mask{}
		}
		masks[name] = m
	}
	return masks, nil
}

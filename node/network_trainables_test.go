//go:build cgo

package node

import "lift/configs"

// trainables are settings that train different sets of parameters.
var trainables = map[string]func(c *configs.Config){
	"head alone":    nil,
	"linear head":   func(c *configs.Config) { c.Head.Classifier, c.Loss.Type = "linear", "CE" },
	"adaptformer":   func(c *configs.Config) { c.PEFT.AdaptFormer = true },
	"last block":    func(c *configs.Config) { c.PEFT.AdaptFormer, c.PEFT.Partial = true, configs.Partial{1} },
	"first block":   func(c *configs.Config) { c.PEFT.AdaptFormer, c.PEFT.Partial = true, configs.Partial{0, 1} },
	"full":          func(c *configs.Config) { c.PEFT.FullTuning = true },
	"full, partial": func(c *configs.Config) { c.PEFT.FullTuning, c.PEFT.Partial = true, configs.Partial{1, 2} },
	"both":          func(c *configs.Config) { c.PEFT.FullTuning, c.PEFT.AdaptFormer = true, true },
	"bias":          func(c *configs.Config) { c.PEFT.BiasTuning = true },
	"ln":            func(c *configs.Config) { c.PEFT.LNTuning = true },
	"shallow":       func(c *configs.Config) { c.PEFT.VPTShallow = true },
	"deep":          func(c *configs.Config) { c.PEFT.VPTDeep = true },
	"deep, partial": func(c *configs.Config) { c.PEFT.VPTDeep, c.PEFT.Partial = true, configs.Partial{1} },
	"adapter":       func(c *configs.Config) { c.PEFT.Adapter = true },
	"lora":          func(c *configs.Config) { c.PEFT.LoRA = true },
	"lora mlp":      func(c *configs.Config) { c.PEFT.LoRAMLP = true },
	"ssf attn":      func(c *configs.Config) { c.PEFT.SSFAttn = true },
	"ssf mlp":       func(c *configs.Config) { c.PEFT.SSFMLP = true },
	"ssf ln":        func(c *configs.Config) { c.PEFT.SSFLN = true },
	"mask":          func(c *configs.Config) { c.PEFT.Mask, c.PEFT.MaskRatio = true, ratioOf(0.15) },
	"dense mask":    func(c *configs.Config) { c.PEFT.Mask, c.PEFT.MaskRatio = true, ratioOf(0.6) },
	"aft":           func(c *configs.Config) { c.PEFT.AFT, c.PEFT.AFTRatio = true, ratioOf(0.2) },
	"mask in full":  func(c *configs.Config) { c.PEFT.Mask, c.PEFT.MaskRatio, c.PEFT.FullTuning = true, ratioOf(0.15), true },
	"everything": func(c *configs.Config) {
		for name, on := range methodSwitches(&c.PEFT) {
			*on = name != "vpt_shallow" && name != "aft"
		}
		c.PEFT.MaskRatio = ratioOf(0.15)
	},
	"own layers": func(c *configs.Config) {
		c.PEFT.LoRA, c.PEFT.SSFMLP, c.PEFT.BiasTuning, c.PEFT.Adapter = true, true, true, true
		c.PEFT.Layers.LoRA, c.PEFT.Layers.BiasTuning, c.PEFT.Layers.Adapter = configs.Partial{0, 1}, configs.Partial{1}, configs.Partial{1, 2}
	},
}

func ratioOf(r float64) *float64 { return &r }

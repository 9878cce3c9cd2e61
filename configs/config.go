package configs

import "time"

// Config is everything a run is told. The zero value is not usable: take one from [Load], [Parse] or [Default].
//
// The tag `kind` says of each key what it may change: see the package comment.
type Config struct {
	// Name of the run; the file's base name where the file gives none.
	Name string `yaml:"name" kind:"placement,shared"`

	Data        Data        `yaml:"data"`
	Model       Model       `yaml:"model"`
	PEFT        PEFT        `yaml:"peft"`
	Head        Head        `yaml:"head"`
	Loss        Loss        `yaml:"loss"`
	Train       Train       `yaml:"train"`
	Eval        Eval        `yaml:"eval"`
	Reduce      Reduce      `yaml:"reduce"`
	Run         Run         `yaml:"run"`
	Node        Node        `yaml:"node"`
	Coordinator Coordinator `yaml:"coordinator"`
	AllReduce   AllReduce   `yaml:"allreduce"`
	Log         Log         `yaml:"log"`
}

// Data says where the images are. Its paths are placement keys: what they lead to enters the run digest by the digest
// of the index. A relative path starts at the working directory.
type Data struct {
	// Dataset is the name shown in reports.
	Dataset string `yaml:"dataset" kind:"placement,shared"`
	// Train, Test and Val are the splits; Test and Val may be absent (no format).
	Train Source `yaml:"train"`
	Test  Source `yaml:"test"`
	Val   Source `yaml:"val"`
	// Classnames is a file of one class name a line, in the order of the labels; empty: the source's own names.
	Classnames string `yaml:"classnames" kind:"placement"`
	// Category is the rank of the taxonomy that is the class: name, kingdom, phylum, class, order, family or genus (inat2018).
	Category string `yaml:"category" kind:"placement"`
	// Augment is what training images go through: standard (a random resized crop and a flip) or minimalist (LIFT+: a random
	// square crop).
	Augment string `yaml:"augment" kind:"result"`
	// AugmentSchedule is how the smallest crop of minimalist grows over the epochs: min, convex, linear, concave or max.
	AugmentSchedule string `yaml:"augment_schedule" kind:"result"`
	// Interpolation is bilinear or bicubic, wherever an image is resized.
	Interpolation string `yaml:"interpolation" kind:"result"`
	// Imbalance makes the training split long-tailed: with n images in the largest of C classes, class c keeps
	// int(n·Imbalance^(-c/(C-1))); null: as it is.
	Imbalance *float64 `yaml:"imbalance" kind:"result"`
	// Shards is the directory that the splits are packed into (train, test, val) and read from; empty: read the sources.
	Shards string `yaml:"shards" kind:"placement"`
	// SamplesPerShard is how many images go into one tar.
	SamplesPerShard int `yaml:"samples_per_shard" kind:"placement"`
	// Workers decode images, on each node; 0: as many as its devices.
	Workers int `yaml:"workers" kind:"placement"`
	// Depth is how many micro-batches of each device are decoded ahead.
	Depth int `yaml:"depth" kind:"placement"`
	// OnError is what an image that does not decode does: stop or skip. skip leaves out images whose bytes are no image, the same on every node: they add
	// nothing to a step, whose divisor stays that of the index. What cannot be read (a missing file, a damaged shard) stops the run in any case.
	OnError string `yaml:"on_error" kind:"result"`
}

// Source is one split.
type Source struct {
	// Format is idx, list, folder, shards, cifar100 or inat2018; empty: there is no such split.
	Format string `yaml:"format" kind:"placement"`
	// Path is the directory of the images (list, inat2018), class folders (folder), tars (shards) or files (cifar100).
	Path string `yaml:"path" kind:"placement"`
	// Images is the IDX file of the images (idx).
	Images string `yaml:"images" kind:"placement"`
	// Labels is the IDX file of the labels (idx), the list file (list) or the annotations (inat2018).
	Labels string `yaml:"labels" kind:"placement"`
}

// Model is the frozen backbone and how images enter it.
type Model struct {
	// Backbone is a path or a Hugging Face name (see [Model.HubName]). The digest of its tensors enters the run digest.
	Backbone string `yaml:"backbone" kind:"placement"`
	// Resolution is the side of the square input, in pixels.
	Resolution int `yaml:"resolution" kind:"result"`
	// Precision is fp32 or bf16.
	Precision string `yaml:"precision" kind:"result"`
	// ImageMean and ImageStd normalise each channel (red, green, blue, of images in [0,1]); null: the backbone family's.
	ImageMean *[3]float64 `yaml:"image_mean,flow" kind:"result"`
	ImageStd  *[3]float64 `yaml:"image_std,flow" kind:"result"`
	// Vocabulary is the file or directory of the text tower's byte-pair vocabulary; empty: beside the backbone. What it makes of the
	// prompts enters the run digest.
	Vocabulary string `yaml:"vocabulary" kind:"placement"`
}

// PEFT says what of the backbone is tuned. Several methods may be on at once; none: the head alone.
type PEFT struct {
	FullTuning  bool `yaml:"full_tuning" kind:"result"`
	BiasTuning  bool `yaml:"bias_tuning" kind:"result"`
	LNTuning    bool `yaml:"ln_tuning" kind:"result"`
	VPTShallow  bool `yaml:"vpt_shallow" kind:"result"`
	VPTDeep     bool `yaml:"vpt_deep" kind:"result"`
	Adapter     bool `yaml:"adapter" kind:"result"`
	AdaptFormer bool `yaml:"adaptformer" kind:"result"`
	LoRA        bool `yaml:"lora" kind:"result"`
	LoRAMLP     bool `yaml:"lora_mlp" kind:"result"`
	SSFAttn     bool `yaml:"ssf_attn" kind:"result"`
	SSFMLP      bool `yaml:"ssf_mlp" kind:"result"`
	SSFLN       bool `yaml:"ssf_ln" kind:"result"`
	Mask        bool `yaml:"mask" kind:"result"`
	AFT         bool `yaml:"aft" kind:"result"`
	// Partial restricts the methods to some blocks.
	Partial Partial `yaml:"partial" kind:"result"`
	// Layers restricts one method to some blocks, whatever Partial says; null: Partial.
	Layers Layers `yaml:"layers"`
	// Formula decides the values that are null: lift (LIFT's formulas) or lift+ (LIFT+'s, by the number of tuned blocks).
	Formula string `yaml:"formula" kind:"result"`
	// VPTLen is the number of prompt tokens; null: the formula's (10 in LIFT).
	VPTLen *int `yaml:"vpt_len" kind:"result"`
	// AdapterDim is the bottleneck of adapter, adaptformer and lora; null: the formula's, in LIFT 2^max(0, ⌊log2(classes / 2·layers)⌋).
	AdapterDim *int `yaml:"adapter_dim" kind:"result"`
	// LoRADim is the bottleneck of lora and lora_mlp; null: AdapterDim, if that is given, else the formula's.
	LoRADim *int `yaml:"lora_dim" kind:"result"`
	// MaskRatio is the tuned share of each masked matrix; null: the formula's.
	MaskRatio *float64 `yaml:"mask_ratio" kind:"result"`
	// AFTRatio is the tuned share of each matrix and of each bias of aft; null: LIFT+'s formula.
	AFTRatio *float64 `yaml:"aft_ratio" kind:"result"`
	// AFTLoc is where aft tunes: attn, mlp or all.
	AFTLoc string `yaml:"aft_loc" kind:"result"`
	// MaskSeed draws the masks of mask and aft.
	MaskSeed uint64 `yaml:"mask_seed" kind:"result"`
}

// Layers are the blocks of each method, as in LIFT+.
type Layers struct {
	FullTuning  Partial `yaml:"full_tuning" kind:"result"`
	BiasTuning  Partial `yaml:"bias_tuning" kind:"result"`
	LNTuning    Partial `yaml:"ln_tuning" kind:"result"`
	VPTDeep     Partial `yaml:"vpt_deep" kind:"result"`
	Adapter     Partial `yaml:"adapter" kind:"result"`
	AdaptFormer Partial `yaml:"adaptformer" kind:"result"`
	LoRA        Partial `yaml:"lora" kind:"result"`
	LoRAMLP     Partial `yaml:"lora_mlp" kind:"result"`
	SSFAttn     Partial `yaml:"ssf_attn" kind:"result"`
	SSFMLP      Partial `yaml:"ssf_mlp" kind:"result"`
	SSFLN       Partial `yaml:"ssf_ln" kind:"result"`
	Mask        Partial `yaml:"mask" kind:"result"`
	AFT         Partial `yaml:"aft" kind:"result"`
}

// Head is the classifier.
type Head struct {
	// Classifier is cosine, linear, l2normed or layernormed.
	Classifier string `yaml:"classifier" kind:"result"`
	// Scale multiplies the cosines (cosine); the LDAM loss uses it too.
	Scale float64 `yaml:"scale" kind:"result"`
	// Init is none, class_mean, text_feat, 1_shot, 10_shot, 100_shot or linear_probe.
	Init string `yaml:"init" kind:"result"`
	// Prompt is default, classname, ensemble or descriptor (text_feat).
	Prompt string `yaml:"prompt" kind:"result"`
	// Templates is a file of prompts, one a line, with {} for the class name (prompt ensemble). What it makes of the class names enters
	// the run digest.
	Templates string `yaml:"templates" kind:"placement"`
	// Descriptors is a JSON file of a list of texts for each class name (prompt descriptor). They enter the run digest.
	Descriptors string `yaml:"descriptors" kind:"placement"`
}

// Loss is what is minimised.
type Loss struct {
	// Type is CE, LA, Focal, LDAM, CB, GRW, BS or LADE.
	Type string `yaml:"type" kind:"result"`
}

// Train is the optimisation: SGD with momentum, a cosine schedule by epoch.
type Train struct {
	Seed   uint64 `yaml:"seed" kind:"result"`
	Epochs int    `yaml:"epochs" kind:"result"`
	// MaxSteps stops the run after that many steps; 0: at the end of the last epoch. The schedule does not see it.
	MaxSteps int `yaml:"max_steps" kind:"placement,shared"`
	// BatchSize is the number of samples of a step, over all nodes.
	BatchSize int `yaml:"batch_size" kind:"result"`
	// MicroBatchSize is the unit of work that a device computes at once; it divides BatchSize.
	MicroBatchSize int     `yaml:"micro_batch_size" kind:"result"`
	LR             float64 `yaml:"lr" kind:"result"`
	Momentum       float64 `yaml:"momentum" kind:"result"`
	WeightDecay    float64 `yaml:"weight_decay" kind:"result"`
}

// Eval is the evaluation. It cannot change the adapters, so its keys are placement keys.
type Eval struct {
	// Split is test, val or train (with the test transform).
	Split string `yaml:"split" kind:"placement,shared"`
	// TTE averages the logits of several crops of each image.
	TTE bool `yaml:"tte" kind:"placement,shared"`
	// TTEMode is which crops: fivecrop (the corners and the centre), tencrop (those and their mirror images) or randaug
	// (RandAugTimes random crops, as in training).
	TTEMode      string `yaml:"tte_mode" kind:"placement,shared"`
	RandAugTimes int    `yaml:"randaug_times" kind:"placement,shared"`
	// Expand is how many pixels more than the resolution the shorter side gets before five or ten crops (TTE).
	Expand int `yaml:"expand" kind:"placement,shared"`
	// EveryEpochs evaluates after each that many epochs as well; 0: at the end only.
	EveryEpochs int `yaml:"every_epochs" kind:"placement,shared"`
	// GroupImbalance groups the classes into many, medium and few by the counts that this imbalance would give (as
	// in data.imbalance), as the reference does for CIFAR-100-LT; null: by the training counts.
	GroupImbalance *float64 `yaml:"group_imbalance" kind:"placement,shared"`
	// Confusion writes confusion.csv, the counts of each class predicted for each class, into run.dir.
	Confusion bool `yaml:"confusion" kind:"placement,shared"`
}

// Reduce is the exact sum of gradients.
type Reduce struct {
	// FractionBits: gradients are summed in steps of 2^-FractionBits.
	FractionBits int `yaml:"fraction_bits" kind:"result"`
	// MixedKinds admits nodes whose arithmetic differs; the result is then not repeatable.
	MixedKinds bool `yaml:"mixed_kinds" kind:"result"`
}

// Run is where a run's files go.
type Run struct {
	// Dir is runs/NAME by default.
	Dir string `yaml:"dir" kind:"placement"`
	// CheckpointEvery is the steps between two states, besides those at each epoch's end and when the run stops; 0: only those.
	CheckpointEvery int `yaml:"checkpoint_every" kind:"placement,shared"`
	// Keep is how many states are kept.
	Keep int `yaml:"keep" kind:"placement"`
}

// Node is one worker process.
type Node struct {
	// Device is cpu or cuda.
	Device string `yaml:"device" kind:"placement"`
	// Devices is how many cores or GPUs the node uses; 0: all it finds.
	Devices int `yaml:"devices" kind:"placement"`
	// InFlight is how many micro-batches a GPU computes at once; 0: two where its memory holds them, else one.
	InFlight int `yaml:"in_flight" kind:"placement"`
	// Graphs captures a GPU's step once and launches it as CUDA graphs from then on.
	Graphs bool `yaml:"graphs" kind:"placement"`
	// GPUTimeout is how long the node waits for a GPU before it takes it for hung, and ends.
	GPUTimeout Duration `yaml:"gpu_timeout" kind:"placement"`
	// Addr is where the ring listens (host:port; port 0: any free one).
	Addr string `yaml:"addr" kind:"placement"`
	// GossipAddr is where membership gossip listens.
	GossipAddr string `yaml:"gossip_addr" kind:"placement"`
	// MetricsAddr is where Prometheus may scrape; empty: nowhere.
	MetricsAddr string `yaml:"metrics_addr" kind:"placement"`
	// Name is unique in the run; empty: made of the host's name and the process.
	Name string `yaml:"name" kind:"placement"`
}

// Coordinator is the process that admits nodes.
type Coordinator struct {
	// Nodes is how many nodes the run waits for.
	Nodes int `yaml:"nodes" kind:"placement"`
	// Addr is where its gRPC listens.
	Addr string `yaml:"addr" kind:"placement"`
	// GossipAddr is the address that `lift node --join` takes.
	GossipAddr string `yaml:"gossip_addr" kind:"placement"`
	// MetricsAddr is where Prometheus may scrape and discover the nodes; empty: nowhere.
	MetricsAddr string `yaml:"metrics_addr" kind:"placement"`
	// JoinTimeout is how long it waits for Nodes nodes.
	JoinTimeout Duration `yaml:"join_timeout" kind:"placement"`
}

// AllReduce tunes the ring; nothing here changes a sum, but all nodes must agree.
type AllReduce struct {
	// Lanes is the number of connections to the next neighbour.
	Lanes int `yaml:"lanes" kind:"placement,shared"`
	// BucketBytes is the largest size of a bucket of int64 sums, in bytes (8 a value). A small gradient is cut into smaller
	// ones, so that most of it is summed while the backward still runs.
	BucketBytes int `yaml:"bucket_bytes" kind:"placement,shared"`
	// ChunkBytes is the size of one message.
	ChunkBytes int `yaml:"chunk_bytes" kind:"placement,shared"`
}

// Log is what a process tells of itself.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level" kind:"placement"`
	// JSON writes records for machines.
	JSON bool `yaml:"json" kind:"placement"`
}

// Partial restricts PEFT to some blocks: nil is all of them, one number n the last n (0: none), two numbers [a, b] the blocks a
// to b-1. In YAML: null, n or [a, b].
type Partial []int

// Duration is a time.Duration that YAML writes as Go does: 60s, 1m30s.
type Duration time.Duration

// Default is what a file that says nothing gets. It is not valid: a run needs data and a backbone.
func Default() *Config {
	return &Config{
		Data: Data{SamplesPerShard: 1024, Depth: 4, OnError: "stop", Category: "name", Augment: "standard",
			AugmentSchedule: "convex", Interpolation: "bilinear"},
		Model:  Model{Resolution: 224, Precision: "fp32"},
		PEFT:   PEFT{Formula: "lift", AFTLoc: "all"},
		Head:   Head{Classifier: "cosine", Scale: 25, Init: "none", Prompt: "default"},
		Loss:   Loss{Type: "LA"},
		Train:  Train{Epochs: 10, BatchSize: 128, MicroBatchSize: 16, LR: 0.01, Momentum: 0.9, WeightDecay: 5e-4},
		Eval:   Eval{Split: "test", Expand: 24, TTEMode: "fivecrop", RandAugTimes: 1},
		Reduce: Reduce{FractionBits: 40},
		Run:    Run{Keep: 2},
		Node: Node{Device: "cpu", Graphs: true, GPUTimeout: Duration(10 * time.Minute), Addr: "127.0.0.1:0", GossipAddr: "127.0.0.1:0",
			MetricsAddr: "127.0.0.1:0"},
		Coordinator: Coordinator{Nodes: 1, Addr: "127.0.0.1:0", GossipAddr: "127.0.0.1:0",
			MetricsAddr: "127.0.0.1:0", JoinTimeout: Duration(60 * time.Second)},
		AllReduce: AllReduce{Lanes: 1, BucketBytes: 4 << 20, ChunkBytes: 1 << 20},
		Log:       Log{Level: "info"},
	}
}

// Package autograd records a forward pass over about twenty coarse operations and runs it backward.
//
// The tape is eager: an operation computes when it is called (a Linear's product may wait for the operation that reads
// it, so that the two run as one). Each file holds one family of operations, a forward and its backward side by side.
// Records and variables are structs used again each step: a steady step allocates nothing in Go, and the arena gives
// the same addresses every time.
//
// Types: the results of an operation have the type of what it reads, and so have their gradients; a tape of BF16 makes its first activations so
// (PatchEmbed), and Cast leaves them where a head begins. Trained parameters, and the gradients of all parameters, are F32: where a product needs a
// matrix in BF16, the tape keeps a copy beside it (see factor.go). Frozen matrices come in the tape's type. Vectors, statistics, norms, logits and
// losses are F32.
//
// What is frozen costs nothing: no gradient of a frozen weight, nothing saved that no gradient reads, no backward below
// the first trainable parameter.
package autograd

import (
	"errors"
	"fmt"

	"lift/model/tensor"
)

// Param is a weight on a device. Frozen ones may be shared between devices and mapped read-only; trainable ones belong
// to one tape.
type Param struct {
	Name      string
	Value     tensor.Tensor
	Trainable bool
	// Grad is the gradient of this micro-batch, F32, of Value's shape; the tape allocates it at the first use. It is
	// valid from the sink's call until the next Reset.
	Grad tensor.Tensor

	memory tensor.Memory
	leaf   *Var
	epoch  uint64 // of the tape, when leaf was made
	rounded
}

// Sink is told of each trainable parameter that was used, as soon as the last contribution to p.Grad has landed: the head's
// first, the first block's last.
type Sink func(p *Param)

// Var is the result of an operation, or an input. It is valid until the next Reset.
type Var struct {
	tape  *Tape
	value tensor.Tensor
	block tensor.Block // of value; 0: not the arena's
	grad  tensor.Tensor
	gback tensor.Block // of grad; 0: none yet, or a parameter's
	param *Param
	late  [3]*Var // the x, w and bias of a Linear whose product has not run; value then is a shape alone
	uses  int32   // records that still will contribute to grad
	needs bool
	land  bool // grad holds a contribution
	wide  bool // a weight's: its gradient is F32, whatever its own type
	dead  bool // forgotten by Keep

	// Of a trained matrix, or of rows of one: the parameter, and how many of its rows come before.
	master *Param
	above  int

	// Of a masked weight: the parameter of its trained values, which of them lie in it, and how many values of the whole come before it.
	leaf     *Var
	mask     *Masked
	from, to int
	origin   int
}

// Value is v's tensor, valid until the next Reset or the Keep of another variable.
func (v *Var) Value() tensor.Tensor { return v.tape.force(v) }

// NeedsGrad says whether the loss's gradient with respect to v will be computed.
func (v *Var) NeedsGrad() bool { return v.needs }

// Tape records operations on one device. It is used from the device's goroutine.
type Tape struct {
	dev     tensor.Device
	arena   *tensor.Arena
	acts    tensor.DType // of activations
	train   bool
	epoch   uint64
	vars    []*Var
	nvars   int
	records []*record
	nrecs   int
	live    []*Var   // own a block and were not forgotten
	late    []*Var   // Linears whose product may not have run
	grads   []*Param // have a Grad that this tape allocated
	copies  []*Param // have a rounded copy that this tape allocated

	masked      []*Masked // have memory that this tape allocated
	maskedBytes int64
}

// record is one operation to be run backward. Which fields mean what is up to the operation.
type record struct {
	back  func(t *Tape, r *record)
	out   *Var
	in    [5]*Var
	saved [2]tensor.Tensor // tensors beside the inputs' and output's values
	block [2]tensor.Block  // of saved
	keep  [4]tensor.Block  // values of inputs or outputs that the backward reads
	nkeep int
	n     [3]int
	f     float32
	act   tensor.Activation
	mask  *Masked
}

// New returns an empty tape of F32 on dev. Reset must be called before the first operation.
func New(dev tensor.Device) *Tape { return NewTyped(dev, tensor.F32) }

// NewTyped is New with activations of a type, F32 or BF16.
func NewTyped(dev tensor.Device, acts tensor.DType) *Tape {
	return &Tape{dev: dev, arena: tensor.NewArena(dev), acts: acts}
}

// Device is the tape's device.
func (t *Tape) Device() tensor.Device { return t.dev }

// ArenaPeak is the largest number of bytes of activations and gradients in use at one time so far, without the
// parameters and their gradients.
func (t *Tape) ArenaPeak() int64 { return t.arena.Peak() }

// ArenaInUse is the number of those bytes in use now: after the forward, what is saved for the backward.
func (t *Tape) ArenaInUse() int64 { return t.arena.InUse() }

// ArenaReserved is the number of bytes that the arena holds of the device's memory: what is not in use is its own all the same.
func (t *Tape) ArenaReserved() int64 { return t.arena.Reserved() }

// Close frees the arena and the gradients it allocated.
func (t *Tape) Close() {
	t.arena.Close()
	for _, p := range t.grads {
		t.dev.Free(p.memory)
		p.memory, p.Grad = tensor.Memory{}, tensor.Tensor{}
	}
	t.grads = nil
	t.closeCopies()
	t.closeMasked()
}

// Reset forgets all operations and frees their memory. With train false nothing is saved and nothing differentiable.
func (t *Tape) Reset(train bool) {
	t.train = train
	t.epoch++
	t.nvars, t.nrecs = 0, 0
	t.live, t.late = t.live[:0], t.late[:0]
	if err := t.arena.Reset(); err != nil {
		panic(failure{err})
	}
}

// failure is what an operation panics with when the device cannot go on.
type failure struct{ err error }

// Catch is deferred by whoever runs operations: it turns a device's failure (no memory, a kernel that failed) into
// *err, as far as it is known: it does not wait. Other panics go on. After a failure the tape needs a Reset.
func (t *Tape) Catch(err *error) {
	switch p := recover().(type) {
	case nil:
		*err = errors.Join(*err, t.dev.Err())
	case failure:
		*err = fmt.Errorf("autograd: on %s: %w", t.dev.Name(), p.err)
	default:
		panic(p)
	}
}

// Input returns x as a variable without gradient. x must stay unchanged until the next Reset.
func (t *Tape) Input(x tensor.Tensor) *Var {
	v := t.newVar()
	v.value = x
	return v
}

// Use returns p as a variable. Using one parameter twice accumulates its gradient.
func (t *Tape) Use(p *Param) *Var {
	if !p.Trainable {
		return t.Input(p.Value)
	}
	if !t.train {
		v := t.Input(p.Value)
		v.master = p
		return v
	}
	if p.leaf != nil && p.epoch == t.epoch {
		return p.leaf
	}
	if p.Grad.IsNone() {
		t.allocGrad(p)
	}
	v := t.newVar()
	v.value, v.param, v.needs, v.grad, v.master = p.Value, p, true, p.Grad, p
	p.leaf, p.epoch = v, t.epoch
	return v
}

func (t *Tape) allocGrad(p *Param) {
	m, err := t.dev.Alloc(max(1, p.Value.Len()*tensor.F32.Size()))
	if err != nil {
		panic(failure{fmt.Errorf("gradient of %s: %w", p.Name, err)})
	}
	dims := p.Value.Dims()
	p.memory, p.Grad = m, tensor.New(m, 0, tensor.F32, dims...)
	t.grads = append(t.grads, p)
}

// Keep declares that of all values computed so far only x (and what the backward needs) will be read again, and reuses the memory of the
// rest. A transformer calls it at the end of each block.
func (t *Tape) Keep(x *Var) {
	t.force(x)
	kept := false
	for _, v := range t.live {
		switch {
		case v == x:
			kept = true
		case !v.dead:
			t.forget(v)
		}
	}
	for _, v := range t.late {
		v.dead = v.dead || v.late[0] != nil // its inputs are gone
	}
	t.live, t.late = t.live[:0], t.late[:0]
	if kept {
		t.live = append(t.live, x)
	}
}

// forget drops v's own hold on its value.
func (t *Tape) forget(v *Var) {
	v.dead = true
	t.arena.Release(v.block)
}

func (t *Tape) newVar() *Var {
	if t.nvars == len(t.vars) {
		t.vars = append(t.vars, new(Var))
	}
	v := t.vars[t.nvars]
	t.nvars++
	*v = Var{tape: t}
	return v
}

// result returns a new variable with memory for a value of the given type and shape. It needs a gradient when one of in does.
func (t *Tape) result(in [5]*Var, dt tensor.DType, dims ...int) *Var {
	v := t.newVar()
	v.value, v.block = t.alloc(dt, dims...)
	t.live = append(t.live, v)
	v.needs = t.anyNeeds(in)
	return v
}

func (t *Tape) anyNeeds(in [5]*Var) bool {
	for _, v := range in {
		if v != nil && v.needs {
			return true
		}
	}
	return false
}

// resultLike is result with the type and shape of x.
func (t *Tape) resultLike(x tensor.Tensor, in [5]*Var) *Var {
	var d [tensor.MaxRank]int
	return t.result(in, x.DType(), shape(x, &d)...)
}

// shape writes x's dimensions into d without allocating.
func shape(x tensor.Tensor, d *[tensor.MaxRank]int) []int {
	for i := range x.Rank() {
		d[i] = x.Dim(i)
	}
	return d[:x.Rank()]
}

func (t *Tape) alloc(dt tensor.DType, dims ...int) (tensor.Tensor, tensor.Block) {
	x, b, err := t.arena.Alloc(dt, dims...)
	if err != nil {
		panic(failure{err})
	}
	return x, b
}

// allocLike is alloc with the type and shape of x.
func (t *Tape) allocLike(x tensor.Tensor) (tensor.Tensor, tensor.Block) {
	var d [tensor.MaxRank]int
	return t.alloc(x.DType(), shape(x, &d)...)
}

// record appends the record of an operation whose result is out, if its gradient will be needed; else it returns nil.
func (t *Tape) record(back func(*Tape, *record), out *Var, in [5]*Var) *record {
	if !out.needs {
		return nil
	}
	if t.nrecs == len(t.records) {
		t.records = append(t.records, new(record))
	}
	r := t.records[t.nrecs]
	t.nrecs++
	*r = record{back: back, out: out, in: in}
	for _, v := range in {
		if v != nil && v.needs {
			v.grown().uses++
		}
	}
	return r
}

// grown is the variable whose gradient v's contributions make: v, or the parameter of a masked weight.
func (v *Var) grown() *Var {
	if v.leaf != nil {
		return v.leaf
	}
	return v
}

// save keeps v's value until r has run backward.
func (t *Tape) save(r *record, v *Var) {
	t.force(v)
	t.arena.Retain(v.block)
	r.keep[r.nkeep] = v.block
	r.nkeep++
}

// extra allocates the record's own tensor i, F32.
func (t *Tape) extra(r *record, i int, dims ...int) tensor.Tensor {
	r.saved[i], r.block[i] = t.alloc(tensor.F32, dims...)
	return r.saved[i]
}

package node

import (
	"context"
	"errors"

	"lift/model/autograd"
	"lift/model/tensor"
)

// projectRows is how many rows of the head are computed at once.
const projectRows = 256

// textHead sets each class's weight to the direction of its text feature, taken back from the space that images and texts share to that of the
// image features by the transposed projection. Members compute some classes each, and gather all of them.
func (t *trainer) textHead(ctx context.Context) error {
	index := t.params.Index(headWeight)
	if index < 0 {
		return errNoHead
	}
	x := t.bench.texts
	features, err := t.textFeatures(ctx, x)
	if err != nil {
		return err
	}
	if err := x.project(ctx, t.pool, features, t.params.Values(index)); err != nil {
		return err
	}
	t.bench.texts = nil // a large part of the weights, and not needed again
	return x.close()
}

// project sets out [C, D] to the directions of features [C, E] times the transposed projection.
func (x *texts) project(ctx context.Context, p *pool, features, out []float32) error {
	rows, d := len(x.prompts), x.projection.Dims[0]
	err := p.each(ctx, (rows+projectRows-1)/projectRows, func(dev *device, i int) error {
		from, to := i*projectRows, min((i+1)*projectRows, rows)
		weights := placer{dev: dev.dev}
		w := weights.frozen(x.projection)
		if weights.err != nil {
			return weights.err
		}
		return dev.infer(out[from*d:to*d], func(t *autograd.Tape) *autograd.Var {
			in := dev.dev.Input(features[from*x.width():to*x.width()], to-from, x.width())
			return t.NormalizeRows(t.Linear(t.Input(in), t.Use(w), nil), 1e-12)
		})
	})
	return errors.Join(err, p.everyDevice(ctx, func(dev *device) error {
		dev.dev.Unplace(x.projection.Values, tensor.F32)
		return nil
	}))
}

// infer runs f on a tape of its own and copies its result to out.
func (d *device) infer(out []float32, f func(t *autograd.Tape) *autograd.Var) (err error) {
	tape := autograd.New(d.dev)
	defer tape.Close()
	defer tape.Catch(&err)
	tape.Reset(false)
	d.dev.Download(out, f(tape).Value())
	return nil
}

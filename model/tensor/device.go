package tensor

// Device holds tensors and computes on them: one CPU core, or one GPU.
//
// A device is used from one goroutine. Kernels run in the order of the calls and may run after the call has returned;
// Download and Sync alone wait for what was asked before, so the host may be ahead by a micro-batch. A kernel that fails makes
// the device fail, for good: what it and later kernels leave in their results is unspecified. Err says why as soon as it
// is known: after a Download or a Sync, of all that was asked before. Whoever takes results off a device in another way has to wait
// for the kernels that made them, and to look, before the results are used.
//
// Rules of every kernel: results come first, then inputs. A result is assigned, never added to, unless its doc says
// "+=" or the call has a beta. Tensors of one call do not overlap unless its doc allows it. Bits depend on the values and
// shapes alone: not on addresses, earlier calls, or the thread. Reductions have a fixed order.
//
// Types: a device computes with F32, and may compute with BF16 too: values in BF16, every sum and every step between them in float32. Activations and
// their gradients are of one type in a call, F32 or BF16. What is a vector (gain, bias, scale, shift, the s of AddScaled), what is measured (stats, norms,
// SumRows', SumBatch's and SampledProduct's s, Dot's d), the gradients of parameters (dgain, dbias, dscale, dshift), logits and losses are F32 always.
// More than one type in a call:
//   - Product: A and B are of one type, C of theirs or F32; Bias is F32 and Add of C's type.
//   - Copy casts x to y's type (nearest even). CopyTokens casts too, and adds in float32.
//   - Patches: img is F32, p of either type. Scatter: v is F32, y of either type. Gather: x and v are F32.
//
// NormalizeRows takes both types; SoftmaxCrossEntropy and LADE take F32 alone. A device that does not compute with BF16 panics at it.
//
// Letters: B images of a micro-batch, T tokens, D width, H heads, C classes, M rows, N outputs, K inputs.
type Device interface {
	// Name is a readable line: the kind of device and the libraries that decide its bits.
	Name() string
	// Alloc returns memory aligned to 64 bytes at least, of unspecified content. It fails with a clear error when there is none.
	Alloc(bytes int) (Memory, error)
	// Free gives back what Alloc returned.
	Free(m Memory)
	// Upload copies src into dst, Download copies src into dst. Lengths are equal. src may be reused on return. A BF16 dst gets the nearest values
	// (ties to even; every NaN stays one); of a BF16 src the float32s are exact.
	Upload(dst Tensor, src []float32)
	Download(dst []float32, src Tensor)
	// UploadInts is Upload to a tensor of I32.
	UploadInts(dst Tensor, src []int32)
	// Place returns values as a tensor of the type that is only read, until Unplace or Close. Where the device's memory is the host's, F32 shares
	// values; a GPU keeps one copy for all its devices, so the values must stay as they are: the same slice again is the same copy.
	Place(values []float32, dt DType, dims ...int) (Tensor, error)
	// Unplace gives back what Place returned for values, however often; it waits for what reads it. The values may then go.
	Unplace(values []float32, dt DType)
	// Input hands src, a micro-batch's values, to the device as an F32 tensor that is only read, until the next call. Where the device's memory is the
	// host's, it shares src, which then must stay as it is while the tensor is used; else it is a copy, and src may be reused on return. Input waits
	// until the kernels before the last call have run: so far the host may be ahead.
	Input(src []float32, dims ...int) Tensor
	// Err returns the first failure that is known, if any. It does not wait.
	Err() error
	// Sync waits for all that was asked and returns the first failure, if any.
	Sync() error
	// Close frees the device. Its memory is invalid afterwards.
	Close() error

	Kernels
}

// Activation names an elementwise non-linearity.
type Activation uint8

// The activations of the two families of backbones and of the adapters.
const (
	GELU      Activation = iota // x Φ(x), with erf
	QuickGELU                   // x sigmoid(1.702 x)
	ReLU                        // max(x, 0); its derivative at 0 is 0
)

// Product is one matrix product: C = op(A) op(B) + Beta C [+ Bias] [+ Add].
type Product struct {
	C              Tensor  // [M, N]
	A              Tensor  // [M, K], or [K, M] under TransA
	B              Tensor  // [K, N], or [N, K] under TransB
	TransA, TransB bool    //
	Beta           float32 // 0 assigns, 1 accumulates; with 0, C is not read
	Bias           Tensor  // [N], added to each row; or none. Only with Beta 0
	Add            Tensor  // [M, N], or none. Only with Beta 0
	// ACols, BCols and CCols take a range of a wider tensor's columns for the matrix, before it is transposed. With CCols there is
	// neither Bias nor Add.
	ACols, BCols, CCols Columns
}

// Columns are the columns [From, To) of a tensor's rows; the zero value is all of them.
type Columns struct{ From, To int }

// Of returns the range in a tensor of cols columns, written out.
func (c Columns) Of(cols int) Columns {
	if c == (Columns{}) {
		return Columns{To: cols}
	}
	return c
}

// Len is the number of columns of a range that is written out.
func (c Columns) Len() int { return c.To - c.From }

// Heads says where the queries, keys and values of an attention lie: in columns of two tensors, which may be the same.
type Heads struct {
	Q          Tensor // [B, Tq, *]; queries are columns QCol to QCol+D
	KV         Tensor // [B, T, *]; keys are columns KCol to KCol+D, values VCol to VCol+D
	QCol       int
	KCol, VCol int
	Width      int  // D, over all heads
	Heads      int  // H; divides D
	Causal     bool // query i sees keys 0 to i alone; Tq is T. There is no backward
}

// LossTerms vary the softmax cross entropy of a row: w f(logsumexp(z) - z[label]), z = logits. The zero value is the plain one.
type LossTerms struct {
	Adjust []float32 // [C], added to z; -Inf takes a class out
	Margin []float32 // [C], taken from z at the row's own label
	Weight []float32 // [C], w by the row's label; nil: 1
	Focal  bool      // f(l) is (1 - e^-l)^2 l; else l
}

// LADETerms are the constants of Kernels.LADE.
type LADETerms struct {
	Prior, Shift   []float32 // [C]
	Lambda, Weight float32
}

// Kernels are the operations that the tape is made of. A later device implements exactly these.
type Kernels interface {
	// Product computes p. Tensors of higher rank count as matrices of Rows() x Cols().
	Product(p Product)

	// SumRows: s[N] = sum over rows of x[M, N], added to s when acc.
	SumRows(s, x Tensor, acc bool)
	// Fill: y = c.
	Fill(y Tensor, c float32)
	// Copy: y = x. Add: y = a + b (y may be a or b). Scale: y = c x (y may be x).
	Copy(y, x Tensor)
	Add(y, a, b Tensor)
	Scale(y, x Tensor, c float32)
	// AddScaled: y = a + s[0] b; without a, y = s[0] b. y may be a or b.
	AddScaled(y, a, b, s Tensor)
	// Dot: d[1] = sum of a*b, added to d when acc.
	Dot(d, a, b Tensor, acc bool)

	// ScaleShift: y = x * scale[D] + shift[D]. Backward: dx = dy * scale (dx may be dy, or none), dscale[D] += sum of dy*x and
	// dshift[D] += sum of dy over rows (either may be none).
	ScaleShift(y, x, scale, shift Tensor)
	ScaleShiftBackward(dx, dscale, dshift, dy, x, scale Tensor)

	// Activate: y = f(x). Backward: dx = dy f'(x); dx may be dy.
	Activate(f Activation, y, x Tensor)
	ActivateBackward(f Activation, dx, dy, x Tensor)

	// LayerNorm: y = (x - mean) rstd gain[D] + bias[D] for each row, with stats[M, 2] = mean and rstd (none: not kept).
	// Backward: dx is added to when acc; dgain and dbias (either may be none) are always added to.
	LayerNorm(y, stats, x, gain, bias Tensor, eps float32)
	LayerNormBackward(dx, dgain, dbias, dy, x, gain, stats Tensor, acc bool)
	// NormalizeRows: y = x / max(|x|, eps), with norms[M] = max(|x|, eps). Backward: dx from y and norms;
	// dx may be dy.
	NormalizeRows(y, norms, x Tensor, eps float32)
	NormalizeRowsBackward(dx, dy, y, norms Tensor, eps float32)

	// Attention: out[B, Tq, D] = softmax(q k' / sqrt(D/H)) v for each head, with stats[B, H, Tq, 2] = the largest score and
	// 1 / the sum of the exponentials (none: not kept). Backward computes the probabilities again from stats; it assigns
	// the same columns of dq and dkv that h names in Q and KV (which may be one tensor).
	Attention(out, stats Tensor, h Heads)
	AttentionBackward(dq, dkv, dout, out, stats Tensor, h Heads)

	// Patches: p[B, n, C*P*P] = the n = (H/P)(W/P) patches of img[B, C, H, W], row by row.
	Patches(p, img Tensor, patch int)
	// CopyTokens: dst[b, to+i] = src[b, from+i] for i < n (added when acc) of dst[B, *, D] and src[B, *, D]; a src of rank 2, [*, D],
	// is the same for each b.
	CopyTokens(dst, src Tensor, to, from, n int, acc bool)
	// SumBatch: s[n, D] = sum over b of x[b, from+i] for i < n, added to s when acc. x is [B, *, D].
	SumBatch(s, x Tensor, from, n int, acc bool)

	// Scatter: y[index[i]] = v[i]. Gather: v[i] = x[index[i]], added to v[i] when acc. index (I32) counts values row by row, in
	// Gather from origin on, and holds no position twice.
	Scatter(y, v, index Tensor)
	Gather(v, x, index Tensor, origin int, acc bool)
	// SampledProduct: of the product a' b of a[M, N] and b[M, K], the values at the positions index (I32, sorted, counted as in Gather):
	// s[i] = sum over m of a[m, r] b[m, c], with r K + c = index[i] - origin, added to s[i] when acc.
	SampledProduct(s, a, b, index Tensor, origin int, acc bool)

	// SoftmaxCrossEntropy: loss[1] = sum over rows of the loss of terms, and dlogits[M, C] (or none) = scale * its derivative.
	SoftmaxCrossEntropy(loss, dlogits, logits Tensor, labels []int32, terms LossTerms, scale float32)
	// LADE: loss[1] += terms.Weight * -(sum over classes c of Prior[c] (f - s - Lambda s^2)) and dlogits (or none) += scale * its
	// derivative, where f is the mean of the logits c of the rows labelled c (0 without such rows) and s = Shift[c] + the log of the mean over
	// all rows of exp(logit c). There is at least one row.
	LADE(loss, dlogits, logits Tensor, labels []int32, terms LADETerms, scale float32)
}

package sharding

// worker turns samples into planes, one after the other, reusing its memory.
type worker struct {
	decoder
	file          []byte // encoded image
	plan          plan
	starts        []int // scratch
	columns, rows []outputs
	horizontal    axis
	vertical      axis
	middle        []byte // after the first pass
	out           []byte // after the second
	table         normTable
}

// load reads, decodes and transforms sample i into dst [t.Crops(), 3, R, R].
func (w *worker) load(d *Dataset, i int, t *Transform, seed uint64, epoch int, dst []float32) error {
	data, err := d.Read(i, w.file)
	if err != nil {
		return err
	}
	w.file = data
	if err := w.transform(data, t, seed, epoch, i, dst); err != nil {
		return d.corruptError(i, err)
	}
	return nil
}

// transform is load for an image in memory. The image is decoded once, whatever the crops.
func (w *worker) transform(data []byte, t *Transform, seed uint64, epoch, id int, dst []float32) error {
	codec, width, height, err := open(data)
	if err != nil {
		return err
	}
	t.plan(&w.plan, width, height, seed, epoch, id)
	R := t.Resolution
	var need Box
	for i := range w.plan.views {
		v := &w.plan.views[i]
		w.prepare(v, R, t.Interpolation)
		need = need.with(w.needed(v.box))
	}
	pic, err := w.region(codec, data, width, height, need)
	if err != nil {
		return err
	}
	w.table.set(t.Mean, t.Std)
	for i := range w.plan.views {
		if len(w.plan.views) > 1 { // else the axes are as they must be
			w.prepare(&w.plan.views[i], R, t.Interpolation)
		}
		w.render(pic, &w.plan.views[i], func(k int, pix []byte, stride int) {
			w.table.planes(dst[k*3*R*R:(k+1)*3*R*R], pix, stride, R, R, w.plan.crops[k].flip)
		})
	}
	return nil
}

// prepare sets the axes for a view's crops of R×R.
func (w *worker) prepare(v *view, R int, filter Interpolation) {
	crops := w.plan.crops[v.from:v.to]
	w.starts = w.starts[:0]
	for _, c := range crops {
		w.starts = append(w.starts, c.left)
	}
	w.columns = stretches(w.columns, w.starts, R)
	w.starts = w.starts[:0]
	for _, c := range crops {
		w.starts = append(w.starts, c.top)
	}
	w.rows = stretches(w.rows, w.starts, R)
	w.horizontal.set(v.box.Width, v.width, filter, w.columns...)
	w.vertical.set(v.box.Height, v.height, filter, w.rows...)
}

// needed returns the part of the image that the two axes read of box.
func (w *worker) needed(box Box) Box {
	left, right := w.horizontal.span()
	top, bottom := w.vertical.span()
	return Box{box.Top + top, box.Left + left, bottom - top, right - left}
}

// render resamples a view that the axes are prepared for, of which pic holds what is needed. It hands each crop to put: its
// place in the plan, and pixels of four bytes whose rows are stride pixels apart, not mirrored yet, valid during the call only.
func (w *worker) render(pic *picture, v *view, put func(k int, pix []byte, stride int)) {
	left, right := w.horizontal.span()
	w.horizontal.shift(left)
	at, width := 0, len(w.horizontal.first)
	// Rows that no crop holds are not resampled: a thread of an image becomes very long.
	for _, s := range w.rows {
		part := w.vertical.part(at, s.to-s.from)
		at += s.to - s.from
		top, bottom := part.span()
		part.shift(top)
		need := Box{v.box.Top + top, v.box.Left + left, bottom - top, right - left}
		w.resample(pic, need, &part, verticalFirst(v.box, v.width, v.height))
		for k := v.from; k < v.to; k++ {
			if c := w.plan.crops[k]; s.from <= c.top && c.top < s.to {
				put(k, w.out[4*((c.top-s.from)*width+place(w.columns, c.left)):], width)
			}
		}
	}
}

// resample makes w.out of a box of a picture: what the horizontal axis and rows, a part of the vertical one, read.
func (w *worker) resample(pic *picture, box Box, rows *axis, verticalFirst bool) {
	have := pic.region
	src := pic.pix[4*((box.Top-have.Top)*have.Width+box.Left-have.Left):]
	width, height := len(w.horizontal.first), len(rows.first)
	w.out = growBytes(w.out, 4*width*height)
	if verticalFirst {
		w.middle = growBytes(w.middle, 4*box.Width*height)
		resampleColumns(w.middle, src, box.Width, have.Width, rows)
		resampleRows(w.out, w.middle, height, box.Width, &w.horizontal)
		return
	}
	w.middle = growBytes(w.middle, 4*width*box.Height)
	resampleRows(w.middle, src, box.Height, have.Width, &w.horizontal)
	resampleColumns(w.out, w.middle, width, width, rows)
}

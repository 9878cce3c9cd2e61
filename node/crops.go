package node

// averageCrops computes the logits [m, classes] of m samples from those of their crops, images [m, crops, 3, R, R], into out: the mean,
// added in the order of the crops in float64 and rounded once. logits computes those of n images; it is asked for at most chunk of them at
// a time, so that what it needs for them does not grow with the number of crops. The last bits depend on chunk, for those of a product depend on
// its number of rows: it must not depend on nodes or devices.
func averageCrops(images []float32, m, crops, chunk, classes int, logits func(images []float32, n int, out []float32) error, out []float32) error {
	if crops == 1 && m <= chunk {
		return logits(images, m, out)
	}
	size := len(images) / (m * crops)
	part := make([]float32, min(chunk, m*crops)*classes)
	sums := make([]float64, m*classes)
	for from := 0; from < m*crops; from += chunk {
		n := min(chunk, m*crops-from)
		if err := logits(images[from*size:(from+n)*size], n, part[:n*classes]); err != nil {
			return err
		}
		for i := range n {
			sum := sums[(from+i)/crops*classes:][:classes]
			for c, v := range part[i*classes : (i+1)*classes] {
				sum[c] += float64(v)
			}
		}
	}
	for i, v := range sums {
		out[i] = float32(v / float64(crops))
	}
	return nil
}

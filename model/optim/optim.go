// Package optim updates trained parameters: stochastic gradient descent with momentum and weight decay,
// and the learning rate of each epoch.
//
// Every node applies the same update to the same state and must get the same bits on every kind of
// processor. Go may fuse x*y + z into one rounding where the processor can (arm64 does,
// amd64 does not), unless the product is converted explicitly; so each product here is.
package optim

import "fmt"

// SGD holds the settings of one update. Its rule is torch.optim.SGD's with no dampening and no Nesterov
// look-ahead: weight decay is added to the gradient, fresh momentum is the first gradient.
type SGD struct {
	LearningRate float32
	Momentum     float32
	WeightDecay  float32
}

// Update changes values and momentum, elementwise in float32, by the gradient of the whole batch.
// Momentum that starts as zeros becomes the first gradient. The three must be of one length.
func (o SGD) Update(values, momentum, grad []float32) {
	if len(momentum) != len(values) || len(grad) != len(values) {
		panic(fmt.Sprintf("optim: %d values, %d momenta, %d gradients", len(values), len(momentum), len(grad)))
	}
	momentum, grad = momentum[:len(values)], grad[:len(values)]
	for i, v := range values {
		g := grad[i] + float32(o.WeightDecay*v)
		m := float32(o.Momentum*momentum[i]) + g
		momentum[i] = m
		values[i] = v - float32(o.LearningRate*m)
	}
}

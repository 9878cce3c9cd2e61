package allreduce

import (
	"math/rand/v2"
	"testing"
)

func TestStats(t *testing.T) {
	onEachNet(t, func(t *testing.T, net testNet) {
		cl := newCluster(t, net, 3, testConfig())
		cl.enter(1)
		b := drawBatch(rand.New(rand.NewPCG(9, 9)), testSizes, []int{1, 0, 2})
		for step := range uint64(2) {
			cl.all(func(i int) error { return cl.step(i, step, b, 1) })
		}
		values := uint64(cl.rs[0].config.Layout.Values())
		for i, r := range cl.rs {
			s, next := r.Stats(), cl.rs[(i+1)%3].Stats()
			// A sender counts a chunk when Send has returned, which the receiver may see first: only bounds hold here.
			if s.Steps != 2 || s.BytesSent > next.BytesReceived+1<<10 || s.BucketsInFlight != 0 {
				t.Errorf("member %d: %+v, next member %+v", i, s, next)
			}
			if s.ValuesSent < 2*values || s.ValuesSent > 6*values {
				t.Errorf("member %d sent %d values in 2 steps of %d", i, s.ValuesSent, values)
			}
			if idle := len(b[i]) == 0; (s.InFlight == 0) != idle || s.Exposed > s.InFlight || s.HiddenShare() < 0 || s.HiddenShare() > 1 {
				t.Errorf("member %d: times %+v", i, s)
			}
		}
	})
}

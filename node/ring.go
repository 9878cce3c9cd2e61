package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"unsafe"

	"lift/allreduce"
	"lift/coordinator/liftpb"
)

// enter connects the ring of generation g and makes this node's state the seed member's.
func (t *trainer) enter(ctx context.Context, g *liftpb.Generation) error {
	ring := allreduce.Generation{Run: g.GetRunId(), ID: g.GetId(), Self: -1}
	t.members, t.feed.devices = nil, nil
	for i, m := range g.GetMembers() {
		ring.Members = append(ring.Members, allreduce.Member{Name: m.GetName(), Addr: m.GetRingAddr()})
		t.members = append(t.members, member{name: m.GetName(), devices: int(m.GetDevices())})
		t.feed.devices = append(t.feed.devices, int(m.GetDevices()))
		if m.GetName() == t.session.node {
			ring.Self = i
		}
	}
	if ring.Self < 0 || int(g.GetSeedMember()) >= len(ring.Members) {
		return fmt.Errorf("generation %d has no member %q, or no seed member %d", g.GetId(), t.session.node, g.GetSeedMember())
	}
	t.self, t.feed.self, t.mixed = ring.Self, ring.Self, g.GetMixedKinds()
	if err := t.reducer.Enter(ctx, ring); err != nil {
		return fmt.Errorf("entering the ring of generation %d: %w", g.GetId(), causeOf(ctx, err))
	}
	t.meters.worldSize.Set(float64(len(ring.Members)))
	t.meters.generation.Set(float64(g.GetId()))
	t.meters.rank.Set(float64(ring.Self))
	t.meters.step.Set(float64(t.committed))
	if err := t.agree(ctx, int(g.GetSeedMember()), g.GetFirstStep()); err != nil {
		return causeOf(ctx, err)
	}
	t.log.Info("entered", "generation", g.GetId(), "members", len(ring.Members), "rank", ring.Self, "step", t.committed)
	return nil
}

// agree gives every member the state of the seed member: those behind take its parameters and momentum over. Members that claim the
// same step must hold the same bits.
func (t *trainer) agree(ctx context.Context, seed int, first uint64) error {
	steps, digests, err := t.compareStates(ctx)
	if err != nil {
		return err
	}
	if steps[seed] != first {
		return fmt.Errorf("the generation begins at step %d, but its seed member %s has committed %d", first, t.members[seed].name, steps[seed])
	}
	gather := false
	for i := range t.members {
		gather = gather || steps[i] != first
		if steps[i] == first && digests[i] != digests[seed] {
			return fmt.Errorf("node %s and node %s hold different parameters for step %d: one of their states is damaged or of another build",
				t.members[i].name, t.members[seed].name, first)
		}
	}
	if !gather {
		return nil
	}
	if steps[t.self] != first {
		t.log.Info("taking the state over", "from", t.members[seed].name, "step", first, "had", t.committed)
	}
	if err := gatherFloats(ctx, t.reducer, t.self == seed, t.params.floats()); err != nil {
		return fmt.Errorf("taking over the state of node %s: %w", t.members[seed].name, err)
	}
	t.committed, t.resumed = first, first
	if _, digests, err = t.compareStates(ctx); err != nil {
		return err
	}
	for i := range digests {
		if digests[i] != digests[seed] {
			return fmt.Errorf("node %s did not receive the state of node %s whole", t.members[i].name, t.members[seed].name)
		}
	}
	return nil
}

// compareStates gathers the committed step and a digest of the state from every member.
func (t *trainer) compareStates(ctx context.Context) (steps, digests []uint64, err error) {
	n := len(t.members)
	values := make([]int64, 2*n)
	values[t.self] = int64(t.committed)
	values[n+t.self] = int64(digestFloats(t.params.floats()))
	if err := t.reducer.Reduce(ctx, values); err != nil {
		return nil, nil, fmt.Errorf("comparing states: %w", err)
	}
	for i := range n {
		steps, digests = append(steps, uint64(values[i])), append(digests, uint64(values[n+i]))
	}
	return steps, digests, nil
}

// floats are the parameters and their momentum, in the canonical order.
func (ps *paramSet) floats() [][]float32 {
	var out [][]float32
	for i := range ps.Len() {
		out = append(out, ps.Values(i), ps.Momentum(i))
	}
	return out
}

// digestFloats is the first eight bytes of the sha256 of the tensors' bits.
func digestFloats(tensors [][]float32) uint64 {
	h := sha256.New()
	for _, v := range tensors {
		if len(v) > 0 {
			h.Write(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)))
		}
	}
	return binary.LittleEndian.Uint64(h.Sum(nil))
}

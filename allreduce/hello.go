package allreduce

import "fmt"

// hello is what a member says of itself when it opens a lane.
type hello struct {
	run        string
	generation uint64
	form       string
}

// compareHello gives the reason to refuse `theirs`, said by the named member, nil if there is none.
func compareHello(ours, theirs hello, peer string) error {
	switch {
	case ours.run != theirs.run:
		return fmt.Errorf("%s is %w: it is in run %s, this node in run %s", peer, ErrStale, theirs.run, ours.run)
	case ours.generation != theirs.generation:
		return fmt.Errorf("%s is %w: it is in generation %d, this node in generation %d", peer, ErrStale, theirs.generation, ours.generation)
	case ours.form != theirs.form:
		return fmt.Errorf("%s reduces another form: it has %s, this node has %s", peer, theirs.form, ours.form)
	}
	return nil
}

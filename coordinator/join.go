package coordinator

import (
	"fmt"
	"regexp"
	"strings"

	"lift/configs"
	"lift/coordinator/liftpb"
)

// maxDevices bounds what one node may claim.
const maxDevices = 4096

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// checkRequest says what is wrong with a request by itself; empty: nothing.
func checkRequest(q *liftpb.JoinRequest) string {
	if !nodeName.MatchString(q.GetNode()) {
		return fmt.Sprintf("node name %q: must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit", q.GetNode())
	}
	if err := configs.CheckLoopback(q.GetRingAddr()); err != nil {
		return fmt.Sprintf("%s: ring address: %v", q.GetNode(), err)
	}
	if addr := q.GetMetricsAddr(); addr != "" {
		if err := configs.CheckLoopback(addr); err != nil {
			return fmt.Sprintf("%s: metrics address: %v", q.GetNode(), err)
		}
	}
	if n := q.GetDevices(); n < 1 || n > maxDevices {
		return fmt.Sprintf("%s: has %d devices, must have 1 to %d", q.GetNode(), n, maxDevices)
	}
	if q.GetTrainSamples() == 0 {
		return fmt.Sprintf("%s: has no training samples", q.GetNode())
	}
	return ""
}

// identity is one thing that a node must share with the run.
type identity struct {
	what   string
	mine   string // the node's
	theirs string // the run's
	advice string
}

// differences compares a node with the run: with the coordinator's own build and config, and with a member admitted before
// (nil: it is the first). It says every difference, both values shown; empty: the node may join.
func (r *run) differences(q *liftpb.JoinRequest, first *liftpb.JoinRequest) string {
	var found []string
	differ := func(other string, ids ...identity) {
		for _, id := range ids {
			if id.mine != id.theirs {
				found = append(found, fmt.Sprintf("%s is %s on %s and %s on %s: %s", id.what, orNone(id.mine), q.GetNode(),
					orNone(id.theirs), other, id.advice))
			}
		}
	}
	differ("the coordinator", identity{"the build", q.GetBuild(), r.build, "run the same lift everywhere"})
	if id := q.GetRunId(); id != "" {
		differ("the coordinator", identity{"the run", id, r.id, "the node belongs to another run: start it again"})
	}
	if q.GetConfigDigest() != r.cfg.AgreedDigest() {
		found = append(found, "the config differs: "+configDifference(q, r.cfg))
	}
	if first != nil {
		differ(first.GetNode(),
			identity{"the digest of the backbone", q.GetBackboneDigest(), first.GetBackboneDigest(), "give both the same weights"},
			identity{"the number of training samples", fmt.Sprint(q.GetTrainSamples()), fmt.Sprint(first.GetTrainSamples()), "give both the same data"},
			identity{"the number of test samples", fmt.Sprint(q.GetTestSamples()), fmt.Sprint(first.GetTestSamples()), "give both the same data"},
			identity{"the digest of the training index", q.GetTrainIndexDigest(), first.GetTrainIndexDigest(), "give both the same data"},
			identity{"the digest of the test index", q.GetTestIndexDigest(), first.GetTestIndexDigest(), "give both the same data"})
		if len(found) == 0 { // else it only follows from them
			differ(first.GetNode(), identity{"the run digest", q.GetRunDigest(), first.GetRunDigest(), "their results would differ"})
		}
		if mixed := kindDifference(q, first); mixed != "" && !r.cfg.Reduce.MixedKinds {
			found = append(found, mixed+": the same numbers would come out differently. Use one kind of machine, or set "+
				"reduce.mixed_kinds=true for a result that cannot be repeated")
		}
	}
	return strings.Join(found, "; ")
}

// kindDifference compares the numerics of two nodes; empty: they are of one kind.
func kindDifference(a, b *liftpb.JoinRequest) string {
	if a.GetFingerprint() == b.GetFingerprint() {
		return ""
	}
	return fmt.Sprintf("the numerics fingerprint is %s (%s) on %s and %s (%s) on %s", orNone(a.GetFingerprint()), a.GetFingerprintLine(),
		a.GetNode(), orNone(b.GetFingerprint()), b.GetFingerprintLine(), b.GetNode())
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// configDifference names the keys in which the node's config differs from the run's.
func configDifference(q *liftpb.JoinRequest, cfg *configs.Config) string {
	const shown = 8
	var diff []string
	for _, d := range configs.Differences(q.GetConfigKeys(), cfg.AgreedKeys()) {
		mine, theirs := "unknown", "unknown"
		if d.InA {
			mine = orNone(d.A)
		}
		if d.InB {
			theirs = orNone(d.B)
		}
		diff = append(diff, fmt.Sprintf("%s is %s on %s and %s in the run", d.Key, mine, q.GetNode(), theirs))
	}
	if len(diff) == 0 {
		diff = []string{fmt.Sprintf("its digest is %s on %s and %s in the run", orNone(q.GetConfigDigest()), q.GetNode(), cfg.AgreedDigest())}
	}
	if more := len(diff) - shown; more > 0 {
		diff = append(diff[:shown], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(diff, ", ")
}

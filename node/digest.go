package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// runDigest identifies what a run's result depends on, besides the stop step and the kind of device: the canonical result keys, the
// backbone's tensors, the index of the training set (keys and labels), and what the head's text features are computed from, nil without them. In
// hex. The evaluation split is not in it, for it cannot change the adapters.
func runDigest(resultKeys []byte, backbone, train [sha256.Size]byte, x *texts) string {
	h := sha256.New()
	fmt.Fprintf(h, "lift run 1\n%d\n%sbackbone %x\nindex %x\n", len(resultKeys), resultKeys, backbone, train)
	if x != nil {
		fmt.Fprintf(h, "texts %x\n", x.digest())
	}
	return hex.EncodeToString(h.Sum(nil))
}

package node

import (
	"fmt"
	"os"
	"strings"
)

const attentionPTX = "../model/tensor/cuda/ptx/attention_mma.ptx"

// A multiprocessor has four parts, each of which issues one instruction of a warp a clock. What they take of a part, in clocks, on an H100: an mma of
// 16 × 8 × 16 is 4096 FLOPs, of 1024 a clock at the whole rate; ldmatrix brings 512 bytes, of 128 a clock for all four; ex2 has 4 lanes.
const (
	mmaClocks      = 4
	ldmatrixClocks = 16
	ex2Clocks      = 8
	mmaShare       = 0.63 // of the whole rate, that mma.sync reaches on an H100: docs/cuda.md
)

// turn is what a warp does in one turn of a kernel's loop: tiles of one side against its rows of the other.
type turn struct{ mma, ldmatrix, ex2, other int }

// turnOf counts the run of instructions without a jump that has most of a kernel's mma: its loops are unrolled.
func (p *paper) turnOf(kernel string) (best turn) {
	text, err := os.ReadFile(attentionPTX)
	if err != nil {
		p.t.Fatal(err)
	}
	_, body, found := strings.Cut(string(text), ".entry "+kernel+"(")
	if !found {
		p.t.Fatalf("%s has no %s", attentionPTX, kernel)
	}
	body, _, _ = strings.Cut(body, "\n}")
	var now turn
	for line := range strings.Lines(body) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		word, _, _ = strings.Cut(word, "\t")
		switch {
		case strings.HasSuffix(strings.TrimSpace(line), ":"), strings.HasPrefix(word, "bra"), strings.HasPrefix(word, "@"):
			if now.mma > best.mma {
				best = now
			}
			now = turn{}
		case strings.HasPrefix(word, "mma."):
			now.mma++
		case strings.HasPrefix(word, "ldmatrix."):
			now.ldmatrix++
		case strings.HasPrefix(word, "ex2."):
			now.ex2++
		case strings.HasPrefix(word, "mov."), !strings.HasSuffix(strings.TrimSpace(line), ";"): // a mov is a name, not an instruction
		default:
			now.other++
		}
	}
	if best.mma == 0 {
		p.t.Fatalf("%s: %s has no mma", attentionPTX, kernel)
	}
	return best
}

// attention is what one turn of each kernel's loop asks of a part of a multiprocessor.
func (p *paper) attention() {
	p.head("kernel", ":mma", ":ldmatrix", ":ex2", ":others", ":clocks: tensor cores", ":shared memory", ":ex2 unit", ":issue", ":peak, all at once", ":one after the other")
	for _, k := range []string{"attention_mma64", "attention_dq_mma64", "attention_dkv_mma64"} {
		t := p.turnOf(k)
		whole, shared, ex2 := float64(t.mma*mmaClocks), float64(t.ldmatrix*ldmatrixClocks), float64(t.ex2*ex2Clocks)
		tensor, issue := whole/mmaShare, float64(t.mma+t.ldmatrix+t.ex2+t.other)
		p.row(k, fmt.Sprint(t.mma), fmt.Sprint(t.ldmatrix), fmt.Sprint(t.ex2), fmt.Sprint(t.other), num(0, tensor), num(0, shared), num(0, ex2), num(0, issue),
			percent(whole/max(tensor, shared, ex2, issue)), percent(whole/(tensor+shared+ex2+float64(t.other))))
	}
}

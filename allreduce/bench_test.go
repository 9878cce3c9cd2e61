package allreduce

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// Each node of the benchmark is a process of its own, the test binary run again with peerEnv set.
const peerEnv = "LIFT_ALLREDUCE_BENCH_PEER"

func TestMain(m *testing.M) {
	if spec := os.Getenv(peerEnv); spec != "" {
		if err := benchPeer(spec, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench peer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// benchSpec is what all nodes of one benchmark share.
type benchSpec struct {
	Nodes, Bytes, Bits, Self   int
	Bucket, Chunk, Lanes, Cuts int
	Name                       string
}

// knob reads a number that a person may set to try another configuration.
func knob(name string, def int) int {
	if v, err := strconv.Atoi(os.Getenv("LIFT_BENCH_" + name)); err == nil {
		return v
	}
	return def
}

// BenchmarkAllReduce times one all-reduce between processes over loopback sockets: from float32 gradients in memory on
// every node (64 tensors, added in the backward's order by one goroutine) to the float32 sums in memory on the
// first, checksums agreed. So it includes the conversion to fixed point and back. `bytes` counts float32 bytes. ms is
// the median; wire-B/value is what a node sent, tags included.
func BenchmarkAllReduce(b *testing.B) {
	for _, nodes := range []int{2, 4} {
		for _, size := range []int{58800000, 4000000, 4096} {
			for _, bits := range []int{40, 28} {
				if bits != knob("BITS", bits) {
					continue
				}
				name := fmt.Sprintf("nodes=%d/bytes=%d", nodes, size)
				if bits != DefaultFractionBits {
					name += fmt.Sprintf("/fraction_bits=%d", bits)
				}
				b.Run(name, func(b *testing.B) { benchAllReduce(b, benchSpec{Nodes: nodes, Bytes: size, Bits: bits}) })
			}
		}
	}
}

func benchAllReduce(b *testing.B, s benchSpec) {
	s.Bucket, s.Chunk, s.Lanes, s.Cuts = knob("BUCKET", 1<<20), knob("CHUNK", 0), knob("LANES", 1), min(64, s.Bytes/4)
	n, err := newBenchNode(s)
	if err != nil {
		b.Fatal(err)
	}
	defer n.close()
	if err := n.startPeers(b); err != nil {
		b.Fatal(err)
	}
	var times []float64
	for i := 0; i < 2 || b.Loop(); i++ {
		t, err := n.iterate(b.Context(), 1)
		if err != nil {
			b.Fatal(err)
		}
		if i >= 2 {
			times = append(times, t.Seconds()*1e3)
			continue
		}
		if err := n.check(); err != nil {
			b.Fatal(err)
		}
		n.cpuAtStart = cpuTime()
	}
	st, cpu := n.reducer.Stats(), cpuTime()-n.cpuAtStart
	if _, err := n.iterate(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2], "ms")
	b.ReportMetric(times[0], "min-ms")
	b.ReportMetric(cpu.Seconds()*1e3/float64(len(times)), "cpu-ms") // of the first node's process
	b.ReportMetric(float64(st.BytesSent)/float64(st.Steps)/float64(s.Bytes/4), "wire-B/value")
	b.ReportMetric(0, "ns/op")
}

// benchNode is one process's part.
type benchNode struct {
	spec    benchSpec
	grads   [][]float32
	reducer *Reducer
	addr    string
	step    uint64
	closers []func()

	cpuAtStart time.Duration
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func newBenchNode(s benchSpec) (*benchNode, error) {
	n := &benchNode{spec: s}
	sizes := make([]int, s.Cuts)
	for i := range sizes {
		sizes[i] = s.Bytes / 4 * (i + 1) / s.Cuts
	}
	for i := len(sizes) - 1; i > 0; i-- {
		sizes[i] -= sizes[i-1]
	}
	n.grads = benchGradients(sizes, s.Self)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := NewGRPC()
	srv := grpc.NewServer(ServerOptions()...)
	g.Register(srv)
	go srv.Serve(l)
	n.addr = l.Addr().String()
	n.reducer, err = New(Config{FractionBits: s.Bits, Layout: NewLayout(sizes, s.Bucket), Lanes: s.Lanes, ChunkBytes: s.Chunk}, g)
	n.closers = append(n.closers, srv.Stop, func() { g.Close() }, func() { n.reducer.Close() })
	return n, err
}

// benchGradients draws N(0, σ) with σ log-uniform over 1e-6 to 1e-3 for every 256 values.
func benchGradients(sizes []int, self int) [][]float32 {
	rng := rand.New(rand.NewPCG(uint64(self), 2))
	sigma, k := 0.0, 0
	out := make([][]float32, len(sizes))
	for t, n := range sizes {
		out[t] = make([]float32, n)
		for i := range out[t] {
			if k%256 == 0 {
				sigma = math.Pow(10, -6+3*rng.Float64())
			}
			k++
			out[t][i] = float32(sigma * rng.NormFloat64())
		}
	}
	return out
}

func (n *benchNode) close() {
	for _, f := range slices.Backward(n.closers) {
		f()
	}
}

// iterate runs a barrier, in which the first node says whether to go on, and then one timed step.
func (n *benchNode) iterate(ctx context.Context, goOn int64) (time.Duration, error) {
	flag := []int64{goOn}
	if err := n.reducer.Reduce(ctx, flag); err != nil || flag[0] == 0 {
		return 0, err
	}
	n.step++
	start := time.Now()
	if err := n.reducer.Begin(n.step, 1, n.spec.Nodes); err != nil {
		return 0, err
	}
	for k, g := range slices.Backward(n.grads) {
		if err := n.reducer.Add(k, g); err != nil {
			return 0, err
		}
	}
	err := n.reducer.Wait(ctx)
	return time.Since(start), err
}

// check compares the sums with exact ones.
func (n *benchNode) check() error {
	x, _ := newFixed(n.spec.Bits, n.spec.Nodes)
	want := make([][]int64, len(n.grads))
	for self := range n.spec.Nodes {
		sizes := make([]int, len(n.grads))
		for t, g := range n.grads {
			sizes[t] = len(g)
		}
		for t, g := range benchGradients(sizes, self) {
			if self == 0 {
				want[t] = make([]int64, len(g))
			}
			encodeGo(want[t], g, x.scale, x.limit, false)
		}
	}
	for t := range want {
		got, err := n.reducer.View(n.step, t)
		if err != nil {
			return err
		}
		for i, q := range want[t] {
			if got[i] != float32(q)*x.step {
				return fmt.Errorf("tensor %d, value %d: %g, want %g", t, i, got[i], float32(q)*x.step)
			}
		}
	}
	return nil
}

// startPeers starts the other processes and forms the ring with them.
func (n *benchNode) startPeers(b *testing.B) error {
	members := []Member{{"node-0", n.addr}}
	var stdins []io.WriteCloser
	for i := 1; i < n.spec.Nodes; i++ {
		s := n.spec
		s.Self = i
		spec, _ := json.Marshal(s)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), peerEnv+"="+string(spec))
		cmd.Stderr = os.Stderr
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			return err
		}
		b.Cleanup(func() { in.Close(); cmd.Wait() })
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			return fmt.Errorf("peer %d: %w", i, err)
		}
		members = append(members, Member{fmt.Sprint("node-", i), strings.TrimSpace(line)})
		stdins = append(stdins, in)
	}
	list, _ := json.Marshal(members)
	for _, in := range stdins {
		fmt.Fprintf(in, "%s\n", list)
	}
	return n.reducer.Enter(b.Context(), Generation{Run: "bench", ID: 1, Members: members, Self: 0})
}

// benchPeer is the main of another node's process: it tells its address, learns the members, and reduces until the
// first node says stop.
func benchPeer(spec string, in io.Reader, out io.Writer) error {
	var s benchSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	n, err := newBenchNode(s)
	if err != nil {
		return err
	}
	defer n.close()
	fmt.Fprintln(out, n.addr)
	lines := bufio.NewReader(in)
	line, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	var members []Member
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the first node's end is ours
		lines.ReadByte()
		cancel()
	}()
	if err := n.reducer.Enter(ctx, Generation{Run: "bench", ID: 1, Members: members, Self: s.Self}); err != nil {
		return err
	}
	for {
		if t, err := n.iterate(ctx, 0); err != nil || t == 0 {
			return err
		}
	}
}

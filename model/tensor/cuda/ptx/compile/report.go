//go:build ignore

// Report assembles every module for the architectures we run on and tells what each kernel costs there:
//
//	go run report.go -ptxas PTXAS -ptx DIR -kernels DIR -doc docs/cuda.md [-check]
//
// It fails on a spill, on local memory and on what an architecture cannot launch. Without -check it writes the table between
// the markers of the document; with it, the document must have it already.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// arch is a kind of GPU. All have 65,536 registers (given to a warp in 256s, a quarter of them to each of the four schedulers),
// 2,048 threads and 32 blocks a multiprocessor.
type arch struct {
	name   string
	shared int // bytes of shared memory a multiprocessor
}

var arches = []arch{
	{"sm_80", 164 << 10},  // A100
	{"sm_90", 228 << 10},  // H100, H200
	{"sm_100", 228 << 10}, // B200
}

const (
	reserved = 1 << 10 // bytes of shared memory that the system takes for each block
	begin    = "<!-- kernels:begin -->"
	end      = "<!-- kernels:end -->"
)

// local lists kernels that may keep so many bytes a thread in local memory, and why.
var local = map[string]struct {
	bytes int
	why   string
}{}

// use is what one kernel takes on one architecture.
type use struct{ registers, shared, stack, stores, loads int }

// launch is how a kernel is started for ViT-L/14@336px: a line `// launch: NAME threads=N shared=BYTES` in its source, whose NAME
// may leave out _f32 and _bf16. Where there is none, threads are those of __launch_bounds__, and nothing is shared dynamically.
type launch struct{ threads, shared int }

type kernel struct {
	name, module string
	launch
	use [3]use // by arches
}

func main() {
	ptxas := flag.String("ptxas", "ptxas", "the assembler")
	dir := flag.String("ptx", "..", "where the modules are")
	sources := flag.String("kernels", "../../kernels", "where their sources are")
	doc := flag.String("doc", "docs/cuda.md", "the document with the table")
	check := flag.Bool("check", false, "compare with the document, do not write it")
	flag.Parse()
	if err := run(*ptxas, *dir, *sources, *doc, *check); err != nil {
		fmt.Fprintln(os.Stderr, "ptx:", err)
		os.Exit(1)
	}
}

func run(ptxas, dir, sources, doc string, check bool) error {
	launches, err := readLaunches(sources)
	if err != nil {
		return err
	}
	kernels, err := assemble(ptxas, dir)
	if err != nil {
		return err
	}
	var bad []string
	known := map[string]bool{}
	for _, k := range kernels {
		base := strings.TrimSuffix(strings.TrimSuffix(k.name, "_f32"), "_bf16")
		for _, name := range []string{base, k.name} {
			if l, ok := launches[name]; ok {
				k.shared = l.shared
				if l.threads > 0 {
					k.threads = l.threads
				}
			}
			known[name] = true
		}
		bad = append(bad, k.faults()...)
	}
	for name := range launches {
		if !known[name] {
			bad = append(bad, fmt.Sprintf("%s: a launch line names no kernel", name))
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Errorf("%s", strings.Join(bad, "\n     "))
	}
	return place(doc, table(kernels), check)
}

var launchLine = regexp.MustCompile(`(?m)^// launch: (\w+)(?: threads=(\d+))?(?: shared=(\d+))?$`)

func readLaunches(dir string) (map[string]launch, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err != nil {
		return nil, err
	}
	launches := map[string]launch{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range launchLine.FindAllSubmatch(text, -1) {
			launches[string(m[1])] = launch{number(m[2]), number(m[3])}
		}
		if n := bytes.Count(text, []byte("// launch:")); n != len(launchLine.FindAll(text, -1)) {
			return nil, fmt.Errorf("%s: a line `// launch:` is not of the form `// launch: NAME threads=N shared=BYTES`", file)
		}
	}
	return launches, nil
}

// assemble runs the assembler over every module and architecture, as many at once as there are processors.
func assemble(ptxas, dir string) ([]*kernel, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.ptx"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no module: run make ptx", dir)
	}
	kernels := map[string]*kernel{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		module := strings.TrimSuffix(filepath.Base(file), ".ptx")
		for _, m := range entryLine.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if other := kernels[name]; other != nil {
				return nil, fmt.Errorf("kernel %s is both in %s and in %s: give one another name", name, other.module, module)
			}
			kernels[name] = &kernel{name: name, module: module, launch: launch{threads: number(m[2])}}
		}
	}
	var (
		wait  sync.WaitGroup
		slots = make(chan struct{}, runtime.NumCPU())
		errs  = make([]error, len(files)*len(arches))
		uses  = make([]map[string]use, len(errs))
	)
	for i := range errs {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			uses[i], errs[i] = assembleOne(ptxas, files[i/len(arches)], arches[i%len(arches)].name)
		})
	}
	wait.Wait()
	for i := range errs {
		if errs[i] != nil {
			return nil, errs[i]
		}
		for name, u := range uses[i] {
			if kernels[name] == nil {
				return nil, fmt.Errorf("%s: the assembler tells of a kernel %s that the module does not show", files[i/len(arches)], name)
			}
			kernels[name].use[i%len(arches)] = u
		}
	}
	list := make([]*kernel, 0, len(kernels))
	for _, k := range kernels {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b *kernel) int {
		return strings.Compare(a.module+" "+a.name, b.module+" "+b.name)
	})
	return list, nil
}

var (
	entryLine = regexp.MustCompile(`(?m)^\.visible \.entry (\w+)\((?:[^()]*\))?\s*(?:\.maxntid (\d+))?`)
	ofEntry   = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	ofStack   = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	ofUse     = regexp.MustCompile(`Used (\d+) registers(?:.*?(\d+) bytes smem)?`)
)

func assembleOne(ptxas, file, arch string) (map[string]use, error) {
	out, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", os.DevNull, file).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s for %s: %v\n%s", file, arch, err, out)
	}
	uses := map[string]use{}
	parts := ofEntry.FindAllSubmatchIndex(out, -1)
	for i, p := range parts {
		last := len(out)
		if i+1 < len(parts) {
			last = parts[i+1][0]
		}
		name, text := string(out[p[2]:p[3]]), out[p[1]:last]
		stack, used := ofStack.FindSubmatch(text), ofUse.FindSubmatch(text)
		if stack == nil || used == nil {
			return nil, fmt.Errorf("%s for %s: the assembler's words on %s are not understood:\n%s", file, arch, name, text)
		}
		uses[name] = use{number(used[1]), number(used[2]), number(stack[1]), number(stack[2]), number(stack[3])}
	}
	return uses, nil
}

// faults tells what is wrong with a kernel: what it spills, what it keeps in local memory, and where it cannot be launched.
func (k *kernel) faults() (bad []string) {
	if k.threads == 0 {
		return []string{fmt.Sprintf("%s: threads are not known: give it __launch_bounds__ or a line `// launch: %s threads=N`", k.name, k.name)}
	}
	for i, a := range arches {
		u := k.use[i]
		if u.stores+u.loads > 0 {
			bad = append(bad, fmt.Sprintf("%s on %s: spills %d bytes and loads %d of them again: it needs fewer registers, or a larger limit",
				k.name, a.name, u.stores, u.loads))
		} else if u.stack > local[k.name].bytes {
			bad = append(bad, fmt.Sprintf("%s on %s: %d bytes of local memory a thread (an array whose index the compiler does not know?)", k.name, a.name, u.stack))
		}
		if blocks, by := k.resident(i); blocks == 0 {
			bad = append(bad, fmt.Sprintf("%s on %s: not one block of %d threads, %d registers and %d bytes of shared memory fits (%s)",
				k.name, a.name, k.threads, u.registers, u.shared+k.shared, by))
		}
	}
	return bad
}

// resident is how many blocks a multiprocessor holds at once, and what limits them.
func (k *kernel) resident(arch int) (blocks int, by string) {
	u := k.use[arch]
	warps := (k.threads + 31) / 32
	each := (u.registers*32 + 255) / 256 * 256
	blocks, by = 32, "blocks"
	for _, limit := range []struct {
		blocks int
		by     string
	}{
		{64 / warps, "threads"},
		{65536 / 4 / max(each, 1) * 4 / warps, "registers"},
		{arches[arch].shared / (u.shared + k.shared + reserved), "shared"},
	} {
		if limit.blocks < blocks {
			blocks, by = limit.blocks, limit.by
		}
	}
	return blocks, by
}

func table(kernels []*kernel) string {
	var b strings.Builder
	row := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	var names []string
	for _, a := range arches {
		names = append(names, strings.TrimPrefix(a.name, "sm_"))
	}
	head := strings.Join(names, " / ")
	row("kernel", "threads", "registers "+head, "shared memory, bytes", "occupancy "+head, "limited by (90)")
	row("---", "---:", "---:", "---:", "---:", "---")
	module := ""
	for _, k := range kernels {
		if k.module != module {
			module = k.module
			row("**"+module+"**", "", "", "", "", "")
		}
		var registers, occupancy []string
		var limit string
		for i := range arches {
			blocks, by := k.resident(i)
			registers = append(registers, strconv.Itoa(k.use[i].registers))
			occupancy = append(occupancy, fmt.Sprintf("%d%%", (100*blocks*k.warps()+32)/64))
			if arches[i].name == "sm_90" {
				limit = by
			}
		}
		row(k.name, strconv.Itoa(k.threads), strings.Join(registers, " / "), k.memory(), strings.Join(occupancy, " / "), limit)
	}
	return b.String()
}

func (k *kernel) warps() int { return (k.threads + 31) / 32 }

// memory is a block's static shared memory, which may differ between architectures, and what the launch adds.
func (k *kernel) memory() string {
	static := 0
	for _, u := range k.use {
		static = max(static, u.shared)
	}
	if k.shared == 0 {
		return strconv.Itoa(static)
	}
	return fmt.Sprintf("%d + %d", static, k.shared)
}

// place puts the table between the document's markers, or holds the document to it.
func place(doc, table string, check bool) error {
	text, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the markers %s and %s, between which the table goes", doc, begin, end)
	}
	want := before + begin + "\n" + table + end + after
	if want == string(text) {
		return nil
	}
	if check {
		return fmt.Errorf("%s: the table of kernels is not what the sources give: run make ptx", doc)
	}
	tmp := doc + ".tmp"
	if err := os.WriteFile(tmp, []byte(want), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, doc)
}

// number reads what a pattern of digits matched; nothing is 0.
func number(digits []byte) int {
	n, _ := strconv.Atoi(string(digits))
	return n
}

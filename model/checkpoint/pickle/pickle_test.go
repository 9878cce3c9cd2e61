package pickle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// written is one value as Python 3 writes it in protocols 0 to 5.
var written = []string{
	"(dp0\nVnone\np1\nNsVbools\np2\n(I01\nI00\ntp3\nsVints\np4\n(lp5\nI0\naI255\naI65536\naI-1\naL2147483648L\naL-9223372036854775808L\n" +
		"aL1180591620717411303424L\naL-1180591620717411303424L\nasVfloat\np6\nF-1.5\nsVtext\np7\nVa\xe4\\U0001f600\\u000a\np8\nsVbytes\np9\n" +
		"c_codecs\nencode\np10\n(V\\u0000\xff\np11\nVlatin1\np12\ntp13\nRp14\nsVempty\np15\n((lp16\n(dp17\n(ttp18\nsVnested\np19\n(dp20\nVo" +
		"d\np21\nccollections\nOrderedDict\np22\n(tRp23\nVk\np24\n(lp25\nI1\naVx\np26\nassI3\ng25\nssVone\np27\n(I1\ntp28\nsVfour\np29\n(I1" +
		"\nI2\nI3\nI4\ntp30\nsVset\np31\nc__builtin__\nset\np32\n((lp33\nI7\natp34\nRp35\ns.",
	"}q\x00(X\x04\x00\x00\x00noneq\x01NX\x05\x00\x00\x00boolsq\x02(I01\nI00\ntq\x03X\x04\x00\x00\x00intsq\x04]q\x05(K\x00K\xffJ\x00\x00" +
		"\x01\x00J\xff\xff\xff\xffL2147483648L\nL-9223372036854775808L\nL1180591620717411303424L\nL-1180591620717411303424L\neX\x05\x00\x00" +
		"\x00floatq\x06G\xbf\xf8\x00\x00\x00\x00\x00\x00X\x04\x00\x00\x00textq\x07X\x08\x00\x00\x00a\xc3\xa4\xf0\x9f\x98\x80\nq\x08X\x05\x00" +
		"\x00\x00bytesq\x09c_codecs\nencode\nq\n(X\x03\x00\x00\x00\x00\xc3\xbfq\x0bX\x06\x00\x00\x00latin1q\x0ctq\x0dRq\x0eX\x05\x00\x00\x00" +
		"emptyq\x0f(]q\x10}q\x11)tq\x12X\x06\x00\x00\x00nestedq\x13}q\x14(X\x02\x00\x00\x00odq\x15ccollections\nOrderedDict\nq\x16)Rq\x17X\x01" +
		"\x00\x00\x00kq\x18]q\x19(K\x01X\x01\x00\x00\x00xq\x1aesK\x03h\x19uX\x03\x00\x00\x00oneq\x1b(K\x01tq\x1cX\x04\x00\x00\x00fourq\x1d(" +
		"K\x01K\x02K\x03K\x04tq\x1eX\x03\x00\x00\x00setq\x1fc__builtin__\nset\nq (]q!K\x07atq\"Rq#u.",
	"\x80\x02}q\x00(X\x04\x00\x00\x00noneq\x01NX\x05\x00\x00\x00boolsq\x02\x88\x89\x86q\x03X\x04\x00\x00\x00intsq\x04]q\x05(K\x00K\xffJ" +
		"\x00\x00\x01\x00J\xff\xff\xff\xff\x8a\x05\x00\x00\x00\x80\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80\x8a\x09\x00\x00\x00\x00\x00\x00" +
		"\x00\x00@\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0eX\x05\x00\x00\x00floatq\x06G\xbf\xf8\x00\x00\x00\x00\x00\x00X\x04\x00\x00\x00" +
		"textq\x07X\x08\x00\x00\x00a\xc3\xa4\xf0\x9f\x98\x80\nq\x08X\x05\x00\x00\x00bytesq\x09c_codecs\nencode\nq\nX\x03\x00\x00\x00\x00\xc3" +
		"\xbfq\x0bX\x06\x00\x00\x00latin1q\x0c\x86q\x0dRq\x0eX\x05\x00\x00\x00emptyq\x0f]q\x10}q\x11)\x87q\x12X\x06\x00\x00\x00nestedq\x13}" +
		"q\x14(X\x02\x00\x00\x00odq\x15ccollections\nOrderedDict\nq\x16)Rq\x17X\x01\x00\x00\x00kq\x18]q\x19(K\x01X\x01\x00\x00\x00xq\x1aesK" +
		"\x03h\x19uX\x03\x00\x00\x00oneq\x1bK\x01\x85q\x1cX\x04\x00\x00\x00fourq\x1d(K\x01K\x02K\x03K\x04tq\x1eX\x03\x00\x00\x00setq\x1fc__" +
		"builtin__\nset\nq ]q!K\x07a\x85q\"Rq#u.",
	"\x80\x03}q\x00(X\x04\x00\x00\x00noneq\x01NX\x05\x00\x00\x00boolsq\x02\x88\x89\x86q\x03X\x04\x00\x00\x00intsq\x04]q\x05(K\x00K\xffJ" +
		"\x00\x00\x01\x00J\xff\xff\xff\xff\x8a\x05\x00\x00\x00\x80\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80\x8a\x09\x00\x00\x00\x00\x00\x00" +
		"\x00\x00@\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0eX\x05\x00\x00\x00floatq\x06G\xbf\xf8\x00\x00\x00\x00\x00\x00X\x04\x00\x00\x00" +
		"textq\x07X\x08\x00\x00\x00a\xc3\xa4\xf0\x9f\x98\x80\nq\x08X\x05\x00\x00\x00bytesq\x09C\x02\x00\xffq\nX\x05\x00\x00\x00emptyq\x0b]q" +
		"\x0c}q\x0d)\x87q\x0eX\x06\x00\x00\x00nestedq\x0f}q\x10(X\x02\x00\x00\x00odq\x11ccollections\nOrderedDict\nq\x12)Rq\x13X\x01\x00\x00" +
		"\x00kq\x14]q\x15(K\x01X\x01\x00\x00\x00xq\x16esK\x03h\x15uX\x03\x00\x00\x00oneq\x17K\x01\x85q\x18X\x04\x00\x00\x00fourq\x19(K\x01K" +
		"\x02K\x03K\x04tq\x1aX\x03\x00\x00\x00setq\x1bcbuiltins\nset\nq\x1c]q\x1dK\x07a\x85q\x1eRq\x1fu.",
	"\x80\x04\x95\x06\x01\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04none\x94N\x8c\x05bools\x94\x88\x89\x86\x94\x8c\x04ints\x94]\x94(K\x00K\xff" +
		"J\x00\x00\x01\x00J\xff\xff\xff\xff\x8a\x05\x00\x00\x00\x80\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80\x8a\x09\x00\x00\x00\x00\x00" +
		"\x00\x00\x00@\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0e\x8c\x05float\x94G\xbf\xf8\x00\x00\x00\x00\x00\x00\x8c\x04text\x94\x8c\x08" +
		"a\xc3\xa4\xf0\x9f\x98\x80\n\x94\x8c\x05bytes\x94C\x02\x00\xff\x94\x8c\x05empty\x94]\x94}\x94)\x87\x94\x8c\x06nested\x94}\x94(\x8c\x02" +
		"od\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01k\x94]\x94(K\x01\x8c\x01x\x94esK\x03h\x17u\x8c\x03one\x94" +
		"K\x01\x85\x94\x8c\x04four\x94(K\x01K\x02K\x03K\x04t\x94\x8c\x03set\x94\x8f\x94(K\x07\x90u.",
	"\x80\x05\x95\x06\x01\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04none\x94N\x8c\x05bools\x94\x88\x89\x86\x94\x8c\x04ints\x94]\x94(K\x00K\xff" +
		"J\x00\x00\x01\x00J\xff\xff\xff\xff\x8a\x05\x00\x00\x00\x80\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80\x8a\x09\x00\x00\x00\x00\x00" +
		"\x00\x00\x00@\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xc0e\x8c\x05float\x94G\xbf\xf8\x00\x00\x00\x00\x00\x00\x8c\x04text\x94\x8c\x08" +
		"a\xc3\xa4\xf0\x9f\x98\x80\n\x94\x8c\x05bytes\x94C\x02\x00\xff\x94\x8c\x05empty\x94]\x94}\x94)\x87\x94\x8c\x06nested\x94}\x94(\x8c\x02" +
		"od\x94\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94\x8c\x01k\x94]\x94(K\x01\x8c\x01x\x94esK\x03h\x17u\x8c\x03one\x94" +
		"K\x01\x85\x94\x8c\x04four\x94(K\x01K\x02K\x03K\x04t\x94\x8c\x03set\x94\x8f\x94(K\x07\x90u.",
}

// plain turns dicts into maps and the rest into text, for comparing: 'text', "bytes".
func plain(v Value) string {
	switch v := v.(type) {
	case *Dict:
		var s []string
		for _, i := range v.Items {
			s = append(s, plain(i.Key)+": "+plain(i.Value))
		}
		return "{" + strings.Join(s, ", ") + "}"
	case *List:
		return "[" + all(v.Items) + "]"
	case *Tuple:
		return "(" + all(v.Items) + ")"
	case *Set:
		return "<" + all(v.Items) + ">"
	case string:
		return "'" + v + "'"
	case []byte:
		return fmt.Sprintf("%q", v)
	case *Object:
		return v.Class.String() + plain(v.Args) + "." + plain(v.State)
	case Persistent:
		return "@" + plain(v.ID)
	}
	return fmt.Sprint(v)
}

func all(values []Value) string {
	var s []string
	for _, v := range values {
		s = append(s, plain(v))
	}
	return strings.Join(s, ", ")
}

func TestEveryProtocolGivesTheSame(t *testing.T) {
	const want = `{'none': <nil>, 'bools': (true, false), 'ints': [0, 255, 65536, -1, 2147483648, -9223372036854775808, ` +
		`1180591620717411303424, -1180591620717411303424], 'float': -1.5, 'text': 'aä😀` + "\n" + `', 'bytes': "\x00\xff", ` +
		`'empty': ([], {}, ()), 'nested': {'od': {'k': [1, 'x']}, 3: [1, 'x']}, 'one': (1), 'four': (1, 2, 3, 4), 'set': <7>}`
	for protocol, p := range written {
		for _, r := range []io.Reader{strings.NewReader(p), iotest.OneByteReader(strings.NewReader(p))} {
			v, err := Load(r, Options{})
			if err != nil {
				t.Errorf("protocol %d: %v", protocol, err)
				continue
			}
			if got := plain(v); got != want {
				t.Errorf("protocol %d:\n%s; wanted\n%s", protocol, got, want)
			}
			nested, _ := v.(*Dict).Get("nested")
			items := nested.(*Dict).Items
			if od := items[0].Value.(*Dict); od.Items[0].Value != items[1].Value {
				t.Errorf("protocol %d: one list has become two", protocol)
			}
		}
	}
}

func TestPython2(t *testing.T) {
	// What Python 2 writes of {'data': 'a\'\n\x00\xff', u'u': OrderedDict([(1, 2)])} in protocols 0 and 2.
	for _, p := range []string{
		"(dp0\nS'data'\np1\nS\"a'\\n\\x00\\xff\"\np2\nsVu\np3\nccollections\nOrderedDict\np4\n((lp5\n(lp6\nI1\naI2\naatp7\nRp8\ns.",
		"\x80\x02}q\x00(U\x04dataq\x01U\x05a'\n\x00\xffq\x02X\x01\x00\x00\x00uq\x03ccollections\nOrderedDict\nq\x04]q\x05]q\x06(K\x01K\x02ea\x85q\x07Rq\x08u.",
	} {
		v, err := Load(strings.NewReader(p), Options{})
		if err != nil {
			t.Error(err)
			continue
		}
		if got, want := plain(v), "{'data': 'a'\n\x00\xff', 'u': {1: 2}}"; got != want {
			t.Errorf("%q; wanted %q", got, want)
		}
	}
}

func allow(names ...string) func(Global) bool {
	return func(g Global) bool {
		for _, n := range names {
			if g.String() == n {
				return true
			}
		}
		return false
	}
}

func TestCallsAreValues(t *testing.T) {
	o := Options{Allow: allow("a.B", "a.f")}
	for p, want := range map[string]string{
		"ca\nf\n(I1\ntR.":                          "a.f(1).<nil>",
		"ca\nB\n)\x81}(X\x01\x00\x00\x00xK\x05ub.": "a.B().{'x': 5}",
		"\x8c\x01a\x8c\x01B\x93)}\x92.":            "a.B().<nil>",
		"(K\x01K\x02tQ.":                           "@(1, 2)",
		"P17\n.":                                   "@'17'",
		"K\x012\x86.":                              "(1, 1)",
		"(K\x01K\x021K\x03.":                       "3",
	} {
		v, err := Load(strings.NewReader(p), o)
		if err != nil || plain(v) != want {
			t.Errorf("%q: %v, %v; wanted %s", p, v, err, want)
		}
	}
}

// A pickle is read to its end and no further.
func TestTheRestIsLeft(t *testing.T) {
	r := strings.NewReader("K\x01.K\x02.rest")
	for want := range int64(2) {
		if v, err := Load(r, Options{}); err != nil || v != want+1 {
			t.Fatalf("%v, %v", v, err)
		}
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("%q is left", rest)
	}
}

// offences are pickles that must be refused, with words of the reason.
var offences = []struct{ name, content, want string }{
	{"empty", "", "ends in the middle"},
	{"no end", "K\x01", "ends in the middle"},
	{"nothing", ".", "0 values"},
	{"two values", "NN.", "2 values"},
	{"a mark left", "N(.", "at the end"},
	{"unknown opcode", "\xff", "no instruction 0xff"},
	{"protocol 6", "\x80\x06N.", "protocol 6"},
	{"system", "cos\nsystem\n(S'true'\ntR.", "byte 0 (GLOBAL): it names os.system"},
	{"system by stack", "\x8c\x02os\x8c\x06system\x93.", "os.system"},
	{"eval", "c__builtin__\neval\n.", "eval"},
	{"attribute of the allowed", "ca\nf.__globals__\n.", "a.f.__globals__"},
	{"getattr", "cbuiltins\ngetattr\n.", "builtins.getattr"},
	{"instance", "(ios\nsystem\n.", "INST"},
	{"object", "(N\x6f.", "OBJ"},
	{"extension", "\x82\x01.", "EXT1"},
	{"buffer", "\x97.", "NEXT_BUFFER"},
	{"calls a number", "K\x01)R.", "calls a whole number"},
	{"calls with a list", "ca\nf\n]R.", "a list, where a tuple"},
	{"state of a list", "]Nb.", "state to a list"},
	{"underflow", "0", "stack is empty"},
	{"below the mark", "N(0", "stack is empty"},
	{"pair below the mark", "N(N\x86", "needs 2 values and the stack has 1"},
	{"no mark", "t", "there is none"},
	{"no memo", "h\x05", "memo 5"},
	{"memo of nothing", "q\x00", "stack is empty"},
	{"text memo", "Np-1\n.", "no memo"},
	{"append to a dict", "}Na.", "adds values to a dict"},
	{"items of a list", "]NNs.", "items of a list"},
	{"odd items", "}(Nu.", "no partner"},
	{"list as key", "}]Ns.", "cannot be a key"},
	{"long string", "X\xff\xff\xff\x7f", "claims 2147483647 bytes"},
	{"short string", "X\x05\x00\x00\x00ab", "only 2 follow"},
	{"huge string", "\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "claims 18446744073709551615"},
	{"huge number", "\x8b\xff\xff\xff\x7f", "2147483647 bytes; the limit"},
	{"bad text", "X\x01\x00\x00\x00\xff.", "UTF-8"},
	{"bad surrogate", "V\\ud800\n.", "escape"},
	{"cut escape", "V\\u12\n.", "cut escape"},
	{"no quotes", "Sabc\n.", "quotes"},
	{"bad escape", "S'\\q'\n.", "escape"},
	{"no number", "Ione\n.", "no whole number"},
	{"no float", "Fone\n.", "no number"},
	{"long line", "I" + strings.Repeat("1", 1<<17), "a line of over"},
	{"bytes of a list", "c_codecs\nencode\n(]X\x06\x00\x00\x00latin1tR.", "makes bytes of a list"},
	{"bytes of wide text", "c_codecs\nencode\n(X\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1tR.", "not in latin1"},
	{"dict of numbers", "ccollections\nOrderedDict\n((K\x01ltR.", "where pairs belong"},
}

func TestOffencesAreNamed(t *testing.T) {
	for _, c := range offences {
		v, err := Load(strings.NewReader(c.content), Options{Allow: allow("a.f")})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; wanted %q", c.name, v, err, c.want)
		}
	}
}

// Whatever a pickle does, its memory stays within measure.
func TestMemoryIsBounded(t *testing.T) {
	repeat := func(s string) io.Reader { return io.MultiReader(strings.NewReader("\x80\x02"), &repeater{s: s}) }
	for name, r := range map[string]io.Reader{
		"values":        repeat("N"),
		"lists":         repeat("]"),
		"marks":         repeat("("),
		"nested":        repeat("]\x85"),
		"duplicates":    io.MultiReader(strings.NewReader("N"), &repeater{s: "2"}),
		"memos":         &counter{},
		"appends":       io.MultiReader(strings.NewReader("]"), &repeater{s: "(NNNNNNNNe"}),
		"dict":          io.MultiReader(strings.NewReader("}"), &repeater{s: "NNs"}),
		"set of set":    io.MultiReader(strings.NewReader("]q\x00("+strings.Repeat("N", 1<<16)+"e0"), &repeater{s: "cbuiltins\nset\nh\x00\x85R0"}),
		"bytes":         io.MultiReader(strings.NewReader("X\x00\x00\x10\x00"), io.LimitReader(&repeater{s: "a"}, 1<<20), &repeater{s: "q\x00c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0"}),
		"idle for ever": repeat("N0"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Load(r, Options{MaxMemory: 4 << 20, MaxSize: 4 << 20})
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "memory") && !strings.Contains(err.Error(), "bytes allowed") {
			t.Errorf("%s: %v", name, err)
		}
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 32 {
			t.Errorf("%s: %d MiB were allocated", name, used)
		}
	}
}

// repeater gives a text for ever.
type repeater struct {
	s  string
	at int
}

func (r *repeater) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.s[r.at]
		r.at = (r.at + 1) % len(r.s)
	}
	return len(p), nil
}

// counter is a pickle that writes one memo after the other.
type counter struct {
	rest []byte
	n    uint32
}

func (c *counter) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		c.rest = []byte{'N', 'r', byte(c.n), byte(c.n >> 8), byte(c.n >> 16), byte(c.n >> 24), '0'}
		c.n++
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func TestIntsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "magnitude"))
		if rapid.Bool().Draw(t, "negative") {
			want.Neg(want)
		}
		v, err := Load(strings.NewReader(fmt.Sprintf("L%dL\n.", want)), Options{})
		if err != nil || fmt.Sprint(v) != want.String() {
			t.Fatalf("%v, %v; wanted %v", v, err, want)
		}
		b := make([]byte, 22) // two's complement of 176 bits
		wrapped := new(big.Int).Add(want, new(big.Int).Lsh(big.NewInt(1), 176))
		wrapped.SetBit(wrapped, 176, 0).FillBytes(b)
		for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
		v, err = Load(bytes.NewReader(append(append([]byte{0x8a, byte(len(b))}, b...), '.')), Options{})
		if err != nil || fmt.Sprint(v) != want.String() {
			t.Fatalf("binary: %v, %v; wanted %v", v, err, want)
		}
	})
}

func TestFloatsComeBack(t *testing.T) {
	if v, err := Load(strings.NewReader("G\x7f\xf0\x00\x00\x00\x00\x00\x00."), Options{}); err != nil || v != math.Inf(1) {
		t.Errorf("%v, %v", v, err)
	}
}

// FuzzLoad: nothing panics or takes more than its share, and what is refused is refused with a place.
func FuzzLoad(f *testing.F) {
	for _, p := range written {
		f.Add([]byte(p))
	}
	for _, c := range offences {
		if len(c.content) < 1<<10 {
			f.Add([]byte(c.content))
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		o := Options{Allow: allow("a.f", "a.B"), MaxMemory: 1 << 20}
		v, err := Load(bytes.NewReader(content), o)
		again, err2 := Load(iotest.HalfReader(bytes.NewReader(content)), o)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("%v, then %v", err, err2)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Offset > int64(len(content))) {
			t.Fatalf("%v", err)
		}
		if err == nil && reflect.TypeOf(v) != reflect.TypeOf(again) {
			t.Fatalf("%T, then %T", v, again)
		}
	})
}

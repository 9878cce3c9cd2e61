package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// torchStorages are PyTorch's names of the storages of each element type.
var torchStorages = map[DType]string{
	"F64": "DoubleStorage", F32: "FloatStorage", F16: "HalfStorage", BF16: "BFloat16Storage",
	I64: "LongStorage", "I32": "IntStorage", "I16": "ShortStorage", "I8": "CharStorage", U8: "ByteStorage", "BOOL": "BoolStorage",
}

// Opcodes of Python's pickle protocol 2, those that a dictionary of tensors needs.
const (
	opProto      = "\x80\x02"
	opMark       = "("
	opStop       = "."
	opGlobal     = "c" // module \n name \n
	opReduce     = "R"
	opPersistent = "Q" // the value on the stack names a storage
	opEmptyDict  = "}"
	opSetItems   = "u"
	opEmptyTuple = ")"
	opTuple      = "t" // of what follows the mark
	opUnicode    = "X" // its length in 4 bytes, UTF-8
	opByte       = "K"
	opInt        = "J" // 4 bytes, signed
	opLong       = "\x8a\x08"
	opFalse      = "\x89"
)

// storageID tells storages apart: tensors of the same bytes share one.
type storageID struct {
	at    *byte
	bytes int
	dtype DType
}

// pickler writes a dictionary of tensors as torch.save does: the structure into out, the storages into data.
type pickler struct {
	out      bytes.Buffer
	storages map[storageID]string // keys of the storages so far
	data     [][]byte             // by key
}

func (p *pickler) file(root Dict) error {
	p.out.WriteString(opProto + opEmptyDict)
	if err := p.items(root); err != nil {
		return err
	}
	p.out.WriteString(opStop)
	return nil
}

// items fills the dictionary on the stack.
func (p *pickler) items(d Dict) error {
	seen := map[string]bool{}
	p.out.WriteString(opMark)
	for _, item := range d {
		if seen[item.Key] || !utf8.ValidString(item.Key) {
			return fmt.Errorf("the key %q is there twice or is not UTF-8", shorten(item.Key))
		}
		seen[item.Key] = true
		p.text(item.Key)
		if err := p.value(item); err != nil {
			return fmt.Errorf("%s: %w", item.Key, err)
		}
	}
	p.out.WriteString(opSetItems)
	return nil
}

func (p *pickler) value(item DictItem) error {
	if item.Tensor != nil {
		return p.tensor(item.Tensor)
	}
	p.orderedDict()
	return p.items(item.Dict)
}

func (p *pickler) orderedDict() {
	p.global("collections", "OrderedDict")
	p.out.WriteString(opEmptyTuple + opReduce)
}

// tensor writes a contiguous tensor that needs no gradient.
func (p *pickler) tensor(t *NamedTensor) error {
	storage, ok := torchStorages[t.DType]
	if !ok {
		return fmt.Errorf("PyTorch's format has no storage of %s", t.DType)
	}
	if want := t.Len() * t.DType.Size(); want != len(t.Data) {
		return fmt.Errorf("%s of shape %v needs %d bytes, has %d", t.DType, t.Shape, want, len(t.Data))
	}
	strides := make([]int, len(t.Shape))
	for i, step := len(t.Shape)-1, 1; i >= 0; i-- {
		strides[i] = step
		step *= max(t.Shape[i], 1) // as PyTorch counts them where there are no values
	}
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.out.WriteString(opMark)

	p.out.WriteString(opMark)
	p.text("storage")
	p.global("torch", storage)
	p.text(p.storage(t))
	p.text("cpu")
	p.number(t.Len())
	p.out.WriteString(opTuple + opPersistent)

	p.number(0) // where in the storage it begins
	p.numbers(t.Shape)
	p.numbers(strides)
	p.out.WriteString(opFalse) // no gradient
	p.orderedDict()            // no hooks
	p.out.WriteString(opTuple + opReduce)
	return nil
}

// storage returns the key of a tensor's storage.
func (p *pickler) storage(t *NamedTensor) string {
	id := storageID{unsafe.SliceData(t.Data), len(t.Data), t.DType}
	key, ok := p.storages[id]
	if !ok || len(t.Data) == 0 {
		key = strconv.Itoa(len(p.data))
		p.storages[id] = key
		p.data = append(p.data, t.Data)
	}
	return key
}

func (p *pickler) global(module, name string) {
	p.out.WriteString(opGlobal + module + "\n" + name + "\n")
}

func (p *pickler) text(s string) {
	p.out.WriteString(opUnicode)
	p.out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	p.out.WriteString(s)
}

func (p *pickler) numbers(all []int) {
	p.out.WriteString(opMark)
	for _, n := range all {
		p.number(n)
	}
	p.out.WriteString(opTuple)
}

// number writes n, which is not negative.
func (p *pickler) number(n int) {
	le := binary.LittleEndian
	switch {
	case n <= math.MaxUint8:
		p.out.WriteString(opByte)
		p.out.WriteByte(byte(n))
	case n <= math.MaxInt32:
		p.out.WriteString(opInt)
		p.out.Write(le.AppendUint32(nil, uint32(n)))
	default:
		p.out.WriteString(opLong)
		p.out.Write(le.AppendUint64(nil, uint64(n)))
	}
}

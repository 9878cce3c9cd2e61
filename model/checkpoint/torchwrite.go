package checkpoint

import (
	"archive/zip"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
)

// Dict is a Python dictionary with text keys, in order. Inside a file the outermost is a dict and those in it are
// OrderedDicts, as a model's state_dict is.
type Dict []DictItem

// DictItem is one key and its value: a tensor or, if Tensor is nil, a dictionary.
type DictItem struct {
	Key    string
	Tensor *NamedTensor // its own Name is not written
	Dict   Dict
}

// torchAlign is what PyTorch aligns the data of every record to, in bytes, so that a storage can be mapped.
const torchAlign = 64

// WriteTorch replaces path by the zip archive that torch.save makes of root; torch.load reads it with weights_only. Tensors that share their
// memory share it in the file. Equal content gives equal bytes: there is no time in it.
func WriteTorch(path string, root Dict) error {
	p := pickler{storages: map[storageID]string{}}
	err := p.file(root)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return Replace(path, func(w io.Writer) error {
		a := newTorchArchive(w)
		records := []torchRecord{{"data.pkl", p.out.Bytes()}, {"byteorder", []byte("little")}}
		for i, data := range p.data {
			records = append(records, torchRecord{fmt.Sprintf("data/%d", i), data})
		}
		for _, r := range append(records, torchRecord{"version", []byte("3\n")}) {
			if err := a.add(r); err != nil {
				return fmt.Errorf("record %s: %w", r.name, err)
			}
		}
		return a.zip.Close()
	})
}

// torchRecord is one file in the archive.
type torchRecord struct {
	name string
	data []byte
}

// torchArchive writes records stored, not compressed, each at a multiple of torchAlign.
type torchArchive struct {
	zip *zip.Writer
	out *countingWriter
}

func newTorchArchive(w io.Writer) *torchArchive {
	out := &countingWriter{Writer: w}
	return &torchArchive{zip: zip.NewWriter(out), out: out}
}

// add writes one record.
func (a *torchArchive) add(r torchRecord) error {
	const (
		localHeader = 30 // bytes before the name
		extraHeader = 4  // of the padding: its tag and its length
		extraTag    = "FB"
	)
	if uint64(len(r.data)) >= math.MaxUint32 {
		return fmt.Errorf("%d bytes; one tensor may have up to 4 GiB", len(r.data))
	}
	if err := a.zip.Flush(); err != nil {
		return err
	}
	name := "archive/" + r.name
	begin := a.out.n + localHeader + int64(len(name)) + extraHeader
	padding := int((torchAlign - begin%torchAlign) % torchAlign)
	h := &zip.FileHeader{
		Name: name, Method: zip.Store, ReaderVersion: 20, CRC32: crc32.ChecksumIEEE(r.data),
		CompressedSize64: uint64(len(r.data)), UncompressedSize64: uint64(len(r.data)),
		Extra: []byte(extraTag + string([]byte{byte(padding), 0}) + strings.Repeat("Z", padding)),
	}
	w, err := a.zip.CreateRaw(h)
	if err != nil {
		return err
	}
	_, err = w.Write(r.data)
	return err
}

// countingWriter counts what goes through it.
type countingWriter struct {
	io.Writer
	n int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.n += int64(n)
	return n, err
}

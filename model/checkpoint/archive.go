package checkpoint

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Limits of zip archives.
const (
	maxZipDirectory = 16 << 20 // bytes of the list of members
	maxInflation    = 16       // times an archive's size that its members may have together, beyond the slack
	inflationSlack  = 16 << 20 // bytes
	maxDeflateRatio = 1032     // that DEFLATE can reach
)

// archive is a zip archive in mapped memory whose list of members has been checked.
type archive struct {
	members map[string]member
	names   []string // in the order of the list
}

// member is a file in an archive; packed are its bytes as they lie there.
type member struct {
	file   *zip.File
	at     uint64
	packed []byte
}

// boundedReader reads from memory, so many bytes in all.
type boundedReader struct {
	*bytes.Reader
	left int
}

func (b *boundedReader) ReadAt(p []byte, at int64) (int, error) {
	if b.left < len(p) {
		return 0, fmt.Errorf("its list of members has over %d bytes", maxZipDirectory)
	}
	b.left -= len(p)
	return b.Reader.ReadAt(p, at)
}

// openArchive checks that the members have names of their own, lie within the file apart from each other, are stored or deflated, and
// do not inflate beyond measure.
func openArchive(data []byte) (*archive, error) {
	r := &boundedReader{bytes.NewReader(data), maxZipDirectory}
	z, err := zip.NewReader(r, int64(len(data)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // no member is ever written to its path
		return nil, fmt.Errorf("its zip archive is cut short or damaged: %w", err)
	}
	r.left = math.MaxInt
	a := &archive{members: make(map[string]member, len(z.File))}
	room := maxInflation*uint64(len(data)) + inflationSlack
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") {
			continue // a directory
		}
		m, err := checkMember(f, data)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", shorten(f.Name), err)
		}
		if _, twice := a.members[f.Name]; twice {
			return nil, fmt.Errorf("two members are called %q", shorten(f.Name))
		}
		if f.UncompressedSize64 > room {
			return nil, fmt.Errorf("member %q: with it the members inflate to over %d times the archive's %d bytes",
				shorten(f.Name), maxInflation, len(data))
		}
		room -= f.UncompressedSize64
		a.members[f.Name] = m
		a.names = append(a.names, f.Name)
	}
	return a, a.checkOverlap()
}

// checkMember holds what the list of members says about one against the file.
func checkMember(f *zip.File, data []byte) (member, error) {
	const encrypted = 1
	at, err := f.DataOffset()
	size, packed := f.UncompressedSize64, f.CompressedSize64
	switch {
	case err != nil:
		return member{}, fmt.Errorf("its local header is damaged: %w", err)
	case f.Flags&encrypted != 0:
		return member{}, errors.New("it is encrypted")
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return member{}, fmt.Errorf("it is compressed by method %d; lift knows 0 (stored) and 8 (deflated)", f.Method)
	case at < 0 || uint64(at) > uint64(len(data)) || packed > uint64(len(data))-uint64(at):
		return member{}, fmt.Errorf("its %d bytes at %d lie beyond the archive's %d", packed, at, len(data))
	case f.Method == zip.Store && size != packed:
		return member{}, fmt.Errorf("it is stored, yet has %d bytes in the archive and %d outside", packed, size)
	case f.Method == zip.Deflate && size/maxDeflateRatio > packed:
		return member{}, fmt.Errorf("it claims to inflate from %d bytes to %d, which nothing does", packed, size)
	}
	return member{f, uint64(at), data[at : uint64(at)+packed : uint64(at)+packed]}, nil
}

// checkOverlap refuses members that share bytes: few bytes could then stand for many.
func (a *archive) checkOverlap() error {
	order := slices.Clone(a.names)
	slices.SortFunc(order, func(x, y string) int {
		if x, y := a.members[x].at, a.members[y].at; x != y {
			return compare(x, y)
		}
		return len(a.members[x].packed) - len(a.members[y].packed)
	})
	end := uint64(0)
	for i, name := range order {
		m := a.members[name]
		if m.at < end {
			return fmt.Errorf("members %q and %q overlap", shorten(order[i-1]), shorten(name))
		}
		end = m.at + uint64(len(m.packed))
	}
	return nil
}

// bytes returns a member's content: where it lies if it is stored, else inflated. What is inflated has the promised size and checksum.
func (m member) bytes() ([]byte, error) {
	if m.file.Method == zip.Store {
		return m.packed, nil
	}
	r, err := m.file.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	size := m.file.UncompressedSize64
	var out bytes.Buffer
	out.Grow(int(min(size, 1<<20)) + bytes.MinRead)
	n, err := io.Copy(&out, io.LimitReader(r, int64(size)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("it cannot be inflated: %w", err)
	case uint64(n) != size:
		return nil, fmt.Errorf("it inflates to %d bytes or more, not to the %d promised", n, size)
	}
	return out.Bytes(), nil
}

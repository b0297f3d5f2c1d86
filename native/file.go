package native

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unsafe"
)

const (
	magic      = "CMLNATV1"
	headerSize = 64
	hashAt     = 32
	// metaLimit bounds the JSON part, which is decoded into many small objects.
	metaLimit = 64 << 20
)

// An Array refers to elements of one type in the binary part of a file. The zero Array is empty.
type Array struct {
	Type string `json:"type"` // f64, f32, i64, i32, u32, u16, u8
	At   uint64 `json:"at"`   // from the beginning of the file, a multiple of 8
	Len  uint64 `json:"len"`  // number of elements
}

var elementSizes = map[string]uint64{ //nolint:gochecknoglobals // a constant table
	"f64": 8, "i64": 8, "f32": 4, "i32": 4, "u32": 4, "u16": 2, "u8": 1,
}

// file is a container: a header, a JSON part and arrays. Arrays are parts of data.
type file struct {
	data    []byte
	json    []byte
	hash    [sha256.Size]byte
	release func() error
}

var errShort = errors.New("the file is shorter than its header says")

// parse checks the header and the hash of a container.
func parse(data []byte) (*file, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errors.New("native models need a little-endian machine")
	}
	if len(data) < headerSize {
		return nil, errShort
	}
	if string(data[:len(magic)]) != magic {
		return nil, errors.New("not a native model: it does not begin with " + magic)
	}
	size, at, length := binary.LittleEndian.Uint64(data[8:]), binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:])
	switch {
	case size != uint64(len(data)):
		return nil, fmt.Errorf("the file has %d bytes and its header says %d", len(data), size)
	case at < headerSize || at > size || length > size-at:
		return nil, errors.New("the description lies outside of the file")
	case length > metaLimit:
		return nil, fmt.Errorf("the description has %d bytes, more than %d", length, metaLimit)
	}
	if uintptr(unsafe.Pointer(&data[0]))%8 != 0 { // a part of something else
		aligned := make([]uint64, (len(data)+7)/8)
		whole := unsafe.Slice((*byte)(unsafe.Pointer(&aligned[0])), len(data))
		copy(whole, data)
		data = whole
	}
	f := &file{data: data, json: data[at : at+length]}
	h := sha256.New()
	h.Write(data[:hashAt])
	h.Write(data[headerSize:])
	h.Sum(f.hash[:0])
	if !bytes.Equal(f.hash[:], data[hashAt:headerSize]) {
		return nil, errors.New("the hash of the file differs from the one in its header: it is damaged")
	}
	return f, nil
}

// decode reads the JSON part.
func (f *file) decode(into any) error {
	if err := json.Unmarshal(f.json, into); err != nil {
		return fmt.Errorf("description: %w", err)
	}
	return nil
}

// elements returns the elements of an array, without a copy.
func elements[T float64 | float32 | int64 | int32 | uint32 | uint16 | uint8](f *file, name string, a Array) ([]T, error) {
	if a.Len == 0 {
		return nil, nil
	}
	var zero T
	want := ""
	switch any(zero).(type) {
	case float64:
		want = "f64"
	case float32:
		want = "f32"
	case int64:
		want = "i64"
	case int32:
		want = "i32"
	case uint32:
		want = "u32"
	case uint16:
		want = "u16"
	case uint8:
		want = "u8"
	}
	size := uint64(len(f.data))
	switch {
	case a.Type != want:
		return nil, fmt.Errorf("array %s has type %q, not %s", name, a.Type, want)
	case a.At%8 != 0 || a.At < headerSize || a.At > size || a.Len > (size-a.At)/elementSizes[want] || a.Len > math.MaxInt32:
		return nil, fmt.Errorf("array %s lies outside of the file", name)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&f.data[a.At])), int(a.Len)), nil
}

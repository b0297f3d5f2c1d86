package onnxruntime

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// memory is memory that C reads or writes. It is on the heap and pinned until release: a
// goroutine's stack moves, and then an address in it is stale.
type memory struct{ pinner runtime.Pinner }

func (m *memory) release() { m.pinner.Unpin() }

// words are n machine words.
type words []uintptr

func (m *memory) words(n int) words {
	if n == 0 {
		return nil
	}
	w := make(words, n)
	m.pinner.Pin(&w[0])
	return w
}

// at is the address of a word.
func (w words) at(i int) uintptr {
	if len(w) == 0 {
		return 0
	}
	return uintptr(unsafe.Pointer(&w[i]))
}

func (w words) get(i int) uintptr { return w[i] }

// text is a text as C has it. Texts with a zero byte end there.
func (m *memory) text(s string) uintptr {
	b := append([]byte(s), 0)
	m.pinner.Pin(&b[0])
	return uintptr(unsafe.Pointer(&b[0]))
}

// pointer is an address of C's memory.
func pointer(address uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&address))
}

// text copies a text of C.
func text(address uintptr) string {
	if address == 0 {
		return ""
	}
	p, n := pointer(address), 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}

// copies bounds the memory of outputs, which are copied out of the arena and outlive their run.
type copies struct {
	most int64 // 0: no bound
	held atomic.Int64
}

// countFrom is the size from which a copy counts.
const countFrom = 64 << 10

// take makes memory for a copy. It counts until the garbage collector has freed it.
func (c *copies) take(n int) ([]byte, error) {
	if n < countFrom || c.most <= 0 {
		return make([]byte, n), nil
	}
	if held := c.held.Add(int64(n)); held > c.most {
		c.held.Add(-int64(n))
		return nil, &MemoryError{Size: n, Held: held - int64(n), Most: c.most}
	}
	b := make([]byte, n)
	runtime.AddCleanup(&b[0], func(n int64) { c.held.Add(-n) }, int64(n))
	return b, nil
}

// MemoryError is an output for which there is no memory.
type MemoryError struct {
	Size       int
	Held, Most int64
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("an output of %d bytes, beside %d bytes of others that are being sent: together they may have %d", e.Size, e.Held, e.Most)
}

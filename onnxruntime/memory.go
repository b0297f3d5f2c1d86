package onnxruntime

import (
	"runtime"
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

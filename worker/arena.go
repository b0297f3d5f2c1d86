package worker

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is memory that a group shares with its workers, for large bodies: a body
// is received from the client directly into it, and the worker gets its offset and reads
// it with one copy. It is an unnamed file that only the processes of one endpoint have,
// so no endpoint sees the bodies of another, and the kernel frees it with the last of them.
type arena struct {
	mu     sync.Mutex // guards the rest
	file   *os.File   // nil until the first loan
	free   [maxClass + 1][]*Loan
	handed int64 // bytes of the file that were lent at least once
	all    []*Loan
	lent   int
	closed bool
}

const (
	minClass  = 18      // 256 KiB
	maxClass  = 28      // 256 MiB
	arenaSize = 1 << 30 // address space; memory is allocated when it is written to
	// arenaIdle is how long unused memory is kept, so that the next body needs no new pages.
	arenaIdle = 5 * time.Second
)

// Loan is a piece of a group's shared memory. It is reused when all holders have released
// it: the borrower, and the request whose body is in it, which holds it until its worker is
// done, even if the request was abandoned.
type Loan struct {
	a       *arena
	class   int
	offset  int64
	memory  []byte
	size    int // the part that was asked for
	written bool
	since   time.Time // when it became free
	holders atomic.Int32
}

// Bytes returns the memory, in the size that was asked for.
func (l *Loan) Bytes() []byte { return l.memory[:l.size:l.size] }

// Release returns the memory, which must not be used any more.
func (l *Loan) Release() {
	if l.holders.Add(-1) == 0 {
		l.a.takeBack(l)
	}
}

func (l *Loan) hold() { l.holders.Add(1) }

// holds reports whether body is at the start of the loan's memory.
func (l *Loan) holds(body []byte) bool {
	return len(body) > 0 && len(body) <= l.size && &body[0] == &l.memory[0]
}

// offsetOf is the place of data in the loan's memory; ok is false if it is elsewhere. No data lies anywhere.
func (l *Loan) offsetOf(data []byte) (at int, ok bool) {
	if len(data) == 0 {
		return 0, true
	}
	begin, first := uintptr(unsafe.Pointer(&l.memory[0])), uintptr(unsafe.Pointer(&data[0])) //nolint:gosec // only compared
	if first < begin || first-begin > uintptr(l.size) || uintptr(len(data)) > uintptr(l.size)-(first-begin) {
		return 0, false
	}
	return int(first - begin), true
}

var errArenaClosed = errors.New("its endpoint is being closed")

// open makes the file, if there is none yet. mu is held.
func (a *arena) open() (err error) {
	switch {
	case a.closed:
		return errArenaClosed
	case a.file == nil:
		a.file, err = newArenaFile(arenaSize)
	}
	return err
}

// share returns the file for a worker, which may only read it; the caller closes it.
func (a *arena) share() (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("share memory for bodies: %w", err)
	}
	file, err := readOnly(a.file)
	if err != nil {
		return nil, fmt.Errorf("share memory for bodies: %w", err)
	}
	return file, nil
}

// lend returns memory for size bytes, nil if there is none: the body is then sent through
// the socket.
func (a *arena) lend(size int) *Loan {
	class := max(bits.Len(uint(max(size, 1)-1)), minClass)
	if class > maxClass {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open() != nil {
		return nil
	}
	var l *Loan
	if free := a.free[class]; len(free) > 0 {
		l = free[len(free)-1] // the one that was used last
		free[len(free)-1] = nil
		a.free[class] = free[:len(free)-1]
	} else if l = a.make(class); l == nil {
		return nil
	}
	l.size, l.written = size, true
	l.holders.Store(1)
	a.lent++
	return l
}

// make maps an unused piece of the file. mu is held.
func (a *arena) make(class int) *Loan {
	size := int64(1) << class
	if a.handed+size > arenaSize {
		return nil
	}
	memory, err := mapArena(a.file, a.handed, int(size))
	if err != nil {
		return nil // no address space, or not permitted: the socket is used
	}
	l := &Loan{a: a, class: class, offset: a.handed, memory: memory}
	a.handed += size
	a.all = append(a.all, l)
	return l
}

func (a *arena) takeBack(l *Loan) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lent--
	if a.closed {
		if a.lent == 0 {
			a.unmap()
		}
		return
	}
	l.since = time.Now()
	a.free[l.class] = append(a.free[l.class], l)
}

// trim frees memory that has not been used for a while.
func (a *arena) trim(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, free := range a.free[:] {
		for _, l := range free {
			if l.written && now.Sub(l.since) > arenaIdle && dropPages(l.memory) == nil {
				l.written = false
			}
		}
	}
}

// close ends the arena; memory that is lent is unmapped when it is released.
func (a *arena) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	if a.file != nil {
		_ = a.file.Close()
	}
	if a.lent == 0 {
		a.unmap()
	}
}

// unmap unmaps all memory. mu is held.
func (a *arena) unmap() {
	for _, l := range a.all {
		_ = unix.Munmap(l.memory)
	}
	a.all, a.free = nil, [maxClass + 1][]*Loan{}
}

package worker

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// arena is memory that a group shares with its workers, for large bodies: a body
// is read from the client straight into it, and the worker receives its place
// and reads it with one copy. It is a file without a name that only we map; its
// holders are the processes of one endpoint, so no endpoint sees another's bodies,
// and the kernel frees it with the last of them.
type arena struct {
	mu     sync.Mutex // guards the rest
	file   *os.File   // nil until the first loan
	free   [maxClass + 1][]*Loan
	handed int64 // bytes of the file that are in use or were once
	kept   int   // free loans that have memory
	all    []*Loan
	lent   int
	closed bool
}

const (
	minClass  = 18      // 256 KiB
	maxClass  = 28      // 256 MiB
	arenaSize = 1 << 30 // of addresses: memory is taken when it is written to
	// arenaIdle is how long unused memory is kept: the next body needs
	// no new pages then.
	arenaIdle = 5 * time.Second
)

// Loan is a piece of a group's shared memory. It is reused when all
// its holders have released it: the borrower, and the request whose body lies in it
// until its worker is done, even if the request was abandoned.
type Loan struct {
	a       *arena
	class   int
	offset  int64
	memory  []byte
	size    int // of them, what was asked for
	written bool
	since   time.Time // when it became free
	holders atomic.Int32
}

// Bytes is the memory, of the size that was asked for.
func (l *Loan) Bytes() []byte { return l.memory[:l.size:l.size] }

// Release gives the memory back; it must not be touched any more.
func (l *Loan) Release() {
	if l.holders.Add(-1) == 0 {
		l.a.takeBack(l)
	}
}

func (l *Loan) hold() { l.holders.Add(1) }

// holds reports whether body is the beginning of the loan's memory.
func (l *Loan) holds(body []byte) bool {
	return len(body) > 0 && len(body) <= l.size && &body[0] == &l.memory[0]
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

// share returns the file for a worker, who may read it; the caller closes it.
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

// lend returns memory for size bytes, nil if there is none: then the body goes
// through the socket.
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
		l = free[len(free)-1] // the one whose memory is warm
		free[len(free)-1] = nil
		a.free[class] = free[:len(free)-1]
		if l.written {
			a.kept--
		}
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
		return nil // no addresses or no right to: the socket does as well
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
	a.kept++
	a.free[l.class] = append(a.free[l.class], l)
}

// trim gives back the memory that has not been used for a while.
func (a *arena) trim(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kept == 0 {
		return
	}
	for _, free := range a.free {
		for _, l := range free {
			if l.written && now.Sub(l.since) > arenaIdle && dropPages(l.memory) == nil {
				l.written = false
				a.kept--
			}
		}
	}
}

// close ends the arena; what is lent goes when it is given back.
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

// unmap is the end. mu is held.
func (a *arena) unmap() {
	for _, l := range a.all {
		_ = unix.Munmap(l.memory)
	}
	a.all, a.free = nil, [maxClass + 1][]*Loan{}
}

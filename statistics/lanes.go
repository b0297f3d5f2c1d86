package statistics

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

// maxLanes bounds the memory of an endpoint on a machine with many cores.
const maxLanes = 16

// lane has the counters of mostly one core: a block of each meter, and unread samples. Its owner holds
// mu, which almost never waits.
type lane struct {
	mu      sync.Mutex
	index   int
	journal *journal
	ring    ring
	_       [64]byte // the next lane is in another cache line
}

// lanes gives each core a lane.
type lanes struct {
	all  []lane
	n    int // those that are used; others only have samples of an earlier process
	next atomic.Uint32
	pool sync.Pool // of *lane; its items stay with their core
}

func newLanes() *lanes {
	l := &lanes{all: make([]lane, maxLanes), n: min(runtime.GOMAXPROCS(0), maxLanes)}
	for i := range l.all {
		l.all[i].index = i
		l.all[i].journal = new(journal)
	}
	l.pool.New = func() any { return &l.all[int(l.next.Add(1))%l.n] }
	return l
}

// lock returns a lane that nobody else uses; unlock releases it.
func (l *lanes) lock() *lane {
	own := l.pool.Get().(*lane) //nolint:forcetypeassert // New returns no other type
	for i := range l.n {
		one := &l.all[(own.index+i)%l.n]
		if one.mu.TryLock() {
			return one
		}
	}
	own.mu.Lock()
	return own
}

func (l *lanes) unlock(one *lane) {
	one.mu.Unlock()
	l.pool.Put(one)
}

// maxChanges bounds the cells of one change: two of each of six histograms, two for a canary, the outcomes, and the
// head of the ring.
const maxChanges = 24

// journal makes a change of several cells happen as a whole or not at all, also if the process is
// killed in between: the new values are written here first. If n is not 0 at the next start, they are
// written to their places again.
type journal struct {
	n       uint32 // entries of a complete change, else 0
	_       uint32
	entries [maxChanges]journalEntry
	// head is that of the ring in the file.
	head uint64
}

// journalEntry is the new value of one cell.
type journalEntry struct{ offset, value uint64 } // the offset in the file, 0: not in the file

// change collects the new values of one lane's cells.
type change struct {
	journal *journal
	n       int
	cells   [maxChanges]*uint64
}

// add adds to a cell of a block. A cell occurs at most once in a change.
func (c *change) add(b *block, at int, by uint64) {
	c.set(&b.cells[at], b.offset(at), b.cells[at]+by)
}

func (c *change) set(cell *uint64, offset, value uint64) {
	c.cells[c.n] = cell
	c.journal.entries[c.n] = journalEntry{offset, value}
	c.n++
}

// commit makes the change. A process that is killed has made its stores in the order of the program;
// the atomic stores keep the compiler from another order.
func (c *change) commit() {
	atomic.StoreUint32(&c.journal.n, uint32(c.n))
	for i := range c.n {
		*c.cells[i] = c.journal.entries[i].value
	}
	atomic.StoreUint32(&c.journal.n, 0)
}

// block has the cells of one meter for one lane.
type block struct {
	cells []uint64
	at    uint64     // of the cells in the file, 0: they are in memory only
	head  *stateHead // nil in memory
}

func (b *block) offset(cell int) uint64 {
	if b.at == 0 {
		return 0
	}
	return b.at + uint64(cell)*8
}

func newBlock() *block { return &block{cells: make([]uint64, places.size)} }

// at converts a part of a file in memory.
func at[T any](memory []byte, offset int) *T { return (*T)(unsafe.Pointer(&memory[offset])) }

package statistics

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// mostProcesses bounds how many processes keep counters beside each other.
const mostProcesses = 64

// keeping says where counters are kept.
type keeping struct {
	path  string // "": nowhere
	log   *slog.Logger
	tried time.Time // the last attempt to begin a new file
}

// Open returns Metrics whose counters survive the process, in a file of this path. If another process uses
// it, another one beside it is used. What cannot be kept is in memory only, and a metric says so.
func Open(path string, log *slog.Logger) *Metrics {
	m := New()
	m.keeping = keeping{path: path, log: log}
	f, err := openFree(path, log)
	if err != nil {
		log.Error("statistics are kept in memory only, a restart loses them", "file", path, "err", err)
		return m
	}
	m.file = f
	before := debug.SetPanicOnFault(true) // the file may be shorter than its size says
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			if !isFault(p) {
				panic(p)
			}
			m.file.fail(fmt.Errorf("read %s: %v", f.path, p))
			m.file = nil
		}
	}()
	m.restore()
	return m
}

// openFree opens the first file that no other process uses.
func openFree(path string, log *slog.Logger) (*file, error) {
	for n := 1; ; n++ {
		name := path
		if n > 1 {
			name = fmt.Sprintf("%s-%d", path, n)
		}
		f, err := openFile(name, log)
		for wait := 0; n == 1 && wait < 20 && errors.Is(err, errLocked); wait++ {
			<-time.After(10 * time.Millisecond) // the process before this one may not have ended yet
			f, err = openFile(name, log)
		}
		if err == nil || !errors.Is(err, errLocked) || n == mostProcesses {
			return f, err
		}
		log.Info("another process uses the statistics file", "file", name)
	}
}

// restore takes over what earlier processes have counted.
func (m *Metrics) restore() {
	all := m.file.load()
	c, err := readCheckpoint(checkpointPath(m.file.path), m.file.id)
	if err != nil {
		m.file.log.Warn("logged variables not restored", "err", err)
	}
	if c == nil {
		c = &checkpoint{}
	}
	m.samples.broken = c.Broken
	m.samples.dropped.Store(c.Dropped)
	tables := m.tables.Load()
	for number := range c.Meters {
		m.last = max(m.last, number)
	}
	for _, b := range all {
		m.last = max(m.last, b.meter)
		r := routeOf(b.url)
		t := tables.find(r)
		if t == nil {
			t = m.numbered(b.meter, r)
			t.planned, t.blocks = true, nil
			tables.set(r, t)
		}
		t.blocks = append(t.blocks, b.block)
	}
	tables.all(func(_ route, t *meter) {
		if v := c.Meters[t.number]; v != nil {
			t.variables = v.restored()
			m.samples.of[t.number] = t.variables
		}
		for len(t.blocks) < m.lanes.n {
			t.blocks = append(t.blocks, nil)
		}
		counts, _ := places.duration.of(m.sum(t))
		t.recent.marks[0].counts, t.recent.marks[1].counts = counts, counts
	})
	for i := range m.lanes.all {
		l := &m.lanes.all[i]
		l.journal = m.file.journal(i)
		switch read := min(c.Read[i], l.journal.head); {
		case l.journal.head-read > ringSize:
			m.file.log.Warn("samples of logged variables were overwritten before they were read", "lane", i)
		case read < l.journal.head:
			if m.newRing(l); l.ring.offset != 0 {
				l.ring.read, l.ring.tail = read, read
			}
		}
	}
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	m.read()
	m.checkpoint()
}

// newRing gives a lane room for samples.
func (m *Metrics) newRing(l *lane) {
	if m.file == nil || m.file.broken.Load() || !m.fileRing(l) {
		l.ring = memoryRing()
	}
}

// fileRing gives a lane its ring in the file, if there is room.
func (m *Metrics) fileRing(l *lane) bool {
	memory, err := m.file.ring(l.index)
	if err != nil {
		m.file.fail(err)
		return false
	}
	head := &l.journal.head
	l.ring = ring{memory: memory, head: head, offset: headAt(l.index), read: *head, tail: *head}
	return true
}

// settle moves what is in memory only to the file, once there is room on the disk.
func (m *Metrics) settle() {
	if m.file == nil || !m.file.failed.Load() || m.file.broken.Load() {
		return
	}
	done := true
	for i := range m.lanes.n {
		l := &m.lanes.all[i]
		m.with(l, func() {
			m.tables.Load().all(func(_ route, t *meter) {
				m.each(i, t, func(b **block) {
					if (*b).at != 0 || len(t.name) > maxURL {
						return
					}
					if kept := m.file.allocate(t.number, t.name, (*b).cells); kept != nil {
						*b = kept
					} else {
						done = false
					}
				})
			})
			if r := &l.ring; r.memory != nil && r.offset == 0 { // it is not moved with unread samples
				done = done && r.read == *r.head && m.fileRing(l)
			}
		})
	}
	if !done {
		return
	}
	m.samples.mu.Lock()
	m.checkpoint() // with what was read from memory
	m.samples.mu.Unlock()
	if m.file.failed.Swap(false) {
		m.file.log.Info("statistics are kept in the file again", "file", m.file.path)
	}
}

// renewEvery is the time between two attempts to begin a new file.
const renewEvery = time.Minute

// renew begins a new file with all counters, if there is none, or if the file was removed, replaced or cut off
// by something else. Only Run calls it.
func (m *Metrics) renew() {
	if m.keeping.path == "" || (m.file != nil && !m.file.broken.Load() && !m.file.gone()) {
		return
	}
	if m.file != nil {
		m.keeping.log.Error("statistics file was removed or damaged, a new one is begun", "file", m.file.path)
		m.leave()
	} else if time.Since(m.keeping.tried) < renewEvery {
		return
	}
	m.keeping.tried = time.Now()
	f, err := openFree(m.keeping.path, m.keeping.log)
	if err != nil {
		m.keeping.log.Warn("no statistics file can be begun", "file", m.keeping.path, "err", err)
		return
	}
	m.whole(func() {
		defer func() {
			if p := recover(); p != nil {
				if !isFault(p) {
					panic(p)
				}
				f.fail(fmt.Errorf("memory of the file: %v", p))
				f.broken.Store(true)
			}
		}()
		m.file = f
		for _, b := range f.load() { // of a process that has ended; its counters are not those of this one
			f.release(b.block)
		}
		for i := range m.lanes.all {
			j := f.journal(i)
			j.head = 0
			m.lanes.all[i].journal = j
		}
		f.failed.Store(true) // until settle has moved all of it
	})
}

// leave moves all counters to memory and releases the file.
func (m *Metrics) leave() {
	m.samples.mu.Lock()
	m.read()
	m.samples.mu.Unlock()
	f := m.file
	m.whole(func() {
		for i := range m.lanes.all {
			m.abandon(&m.lanes.all[i], errors.New("it was removed or damaged"))
		}
		m.file = nil
		m.samples.dirty = true
	})
	if same, err := os.Lstat(f.path); err == nil && f.is(same) {
		if _, err := setAside(f.path); err != nil {
			f.log.Warn("damaged statistics file not set aside", "file", f.path, "err", err)
		}
	}
	if err := f.close(); err != nil {
		f.log.Warn("statistics file not closed", "file", f.path, "err", err)
	}
}

// whole calls do while nothing is recorded or read.
func (m *Metrics) whole(do func()) {
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	for i := range m.lanes.all {
		m.lanes.all[i].mu.Lock()
		defer m.lanes.all[i].mu.Unlock()
	}
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	do()
}

// isFault reports whether a panic is one of memory of a file: it was truncated, or there is no room on the disk.
func isFault(p any) bool {
	fault, ok := p.(runtime.Error)
	if !ok {
		return false
	}
	_, ok = fault.(interface{ Addr() uintptr })
	return ok
}

// unlock is deferred after lock. If the memory of the file cannot be used, the lane goes on in memory.
func (m *Metrics) unlock(l *lane, before bool) {
	p := recover()
	if p != nil {
		if !isFault(p) {
			m.lanes.unlock(l)
			panic(p)
		}
		m.abandon(l, p)
	}
	debug.SetPanicOnFault(before)
	m.lanes.unlock(l)
}

// with calls do while the lane is locked, and again if the memory of the file could not be used.
func (m *Metrics) with(l *lane, do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	try := func() (ok bool) {
		before := debug.SetPanicOnFault(true)
		defer debug.SetPanicOnFault(before)
		defer func() {
			if p := recover(); p != nil {
				if !isFault(p) {
					panic(p)
				}
				m.abandon(l, p)
			}
		}()
		do()
		return true
	}
	if !try() {
		try()
	}
}

// abandon replaces all memory of the file that a lane uses by other memory. Its lock is held.
func (m *Metrics) abandon(l *lane, cause any) {
	m.file.broken.Store(true)
	m.file.fail(fmt.Errorf("memory of the file: %v", cause))
	m.detach(l)
}

// detach copies the memory of the file that a lane uses, as far as it can be read. The lane's lock is held.
func (m *Metrics) detach(l *lane) {
	copied := func(do func()) {
		defer func() { _ = recover() }() // what cannot be read is lost
		do()
	}
	l.journal = &journal{}
	if l.ring.offset != 0 {
		own := memoryRing()
		copied(func() { own = l.ring.inMemory() })
		l.ring = own
	}
	m.tables.Load().all(func(_ route, t *meter) {
		m.each(l.index, t, func(b **block) {
			own := newBlock()
			if (*b).at != 0 {
				copied(func() { copy(own.cells, (*b).cells) })
			} else {
				own = *b
			}
			*b = own
		})
	})
}

// Close stores everything and releases the file. What is recorded afterwards is in memory only: others may
// still gather.
func (m *Metrics) Close() error {
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	if m.file == nil {
		return nil
	}
	m.read()
	m.checkpoint()
	m.file.broken.Store(true) // from now on nothing is written to it
	for i := range m.lanes.all {
		m.with(&m.lanes.all[i], func() { m.detach(&m.lanes.all[i]) })
	}
	return m.file.close()
}

// kept reports whether all counters survive the process.
func (m *Metrics) kept() bool {
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	return m.file != nil && !m.file.failed.Load() && !m.samples.unsaved.Load()
}

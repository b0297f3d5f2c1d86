package worker

import (
	"cmp"
	"time"
)

// SendAhead has each worker sent n requests at a time from now to its next answer,
// however fast it has been so far.
func (g *Group) SendAhead(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.workers {
		w.ahead = n
	}
}

// LostSince moves the first request that was lost since the last answer into the past.
func (g *Group) LostSince(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lostFirst = g.lostLast.Add(-d)
}

// LoadedAtOnce forgets how long loading took: one that was slow, be it for the machine,
// has later workers forked from a template.
func (g *Group) LoadedAtOnce() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loadTook = 0
}

// Busy says whether a worker has begun with something, so that what comes now is
// not executed together with that.
func (g *Group) Busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.workers {
		for id, f := range w.flights {
			if w.marks.begun(id, f.nested) {
				return true
			}
		}
	}
	return false
}

// MemoryOf is what a process takes in bytes, shared memory divided among those who share it.
func MemoryOf(pid int) int64 { return pss(pid) }

// Bounds are a Pool's constants, as a test wants them; 0: as they are.
type Bounds struct {
	MaxFrame, MaxReentry, OutputRate, MaxThreads, MaxProcesses int
	LoadStall, KillGrace, MaxBackoff                           time.Duration
}

// Bound changes some of the Pool's constants.
func (o *Options) Bound(to Bounds) {
	if o.bounds == (bounds{}) {
		o.bounds = defaultBounds
	}
	b := &o.bounds
	b.maxFrame, b.maxReentry = cmp.Or(to.MaxFrame, b.maxFrame), cmp.Or(to.MaxReentry, b.maxReentry)
	b.outputRate = cmp.Or(to.OutputRate, b.outputRate)
	b.maxThreads, b.maxProcesses = cmp.Or(to.MaxThreads, b.maxThreads), cmp.Or(to.MaxProcesses, b.maxProcesses)
	b.loadStall, b.killGrace = cmp.Or(to.LoadStall, b.loadStall), cmp.Or(to.KillGrace, b.killGrace)
	b.maxBackoff = cmp.Or(to.MaxBackoff, b.maxBackoff)
}

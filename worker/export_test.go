package worker

import (
	"cmp"
	"time"
)

// SendAhead has each worker sent n requests at a time from now to its next answer,
// however fast it has been so far.
func (g *Group) SendAhead(n int) {
	g.dispatch.mu.Lock()
	defer g.dispatch.mu.Unlock()
	for _, w := range g.dispatch.workers {
		w.ahead = n
	}
}

// LostSince moves the first request that was lost since the last answer into the past.
func (g *Group) LostSince(d time.Duration) {
	g.dispatch.mu.Lock()
	defer g.dispatch.mu.Unlock()
	g.dispatch.lostFirst = g.dispatch.lostLast.Add(-d)
}

// StalledFor moves the last answer into the past.
func (g *Group) StalledFor(d time.Duration) {
	g.dispatch.mu.Lock()
	defer g.dispatch.mu.Unlock()
	g.dispatch.seen, g.dispatch.moved = g.dispatch.served, time.Now().Add(-d)
}

// LoadedAtOnce forgets how long loading took: one that was slow, be it for the machine,
// has later workers forked from a template.
func (g *Group) LoadedAtOnce() {
	g.seats.mu.Lock()
	defer g.seats.mu.Unlock()
	g.seats.loadTook = 0
}

// Busy says whether a worker has begun with something, so that what comes now is
// not executed together with that.
func (g *Group) Busy() bool {
	g.dispatch.mu.Lock()
	defer g.dispatch.mu.Unlock()
	for _, w := range g.dispatch.workers {
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

// Held is the number of buffered bytes.
func (a *Ahead) Held() int64 { return a.held.Load() }

// Async reports whether the endpoint executes requests concurrently.
func (g *Group) Async() bool { return g.dispatch.Async() }

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

package worker

import "time"

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

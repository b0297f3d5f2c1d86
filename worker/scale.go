package worker

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// How many workers a group has: all of them, or between what is left of them
// without the elastic ones and all, as requests wait and workers idle. Group.tend
// makes the seats that are wanted; Group.look, which the Pool calls ten times a
// second, decides what is wanted.

const (
	// growLooks is at how many looks in a row requests must wait before there is
	// another worker.
	growLooks = 2
	// firstRest is how long a worker stays that was started only to see whether the
	// endpoint loads, and that has had no request.
	firstRest = 2 * time.Second
	// recyclePause is the least time between two replacements for the same reason.
	recyclePause = 10 * time.Second

	// A model of this size, or a load that has taken so long, is worth a template: a
	// process that keeps it loaded and from which workers are forked in milliseconds.
	templateSize = 64 << 20
	templateLoad = 500 * time.Millisecond
)

// tend keeps as many seats as are wanted until ctx ends.
func (g *Group) tend(ctx context.Context) {
	for {
		select {
		case <-g.more:
			g.seat(ctx, nil)
		case <-ctx.Done():
			return
		}
	}
}

// seat makes the seats that are wanted and not there; first takes the first one.
func (g *Group) seat(ctx context.Context, first *worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.closed && len(g.seats) < g.wanted {
		s := &seat{number: len(g.seats), pause: backoff{limit: g.o.maxBackoff}, renew: make(chan string, 1)}
		g.seats = append(slices.Clip(g.seats), s)
		taken := first
		first = nil
		g.all.Go(func() { g.keep(ctx, s, taken) })
	}
}

// wantSeats asks for n seats. mu is held.
func (g *Group) wantSeats(n int) {
	g.wanted = min(max(g.wanted, n), g.spec.Workers)
	select {
	case g.more <- struct{}{}:
	default: // said already
	}
}

// look takes a look at the group: more or fewer workers, replacements, and those
// that have finished before they leave.
func (g *Group) look(now time.Time) []*worker {
	var cut []*worker
	defer func() {
		for _, w := range cut {
			w.out.flush()
		}
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	cut = g.cutSlow(now)
	if g.closed || !g.started {
		return nil
	}
	g.noteProgress(now)
	g.arena.trim(now)
	g.grow()
	g.shrink(now)
	for _, w := range g.workers {
		if n := g.spec.Limits.RecycleRequests; n > 0 && w.served >= uint64(n) {
			g.recycle(w, now, fmt.Sprintf("%d requests answered", w.served))
		}
		if w.retiring && w.idle() {
			w.retiring = false
			g.all.Go(func() { w.stop(context.Background()) })
		}
	}
	return g.workers
}

// grow asks for a worker when requests have waited for a while. mu is held.
func (g *Group) grow() {
	able, inFlight := 0, 0
	for _, w := range g.workers {
		if w.state == ready {
			able++
			inFlight += len(w.flights)
		}
	}
	// What is sent ahead to a busy worker waits as well.
	waits := g.queue.waiting > 0 || (!g.async && able > 0 && inFlight > able)
	switch {
	case len(g.seats) == 0 && g.queue.waiting > 0:
		g.wantSeats(1)
	case !waits || len(g.seats) >= g.spec.Workers || able < len(g.seats):
		g.waitLooks = 0
	default:
		if g.waitLooks++; g.waitLooks >= growLooks {
			g.waitLooks = 0
			g.wantSeats(len(g.seats) + 1)
			g.log.Info("another worker is started: requests wait", "workers", len(g.seats)+1, "most", g.spec.Workers)
		}
	}
}

// shrink ends idle elastic workers. mu is held.
func (g *Group) shrink(now time.Time) {
	idle := g.spec.Limits.IdleAfter()
	if g.served == 0 {
		idle = min(idle, firstRest)
	}
	for g.mayShrink() {
		i := slices.IndexFunc(g.seats, func(s *seat) bool {
			w := s.w
			return w != nil && w.state == ready && w.idle() && now.Sub(w.lastUse()) >= idle
		})
		if i < 0 {
			return
		}
		g.vacate(i)
	}
}

// mayShrink reports whether there are more workers than the endpoint must have, and
// no request waits for one. mu is held.
func (g *Group) mayShrink() bool {
	return len(g.seats) > g.spec.Workers-g.spec.Elastic && g.queue.waiting == 0
}

// vacate removes a seat; its worker leaves. mu is held.
func (g *Group) vacate(i int) {
	s := g.seats[i]
	s.left = true
	s.w.startLeaving()
	g.seats = slices.Delete(slices.Clone(g.seats), i, i+1)
	g.wanted = len(g.seats)
	g.log.Debug("idle worker leaves", "worker", s.w.pid, "workers", len(g.seats))
}

// recycle has a worker replaced; it serves until the new one is ready. mu is held.
func (g *Group) recycle(w *worker, now time.Time, why string) {
	s := w.place
	if s == nil || s.left || s.w != w || w.state != ready || now.Before(s.notBefore) {
		return
	}
	s.notBefore = now.Add(recyclePause)
	select {
	case s.renew <- why:
	default: // it is being replaced
	}
}

// startLeaving gives w nothing new and ends it when it has answered what it has. g.mu is held.
func (w *worker) startLeaving() {
	if w.state == ready {
		w.state, w.retiring = leaving, true
	}
}

// idle reports that w has nothing to do and keeps no state. g.mu is held.
func (w *worker) idle() bool {
	return len(w.flights) == 0 && len(w.calls) == 0 && len(w.prepared) == 0
}

// lastUse is when w has worked last. g.mu is held.
func (w *worker) lastUse() time.Time {
	if w.busySince.After(w.since) {
		return w.busySince
	}
	return w.since
}

// noteProgress remembers when the endpoint has answered last, and since when it
// has no worker. mu is held.
func (g *Group) noteProgress(now time.Time) {
	if g.served != g.seen || g.pending == 0 {
		g.seen, g.moved = g.served, now
	}
	asleep := len(g.seats) == 0 && g.queue.waiting == 0
	if asleep || slices.ContainsFunc(g.workers, func(w *worker) bool { return w.state == ready }) {
		g.without = time.Time{}
	} else if g.without.IsZero() {
		g.without = now
	}
}

// lose notes that a request which had begun has ended with its worker. mu is held.
func (g *Group) lose(begun bool) {
	if !begun {
		return
	}
	now := time.Now()
	if g.lostFirst.IsZero() || now.Sub(g.lostLast) > stallBound {
		g.lostFirst = now
	}
	g.lostLast = now
}

// answersNobody reports whether for a while each request has ended with its worker.
// When requests stop, the endpoint gets another chance. mu is held.
func (g *Group) answersNobody(now time.Time) bool {
	return !g.lostFirst.IsZero() && g.lostLast.Sub(g.lostFirst) > stallBound && now.Sub(g.lostLast) <= stallBound
}

// wantsTemplate reports whether workers are forked from a process that has loaded:
// several share its memory, and a large or slow model is not loaded again when a
// worker dies. A small one is not worth the process.
func (g *Group) wantsTemplate() bool {
	if g.spec.Workers > 1 || g.modelSize >= templateSize {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.loadTook >= templateLoad
}

// hurries reports whether the next load has the priority of requests, because it stands
// between them and their answer: the endpoint has slept, or its last worker has died.
// A load that takes long would hurt the neighbours more than it helps.
func (g *Group) hurries() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.started && g.modelSize < templateSize && g.loadTook < templateLoad &&
		!slices.ContainsFunc(g.workers, func(w *worker) bool { return w.state == ready })
}

// sizeOf is the size of a file or of the files in a folder; what cannot be read
// counts nothing: the load will report it.
func sizeOf(path string) (size int64) {
	if path == "" {
		return 0
	}
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}

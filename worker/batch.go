package worker

import (
	"maps"
	"math"
	"time"

	"clearmlserving/serving"
)

const (
	whySize      = "max_batch_size"
	whyPreferred = "preferred_batch_size"
	whyDeadline  = "deadline"
)

const (
	// A busy worker is sent more while all it has takes no longer than this: then
	// its pause between two batches, about 60 µs, would be felt. Slower ones get
	// everything that waits when they are free, which makes the largest batches.
	aheadBatch = 2 * time.Millisecond
	// How much of the time that a deadline leaves a batch may take by the fit.
	deadlineShare = 0.8
)

// batching decides what is executed together. Group.mu guards it.
type batching struct {
	o          serving.Batching
	fit        fit
	perRequest float64 // rows of one request, roughly
	batches    uint64
	rows       uint64
	last       batchReport
	limit      int
	why        string
	limits     map[*worker]int // the limit that was sent to each worker
	hold       *time.Timer     // feeds what waits for others, when it has waited long enough
}

// batchInFlight is what an idle worker was sent to execute together.
type batchInFlight struct {
	first uint64  // id of the first request
	rows  float64 // roughly
	bound float64 // how many rows it may have so that all deadlines are met
}

// batchingOf returns nil for an endpoint whose requests are executed one by one.
// Its workers learn it from the spec.
func batchingOf(g *Group) *batching {
	if !g.spec.Batch.On() {
		return nil
	}
	extra := maps.Clone(g.spec.Extra)
	if extra == nil {
		extra = map[string]any{}
	}
	extra["max_batch_size"] = g.spec.Batch.MaxRows
	g.spec.Extra = extra
	b := &batching{o: g.spec.Batch, perRequest: 1, limit: g.spec.Batch.MaxRows, why: whySize, limits: map[*worker]int{}}
	b.hold = time.AfterFunc(time.Hour, g.feedAll)
	b.hold.Stop()
	return b
}

// report describes the last batches and what bounds the next one; nil: requests are
// executed one by one. Group.mu is held.
func (b *batching) report() *serving.BatchingReport {
	if b == nil {
		return nil
	}
	r := serving.BatchingReport{
		MaxRows: b.o.MaxRows, DelayUS: b.o.Delay.Microseconds(), Preferred: b.o.Preferred,
		Batches: b.batches, LastRows: b.last.rows, LastRequests: b.last.requests, Limit: b.limit, LimitedBy: b.why,
	}
	if b.batches > 0 {
		r.MeanRows = float64(b.rows) / float64(b.batches)
	}
	if b.fit.known() {
		r.PerRowUS, r.PerBatchUS = b.fit.perRow/1e3, b.fit.perBatch/1e3
	}
	return &r
}

// note learns from a batch.
func (b *batching) note(r batchReport) {
	if r.requests <= 0 || r.rows <= 0 {
		return
	}
	b.batches++
	b.rows += uint64(r.rows)
	b.last = r
	b.perRequest += (float64(r.rows)/float64(r.requests) - b.perRequest) / 8
	b.fit.add(r.rows, r.took)
}

// size is how many rows the next batch of a free worker may have when so many wait,
// and why. It is 0 while more are to be waited for, for so long.
func (b *batching) size(wait float64, patience time.Duration) (rows int, why string, hold time.Duration) {
	enough, best := b.o.MaxRows, 0
	for i, p := range b.o.Preferred {
		if i == 0 {
			enough = p
		}
		if float64(p) <= wait+0.5 { // wait is an estimate
			best = p
		}
	}
	switch {
	case patience > 0 && wait+0.5 < float64(enough):
		return 0, "", patience
	case best > 0:
		return best, whyPreferred, 0
	}
	return b.o.MaxRows, whySize, 0
}

// patience is how long f, which waits longest, may still wait for others.
func (b *batching) patience(f *flight, wait float64, now time.Time) time.Duration {
	if b.o.Delay == 0 {
		return 0
	}
	left := b.o.Delay - now.Sub(f.since)
	if !f.deadline.IsZero() {
		left = min(left, time.Duration(deadlineShare*float64(f.deadline.Sub(now)))-b.fit.of(wait))
	}
	return left
}

// inTime is how many rows a batch may have so that f's deadline is met. A deadline
// that cannot be met is ignored: it would help neither f nor the others.
func (b *batching) inTime(f *flight, now time.Time) float64 {
	if f.deadline.IsZero() {
		return math.Inf(1)
	}
	left := f.deadline.Sub(now)
	if left < b.fit.of(b.perRequest) {
		return math.Inf(1)
	}
	return b.fit.rowsIn(time.Duration(deadlineShare * float64(left)))
}

// takesAhead reports whether a worker that has n requests may have another one now.
func (b *batching) takesAhead(n int) bool {
	rows := float64(n+1) * b.perRequest
	return b.fit.known() && b.fit.of(rows) < aheadBatch && rows <= 2*float64(b.o.MaxRows)
}

// pickForBatch chooses the worker that gets f at once, nil if f has to wait: while
// all are busy, or for others where a delay is configured. mu is held.
func (g *Group) pickForBatch(f *flight) *worker {
	if g.batch.o.Delay > 0 {
		return nil // feedIdle decides at once
	}
	var best *worker
	for _, w := range g.workers {
		n := len(w.flights)
		switch {
		case w.state != ready:
		case n == 0:
			b := g.batch
			g.limitRows(w, b.o.MaxRows)
			w.batch = batchInFlight{first: w.nextID + 1, rows: b.perRequest, bound: min(float64(b.o.MaxRows), b.inTime(f, time.Now()))}
			return w
		case !w.takesAhead() || !f.mayFollow(n) || !g.joins(w, f) && !g.batch.takesAhead(n):
		case best == nil || n < len(best.flights):
			best = w
		}
	}
	if best != nil {
		best.batch.rows += g.batch.perRequest
		best.batch.bound = min(best.batch.bound, g.batch.inTime(f, time.Now()))
	}
	return best
}

// joins reports whether w, which has something to execute, has not begun with it and
// may execute f together with that. Requests that are answered together come back
// together: without this the first of them would be a batch of its own, and the
// others wait for its end. mu is held.
func (g *Group) joins(w *worker, f *flight) bool {
	if w.marks.begun(w.batch.first, false) {
		return false
	}
	return w.batch.rows+g.batch.perRequest <= min(w.batch.bound, g.batch.inTime(f, time.Now()))+0.5
}

// feedIdle gives a free worker what waits, if that is enough for a batch or has
// waited long enough, and returns the worker for the caller to flush. mu is held.
func (g *Group) feedIdle() *worker {
	if g.batch == nil || g.batch.o.Delay == 0 {
		return nil
	}
	for _, w := range g.workers {
		if w.state == ready && len(w.flights) == 0 {
			g.feedBatch(w, time.Now())
			if len(w.flights) > 0 {
				return w
			}
			return nil // another free one would not get it either
		}
	}
	return nil
}

// feedBatch gives w what waits, as much as may be executed together. mu is held, and
// the caller flushes w.out.
func (g *Group) feedBatch(w *worker, now time.Time) {
	if w.state != ready || g.queue.waiting == 0 {
		return
	}
	b := g.batch
	n, wait := len(w.flights), float64(g.queue.waiting)*g.batch.perRequest
	limit, why := b.o.MaxRows, whySize
	if n == 0 {
		var hold time.Duration
		if limit, why, hold = b.size(wait, b.patience(g.queue.oldest(), wait, now)); hold > 0 {
			b.hold.Reset(hold)
		}
	}
	// First it is seen how far the batch goes, since the worker is to know before.
	rows, tight, count, taken := float64(n)*b.perRequest, float64(limit), 0, n
	for _, f := range g.queue.all() {
		if f.state != waiting || f.nested {
			count++
			continue // dropped, or executed whatever else is
		}
		bound := b.inTime(f, now)
		if n > 0 && (!w.takesAhead() || !f.mayFollow(n) || !b.takesAhead(taken)) {
			break
		}
		if n == 0 && (limit == 0 || rows > 0 && rows+b.perRequest > min(tight, bound)+0.5) {
			if bound < tight {
				why = whyDeadline
			}
			break
		}
		if bound < tight {
			tight, why = bound, whyDeadline
		}
		rows += b.perRequest
		taken++
		count++
	}
	if count == 0 {
		return
	}
	if limit > 0 {
		b.limit, b.why = max(int(tight), 1), why
		g.limitRows(w, b.limit)
	}
	if n == 0 {
		w.batch = batchInFlight{first: w.nextID + 1, rows: rows, bound: tight}
	}
	for range count {
		if f := g.queue.pop(); f != nil {
			g.send(w, f)
		}
	}
	if b.o.Delay > 0 && g.queue.waiting > 0 { // what is left waits no longer either, if another worker is free
		b.hold.Reset(max(b.patience(g.queue.oldest(), float64(g.queue.waiting)*b.perRequest, now), 0))
	}
}

// limitRows has w execute at most so many rows together. mu is held, and the caller
// flushes w.out.
func (g *Group) limitRows(w *worker, rows int) {
	if g.batch.limits[w] == rows {
		return
	}
	g.batch.limits[w] = rows
	w.out.add(appendHeader(make([]byte, 0, headerSize), header{kind: kindLimit, id: uint64(rows)}), nil, nil)
}

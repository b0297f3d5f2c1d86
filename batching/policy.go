// Package batching decides which waiting requests are executed together: how many, how
// long they wait for others, and which deadlines limit them. It depends neither on processes
// nor on the content of requests.
package batching

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"
	"time"

	"clearmlserving/serving"
)

// The sources of a limit.
const (
	whySize      = "max_batch_size"
	whyPreferred = "preferred_batch_size"
	whyDeadline  = "deadline"
)

const (
	// aheadBatch: while the work of a busy executor takes no longer than this, it is sent
	// more, because its pause between two batches, about 60 µs, would matter. Slower executors
	// get all waiting requests when they are free, which makes the largest batches.
	aheadBatch = 2 * time.Millisecond
	// deadlineShare is the part of the time until a deadline that a batch may take by the
	// estimate.
	deadlineShare = 0.8
)

// mostSizes bounds the numbers of rows whose times are kept.
const mostSizes = 1024

// Measured is the measurement of an executed batch.
type Measured struct {
	Rows, Requests int
	Took           time.Duration
}

// Request has the properties of a request for the decisions.
type Request struct {
	Since    time.Time // when it began to wait; only used with a delay
	Deadline time.Time // zero for none
	Rows     float64   // estimated with Policy.RowsPerRequest if unknown
}

// Policy decides the size of batches from the configuration and from the duration of
// earlier batches. Its owner guards it and its Batches with a lock.
type Policy struct {
	serving.Batching

	fit        fit
	perRequest float64
	batches    uint64
	rows       uint64
	sizes      [serving.BatchSizes]uint64
	bySize     map[int]serving.BatchTimes
	last       Measured
	limit      int
	why        string
}

// NewPolicy returns a policy without measurements.
func NewPolicy(c serving.Batching) *Policy {
	return &Policy{Batching: c, perRequest: 1, limit: c.MaxRows, why: whySize, bySize: map[int]serving.BatchTimes{}}
}

// RowsPerRequest is the mean of the rows of recent requests.
func (p *Policy) RowsPerRequest() float64 { return p.perRequest }

// Note records the measurement of a batch.
func (p *Policy) Note(r Measured) {
	if r.Requests <= 0 || r.Rows <= 0 {
		return
	}
	p.batches++
	p.rows += uint64(r.Rows)
	p.sizes[min(bits.Len(uint(r.Rows-1)), len(p.sizes)-1)]++
	if times, known := p.bySize[r.Rows]; known || len(p.bySize) < mostSizes {
		times.Rows, times.Batches, times.Took = r.Rows, times.Batches+1, times.Took+r.Took
		p.bySize[r.Rows] = times
	}
	p.last = r
	p.perRequest += (float64(r.Rows)/float64(r.Requests) - p.perRequest) / 8
	p.fit.add(r.Rows, r.Took)
}

// Report describes the last batches and the limit of the next one.
func (p *Policy) Report() *serving.BatchingReport {
	r := serving.BatchingReport{
		MaxRows: p.MaxRows, DelayUS: p.Delay.Microseconds(), Preferred: p.Preferred,
		Batches: p.batches, Rows: p.rows, Sizes: p.sizes, LastRows: p.last.Rows, LastRequests: p.last.Requests, Limit: p.limit, LimitedBy: p.why,
	}
	if p.batches > 0 {
		r.MeanRows = float64(p.rows) / float64(p.batches)
	}
	if p.fit.known() {
		r.PerRowUS, r.PerBatchUS = p.fit.perRow/1e3, p.fit.perBatch/1e3
	}
	r.BySize = slices.SortedFunc(maps.Values(p.bySize), func(a, b serving.BatchTimes) int { return cmp.Compare(a.Rows, b.Rows) })
	return &r
}

// Patience is how long oldest, the request that has waited longest of waiting rows, may
// still wait for others. It is not positive when it must not wait.
func (p *Policy) Patience(oldest Request, waiting float64, now time.Time) time.Duration {
	if p.Delay == 0 {
		return 0
	}
	left := p.Delay - now.Sub(oldest.Since)
	if !oldest.Deadline.IsZero() {
		left = min(left, time.Duration(deadlineShare*float64(oldest.Deadline.Sub(now)))-p.fit.of(waiting))
	}
	return left
}

// size returns the maximum rows of the next batch for this many waiting rows, and the reason. It is 0
// if the batch should wait for more rows, for hold.
func (p *Policy) size(waiting float64, patience time.Duration) (rows int, why string, hold time.Duration) {
	enough, best := p.MaxRows, 0
	for i, n := range p.Preferred {
		if i == 0 {
			enough = n
		}
		if float64(n) <= waiting+0.5 { // waiting is an estimate
			best = n
		}
	}
	switch {
	case patience > 0 && waiting+0.5 < float64(enough):
		return 0, "", patience
	case best > 0:
		return best, whyPreferred, 0
	}
	return p.MaxRows, whySize, 0
}

// inTime is the maximum number of rows of a batch that meets r's deadline. A deadline that
// cannot be met is ignored, because respecting it would help neither r nor the others.
func (p *Policy) inTime(r Request, now time.Time) float64 {
	if r.Deadline.IsZero() {
		return math.Inf(1)
	}
	left := r.Deadline.Sub(now)
	if left < p.fit.of(r.Rows) {
		return math.Inf(1)
	}
	return p.fit.rowsIn(time.Duration(deadlineShare * float64(left)))
}

// TakesAhead reports whether an executor that is busy with n requests may be sent another.
func (p *Policy) TakesAhead(n int) bool {
	rows := float64(n+1) * p.perRequest
	return p.fit.known() && p.fit.of(rows) < aheadBatch && rows <= 2*float64(p.MaxRows)
}

// Batch is a batch that is being composed. The zero value accepts no requests.
type Batch struct {
	p     *Policy
	rows  float64
	bound float64 // maximum rows so that all deadlines are met
	why   string
}

// Begin opens a batch for a free executor with this many waiting rows. With hold > 0 it accepts
// nothing: the executor waits for more requests, for that long.
func (p *Policy) Begin(oldest Request, waiting float64, now time.Time) (b Batch, hold time.Duration) {
	limit, why, hold := p.size(waiting, p.Patience(oldest, waiting, now))
	return Batch{p: p, bound: float64(limit), why: why}, hold
}

// Open opens a batch of up to the configured rows, regardless of waiting rows.
func (p *Policy) Open() Batch { return Batch{p: p, bound: float64(p.MaxRows), why: whySize} }

// Fits reports whether r can be added so that all deadlines are met. The first request
// always fits.
func (b *Batch) Fits(r Request, now time.Time) bool {
	if b.bound <= 0 {
		return false
	}
	bound := b.p.inTime(r, now)
	if b.rows == 0 || b.rows+r.Rows <= min(b.bound, bound)+0.5 {
		return true
	}
	if bound < b.bound {
		b.why = whyDeadline
	}
	return false
}

// Add adds a request.
func (b *Batch) Add(r Request, now time.Time) {
	if bound := b.p.inTime(r, now); bound < b.bound {
		b.bound, b.why = bound, whyDeadline
	}
	b.rows += r.Rows
}

// Limit ends the batch: it returns its maximum rows, which Report shows.
func (b *Batch) Limit() int {
	b.p.limit, b.p.why = max(int(b.bound), 1), b.why
	return b.p.limit
}

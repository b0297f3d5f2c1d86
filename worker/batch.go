package worker

import (
	"time"

	"clearmlserving/batching"
)

// batchInFlight is what an idle worker was sent to execute together.
type batchInFlight struct {
	batching.Batch

	first uint64 // id of the first request
}

// batched reports whether f may be executed together with others.
func (d *dispatch) batched(f *flight) bool {
	return d.policy != nil && !f.nested && (f.kind == kindRequest || f.kind == kindTensors)
}

// request is what the policy needs to know of f.
func (d *dispatch) request(f *flight) batching.Request {
	return batching.Request{Since: f.since, Deadline: f.deadline, Rows: d.policy.RowsPerRequest()}
}

// waitingRows estimates the rows of what waits.
func (d *dispatch) waitingRows() float64 {
	return float64(d.queue.len()) * d.policy.RowsPerRequest()
}

// pickForBatch chooses the worker that gets f at once, nil if f has to wait: while
// all are busy, or for others where a delay is configured.
func (d *dispatch) pickForBatch(f *flight) *worker {
	if d.policy.Delay > 0 {
		return nil // feedIdle decides at once
	}
	var best *worker
	r, now := d.request(f), time.Now()
	for _, w := range d.workers {
		n := len(w.flights)
		switch {
		case w.state != ready:
		case n == 0:
			w.limitRows(d.policy.MaxRows)
			w.batch = batchInFlight{d.policy.Open(), w.nextID + 1}
			w.batch.Add(r, now)
			return w
		case !w.takesAhead() || !f.mayFollow(n) || !w.joins(r, now) && !d.policy.TakesAhead(n):
		case best == nil || n < len(best.flights):
			best = w
		}
	}
	if best != nil {
		best.batch.Add(r, now)
	}
	return best
}

// joins reports whether w has not begun with the batch that it was sent, and r fits into
// it. Clients that are answered together ask again together: without this the first request
// would be a batch of one, and the others would wait for its end.
func (w *worker) joins(r batching.Request, now time.Time) bool {
	return !w.marks.begun(w.batch.first, false) && w.batch.Fits(r, now)
}

// feedIdle gives a free worker the waiting requests, if they are enough for a batch or have
// waited long enough, and returns the worker.
func (d *dispatch) feedIdle() *worker {
	if d.policy == nil || d.policy.Delay == 0 {
		return nil
	}
	for _, w := range d.workers {
		if w.state == ready && len(w.flights) == 0 {
			d.feedBatch(w, time.Now())
			if len(w.flights) > 0 {
				return w
			}
			return nil // another free one would not get it either
		}
	}
	return nil
}

// feedBatch gives w what waits, as much as may be executed together.
func (d *dispatch) feedBatch(w *worker, now time.Time) {
	oldest := d.queue.oldest()
	if w.state != ready || oldest == nil {
		return
	}
	idle, hold, batch := len(w.flights) == 0, time.Duration(0), d.policy.Open()
	if idle {
		if batch, hold = d.policy.Begin(d.request(oldest), d.waitingRows(), now); hold > 0 {
			d.hold.Reset(hold)
		}
	}
	count := d.fill(&batch, w, now) // the worker must know the size before
	if count == 0 {
		return
	}
	if hold <= 0 {
		w.limitRows(batch.Limit())
	}
	if idle {
		w.batch = batchInFlight{batch, w.nextID + 1}
	}
	for range count {
		d.send(w, d.queue.pop())
	}
	if oldest := d.queue.oldest(); oldest != nil && d.policy.Delay > 0 { // the others do not wait longer if another worker is free
		d.hold.Reset(max(d.policy.Patience(d.request(oldest), d.waitingRows(), now), 0))
	}
}

// fill adds to batch what w may have of the queue. It returns the number of flights from
// the front of the queue that w gets.
func (d *dispatch) fill(batch *batching.Batch, w *worker, now time.Time) (count int) {
	busy := len(w.flights) > 0
	taken := len(w.flights)
	for _, f := range d.queue.all() {
		switch {
		case f.nested: // executed on top of others
			count++
			continue
		case !d.batched(f):
			if taken > 0 && (!w.takesAhead() || taken >= w.ahead || !f.mayFollow(taken)) {
				return count
			}
		case busy && (!w.takesAhead() || !f.mayFollow(len(w.flights)) || !d.policy.TakesAhead(taken)):
			return count
		default:
			r := d.request(f)
			if !busy && !batch.Fits(r, now) {
				return count
			}
			batch.Add(r, now)
		}
		taken++
		count++
	}
	return count
}

// limitRows has w execute at most so many rows together.
func (w *worker) limitRows(rows int) {
	if w.rowLimit != rows {
		w.rowLimit = rows
		w.post(header{kind: kindLimit, id: uint64(rows)}, nil)
	}
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"clearmlserving/batching"
)

// dispatch gives the requests of one endpoint to its workers.
//
// Work is pulled: a free worker gets a request at once, and requests that come while all
// are busy wait here for the first that is free. A few requests are sent ahead to each busy
// worker, which hides the time of its wake-up.
type dispatch struct {
	endpoint   string
	log        *slog.Logger
	o          *Options
	maxQueue   int
	arena      *arena
	background func(func()) // starts a goroutine of the group
	wake       func()       // asks for a worker; it does not block
	flights    flightPool
	drained    chan struct{} // closed when Stop was called and no request is left

	// policy is nil if requests are executed one by one. The first load may set it to nil;
	// it does not change afterwards.
	policy *batching.Policy
	hold   *time.Timer // with a policy: feeds what waits for others, when it has waited long enough

	// mu guards the rest, and all flights, workers, and Prepared of the endpoint. Methods
	// of dispatch and worker whose names begin with a capital lock it themselves; the
	// others are called with mu held, unless they say that they need no lock. What they
	// add to a worker's outbox is flushed after mu is released.
	mu       sync.Mutex
	closed   bool
	queue    queue
	pending  int // flights that are queued or at a worker, and Prepared
	prepared int // of them, the Prepared
	workers  []*worker
	outlook  outlook
	async    bool
	served   uint64

	seen      uint64    // served, at the last Look
	moved     time.Time // last time when it was seen to answer, or to have nothing to do
	lostFirst time.Time // since the last answer: the first request that ended with its worker,
	lostLast  time.Time // and the last one
	cutLast   time.Time // last stream that was cut because its reader was slow
}

// outlook says whether a worker will come, for when there is none.
type outlook struct {
	seats  int       // 0: the endpoint sleeps, and the next request wakes it
	due    time.Time // next start of a worker; zero: one is being started or runs
	reason string    // why it is not started at once
}

// demand is what workers have to do.
type demand struct {
	waiting, inFlight int
	ready             int // workers that take requests
	async             bool
	served            uint64
}

// Do has one request answered; see Group.Do. p is nil unless kind is kindPost or kindPiece.
func (d *dispatch) Do(ctx context.Context, req *Request, kind frameKind, p *Prepared) (*Response, error) {
	if size := len(req.Body) + requestHeadSize(req); size > d.o.maxFrame {
		return nil, fmt.Errorf("endpoint %q: %d bytes: %w (%d)", d.endpoint, size, ErrTooLarge, d.o.maxFrame)
	}
	if ctx.Err() != nil {
		return nil, d.contextError(ctx)
	}
	deadline, _ := ctx.Deadline()
	f := d.flights.take(req, deadline, kind)
	if l := req.Loan; l != nil && l.a == d.arena && (f.ofTensors() || l.holds(req.Body)) {
		f.loan = l
		l.hold()
	}

	var w *worker
	var err error
	if p == nil {
		w, err = d.Admit(f)
	} else {
		w, err = p.w, p.Send(ctx, f)
	}
	if err != nil {
		d.flights.give(f)
		return nil, err
	}
	if w != nil {
		if d.policy != nil {
			runtime.Gosched() // those that have come at the same time may go along, see joins
		}
		w.out.flush()
	}
	return d.Wait(ctx, f)
}

// Wait waits for the answer to a flight that was handed to a worker or to the queue.
func (d *dispatch) Wait(ctx context.Context, f *flight) (*Response, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		if !d.Abandon(f) {
			return nil, d.contextError(ctx)
		}
		<-f.done // the answer came at the same time
	}
	response, err := f.response, f.err
	if response == nil || response.Stream == nil {
		d.flights.give(f)
	} // a stream's flight stays at its worker until the end of the stream
	return response, err
}

// Admit hands f to a worker, which the caller flushes, or to the queue.
func (d *dispatch) Admit(f *flight) (*worker, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, d.closedError()
	}
	w := d.pick(f)
	if w == nil {
		f.since = time.Now()
		if err := d.enqueue(f); err != nil {
			return nil, err
		}
		return d.feedIdle(), nil
	}
	d.pending++
	d.send(w, f)
	return w, nil
}

// contextError is the error of a request whose context has ended. It needs no lock.
func (d *dispatch) contextError(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = ErrDeadline
	}
	return fmt.Errorf("endpoint %q: %w", d.endpoint, err)
}

// closedError needs no lock.
func (d *dispatch) closedError() error { return fmt.Errorf("endpoint %q: %w", d.endpoint, ErrClosed) }

// pick chooses the worker that gets f now, nil if f has to wait.
//
// A nested request (one made by send_request) never waits here while a worker is
// alive, and never behind others: a worker that itself waits in send_request
// executes it on top. So endpoints that call each other cannot block each other,
// however few workers they have.
func (d *dispatch) pick(f *flight) *worker {
	if d.queue.len() > 0 && !f.nested {
		return nil // no request overtakes: a large one waits for an idle worker
	}
	if d.batched(f) {
		return d.pickForBatch(f)
	}
	var best *worker
	rank := 1 << 30
	for _, w := range d.workers {
		if w.state != ready {
			continue
		}
		n := len(w.flights)
		r := n
		switch {
		case n == 0:
			return w
		case d.async:
			if !f.nested && n >= asyncRequests {
				continue
			}
		case f.nested:
			if len(w.calls) == 0 {
				r += 1 << 20 // it executes; better one that waits
			}
		case !w.takesAhead() || n >= w.ahead || !f.mayFollow(n):
			continue
		}
		if r < rank {
			best, rank = w, r
		}
	}
	return best
}

// enqueue lets f wait for a worker, if one will come soon.
func (d *dispatch) enqueue(f *flight) error {
	if d.queue.len() >= d.maxQueue {
		return fmt.Errorf("endpoint %q: %d requests wait already: %w", d.endpoint, d.queue.len(), ErrOverloaded)
	}
	if err := d.unavailable(); err != nil {
		return err
	}
	d.queue.push(f)
	d.pending++
	if d.outlook.seats == 0 {
		d.wake()
	}
	return nil
}

// soon is how near the next start of a worker must be for requests to be held.
const soon = 500 * time.Millisecond

// unavailable returns why no worker will take a request soon, nil if one will.
func (d *dispatch) unavailable() error {
	due := d.outlook.due
	if due.IsZero() || d.ready() > 0 {
		return nil
	}
	left := time.Until(due)
	if left < soon {
		return nil
	}
	return &UnavailableError{Endpoint: d.endpoint, Reason: d.outlook.reason, RetryAfter: left}
}

// Expect takes the news whether a worker will come.
func (d *dispatch) Expect(o outlook) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outlook = o
	if err := d.unavailable(); err != nil {
		d.failQueue(err)
	}
	if o.seats == 0 && d.queue.len() > 0 {
		d.wake()
	}
}

// ready counts the workers that take requests.
func (d *dispatch) ready() (n int) {
	for _, w := range d.workers {
		if w.state == ready {
			n++
		}
	}
	return n
}

// send hands f to w.
func (d *dispatch) send(w *worker, f *flight) {
	if len(w.flights) == 0 {
		w.busySince = time.Now()
	}
	if !f.since.IsZero() {
		f.queued = time.Since(f.since)
	}
	w.nextID++
	f.id, f.w, f.state = w.nextID, w, sent
	w.flights[f.id] = f
	w.expectAnswers()
	f.head = f.appendFrame(f.head[:0])
	switch {
	case f.loan == nil:
		w.out.add(f.head, f.req.Body, f)
	case f.ofTensors():
		w.out.add(f.head, f.req.Body, nil)
	default:
		w.out.add(f.head, nil, nil)
	}
}

// feed gives w what waits, as much as it may have.
func (d *dispatch) feed(w *worker) {
	if d.policy != nil {
		d.feedBatch(w, time.Now())
		return
	}
	for f := d.queue.oldest(); f != nil && d.fits(w, f); f = d.queue.oldest() {
		d.send(w, d.queue.pop())
	}
}

// FeedAll gives what waits to the workers that can take it.
func (d *dispatch) FeedAll() {
	d.mu.Lock()
	workers := d.workers
	for _, w := range workers {
		d.feed(w)
	}
	d.mu.Unlock()
	for _, w := range workers {
		w.out.flush()
	}
}

func (d *dispatch) fits(w *worker, f *flight) bool {
	n := len(w.flights)
	switch {
	case w.state != ready:
		return false
	case n == 0 || f.nested:
		return true
	case d.async:
		return n < asyncRequests
	default:
		return w.takesAhead() && n < w.ahead && f.mayFollow(n)
	}
}

// deliver ends the wait for f, which is in no table any more.
func (d *dispatch) deliver(f *flight, response *Response, err error) {
	d.finishFlight()
	if f.state == abandoned {
		d.flights.give(f)
		return
	}
	f.state, f.response, f.err = finished, response, err
	f.done <- struct{}{}
}

// finishFlight counts a flight out.
func (d *dispatch) finishFlight() {
	d.pending--
	d.checkDrained()
}

func (d *dispatch) checkDrained() {
	if d.closed && d.pending == 0 {
		close(d.drained)
	}
}

// Abandon stops the wait for f. It says whether the answer has come meanwhile: then
// f.done is about to receive.
func (d *dispatch) Abandon(f *flight) (answered bool) {
	d.mu.Lock()
	w := f.w
	switch f.state {
	case finished, streaming:
		d.mu.Unlock()
		return true
	case waiting:
		d.queue.remove(f)
		d.finishFlight()
		d.mu.Unlock()
		d.flights.give(f)
		return false
	}
	f.state = abandoned
	f.keepID()
	if len(f.req.Body) >= byReference && f.loan == nil {
		w.out.release(f) // the worker may not have read it, and its memory is the caller's
	}
	f.req.Body = nil
	w.cancel(f)
	d.killAfterDeadline(w, f)
	d.mu.Unlock()
	w.out.flush()
	return false
}

// killAfterDeadline has w killed if it still executes f when the deadline has passed
// by more than killGrace.
func (d *dispatch) killAfterDeadline(w *worker, f *flight) {
	if f.deadline.IsZero() {
		return // without a deadline it may take as long as it needs
	}
	id := f.id
	wait := max(time.Until(f.deadline), 0) + d.o.killGrace
	f.watch = time.AfterFunc(wait, func() {
		d.mu.Lock()
		hung := w.flights[id] == f && f.state == abandoned && w.marks.begun(id, f.nested)
		d.mu.Unlock()
		if hung {
			w.kill(fmt.Sprintf("a request went on for %s past its deadline", d.o.killGrace))
		}
	})
}

// Stop refuses new requests. It reports whether it is the first call.
func (d *dispatch) Stop() (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if first = !d.closed; first {
		d.closed = true
		d.checkDrained()
	}
	return first
}

// End fails what still waits, after Stop and the end of all workers.
func (d *dispatch) End() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold.Stop()
	d.failQueue(d.closedError())
}

// failQueue answers everything that waits with err.
func (d *dispatch) failQueue(err error) {
	for _, f := range d.queue.clear() {
		d.deliver(f, nil, err)
	}
}

// Enlist gives requests to a worker that has loaded, unless Stop was called or it is dead.
func (d *dispatch) Enlist(w *worker, async bool) bool {
	d.mu.Lock()
	if d.closed || w.state == dead {
		d.mu.Unlock()
		return false
	}
	w.state, d.async = ready, async
	d.workers = append(slices.Clip(d.workers), w) // a copy: others read the old one
	d.feed(w)
	d.mu.Unlock()
	w.out.flush()
	return true
}

// BatchNothing has requests executed one by one, because the code cannot execute them
// together. It is called before the first Enlist.
func (d *dispatch) BatchNothing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy = nil
}

// Retire gives w nothing new, and ends it when it has answered what it has. It returns
// how many requests it has answered.
func (d *dispatch) Retire(w *worker) (served uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.startLeaving()
	return w.served
}

// RetireIdle does the same if no request waits and w has been idle for that time.
func (d *dispatch) RetireIdle(w *worker, now time.Time, idle time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.queue.len() > 0 || w.state != ready || !w.idle() || now.Sub(w.lastUse()) < idle {
		return false
	}
	w.startLeaving()
	return true
}

// Look cuts slow streams, ends workers that have finished before they leave, and returns
// what the others have to do. It is called ten times a second.
func (d *dispatch) Look(now time.Time) demand {
	d.mu.Lock()
	cut := d.cutSlow(now)
	r := demand{waiting: d.queue.len(), async: d.async, served: d.served}
	if d.served != d.seen || d.pending == 0 {
		d.seen, d.moved = d.served, now
	}
	for _, w := range d.workers {
		if w.state == ready {
			r.ready++
			r.inFlight += len(w.flights)
		}
		if w.retiring && w.idle() && !d.closed {
			w.retiring = false
			d.background(func() { w.stop(context.Background()) })
		}
	}
	d.mu.Unlock()
	for _, w := range cut {
		w.out.flush()
	}
	return r
}

// Workers lists the workers that have loaded and are not dead. The list is not changed.
func (d *dispatch) Workers() []*worker {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.workers
}

// Ready reports whether a worker takes requests.
func (d *dispatch) Ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ready() > 0
}

// Async reports whether workers execute requests concurrently.
func (d *dispatch) Async() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.async
}

// Served counts the answers of one worker, and reports whether it takes requests.
func (d *dispatch) Served(w *worker) (n uint64, takes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return w.served, w.state == ready
}

// lose notes that a request which had begun has ended with its worker.
func (d *dispatch) lose() {
	now := time.Now()
	if d.lostFirst.IsZero() || now.Sub(d.lostLast) > stallBound {
		d.lostFirst = now
	}
	d.lostLast = now
}

// onlyDies reports whether for a while each request has ended with its worker.
// When requests stop, the endpoint gets another chance.
func (d *dispatch) onlyDies(now time.Time) bool {
	return !d.lostFirst.IsZero() && d.lostLast.Sub(d.lostFirst) > stallBound && now.Sub(d.lostLast) <= stallBound
}

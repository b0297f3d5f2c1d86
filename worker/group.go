package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"clearmlserving/process"
)

// Group is the workers of one endpoint. Its methods may be called from any
// goroutine.
//
// Work is pulled: a free worker gets a request at once, and what comes while all
// are busy waits here for the first that is free. A little more than it executes
// is sent ahead to each worker, which hides the time of its wake-up.
type Group struct {
	pool    *Pool
	o       Options
	spec    Spec
	log     *slog.Logger
	flights flightPool

	all     sync.WaitGroup     // every goroutine of the group
	drained chan struct{}      // closed when Close has begun and no request is left
	cancel  context.CancelFunc // ends what starts workers

	specJSON  []byte // the first message to each process
	hurryJSON []byte // the same for one that requests wait for
	needs     []string
	modelSize int64

	more chan struct{} // holds one: seats are wanted; see scale.go

	arena    arena
	template templateSeat

	batch *batching // nil: one by one; set to nil by the first load at the latest

	mu       sync.Mutex // guards the rest, and all flights and workers of the group
	closed   bool
	queue    queue
	pending  int // flights that are queued or at a worker, and Prepared
	prepared int // of them, the Prepared
	workers  []*worker
	seats    []*seat
	async    bool
	warnings []string // of the last load
	served   uint64
	restarts int
	lastLoad error
	distrust bool // a load has failed: its files are compared before the next one
	lastEnd  process.Death

	started   bool // it has loaded once
	wanted    int  // seats
	waitLooks int  // at how many looks in a row requests have waited
	loadTook  time.Duration
	seen      uint64    // served, when looked at last
	moved     time.Time // when it was seen to answer, or to have nothing to do
	without   time.Time // since when no worker is ready, zero while one is
	lostFirst time.Time // since the last answer: the first request that ended with its worker,
	lostLast  time.Time // and the last one
	cutLast   time.Time // a stream whose reader was slow
}

func newGroup(p *Pool, spec Spec) *Group {
	g := &Group{
		pool: p, o: p.o, spec: spec, log: p.o.Logger.With("endpoint", spec.Endpoint),
		drained: make(chan struct{}), cancel: func() {}, more: make(chan struct{}, 1),
	}
	g.queue.pool = &g.flights
	g.batch = batchingOf(g)
	return g
}

// Async reports whether the endpoint executes requests concurrently.
func (g *Group) Async() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.async
}

// Do has one request answered. Errors: ErrDeadline or ctx's own, ErrOverloaded,
// ErrTooLarge, ErrClosed, *DiedError, *UnavailableError. A user's error is a
// Response. The caller may reuse the request's body once Do has returned, and
// must close the response's Stream if there is one.
func (g *Group) Do(ctx context.Context, req *Request) (*Response, error) {
	return g.do(ctx, req, kindRequest)
}

func (g *Group) do(ctx context.Context, req *Request, kind frameKind) (*Response, error) {
	if size := len(req.Body) + requestHeadSize(req.ContentType, req.ID); size > g.o.maxFrame {
		return nil, fmt.Errorf("endpoint %q: %d bytes: %w (%d)", g.spec.Endpoint, size, ErrTooLarge, g.o.maxFrame)
	}
	if ctx.Err() != nil {
		return nil, g.contextError(ctx)
	}
	deadline, _ := ctx.Deadline()
	f := g.flights.take(req, deadline, kind)
	if l := req.Loan; l != nil && l.a == &g.arena && l.holds(req.Body) {
		f.loan = l
		l.hold()
	}

	w, err := g.admit(f)
	if err != nil {
		g.flights.give(f)
		return nil, err
	}
	if w != nil {
		if g.batch != nil {
			runtime.Gosched() // those that have come at the same time may go along, see joins
		}
		w.out.flush()
	}
	return g.wait(ctx, f)
}

// wait waits for the answer to a flight that was handed to a worker or to the queue.
func (g *Group) wait(ctx context.Context, f *flight) (*Response, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		if !g.abandon(f) {
			return nil, g.contextError(ctx)
		}
		<-f.done // it came at the same time
	}
	response, err := f.response, f.err
	if response == nil || response.Stream == nil {
		g.flights.give(f)
	} // a stream's flight stays at its worker until the end of the stream
	return response, err
}

// Lend returns memory for a body of that many bytes, which Do then needs not send
// through a socket, nil if there is none. The caller releases it.
func (g *Group) Lend(size int) *Loan {
	return g.arena.lend(size)
}

// admit hands f to a worker, which the caller flushes, or to the queue.
func (g *Group) admit(f *flight) (*worker, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("endpoint %q: %w", g.spec.Endpoint, ErrClosed)
	}
	w := g.pick(f)
	if w == nil {
		if g.batch != nil && g.batch.o.Delay > 0 {
			f.since = time.Now()
		}
		if err := g.enqueue(f); err != nil {
			return nil, err
		}
		return g.feedIdle(), nil
	}
	g.pending++
	g.send(w, f)
	return w, nil
}

func (g *Group) contextError(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("endpoint %q: %w", g.spec.Endpoint, ErrDeadline)
	}
	return fmt.Errorf("endpoint %q: %w", g.spec.Endpoint, err)
}

// pick chooses the worker that gets f now, nil if f has to wait. mu is held.
//
// A nested request (one made by send_request) never waits here while a worker is
// alive, and never behind others: a worker that itself waits in send_request
// executes it on top. So endpoints that call each other cannot block each other,
// however few workers they have.
func (g *Group) pick(f *flight) *worker {
	if g.queue.waiting > 0 && !f.nested {
		return nil // no request overtakes: a large one waits for an idle worker
	}
	if g.batch != nil && !f.nested {
		return g.pickForBatch(f)
	}
	var best *worker
	rank := 1 << 30
	for _, w := range g.workers {
		if w.state != ready {
			continue
		}
		n := len(w.flights)
		r := n
		switch {
		case n == 0:
			return w
		case g.async:
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

// enqueue lets f wait for a worker, if that makes sense. mu is held.
func (g *Group) enqueue(f *flight) error {
	if g.queue.waiting >= g.spec.Limits.MaxQueue {
		return fmt.Errorf("endpoint %q: %d requests wait already: %w", g.spec.Endpoint, g.queue.waiting, ErrOverloaded)
	}
	if err := g.unavailable(); err != nil {
		return err
	}
	g.queue.push(f)
	g.pending++
	if len(g.seats) == 0 {
		g.wantSeats(1) // it sleeps
	}
	return nil
}

// unavailable returns why no worker will take a request soon, nil if one will. mu is held.
func (g *Group) unavailable() error {
	for _, w := range g.workers {
		if w.state == ready {
			return nil
		}
	}
	if len(g.seats) == 0 {
		return nil // it sleeps, and the next request wakes it
	}
	soonest := time.Duration(-1)
	for _, s := range g.seats {
		left := time.Until(s.until)
		if s.until.IsZero() || left < 500*time.Millisecond {
			return nil // it starts, or will at once
		}
		if soonest < 0 || left < soonest {
			soonest = left
		}
	}
	reason := "its workers die again and again"
	switch {
	case g.lastLoad != nil:
		reason = g.lastLoad.Error()
	case !g.lastEnd.IsZero():
		reason = "its workers die again and again, the last one: " + g.lastEnd.String()
	}
	return &UnavailableError{Endpoint: g.spec.Endpoint, Reason: reason, RetryAfter: soonest}
}

// send hands f to w; the caller flushes w.out after it has released mu, which is held.
func (g *Group) send(w *worker, f *flight) {
	if len(w.flights) == 0 {
		w.busySince = time.Now()
	}
	w.nextID++
	f.id, f.w, f.state = w.nextID, w, sent
	w.flights[f.id] = f
	w.expectAnswers()
	f.head = f.appendFrame(f.head[:0])
	if f.loan != nil {
		w.out.add(f.head, nil, nil)
		return
	}
	w.out.add(f.head, f.req.Body, f)
}

// feed gives w what waits, as much as it may have; mu is held, and the caller
// flushes w.out.
func (g *Group) feed(w *worker) {
	if g.batch != nil {
		g.feedBatch(w, time.Now())
		return
	}
	for f := g.queue.oldest(); f != nil && g.fits(w, f); f = g.queue.oldest() {
		g.queue.pop()
		g.send(w, f)
	}
}

func (g *Group) fits(w *worker, f *flight) bool {
	n := len(w.flights)
	switch {
	case w.state != ready:
		return false
	case n == 0 || f.nested:
		return true
	case g.async:
		return n < asyncRequests
	default:
		return w.takesAhead() && n < w.ahead && f.mayFollow(n)
	}
}

// takesAhead reports whether what is sent to a busy worker has its turn soon: not while
// user code waits for another endpoint or makes a stream. g.mu is held.
func (w *worker) takesAhead() bool { return len(w.calls) == 0 && w.streams == 0 }

// deliver ends the wait for f. mu is held, and f is in no table any more.
func (g *Group) deliver(f *flight, response *Response, err error) {
	g.finishFlight()
	if f.state == abandoned {
		g.flights.give(f)
		return
	}
	f.state, f.response, f.err = finished, response, err
	f.done <- struct{}{}
}

// finishFlight counts a flight out. mu is held.
func (g *Group) finishFlight() {
	g.pending--
	if g.closed && g.pending == 0 {
		close(g.drained)
	}
}

// abandon stops the wait for f. It says whether the answer
// has come meanwhile: then f.done is about to receive.
func (g *Group) abandon(f *flight) (answered bool) {
	g.mu.Lock()
	w := f.w
	switch f.state {
	case finished, streaming:
		g.mu.Unlock()
		return true
	case waiting:
		f.state = abandoned // stays in the queue until its turn
		f.dropBody()
		g.queue.waiting--
		g.finishFlight()
		g.mu.Unlock()
		return false
	}
	f.state = abandoned
	if len(f.req.Body) >= byReference && f.loan == nil {
		w.out.release(f) // the worker may not have read it, and its memory is the caller's
	}
	f.req.Body = nil
	w.cancel(f)
	g.killAfterDeadline(w, f)
	g.mu.Unlock()
	w.out.flush()
	return false
}

// killAfterDeadline has w killed if it still executes f when the deadline has passed
// by more than killGrace. mu is held.
func (g *Group) killAfterDeadline(w *worker, f *flight) {
	if f.deadline.IsZero() {
		return // without a deadline it may take as long as it needs
	}
	id := f.id
	wait := max(time.Until(f.deadline), 0) + g.o.killGrace
	f.watch = time.AfterFunc(wait, func() {
		g.mu.Lock()
		hung := w.flights[id] == f && f.state == abandoned && w.marks.begun(id, f.nested)
		g.mu.Unlock()
		if hung {
			w.kill(fmt.Sprintf("a request went on for %s past its deadline", g.o.killGrace))
		}
	})
}

// Close stops the group: no new requests, those under way are finished as long as
// ctx allows, then the workers unload and end. When it returns no process and no
// goroutine of the group is left. The error says that something had to be cut off.
// It may be called more than once.
func (g *Group) Close(ctx context.Context) error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	if first {
		if g.pending == 0 {
			close(g.drained)
		}
	}
	g.mu.Unlock()
	if !first {
		g.all.Wait()
		return nil
	}
	g.cancel()
	var cut error
	select {
	case <-g.drained:
	case <-ctx.Done():
		cut = fmt.Errorf("close endpoint %q: requests were cut off: %w", g.spec.Endpoint, context.Cause(ctx))
	}
	g.mu.Lock()
	workers := append([]*worker(nil), g.workers...)
	g.mu.Unlock()
	var ends sync.WaitGroup
	for _, w := range workers {
		ends.Go(func() { w.stop(ctx) })
	}
	ends.Wait()
	g.template.close()
	g.all.Wait()
	g.arena.close()
	if g.batch != nil {
		g.batch.hold.Stop()
	}
	g.mu.Lock()
	g.failQueue(fmt.Errorf("endpoint %q: %w", g.spec.Endpoint, ErrClosed))
	g.mu.Unlock()
	g.pool.forget(g)
	return cut
}

// failQueue answers everything that waits with err. mu is held.
func (g *Group) failQueue(err error) {
	for _, f := range g.queue.clear() {
		if f.state == waiting {
			g.deliver(f, nil, err)
		}
	}
}

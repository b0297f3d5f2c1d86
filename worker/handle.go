package worker

import (
	"context"
	"fmt"
	"slices"
	"time"
)

type workerState uint8

const (
	loading workerState = iota
	ready
	leaving // gets nothing new
	dead
)

// worker is a process that executes requests, with those that it has. dispatch.mu guards
// all but link and the last group.
type worker struct {
	link

	d         *dispatch
	state     workerState
	flights   map[uint64]*flight
	nextID    uint64
	calls     map[uint64]*openCall
	prepared  map[uint64]*Prepared // requests whose state it keeps
	streams   int                  // of the flights, those whose answer has begun
	ahead     int                  // how many flights it may have while it is busy
	batch     batchInFlight        // of an endpoint that batches
	rowLimit  int                  // the last limit that was sent to it
	perOne    time.Duration        // how long one request takes, roughly
	busySince time.Time
	served    uint64
	paced     uint64 // served, when pace was last called
	rescue    *time.Timer
	armed     bool
	lastSeen  uint64          // served, when rescue last looked
	rescued   map[uint64]bool // answered from the shared memory, and by the socket later
	retiring  bool            // it leaves when it has answered what it has
	types     map[string]string

	seat      *seat    // guarded by seats.mu
	variables []string // the names that were sent to it; guarded by seats.mu
	stopped   int      // at how many looks in a row; Pool.watch's
}

// newWorker makes a worker without a process; link.start gives it one.
func newWorker(d *dispatch) *worker {
	w := &worker{
		link: link{endpoint: d.endpoint, o: d.o, background: d.background, log: d.log}, d: d, ahead: aheadMin,
		flights: make(map[uint64]*flight), calls: make(map[uint64]*openCall), types: make(map[string]string),
	}
	w.receiver = w
	w.rescue = time.AfterFunc(time.Hour, w.RescueAnswers)
	w.rescue.Stop()
	return w
}

// Receive implements receiver.
func (w *worker) Receive(ctx context.Context, fr *frame, last bool) error {
	switch fr.kind {
	case kindAnswer:
		return w.Answered(fr, last)
	case kindChunk:
		return w.Chunk(fr)
	case kindEnd:
		w.EndStream(fr)
	case kindCall:
		return w.Called(ctx, fr)
	case kindSpans:
		w.Spans(fr)
	default:
		return fmt.Errorf("%w: of unknown kind %d", errFrame, fr.kind)
	}
	return nil
}

// Spans passes the spans of user code on.
func (w *worker) Spans(fr *frame) {
	w.d.mu.Lock()
	var to func([]byte)
	if f := w.flights[fr.id]; f != nil {
		to = f.req.Spans
	}
	w.d.mu.Unlock()
	if to != nil {
		to(fr.body)
	}
}

// Leave implements receiver.
func (w *worker) Leave() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if w.state == ready {
		w.state = leaving
	}
}

// startLeaving gives w nothing new; Look ends it when it has answered what it has.
func (w *worker) startLeaving() {
	if w.state == ready {
		w.state, w.retiring = leaving, true
	}
}

// takesAhead reports whether a request that is sent to a busy worker is executed soon: not
// while user code waits for another endpoint or produces a stream.
func (w *worker) takesAhead() bool { return len(w.calls) == 0 && w.streams == 0 }

// idle reports that w has nothing to do and keeps no state.
func (w *worker) idle() bool {
	return len(w.flights) == 0 && len(w.calls) == 0 && len(w.prepared) == 0
}

// lastUse is when w has worked last.
func (w *worker) lastUse() time.Time {
	if w.busySince.After(w.since) {
		return w.busySince
	}
	return w.since
}

// cancel tells the process that f is abandoned.
func (w *worker) cancel(f *flight) {
	w.marks.cancelled()
	w.post(header{kind: kindCancel, id: f.id}, nil)
	for _, c := range w.calls {
		if c.parent == f.id {
			c.cancel()
		}
	}
}

// ReplaceBroken ends a worker whose code reported a fatal error.
func (w *worker) ReplaceBroken() {
	if w.d.Async() {
		w.background(func() { w.stop(context.Background()) }) // others are under way there
		return
	}
	w.kill("the endpoint's code reported an error that only a new process can heal")
}

// Ended implements receiver. Requests that had begun are lost with the process; the
// others go to another worker.
func (w *worker) Ended() {
	d := w.d
	d.mu.Lock()
	w.takeUnsent(w.marks.unsent())
	w.state = dead
	w.rescue.Stop()
	d.workers = slices.DeleteFunc(slices.Clone(d.workers), func(other *worker) bool { return other == w }) // others read the old one
	for _, c := range w.calls {
		c.cancel()
	}
	w.resolveFlights()
	for _, p := range w.prepared {
		p.spend()
	}
	w.marks.close()
	d.mu.Unlock()
	d.FeedAll()
}

// resolveFlights decides about each request of a dead worker.
func (w *worker) resolveFlights() {
	d := w.d
	var again []*flight
	for id, f := range w.flights {
		begun := w.marks.begun(id, f.nested)
		if begun && f.state != streaming {
			d.lose()
		}
		switch {
		case f.state == streaming:
			f.stream.end(&DiedError{Endpoint: d.endpoint, Death: w.death})
			d.finishFlight()
		case f.state == abandoned:
			d.deliver(f, nil, nil)
		case begun, f.kind == kindPost, f.kind == kindPiece: // the state is lost with the process
			d.deliver(f, nil, &DiedError{Endpoint: d.endpoint, Death: w.death})
		case d.closed:
			d.deliver(f, nil, d.closedError())
		default:
			again = append(again, f)
		}
	}
	w.flights = nil
	if len(again) > 0 {
		d.queue.pushFront(again)
	}
}

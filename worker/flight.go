package worker

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

type flightState uint8

const (
	waiting   flightState = iota // in the queue
	sent                         // at a worker
	streaming                    // its answer has begun
	abandoned                    // the caller has left; it stays in its place until that is over
	finished
)

// flight is one request on its way. It is taken from a pool: the code that ends it
// (see dispatch.deliver) must hold the last reference. dispatch.mu guards all but done.
type flight struct {
	req      Request
	deadline time.Time
	since    time.Time // when it began to wait in the queue, zero if it never did
	queued   time.Duration
	nested   bool
	kind     frameKind // one of those of requests, without kindLentRequest
	prepared uint64    // of a kindPost or kindPiece: the id of its kindPre
	state    flightState
	id       uint64 // at its worker
	w        *worker
	head     []byte // header and metadata of its frame, kept for the next one
	loan     *Loan  // where its body is, if that is memory shared with the worker
	stream   *Stream
	watch    *time.Timer // kills a worker that still executes it past its deadline

	response *Response
	err      error
	done     chan struct{} // receives once, when response or err is set
}

type flightPool struct{ pool sync.Pool }

func (p *flightPool) take(req *Request, deadline time.Time, kind frameKind) *flight {
	f, ok := p.pool.Get().(*flight)
	if !ok {
		f = &flight{done: make(chan struct{}, 1)}
	}
	f.req, f.deadline, f.nested, f.kind, f.state = *req, deadline, req.Depth > 0, kind, waiting
	if !utf8.ValidString(f.req.ID) { // it may be the client's; the worker reads it as text
		f.req.ID = strings.ToValidUTF8(f.req.ID, "\uFFFD")
	}
	return f
}

// give returns a flight to the pool; there are no other references.
func (p *flightPool) give(f *flight) {
	if f.watch != nil {
		f.watch.Stop()
	}
	f.dropBody()
	select {
	case <-f.done:
	default:
	}
	head := f.head[:0]
	if cap(head) > 4<<10 {
		head = nil
	}
	*f = flight{done: f.done, head: head}
	p.pool.Put(f)
}

// keepID makes the id outlive the caller, whose memory it may be in: user code may still call others. mu is held.
func (f *flight) keepID() { f.req.ID = strings.Clone(f.req.ID) }

// dropBody releases the flight's body.
func (f *flight) dropBody() {
	if f.loan != nil {
		f.loan.Release()
		f.loan = nil
	}
	f.req.Body = nil
}

// mayFollow reports whether the flight may be sent to a worker that has n requests
// already. A large body would block the socket for those behind it. One in shared memory
// does not, but its request takes long, so that few are sent ahead.
func (f *flight) mayFollow(n int) bool {
	if f.loan != nil && f.ofTensors() {
		return n < aheadMin
	}
	return len(f.req.Body)+len(f.req.Client) < byReference || f.loan != nil && n < aheadMin
}

// appendFrame appends the flight's request frame: without its body, or the complete frame
// if the body is in shared memory.
func (f *flight) appendFrame(b []byte) []byte {
	size := requestHeadSize(&f.req)
	h := header{
		kind: f.kind, id: f.id, code: uint16(min(f.req.Depth, 1<<16-1)),
		head: uint32(size), length: uint32(size + len(f.req.Body)),
	}
	if f.loan != nil {
		switch f.kind {
		case kindTensors, kindPreTensors: // the body has the places
			h.flags |= flagLent
		case kindPre:
			h.flags |= flagLent
			h.length = uint32(size + placeSize)
		default:
			h.kind = kindLentRequest
			h.length = uint32(size + placeSize)
		}
	}
	if f.req.Sampled {
		h.flags |= flagSampled
	}
	if f.nested {
		h.flags |= flagNested
	}
	if f.req.Traceparent != "" {
		h.flags |= flagTraced
	}
	b = appendRequestHead(appendHeader(b, h), f.deadline, &f.req)
	if f.loan != nil && !f.ofTensors() {
		b = appendPlace(b, f.loan.offset, len(f.req.Body))
	}
	return b
}

// ofTensors reports whether the flight's body is tensors.
func (f *flight) ofTensors() bool { return f.kind == kindTensors || f.kind == kindPreTensors }

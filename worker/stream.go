package worker

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// StreamError is an error of user code in the middle of a stream.
type StreamError struct {
	Endpoint string
	Text     string
}

func (e *StreamError) Error() string {
	return fmt.Sprintf("endpoint %q: stream: %s", e.Endpoint, e.Text)
}

// Stream is an answer that is produced while it is read. One goroutine reads it. Its
// pieces are buffered, so that the worker is free before a slow reader has read
// them; Options.Ahead bounds the buffered bytes.
type Stream struct {
	w       *worker
	f       *flight
	id      uint64
	arrived chan struct{} // holds one: there may be something to read
	closed  bool          // the reader has left; guarded by dispatch.mu
	judged  pace          // guarded by dispatch.mu

	mu     sync.Mutex // guards the rest; taken after dispatch.mu
	pieces fifo[[]byte]
	held   int64 // their bytes
	due    int   // pieces that the worker may send now
	taken  int64 // bytes that were read
	ended  bool
	err    error // what comes after the last piece
}

const (
	maxPiece  = 64 << 10 // the worker sends no larger piece
	pieceCost = 64       // overhead of a piece in bytes

	// A stream that its worker cannot continue because its reader is slow, while
	// others wait for the worker, is ended if its rate over slowAfter is less than leastRate
	// bytes a second. For slowSpell after that, slowAgain is used: there may be many
	// such clients, one after the other.
	leastRate = 64 << 10
	slowAfter = 5 * time.Second
	slowAgain = 2 * time.Second
	slowSpell = time.Minute

	// closeGrace bounds the time that a generator takes to end after it was cancelled.
	closeGrace = 30 * time.Second
)

// pace is the start of a measurement of a reader, and what it had read by then.
type pace struct {
	since time.Time
	taken int64
}

// Next returns the next piece, or io.EOF after the last one.
func (s *Stream) Next(ctx context.Context) ([]byte, error) {
	for {
		s.mu.Lock()
		if s.pieces.len() > 0 {
			piece := s.pieces.pop()
			s.taken += int64(len(piece))
			s.hold(-int64(len(piece) + pieceCost))
			more := s.credit()
			s.mu.Unlock()
			s.send(more)
			return piece, nil
		}
		ended, err := s.ended, s.err
		s.mu.Unlock()
		if ended {
			return nil, err
		}
		select {
		case <-s.arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("endpoint %q: read stream: %w", s.w.endpoint, context.Cause(ctx))
		}
	}
}

// hold counts bytes that wait. mu is held.
func (s *Stream) hold(n int64) {
	s.held += n
	s.w.o.Ahead.held.Add(n)
}

// credit returns how many more pieces the worker may send now. mu is held.
func (s *Stream) credit() int {
	if s.ended {
		return 0
	}
	more := streamWindow - s.due
	if !s.w.o.Ahead.allows(s.held) {
		more -= s.pieces.len()
	}
	if more < streamWindow/2 {
		return 0
	}
	s.due += more
	return more
}

// send sends the worker a credit.
func (s *Stream) send(credit int) {
	if credit > 0 {
		s.w.post(header{kind: kindCredit, id: s.id, code: uint16(credit)}, nil)
		s.w.out.flush()
	}
}

// append appends a piece, which the stream keeps. It reports whether the worker had a
// credit for it.
func (s *Stream) append(piece []byte) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return true // it was cut; the worker may not have received that yet
	}
	if s.due == 0 {
		s.mu.Unlock()
		return false
	}
	s.due--
	s.pieces.push(piece)
	s.hold(int64(len(piece) + pieceCost))
	more := s.credit()
	s.mu.Unlock()
	s.wake()
	s.send(more)
	return true
}

func (s *Stream) wake() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// Close ends the stream and the generator in user code. It may be
// called more than once, also after the end.
func (s *Stream) Close() error {
	d := s.w.d
	d.mu.Lock()
	first := s.stop(io.ErrClosedPipe)
	d.mu.Unlock()
	if first {
		s.w.out.flush()
	}
	return nil
}

// stop ends a stream that is not read any further, and tells the worker if it still
// produces it; the caller flushes then. dispatch.mu is held.
func (s *Stream) stop(err error) (first bool) {
	over := s.end(err)
	s.mu.Lock()
	s.hold(-s.held)
	s.pieces, s.err = fifo[[]byte]{}, err
	s.mu.Unlock()
	if s.closed || over {
		s.closed = true
		return false
	}
	s.closed = true
	s.w.cancel(s.f)
	s.w.d.watchStream(s)
	return true
}

// end sets what comes after the last piece, unless it is set already. dispatch.mu is held.
func (s *Stream) end(err error) (known bool) {
	s.mu.Lock()
	known = s.ended
	if !known {
		s.ended, s.err = true, err
	}
	s.mu.Unlock()
	s.wake()
	return known
}

// slow reports whether the reader is too slow while others wait for the worker. It is
// called regularly, also with awaited false while none waits.
// dispatch.mu is held.
func (s *Stream) slow(now time.Time, awaited bool, after time.Duration) bool {
	s.mu.Lock()
	taken, full := s.taken, s.due == 0 && !s.ended
	s.mu.Unlock()
	if !awaited || s.judged.since.IsZero() {
		s.judged = pace{}
		if awaited && full {
			s.judged = pace{now, taken}
		}
		return false
	}
	took := now.Sub(s.judged.since)
	if took < after {
		return false
	}
	slow := float64(taken-s.judged.taken) < leastRate*took.Seconds()
	s.judged = pace{now, taken}
	return slow && full
}

// cutSlow ends the streams whose slow readers hold workers that others wait for, and
// returns these workers.
func (d *dispatch) cutSlow(now time.Time) (cut []*worker) {
	after := slowAfter
	if now.Sub(d.cutLast) < slowSpell {
		after = slowAgain
	}
	for _, w := range d.workers {
		if w.streams == 0 {
			continue
		}
		awaited := d.queue.len() > 0 || d.closed || w.state == leaving || w.holdsUp()
		for _, f := range w.flights {
			s := f.stream
			if s == nil || s.closed || !s.slow(now, awaited, after) {
				continue
			}
			d.cutLast = now
			w.log.Warn("stream cut: its client reads slowly and others wait for the worker", "request_id", f.req.ID)
			if s.stop(&StreamError{Endpoint: w.endpoint, Text: "the client read too slowly while others waited for the worker"}) {
				cut = append(cut, w)
			}
		}
	}
	return cut
}

// holdsUp reports whether requests that were sent to w wait for a stream.
func (w *worker) holdsUp() bool {
	if w.d.async {
		return false
	}
	for id, f := range w.flights {
		if f.state == sent && !f.nested && !w.marks.begun(id, false) {
			return true
		}
	}
	return false
}

// stream turns a flight into one whose answer has begun.
func (w *worker) stream(f *flight, meta *answerHead, status int) {
	s := &Stream{w: w, f: f, id: f.id, arrived: make(chan struct{}, 1), due: streamWindow}
	f.stream = s
	f.dropBody() // user code has read it
	w.streams++
	if f.state == abandoned { // cancelled already; its end will come
		f.state, s.closed, s.ended = streaming, true, true
		w.d.watchStream(s)
		return
	}
	f.state = streaming
	f.keepID()
	f.response = w.response(f, meta, status)
	f.response.Stream = s
	f.done <- struct{}{}
}

// Chunk handles a piece of a stream.
func (w *worker) Chunk(fr *frame) error {
	d := w.d
	d.mu.Lock()
	f := w.flights[fr.id]
	if f == nil || f.state != streaming {
		d.mu.Unlock()
		return fmt.Errorf("%w: a piece of stream %d, which is not open", errFrame, fr.id)
	}
	s, closed := f.stream, f.stream.closed
	d.mu.Unlock()
	if closed {
		return nil
	}
	piece := fr.body
	if !fr.owned {
		piece = slices.Clone(piece)
	}
	if !s.append(piece) {
		return fmt.Errorf("%w: more pieces of stream %d than were asked for", errFrame, fr.id)
	}
	return nil
}

// EndStream handles the end of a stream.
func (w *worker) EndStream(fr *frame) {
	d := w.d
	d.mu.Lock()
	f := w.flights[fr.id]
	if f == nil || f.state != streaming {
		d.mu.Unlock()
		return
	}
	delete(w.flights, fr.id)
	w.streams--
	if f.watch != nil {
		f.watch.Stop()
	}
	err := io.EOF
	if len(fr.body) > 0 {
		err = &StreamError{Endpoint: w.endpoint, Text: string(fr.body)}
	}
	f.stream.end(err)
	d.finishFlight()
	d.feed(w)
	d.mu.Unlock()
	w.out.flush()
}

// watchStream kills a worker whose generator does not end after its cancellation.
func (d *dispatch) watchStream(s *Stream) {
	w, f := s.w, s.f
	if f.watch != nil {
		f.watch.Stop()
	}
	f.watch = time.AfterFunc(max(time.Until(f.deadline), closeGrace)+d.o.killGrace, func() {
		d.mu.Lock()
		hung := w.flights[s.id] == f
		d.mu.Unlock()
		if hung {
			w.kill("a cancelled stream did not end")
		}
	})
}

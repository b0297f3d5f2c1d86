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

// Stream is an answer that is made while it is read. One goroutine reads it. Its
// pieces wait in memory, so that the worker is free before a slow reader has read
// them; how many bytes may wait is bounded by Options.Ahead.
type Stream struct {
	w       *worker
	f       *flight
	id      uint64
	arrived chan struct{} // holds one: there is something to read
	closed  bool          // the reader has left; guarded by Group.mu
	judged  pace          // guarded by Group.mu

	mu     sync.Mutex // guards the rest; taken after Group.mu
	pieces [][]byte   // from first on
	first  int
	held   int64 // their bytes
	due    int   // pieces that the worker may send now
	taken  int64 // bytes that were read
	ended  bool
	err    error // what comes after the last piece
}

const (
	maxPiece  = 64 << 10 // the worker sends no larger piece
	pieceCost = 64       // of a piece, besides its bytes

	// A stream that its worker cannot continue because its reader is slow, while
	// others wait for the worker, is ended if slowAfter shows less than leastRate
	// bytes a second. For slowSpell after that, slowAgain is enough: there may be many
	// such clients, one behind the other.
	leastRate = 64 << 10
	slowAfter = 5 * time.Second
	slowAgain = 2 * time.Second
	slowSpell = time.Minute

	// closeGrace is how long a generator may take to end after it was cancelled.
	closeGrace = 30 * time.Second
)

// pace is since when a reader is judged, and what it had read by then.
type pace struct {
	since time.Time
	taken int64
}

// Next returns the next piece, or io.EOF after the last one.
func (s *Stream) Next(ctx context.Context) ([]byte, error) {
	for {
		s.mu.Lock()
		if s.first < len(s.pieces) {
			piece := s.pop()
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
			return nil, fmt.Errorf("endpoint %q: read stream: %w", s.w.g.spec.Endpoint, context.Cause(ctx))
		}
	}
}

// pop takes the first piece. mu is held.
func (s *Stream) pop() []byte {
	piece := s.pieces[s.first]
	s.pieces[s.first] = nil
	if s.first++; s.first == len(s.pieces) {
		s.pieces, s.first = s.pieces[:0], 0
	}
	s.taken += int64(len(piece))
	s.hold(-int64(len(piece) + pieceCost))
	return piece
}

// hold counts bytes that wait. mu is held.
func (s *Stream) hold(n int64) {
	s.held += n
	s.w.g.o.Ahead.held.Add(n)
}

// credit returns how many more pieces the worker may send now. mu is held.
func (s *Stream) credit() int {
	if s.ended {
		return 0
	}
	more := streamWindow - s.due
	if !s.w.g.o.Ahead.allows(s.held) {
		more -= len(s.pieces) - s.first
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
		s.w.out.add(appendHeader(make([]byte, 0, headerSize), header{kind: kindCredit, id: s.id, code: uint16(credit)}), nil, nil)
		s.w.out.flush()
	}
}

// put appends a piece, which the stream keeps. It says whether the worker had a
// credit for it.
func (s *Stream) put(piece []byte) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return true // it was cut, which the worker may not know yet
	}
	if s.due == 0 {
		s.mu.Unlock()
		return false
	}
	s.due--
	if len(s.pieces) == cap(s.pieces) && s.first > len(s.pieces)/2 {
		n := copy(s.pieces, s.pieces[s.first:])
		clear(s.pieces[n:])
		s.pieces, s.first = s.pieces[:n], 0
	}
	s.pieces = append(s.pieces, piece)
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

// Close ends the stream; the generator in user code is closed too. It may be
// called more than once, also after the end.
func (s *Stream) Close() error {
	g := s.w.g
	g.mu.Lock()
	first := s.stop(io.ErrClosedPipe)
	g.mu.Unlock()
	if first {
		s.w.out.flush()
	}
	return nil
}

// stop ends a stream that is not to be read any further, and tells the worker if
// that still makes it; the caller flushes then. Group.mu is held.
func (s *Stream) stop(err error) (first bool) {
	over := s.end(err)
	s.mu.Lock()
	s.hold(-s.held)
	s.pieces, s.first, s.err = nil, 0, err
	s.mu.Unlock()
	if s.closed || over {
		s.closed = true
		return false
	}
	s.closed = true
	s.w.cancel(s.f)
	s.w.g.watchStream(s)
	return true
}

// end sets what comes after the last piece, unless it is set already. Group.mu is held.
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

// slow reports whether the reader reads too slowly for those who wait for the worker.
// It is asked again and again while somebody waits, and told when nobody does.
// Group.mu is held.
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

// cutSlow ends the streams whose slow readers hold workers that others wait for. mu
// is held, and the caller flushes the workers that are returned.
func (g *Group) cutSlow(now time.Time) (cut []*worker) {
	after := slowAfter
	if now.Sub(g.cutLast) < slowSpell {
		after = slowAgain
	}
	for _, w := range g.workers {
		if w.streams == 0 {
			continue
		}
		awaited := g.queue.waiting > 0 || g.closed || w.state == leaving || w.holdsUp()
		for _, f := range w.flights {
			s := f.stream
			if s == nil || s.closed || !s.slow(now, awaited, after) {
				continue
			}
			g.cutLast = now
			w.log.Warn("stream cut: its client reads slowly and others wait for the worker", "request_id", f.req.ID)
			if s.stop(&StreamError{Endpoint: g.spec.Endpoint, Text: "the client read too slowly while others waited for the worker"}) {
				cut = append(cut, w)
			}
		}
	}
	return cut
}

// holdsUp reports whether requests that were sent to w have to wait for a stream. g.mu is held.
func (w *worker) holdsUp() bool {
	if w.g.async {
		return false
	}
	for id, f := range w.flights {
		if f.state == sent && !f.nested && !w.marks.begun(id, false) {
			return true
		}
	}
	return false
}

// stream turns a flight into one whose answer has begun. g.mu is held.
func (w *worker) stream(f *flight, meta *answerHead, status int) {
	s := &Stream{w: w, f: f, id: f.id, arrived: make(chan struct{}, 1), due: streamWindow}
	f.stream = s
	f.dropBody() // user code has had it
	w.streams++
	if f.state == abandoned { // cancelled already; its end will come
		f.state, s.closed, s.ended = streaming, true, true
		w.g.watchStream(s)
		return
	}
	f.state = streaming
	f.response = w.response(meta, status)
	f.response.Stream = s
	f.done <- struct{}{}
}

// chunk passes a piece of a stream on.
func (w *worker) chunk(fr *frame) error {
	g := w.g
	g.mu.Lock()
	f := w.flights[fr.id]
	if f == nil || f.state != streaming {
		g.mu.Unlock()
		return fmt.Errorf("%w: a piece of stream %d, which is not under way", errFrame, fr.id)
	}
	s, closed := f.stream, f.stream.closed
	g.mu.Unlock()
	if closed {
		return nil
	}
	piece := fr.body
	if !fr.owned {
		piece = slices.Clone(piece)
	}
	if !s.put(piece) {
		return fmt.Errorf("%w: more pieces of stream %d than were asked for", errFrame, fr.id)
	}
	return nil
}

// endStream ends a stream as the worker says.
func (w *worker) endStream(fr *frame) {
	g := w.g
	g.mu.Lock()
	f := w.flights[fr.id]
	if f == nil || f.state != streaming {
		g.mu.Unlock()
		return
	}
	delete(w.flights, fr.id)
	w.streams--
	if f.watch != nil {
		f.watch.Stop()
	}
	err := io.EOF
	if len(fr.body) > 0 {
		err = &StreamError{Endpoint: g.spec.Endpoint, Text: string(fr.body)}
	}
	f.stream.end(err)
	g.finishFlight()
	g.feed(w)
	g.mu.Unlock()
	w.out.flush()
}

// watchStream has a worker killed whose generator does not end after its cancellation. g.mu is held.
func (g *Group) watchStream(s *Stream) {
	w, f := s.w, s.f
	if f.watch != nil {
		f.watch.Stop()
	}
	f.watch = time.AfterFunc(max(time.Until(f.deadline), closeGrace)+g.o.killGrace, func() {
		g.mu.Lock()
		hung := w.flights[s.id] == f
		g.mu.Unlock()
		if hung {
			w.kill("a stream that nobody reads did not end")
		}
	})
}

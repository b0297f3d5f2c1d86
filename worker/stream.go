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

// Stream is an answer that is made while it is read. One goroutine reads it. A
// worker makes no more than a few pieces ahead of its reader.
type Stream struct {
	w        *worker
	f        *flight
	id       uint64
	pieces   chan []byte // as large as the window: the worker's reader never waits
	taken    int
	mu       sync.Mutex // guards err and ended
	err      error
	ended    bool
	closed   bool // by the reader; guarded by Group.mu
	tooSlow  time.Duration
	lastRead error
}

// Next returns the next piece, or io.EOF after the last one.
func (s *Stream) Next(ctx context.Context) ([]byte, error) {
	if s.lastRead != nil {
		return nil, s.lastRead
	}
	select {
	case piece, ok := <-s.pieces:
		if !ok {
			s.mu.Lock()
			s.lastRead = s.err
			s.mu.Unlock()
			return nil, s.lastRead
		}
		s.taken++
		if s.taken == streamWindow/2 {
			s.credit()
		}
		return piece, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("endpoint %q: read stream: %w", s.w.g.spec.Endpoint, context.Cause(ctx))
	}
}

func (s *Stream) credit() {
	s.w.out.add(appendHeader(make([]byte, 0, headerSize), header{kind: kindCredit, id: s.id, code: uint16(s.taken)}), nil, nil)
	s.taken = 0
	s.w.out.flush()
}

// Close ends the stream; the generator in user code is closed too. It may be
// called more than once, also after the end.
func (s *Stream) Close() error {
	g := s.w.g
	g.mu.Lock()
	if s.closed || s.isOver() {
		s.closed = true
		g.mu.Unlock()
		return nil
	}
	s.closed = true
	s.w.cancel(s.f)
	if s.f.deadline.IsZero() {
		s.f.deadline = time.Now().Add(s.tooSlow)
	}
	g.watchStream(s)
	g.mu.Unlock()
	s.w.out.flush()
	return nil
}

func (s *Stream) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// end closes the stream from the worker's side. g.mu is held.
func (s *Stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.err = true, err
	close(s.pieces)
}

func (s *Stream) fail(err error) { s.end(err) }

// stream turns a flight into one whose answer has begun. g.mu is held.
func (w *worker) stream(f *flight, meta *answerHead, status int) {
	s := &Stream{w: w, f: f, id: f.id, pieces: make(chan []byte, streamWindow), tooSlow: 30 * time.Second}
	f.stream = s
	if f.state == abandoned {
		f.state, s.closed = streaming, true // told to cancel already; its end will come
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
	defer g.mu.Unlock()
	f := w.flights[fr.id]
	if f == nil || f.state != streaming {
		return fmt.Errorf("%w: a piece of stream %d, which is not under way", errFrame, fr.id)
	}
	if f.stream.closed {
		return nil
	}
	piece := fr.body
	if !fr.owned {
		piece = slices.Clone(piece)
	}
	select {
	case f.stream.pieces <- piece:
		return nil
	default:
		return fmt.Errorf("%w: more pieces of stream %d than were asked for", errFrame, fr.id)
	}
}

// ended ends a stream as the worker says.
func (w *worker) ended(fr *frame) {
	g := w.g
	g.mu.Lock()
	f := w.flights[fr.id]
	if f == nil || f.state != streaming {
		g.mu.Unlock()
		return
	}
	delete(w.flights, fr.id)
	if f.watch != nil {
		f.watch.Stop()
	}
	err := io.EOF
	if len(fr.body) > 0 {
		err = &StreamError{Endpoint: g.spec.Endpoint, Text: string(fr.body)}
	}
	f.stream.end(err)
	g.gone()
	g.feed(w)
	g.mu.Unlock()
	w.out.flush()
}

// watchStream has a worker killed whose generator does not end after it was told. g.mu is held.
func (g *Group) watchStream(s *Stream) {
	w, f := s.w, s.f
	f.watch = time.AfterFunc(max(time.Until(f.deadline), 0)+g.o.KillGrace, func() {
		g.mu.Lock()
		hung := w.flights[s.id] == f
		g.mu.Unlock()
		if hung {
			w.kill("a stream that nobody reads did not end")
		}
	})
}

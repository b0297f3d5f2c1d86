// Package intake reads the bodies of requests to the control plane and bounds their total
// cost: the bytes that are held, the memory of the decoded values, and the time to send one.
//
// It owns the two budgets. It scans JSON only to estimate the memory of its values while a
// body arrives; it decodes nothing.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// Held bounds the bytes of all bodies that are being read or processed.
	Held = 128 << 20
	// Decoded bounds the memory of their decoded values, for all together and for one.
	Decoded = 320 << 20
	// Most bounds the time of one body.
	Most = 5 * time.Minute

	// patience is how long a body waits for its part of a budget.
	patience = 10 * time.Second
	// pace is the number of bytes that must arrive in each Window.
	pace = 64 << 10
	// window is the default of Budget.Window.
	window = 30 * time.Second
	// first is the initial buffer of a body, and small the maximal buffer before that much of
	// it has arrived, whatever its announced length.
	first, small = 4 << 10, 64 << 10
)

// The errors of bodies.
var (
	ErrTooLarge  = errors.New("the request body is too large")
	ErrTooManyIn = errors.New("the request body holds too many values")
	ErrSlow      = errors.New("the request body arrives too slowly")
	ErrBusy      = errors.New("too many large requests are being answered: try again")
)

// Status is the HTTP status of an error of Read: 400 for an interrupted body.
func Status(err error) int {
	switch {
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrTooManyIn):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrSlow):
		return http.StatusRequestTimeout
	case errors.Is(err, ErrBusy):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// Budget bounds all bodies that are read with it. It is safe for use by many goroutines.
type Budget struct {
	held, decoded *semaphore.Weighted
	// Window is the time in which 64 KiB of a body must arrive, or its end. It may be set only
	// before the first use.
	Window time.Duration
}

// New makes a Budget of Held and Decoded bytes.
func New() *Budget {
	return &Budget{held: semaphore.NewWeighted(Held), decoded: semaphore.NewWeighted(Decoded), Window: window}
}

// Body is a complete body with its part of the budget.
type Body struct {
	Text []byte

	of            *Budget
	held, decoded int64
}

// Release returns the part of the budget. Only the answer may still use values of the body.
// Further calls do nothing.
func (b *Body) Release() {
	if b.held > 0 {
		b.of.held.Release(b.held)
	}
	if b.decoded > 0 {
		b.of.decoded.Release(b.decoded)
	}
	b.held, b.decoded = 0, 0
}

// paidKey marks the context of a request that already has its part of the budget.
type paidKey struct{}

// Paid returns a context for requests within this process that are made while a Body is
// held: they take no part of the budget, because two parts for one request could deadlock.
func Paid(ctx context.Context) context.Context { return context.WithValue(ctx, paidKey{}, true) }

// Read reads the body of a request, of at most limit bytes. The request is authenticated, or
// the limit is a few KiB. The caller releases the body.
func (b *Budget) Read(w http.ResponseWriter, r *http.Request, limit int64) (*Body, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body := &Body{of: b}
	if r.Body == nil || r.Body == http.NoBody {
		return body, nil
	}
	done := false
	defer func() {
		if !done {
			body.Release()
		}
	}()
	paid := r.Context().Value(paidKey{}) != nil
	from := &pacedReader{
		from: http.MaxBytesReader(w, r.Body, limit), conn: http.NewResponseController(w), window: b.Window, end: time.Now().Add(Most),
		// A body that is too slow to arrive in time is not awaited.
		pace: max(pace, int(float64(r.ContentLength)*b.Window.Seconds()/Most.Seconds())),
	}
	var cost Cost
	for {
		if err := body.grow(r.Context(), r.ContentLength, limit, paid); err != nil {
			return nil, err
		}
		n, err := from.Read(body.Text[len(body.Text):cap(body.Text)])
		arrived := body.Text[len(body.Text) : len(body.Text)+n]
		body.Text = body.Text[:len(body.Text)+n]
		if cost.Add(arrived); cost.Bytes() > Decoded {
			return nil, fmt.Errorf("%w: send it in several requests", ErrTooManyIn)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if tooMuch := (*http.MaxBytesError)(nil); errors.As(err, &tooMuch) {
			return nil, tooLarge(limit)
		}
		if err != nil {
			return nil, err
		}
	}
	if !paid {
		if err := acquire(r.Context(), b.decoded, cost.Bytes()); err != nil {
			return nil, err
		}
		body.decoded = cost.Bytes()
	}
	done = true
	return body, nil
}

func tooLarge(limit int64) error {
	if limit < 1<<20 {
		return fmt.Errorf("%w: the limit is %d KiB", ErrTooLarge, limit>>10)
	}
	return fmt.Errorf("%w: the limit is %d MiB", ErrTooLarge, limit>>20)
}

// grow enlarges the buffer: to twice what has arrived or, after a first part, to the announced
// length. A body waits for that part of the budget while it holds little of it, so such
// bodies do not wait for each other.
func (b *Body) grow(ctx context.Context, announced, limit int64, paid bool) error {
	if len(b.Text) < cap(b.Text) {
		return nil
	}
	room := min(max(first, 2*int64(cap(b.Text))), limit+1)
	if announced >= 0 && (announced < room || room > small) {
		room = announced + 1 // so that the end is found without another call
	}
	room = max(room, int64(len(b.Text))+1)
	if !paid {
		if err := acquire(ctx, b.of.held, room-b.held); err != nil {
			return err
		}
		b.held = room
	}
	larger := make([]byte, len(b.Text), room)
	copy(larger, b.Text)
	b.Text = larger
	return nil
}

// acquire waits for a part of a budget. Bodies of unknown length hold a part and wait for
// more, possibly for each other, so the wait is short.
func acquire(ctx context.Context, from *semaphore.Weighted, n int64) error {
	if from.TryAcquire(n) {
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := from.Acquire(limit, n); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return ErrBusy
	}
	return nil
}

// Pace reads a body without a limit of the total time, and fails with ErrSlow if less than
// 64 KiB, and not its end, arrive in a window.
func Pace(w http.ResponseWriter, body io.Reader, window time.Duration) io.Reader {
	return &pacedReader{from: body, conn: http.NewResponseController(w), window: window, pace: pace}
}

type pacedReader struct {
	from   io.Reader
	conn   *http.ResponseController
	window time.Duration
	end    time.Time // zero: none
	pace   int       // bytes that must arrive in a window
	left   int       // the number of them that are missing
}

func (p *pacedReader) Read(to []byte) (int, error) {
	if p.left <= 0 {
		p.left = p.pace
		at := time.Now().Add(p.window)
		if !p.end.IsZero() && at.After(p.end) {
			at = p.end
		}
		p.deadlines(at)
	}
	n, err := p.from.Read(to)
	p.left -= n
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, fmt.Errorf("%w: %d KiB must arrive in %s", ErrSlow, p.pace>>10, p.window)
	case err != nil:
		// The server reads the connection while the answer is made: that needs a deadline too.
		p.deadlines(time.Now().Add(Most))
	}
	return n, err
}

// deadlines sets the deadlines of the body and of the answer. Some listeners have none.
func (p *pacedReader) deadlines(at time.Time) {
	_ = errors.Join(p.conn.SetReadDeadline(at), p.conn.SetWriteDeadline(at.Add(Most)))
}

// Discard reads the rest of the body of a refused request, so that its connection stays
// usable: as much as arrives within seconds, up to limit bytes. The server closes the
// connection if there is more. A body that the client sends only after a 100 Continue is not
// requested.
func Discard(w http.ResponseWriter, r *http.Request, limit int64) {
	if r.Header.Get("Expect") != "" {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, limit))
}

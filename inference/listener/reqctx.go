package listener

import (
	"context"
	"sync"
	"time"
)

// requestContext is the context of one request. It is never reused: code that keeps it has a
// context that stays cancelled after the response has been written. It and the context with its
// deadline are one allocation; the channels are created on first use, and the timer belongs to the
// connection.
type requestContext struct {
	mu      sync.Mutex // guards the fields below
	c       *conn      // nil once the request has ended
	done    chan struct{}
	err     error
	limited limitedContext
}

// limitedContext is a request's context with a deadline, as WithTimeout returns it.
type limitedContext struct {
	r        *requestContext
	deadline time.Time     // set once, before the context is shared
	done     chan struct{} // this and err are guarded by requestContext.mu
	err      error
}

// closed is the channel of all contexts that ended before their channel was used.
var closed = func() chan struct{} { //nolint:gochecknoglobals // a constant
	c := make(chan struct{})
	close(c)
	return c
}()

func (r *requestContext) Deadline() (time.Time, bool) { return time.Time{}, false }

func (r *requestContext) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return channelOf(&r.done, r.err)
}

func (r *requestContext) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *requestContext) Value(any) any { return nil }

func (l *limitedContext) Deadline() (time.Time, bool) { return l.deadline, true }

func (l *limitedContext) Done() <-chan struct{} {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return channelOf(&l.done, l.err)
}

func (l *limitedContext) Err() error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.err
}

func (l *limitedContext) Value(any) any { return nil }

// channelOf creates the channel on first use.
func channelOf(done *chan struct{}, err error) chan struct{} {
	if *done == nil {
		if err != nil {
			return closed
		}
		*done = make(chan struct{})
	}
	return *done
}

// end ends one of the two contexts, unless it has ended. Requires requestContext.mu.
func end(done *chan struct{}, err *error, cause error) {
	if *err != nil {
		return
	}
	*err = cause
	if *done == nil {
		*done = closed
		return
	}
	close(*done)
}

// cancel ends the request.
func (r *requestContext) cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	end(&r.done, &r.err, context.Canceled)
	r.endLimited()
	r.c = nil // a kept context must not keep the connection
}

// answered ends the context with the deadline: the handler has returned, and sending the response
// has its own limits.
func (r *requestContext) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLimited()
}

// endLimited stops the timer. Requires mu.
func (r *requestContext) endLimited() {
	if l := &r.limited; l.r != nil && l.err == nil {
		r.c.timer.Stop()
		end(&l.done, &l.err, context.Canceled)
	}
}

// limit creates the context with a deadline, or returns nil if there is one already.
func (r *requestContext) limit(d time.Duration) *limitedContext {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.limited
	if l.r != nil {
		return nil
	}
	l.r, l.deadline = r, time.Now().Add(d)
	switch {
	case r.err != nil:
		end(&l.done, &l.err, r.err)
	case d <= 0:
		end(&l.done, &l.err, context.DeadlineExceeded)
	case r.c.timer == nil:
		r.c.timer = time.AfterFunc(d, r.c.expire)
	default:
		r.c.timer.Reset(d)
	}
	return l
}

// expire ends the context whose deadline has passed. It checks the deadline again, because the
// request that set the timer may have been answered meanwhile.
func (r *requestContext) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limited.r == nil || time.Now().Before(r.limited.deadline) {
		return
	}
	end(&r.limited.done, &r.limited.err, context.DeadlineExceeded)
}

// WithTimeout is context.WithTimeout for a handler's context, without its cost. The context ends at
// the latest when the handler returns; the CancelFunc may have no effect before. A second deadline
// uses package context.
func (r *requestContext) WithTimeout(d time.Duration) (context.Context, context.CancelFunc) {
	if l := r.limit(d); l != nil {
		return l, func() {}
	}
	return context.WithTimeout(r, d)
}

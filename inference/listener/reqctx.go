package listener

import (
	"context"
	"sync"
	"time"
)

// requestContext is the context of the requests of one connection, one after the
// other. It costs nothing per request: its channel and its timer are used again
// until one of them has fired.
type requestContext struct {
	mu       sync.Mutex // guards what follows
	done     chan struct{}
	err      error
	timer    *time.Timer
	deadline time.Time
}

func (c *requestContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.deadline.IsZero()
}

func (c *requestContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

func (c *requestContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *requestContext) Value(any) any { return nil }

// begin makes the context fit for the next request.
func (c *requestContext) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil || c.err != nil {
		c.done, c.err = make(chan struct{}), nil
	}
	c.deadline = time.Time{}
}

// finish disarms the timer of the request that has been answered.
func (c *requestContext) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil && !c.deadline.IsZero() {
		c.timer.Stop()
	}
	c.deadline = time.Time{}
}

// cancel ends the request under way.
func (c *requestContext) cancel(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(cause)
}

func (c *requestContext) end(cause error) {
	if c.err == nil && c.done != nil {
		c.err = cause
		close(c.done)
	}
}

// limit ends the request under way after d. It is called once a request.
func (c *requestContext) limit(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = time.Now().Add(d)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.expire)
		return
	}
	c.timer.Reset(d)
}

// expire ends the request whose deadline has passed. It looks at the deadline
// again: the request that armed the timer may have been answered meanwhile.
func (c *requestContext) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline.IsZero() || time.Now().Before(c.deadline) {
		return
	}
	c.end(context.DeadlineExceeded)
}

// WithTimeout is context.WithTimeout for a handler's context, without its cost.
// It may be called once for each request, with the context that the handler got.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c, ok := ctx.(*requestContext); ok {
		c.limit(d)
		return c, func() {}
	}
	return context.WithTimeout(ctx, d)
}

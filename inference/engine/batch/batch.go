// Package batch executes requests together, for engines that compute on
// tensors: in this process, or as the middle of an endpoint whose
// preprocess and postprocess run in workers. Package batching decides the sizes.
package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/batching"
	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// Options of a Batcher.
type Options struct {
	URL serving.EndpointURL
	serving.Batching
	// Compute gets tensors whose first dimension is the rows of one or more requests, and
	// returns tensors with the same rows. It may be called from many goroutines. After an error
	// or panic for several requests, it is called again for each half of them, until failing
	// requests are alone. ctx ends when no request waits for the result. Required.
	Compute func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error)
	// AtOnce is the number of concurrent calls of Compute. Default 1.
	AtOnce int
	// MaxQueue bounds the waiting requests. Default 4096.
	MaxQueue int
}

// Batcher executes requests of one endpoint together. Its methods may be called from any
// goroutine.
type Batcher struct {
	o      Options
	ctx    context.Context //nolint:containedctx // ends with Close, and with it all computations
	cancel context.CancelFunc
	all    sync.WaitGroup
	hold   *time.Timer // starts again when a delay is over

	mu      sync.Mutex // guards the rest
	policy  *batching.Policy
	queue   []*member // oldest first
	rows    float64   // of the queue
	running int       // goroutines that execute
	closed  bool
}

// member is a request.
type member struct {
	batching.Request

	in   []engine.Tensor
	gone atomic.Bool   // its caller has left
	of   *execution    // nil while it is queued; guarded by Batcher.mu
	done chan struct{} // closed when out or err is set
	out  []engine.Tensor
	err  error
}

// execution is one batch.
type execution struct {
	members []*member
	waiting int             // members that are not gone; guarded by Batcher.mu
	ctx     context.Context //nolint:containedctx // ends when all callers have left
	cancel  context.CancelFunc
}

// New creates a Batcher; Close ends it.
func New(o Options) *Batcher {
	o.AtOnce, o.MaxRows = max(o.AtOnce, 1), max(o.MaxRows, 1)
	if o.MaxQueue <= 0 {
		o.MaxQueue = 4096
	}
	b := &Batcher{o: o, policy: batching.NewPolicy(o.Batching)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.hold = time.AfterFunc(time.Hour, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.start()
	})
	b.hold.Stop()
	return b
}

// Close ends all computations, and fails waiting requests. It returns when none runs.
func (b *Batcher) Close() {
	b.mu.Lock()
	b.closed = true
	for _, m := range b.queue {
		m.finish(nil, b.failure(engine.KindInternal, "the endpoint is closed"))
	}
	b.queue, b.rows = nil, 0
	b.mu.Unlock()
	b.hold.Stop()
	b.cancel()
	b.all.Wait()
}

// Report describes the last batches; nil: requests are computed one by one.
func (b *Batcher) Report() *serving.BatchingReport {
	if !b.o.On() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.policy.Report()
}

// Queued is the number of waiting requests.
func (b *Batcher) Queued() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// Do computes one request. It may return at the end of ctx while Compute runs, so it copies
// the tensors. An error that is not Compute's is an *engine.Error.
func (b *Batcher) Do(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	if ctx.Err() != nil {
		return nil, b.contextError(ctx)
	}
	m := &member{in: slices.Clone(in), done: make(chan struct{})}
	for i := range m.in {
		m.in[i].Data = bytes.Clone(m.in[i].Data)
	}
	m.Rows = float64(max(rowsOf(in), 1))
	m.Deadline, _ = ctx.Deadline()
	if err := b.enqueue(m); err != nil {
		return nil, err
	}
	select {
	case <-m.done:
		return m.out, m.err
	case <-ctx.Done():
		b.leave(m)
		return nil, b.contextError(ctx)
	}
}

func (b *Batcher) enqueue(m *member) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return b.failure(engine.KindInternal, "the endpoint is closed")
	case len(b.queue) >= b.o.MaxQueue:
		return b.failure(engine.KindOverloaded, fmt.Sprintf("%d requests wait already", len(b.queue)))
	}
	m.Since = time.Now()
	b.queue = append(b.queue, m)
	b.rows += m.Rows
	b.start()
	return nil
}

// start begins to execute the queue if an executor is free. mu is held.
func (b *Batcher) start() {
	if b.closed || len(b.queue) == 0 || b.running >= b.o.AtOnce {
		return
	}
	b.running++
	b.all.Go(func() {
		for e := b.next(); e != nil; e = b.next() {
			b.execute(e)
		}
	})
}

// next takes the next batch from the queue; nil if there is none now.
func (b *Batcher) next() *execution {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		b.running--
		return nil
	}
	now, first := time.Now(), b.queue[0]
	batch, hold := b.policy.Begin(first.Request, b.rows, now)
	if hold > 0 {
		b.hold.Reset(hold)
		b.running--
		return nil
	}
	e := &execution{}
	e.ctx, e.cancel = context.WithCancel(b.ctx)
	full := false
	b.queue = slices.DeleteFunc(b.queue, func(m *member) bool {
		if full || m != first && !stackable(first.in, m.in) {
			return false // others of its form may still be added
		}
		if full = !batch.Fits(m.Request, now); full {
			return false
		}
		batch.Add(m.Request, now)
		m.of, e.members, b.rows = e, append(e.members, m), b.rows-m.Rows
		return true
	})
	e.waiting = len(e.members)
	batch.Limit()
	b.start() // another executor may be free for the rest
	return e
}

// leave records that the caller of m has left.
func (b *Batcher) leave(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.gone.Store(true)
	if e := m.of; e != nil {
		if e.waiting--; e.waiting == 0 {
			e.cancel()
		}
		return
	}
	if i := slices.Index(b.queue, m); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
		b.rows -= m.Rows
	}
}

func (b *Batcher) execute(e *execution) {
	defer e.cancel()
	b.divide(e.ctx, e.members)
}

// divide computes members, and their halves if that fails, until failing members are alone.
func (b *Batcher) divide(ctx context.Context, members []*member) {
	members = slices.DeleteFunc(members, func(m *member) bool { return m.gone.Load() })
	if len(members) == 0 {
		return
	}
	outs, err := b.compute(ctx, members)
	switch {
	case err == nil:
		for i, m := range members {
			m.finish(outs[i], nil)
		}
	case len(members) == 1:
		members[0].finish(nil, err)
	default:
		half := len(members) / 2
		b.divide(ctx, members[:half:half])
		b.divide(ctx, members[half:])
	}
}

// compute computes members together.
func (b *Batcher) compute(ctx context.Context, members []*member) (outs [][]engine.Tensor, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine panicked: %v\n%s", p, debug.Stack())
		}
	}()
	started := time.Now()
	ins, rows := make([][]engine.Tensor, len(members)), make([]int64, len(members))
	for i, m := range members {
		ins[i], rows[i] = m.in, rowsOf(m.in)
	}
	out, err := b.o.Compute(ctx, stack(ins))
	if err != nil {
		return nil, err
	}
	if outs = [][]engine.Tensor{out}; rows[0] > 0 {
		if outs, err = unstack(out, rows); err != nil {
			return nil, err
		}
	}
	r := batching.Measured{Requests: len(members), Took: time.Since(started)}
	for _, m := range members {
		r.Rows += int(m.Rows)
	}
	b.mu.Lock()
	b.policy.Note(r)
	b.mu.Unlock()
	return outs, nil
}

func (m *member) finish(out []engine.Tensor, err error) {
	m.out, m.err = out, err
	close(m.done)
}

func (b *Batcher) contextError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return b.failure(engine.KindDeadline, "the deadline has passed")
	}
	return &engine.Error{Endpoint: b.o.URL, Text: "the request was cancelled", Err: context.Cause(ctx)}
}

func (b *Batcher) failure(kind engine.Kind, text string) *engine.Error {
	return &engine.Error{Kind: kind, Endpoint: b.o.URL, Text: fmt.Sprintf("endpoint '%s': %s", b.o.URL, text)}
}

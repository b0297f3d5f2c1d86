package remotewrite

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"clearmlserving/retry"
	"clearmlserving/timeseries/gather"
)

const (
	// atOnce is the number of samples of one request.
	atOnce = 5000
	// maxQueued bounds the memory of waiting requests: half an hour of a large instance.
	maxQueued = 32 << 20
	// metasEvery is the time between two descriptions of all metrics.
	metasEvery = time.Minute
	// lastWords is for what waits when the queue ends.
	lastWords = 2 * time.Second

	// warnAt is the attempt whose failure is logged: a receiver may be busy, or starting, for a moment.
	warnAt = 3

	firstPause, longestPause = time.Second, 30 * time.Second
)

// Send posts the body of a request. wait is the pause that the receiver wants, 0 for none. An error
// means that there was no answer.
type Send func(ctx context.Context, body []byte) (status int, text string, wait time.Duration, err error)

// Counts say what became of samples.
type Counts struct {
	Sent    uint64 // accepted by the receiver
	Refused uint64 // refused by the receiver, so that they were not sent again
	Dropped uint64 // the oldest that waited, when too many did
	Waiting uint64 // for the receiver
}

// Queue sends batches in their order. Requests that the receiver cannot take now wait; the oldest are
// dropped when too many wait. It is safe for use by many goroutines.
type Queue struct {
	send Send
	log  *slog.Logger
	wake chan struct{}
	now  func() time.Time

	mu      sync.Mutex // guards the fields below
	waiting []request
	bytes   int
	counts  Counts
	metas   time.Time // of the last descriptions
	limit   int
}

type request struct {
	body    []byte
	samples int
}

// NewQueue makes a Queue. Run sends.
func NewQueue(send Send, log *slog.Logger) *Queue {
	return &Queue{send: send, log: log, wake: make(chan struct{}, 1), now: time.Now, limit: maxQueued}
}

// Write implements gather.Sink. It does not wait for the receiver.
func (q *Queue) Write(_ context.Context, b gather.Batch) error {
	metas := b.Metas
	q.mu.Lock()
	if now := q.now(); now.Sub(q.metas) < metasEvery {
		metas = nil
	} else {
		q.metas = now
	}
	q.mu.Unlock()
	for first := true; first || len(b.Samples) > 0; first = false {
		n := min(len(b.Samples), atOnce)
		body, err := Encode(gather.Batch{Samples: b.Samples[:n], Metas: metas})
		if err != nil {
			return err
		}
		b.Samples, metas = b.Samples[n:], nil
		q.put(request{body, n})
	}
	return nil
}

func (q *Queue) put(r request) {
	q.mu.Lock()
	q.waiting = append(q.waiting, r)
	q.bytes += len(r.body)
	q.counts.Waiting += uint64(r.samples) //nolint:gosec // not negative
	dropped := 0
	for q.bytes > q.limit && len(q.waiting) > 1 {
		dropped += q.removeFirst()
	}
	q.counts.Dropped += uint64(dropped) //nolint:gosec // not negative
	q.mu.Unlock()
	if dropped > 0 {
		q.log.Warn("samples dropped", "samples", dropped, "reason", "the receiver has not taken samples for too long")
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// removeFirst removes the oldest request. mu is held.
func (q *Queue) removeFirst() (samples int) {
	r := q.waiting[0]
	q.waiting[0] = request{}
	q.waiting = q.waiting[1:]
	q.bytes -= len(r.body)
	q.counts.Waiting -= uint64(r.samples) //nolint:gosec // not negative
	return r.samples
}

// Counts returns what became of samples so far.
func (q *Queue) Counts() Counts {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts
}

// Run sends until ctx ends, and then for a moment what waits.
func (q *Queue) Run(ctx context.Context) {
	failures := 0
	for {
		r, ok := q.oldest()
		if !ok {
			select {
			case <-ctx.Done():
				q.finish(ctx)
				return
			case <-q.wake:
			}
			continue
		}
		pause := q.try(ctx, r, failures+1)
		if pause == 0 {
			failures = 0
			continue
		}
		failures++
		if retry.Sleep(ctx, pause) != nil {
			q.finish(ctx)
			return
		}
	}
}

// finish sends what waits, once, as far as the receiver takes it.
func (q *Queue) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	for {
		r, ok := q.oldest()
		if !ok || q.try(ctx, r, 1) > 0 {
			return
		}
	}
}

func (q *Queue) oldest() (request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return request{}, false
	}
	return q.waiting[0], true
}

// try sends a request once. pause is how long to wait before it is sent again, 0 if it is done.
func (q *Queue) try(ctx context.Context, r request, attempt int) (pause time.Duration) {
	status, text, wait, err := q.send(ctx, r.body)
	switch {
	case err == nil && status < 300:
		q.done(r, func(c *Counts, n uint64) { c.Sent += n })
		return 0
	case err != nil || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		if attempt == warnAt && ctx.Err() == nil {
			q.log.Warn("samples not sent", "effect", "they are sent later", "status", status, "answer", text, "err", err)
		}
		return max(retry.Jittered(retry.Doubled(attempt, firstPause, longestPause)), min(wait, longestPause), time.Millisecond)
	}
	q.done(r, func(c *Counts, n uint64) { c.Refused += n })
	q.log.Warn("samples refused", "samples", r.samples, "status", status, "answer", text)
	return 0
}

// done removes a request that was sent, if it has not been dropped meanwhile.
func (q *Queue) done(r request, count func(*Counts, uint64)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 && &q.waiting[0].body[0] == &r.body[0] {
		q.removeFirst()
	} else {
		q.counts.Dropped -= uint64(r.samples) //nolint:gosec // it was counted when it was dropped
	}
	count(&q.counts, uint64(r.samples)) //nolint:gosec // not negative
}

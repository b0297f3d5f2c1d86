package inference

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

const (
	shadowQueue   = 64       // waiting copies of one pair
	shadowPending = 16 << 20 // their bytes
	shadowRunners = 2        // concurrent copies of one pair
)

// shadows send copies of requests to other urls and count equal and different
// answers. They do not affect the client of the original request: the
// copy is made after the answer, and dropped if the queue is full.
type shadows struct {
	answer func(ctx context.Context, to serving.EndpointURL, c copied) (*engine.Response, error)
	// arms returns the counts of a canary whose candidate gets copies, nil for others.
	arms    func(canary, candidate serving.EndpointURL) *router.Arms
	changed chan struct{} // has one signal: pairs were added or removed
	log     *slog.Logger

	mu    sync.Mutex // guards pairs
	pairs map[pairKey]*pair
}

type pairKey struct{ from, to serving.EndpointURL }

// pair is one url whose requests are copied to another.
type pair struct {
	pairKey
	options   atomic.Pointer[serving.Shadow]
	queue     chan copied
	pending   atomic.Int64 // bytes in the queue
	shadowed  atomic.Uint64
	dropped   atomic.Uint64
	errors    atomic.Uint64
	equal     atomic.Uint64
	different atomic.Uint64
}

// copied is a request with the answer that its client got.
type copied struct {
	exchange serving.Exchange
	tensors  *engine.Request // those of the request instead of a body, nil: it had a body
	id       string
	client   func() engine.Client
	depth    int
	streamed bool // the client's answer was not kept, so it cannot be compared
}

func newShadows(log *slog.Logger) *shadows {
	return &shadows{changed: make(chan struct{}, 1), log: log, pairs: map[pairKey]*pair{}}
}

// of returns the existing pair for key, or a new one, with these options.
func (s *shadows) of(key pairKey, options *serving.Shadow) *pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, known := s.pairs[key]
	if !known {
		p = &pair{pairKey: key, queue: make(chan copied, shadowQueue)}
	}
	p.options.Store(options)
	return p
}

// keep sets the pairs in use.
func (s *shadows) keep(used map[pairKey]*pair) {
	s.mu.Lock()
	same := maps.Equal(s.pairs, used)
	s.pairs = used
	s.mu.Unlock()
	if same {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *shadows) inUse() map[pairKey]*pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pairs // replaced as a whole, never changed
}

func (s *shadows) status() []serving.ShadowReport {
	var list []serving.ShadowReport
	for _, p := range s.inUse() {
		list = append(list, serving.ShadowReport{
			From: p.from, To: p.to, Share: p.options.Load().Share, Shadowed: p.shadowed.Load(), Dropped: p.dropped.Load(),
			Errors: p.errors.Load(), Equal: p.equal.Load(), Different: p.different.Load(),
		})
	}
	slices.SortFunc(list, func(a, b serving.ShadowReport) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return list
}

// run answers copies until ctx ends. Each pair has separate goroutines, so
// that a slow target does not delay other pairs.
func (s *shadows) run(ctx context.Context) error {
	var runners sync.WaitGroup
	defer runners.Wait()
	stops := map[*pair]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		used := s.inUse()
		for p, stop := range stops {
			if used[p.pairKey] != p {
				stop()
				delete(stops, p)
			}
		}
		for _, p := range used {
			if stops[p] != nil {
				continue
			}
			pairCtx, stop := context.WithCancel(ctx)
			stops[p] = stop
			for range shadowRunners {
				runners.Go(func() { s.runPair(pairCtx, p) })
			}
		}
	}
}

func (s *shadows) runPair(ctx context.Context, p *pair) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-p.queue:
			p.pending.Add(-c.size())
			s.compare(ctx, p, c)
		}
	}
}

// compare sends one copy and counts the outcome.
func (s *shadows) compare(ctx context.Context, p *pair, c copied) {
	got, err := s.ask(ctx, p.to, c)
	if ctx.Err() != nil {
		return // the pair was removed, or the instance stops: not an outcome
	}
	p.shadowed.Add(1)
	if arms := s.arms(p.from, p.to); arms != nil {
		status := statuses[kindOfError(err)] // as that of a client's answer: both may be refused
		if err == nil {
			status = got.Status
		}
		arms.Pair(status, c.exchange.Status)
	}
	if err != nil || got.Status >= 500 {
		p.errors.Add(1)
		return
	}
	if c.streamed {
		return
	}
	want := serving.Answer{Status: c.exchange.Status, Body: c.exchange.Answer}
	if len(serving.Compare(want, serving.Answer{Status: got.Status, Body: got.Body}, p.options.Load().Tolerance)) == 0 {
		p.equal.Add(1)
	} else {
		p.different.Add(1)
	}
}

// ask sends one copy. A panic costs the copy, not the process.
func (s *shadows) ask(ctx context.Context, to serving.EndpointURL, c copied) (got *engine.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("shadow request panicked", "endpoint", to, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.answer(ctx, to, c)
}

// admits reports whether a copy fits the queue, and counts it if not.
func (p *pair) admits(size int64) bool {
	if len(p.queue) == cap(p.queue) || p.pending.Load()+size > shadowPending {
		p.dropped.Add(1)
		return false
	}
	return true
}

// put queues a copy for the pair's runners, or drops it.
func (p *pair) put(c copied) {
	size := c.size()
	p.pending.Add(size)
	select {
	case p.queue <- c:
	default:
		p.pending.Add(-size)
		p.dropped.Add(1)
	}
}

func (c copied) size() int64 {
	size := int64(len(c.exchange.Body) + len(c.exchange.Answer))
	if c.tensors != nil {
		size += int64(sizeOf(c.tensors.Tensors))
	}
	return size
}

// shadowAnswer answers a copy like a client's request, but it is not copied
// again.
func (s *Service) shadowAnswer(ctx context.Context, to serving.EndpointURL, c copied) (*engine.Response, error) {
	live, err := s.router.Acquire(to)
	if err != nil {
		return nil, err
	}
	defer live.Release()
	live.Stats.Copied()
	req := engine.Request{Body: c.exchange.Body, ContentType: c.exchange.ContentType, Route: c.exchange.Route}
	if c.tensors != nil {
		req = *c.tensors
	}
	req.ID, req.Client, req.Depth = c.id, c.client, c.depth
	answer, err := s.infer(ctx, live, &req, live.Timeout)
	if err == nil && answer.Stream != nil {
		err = collect(ctx, answer, s.o.MaxAnswer)
	}
	if err == nil && c.tensors != nil && answer.Status < http.StatusBadRequest {
		toTensors(answer)
		answer.Body, err = plainAnswer(answer.Tensors)
	}
	return answer, err
}

package inference

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/inference/v2"
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
	id       string
	client   func() engine.Client
	depth    int
	streamed bool // the client's answer was not kept, so it cannot be compared

	// Of a request with tensors, which has no body.
	asked, answered []engine.Tensor
	tensorsAs       string
	outputs         []string
}

// of is c with what it needs to know of its request.
func (c copied) of(req *engine.Request) copied {
	c.id, c.depth = strings.Clone(req.ID), req.Depth
	if req.Client != nil {
		client := req.Client().Clone()
		c.client = func() engine.Client { return client }
	}
	return c
}

func sizeOf(tensors []engine.Tensor) (size int64) {
	for i := range tensors {
		size += int64(len(tensors[i].Name) + 8*len(tensors[i].Shape) + len(tensors[i].Data))
	}
	return size
}

// cloneOf copies tensors, whose memory the front reuses.
func cloneOf(tensors []engine.Tensor) []engine.Tensor {
	if tensors == nil {
		return nil
	}
	clone := make([]engine.Tensor, len(tensors))
	for i, t := range tensors {
		clone[i] = engine.Tensor{
			Name: strings.Clone(t.Name), Datatype: engine.Datatype(strings.Clone(string(t.Datatype))), ContentType: strings.Clone(t.ContentType),
			Shape: slices.Clone(t.Shape), Data: bytes.Clone(t.Data),
		}
	}
	return clone
}

// answerOf is an answer in the form that is compared: of tensors, their JSON. ok is false for numbers without
// a form in JSON.
func answerOf(status int, body []byte, tensors []engine.Tensor) (a serving.Answer, ok bool) {
	if tensors == nil {
		return serving.Answer{Status: status, Body: body}, true
	}
	outputs := v2.Response{Outputs: tensors}
	text, _, err := outputs.Append(nil, &v2.Request{})
	return serving.Answer{Status: status, Body: text}, err == nil
}

// same reports whether a copy has the client's answer.
func (c copied) same(got *engine.Response, tolerance float64) bool {
	wanted, ok := answerOf(c.exchange.Status, c.exchange.Answer, c.answered)
	answer, comparable := answerOf(got.Status, got.Body, got.Tensors)
	if !ok || !comparable {
		return c.exchange.Status == got.Status && reflect.DeepEqual(c.answered, got.Tensors)
	}
	return len(serving.Compare(wanted, answer, tolerance)) == 0
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
	if c.same(got, p.options.Load().Tolerance) {
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
	return int64(len(c.exchange.Body)+len(c.exchange.Answer)) + sizeOf(c.asked) + sizeOf(c.answered)
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
	answer, err := s.infer(ctx, live, &engine.Request{
		ID: c.id, Body: c.exchange.Body, ContentType: c.exchange.ContentType, Client: c.client, Depth: c.depth,
		Tensors: c.asked, TensorsAs: c.tensorsAs, Outputs: c.outputs,
	}, live.Timeout)
	if err == nil && answer.Stream != nil {
		err = collect(ctx, answer, s.o.MaxAnswer)
	}
	return answer, err
}

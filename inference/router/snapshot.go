// Package router picks the model for a request. It owns the snapshot: an
// immutable table from url to model or canary, exchanged as a whole by one
// pointer store. It never does I/O, takes no lock and does not allocate on the
// way of a request.
package router

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// ErrUnknown says that the url belongs to no endpoint and no canary.
var ErrUnknown = errors.New("model inference endpoint not found")

// Obstacle says why a configured url cannot answer.
type Obstacle struct {
	// Loading: it is on its way; otherwise it failed and somebody must act.
	Loading bool
	// Code is the name of the preprocess artifact whose code failed, "" when
	// the cause lies elsewhere.
	Code   string
	Reason string
	Stats  *Stats // nil: its requests are not counted
}

// NotReadyError says that the url is configured but nothing can answer.
type NotReadyError struct {
	URL serving.EndpointURL
	Obstacle
}

func (e *NotReadyError) Error() string {
	return "endpoint '" + string(e.URL) + "' is not ready: " + e.Reason
}

// Live is a loaded model in the table, with the references of the requests
// that use it. It is made by NewLive and closed once by Drain.
type Live struct {
	URL     serving.EndpointURL
	ModelID serving.ModelID
	Model   engine.Model
	Stats   *Stats // of the url; it may be replaced before the model is in the table
	// Timeout bounds one request, 0 for none.
	Timeout time.Duration
	// Header names the answering endpoint to the client; it is made once.
	Header []engine.Header

	logShare atomic.Uint64 // bits of a float64: it may change while the model serves
	refs     atomic.Int64
	closing  atomic.Bool
	idle     chan struct{} // closed by the release that finds it closing and unused
}

// NewLive wraps a loaded model.
func NewLive(url serving.EndpointURL, id serving.ModelID, m engine.Model) *Live {
	l := &Live{URL: url, ModelID: id, Model: m, Stats: &Stats{}, idle: make(chan struct{}, 1)}
	l.Header = []engine.Header{{Name: "X-Clearml-Endpoint", Value: string(url)}}
	if id != "" {
		l.Header = append(l.Header, engine.Header{Name: "X-Clearml-Model-Id", Value: string(id)})
	}
	return l
}

// SetLogShare sets the share of requests whose variables are recorded, 0 to 1.
func (l *Live) SetLogShare(share float64) { l.logShare.Store(math.Float64bits(share)) }

// LogShare is the share of requests whose variables are recorded.
func (l *Live) LogShare() float64 { return math.Float64frombits(l.logShare.Load()) }

// hold takes a reference; it fails when the model is being closed, in which
// case the caller looks at the newer snapshot. The order (count, then look at
// closing; Drain does the reverse) makes sure that one of the two sees the other.
func (l *Live) hold() bool {
	l.refs.Add(1)
	if l.closing.Load() {
		l.Release()
		return false
	}
	return true
}

// Release gives back a reference taken by Snapshot's owner Acquire.
func (l *Live) Release() {
	if l.refs.Add(-1) == 0 && l.closing.Load() {
		select {
		case l.idle <- struct{}{}:
		default:
		}
	}
}

// InUse is the number of requests that hold the model now.
func (l *Live) InUse() int64 { return l.refs.Load() }

// Drain refuses new references and waits until the last one is given back or
// ctx ends. The model is not closed by it. It is called once.
func (l *Live) Drain(ctx context.Context) error {
	l.closing.Store(true)
	for l.refs.Load() > 0 {
		select {
		case <-l.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Snapshot is the routing table of one moment. It is never changed after it
// has been given to a Router.
type Snapshot struct {
	Models   map[serving.EndpointURL]*Live
	Canaries map[serving.EndpointURL]*Canary
	// Waiting holds the urls that are configured but cannot answer, and why.
	Waiting map[serving.EndpointURL]Obstacle
	// Unclear says why a url that is not in the table may still be configured, ""
	// when the table is complete.
	Unclear string
}

// Router holds the current snapshot.
type Router struct{ current atomic.Pointer[Snapshot] }

// Swap makes next the current snapshot: from here new requests see it.
func (r *Router) Swap(next *Snapshot) { r.current.Store(next) }

// Snapshot returns the current table, never nil.
func (r *Router) Snapshot() *Snapshot {
	if s := r.current.Load(); s != nil {
		return s
	}
	return &Snapshot{}
}

// Acquire finds the model that answers url, drawing one when url is a canary,
// and holds it: the caller calls Release when the answer has been written.
func (r *Router) Acquire(url serving.EndpointURL) (*Live, error) {
	for {
		s := r.current.Load()
		if s == nil {
			return nil, notRead(url)
		}
		live, err := s.find(url)
		if err != nil {
			return nil, err
		}
		if live.hold() {
			return live, nil
		}
	}
}

// Check tells why no model would answer url now, without holding one. Else it returns
// the url as the table holds it, which outlives the caller's text.
func (r *Router) Check(url serving.EndpointURL) (*serving.EndpointURL, error) {
	s := r.current.Load()
	if s == nil {
		return nil, notRead(url)
	}
	if c, ok := s.Canaries[url]; ok {
		if c.problem != nil {
			return nil, c.problem
		}
		return &c.URL, nil
	}
	live, err := s.find(url)
	if err != nil {
		return nil, err
	}
	return &live.URL, nil
}

// notRead is the answer while it is not known whether the url exists.
func notRead(url serving.EndpointURL) error {
	return &NotReadyError{URL: url, Obstacle: Obstacle{Loading: true, Reason: "the configuration has not been read yet"}}
}

// find looks the url up. A canary hides an endpoint of the same url, and a
// canary's target is never a canary: there are no circles.
func (s *Snapshot) find(url serving.EndpointURL) (*Live, error) {
	if c, ok := s.Canaries[url]; ok {
		return c.Draw()
	}
	if live, ok := s.Models[url]; ok {
		return live, nil
	}
	if obstacle, ok := s.Waiting[url]; ok {
		return nil, &NotReadyError{URL: url, Obstacle: obstacle}
	}
	if s.Unclear != "" {
		return nil, &NotReadyError{URL: url, Obstacle: Obstacle{Reason: s.Unclear}}
	}
	return nil, ErrUnknown
}

// Stats returns what counts the requests to a url that come to no model, nil if the url is
// not in the table.
func (r *Router) Stats(url serving.EndpointURL) *Stats {
	s := r.Snapshot()
	if c, ok := s.Canaries[url]; ok {
		return c.Stats
	}
	if live, ok := s.Models[url]; ok {
		return live.Stats
	}
	return s.Waiting[url].Stats
}

// Near lists the configured urls of the same name as one that is not configured: those with a
// version below it, else its own other versions. name is what they have in common.
func (r *Router) Near(url serving.EndpointURL) (name serving.EndpointURL, urls []serving.EndpointURL) {
	s := r.Snapshot()
	if urls = s.below(url); len(urls) > 0 {
		return url, urls
	}
	i := strings.LastIndexByte(string(url), '/')
	if i < 0 {
		return "", nil
	}
	name = url[:i]
	urls = s.below(name)
	if s.knows(name) {
		urls = append([]serving.EndpointURL{name}, urls...)
	}
	return name, urls
}

// below lists the urls with one part more than name, shorter ones first: 2 before 10.
func (s *Snapshot) below(name serving.EndpointURL) []serving.EndpointURL {
	var urls []serving.EndpointURL
	add := func(url serving.EndpointURL) {
		version, ok := strings.CutPrefix(string(url), string(name)+"/")
		if ok && !strings.Contains(version, "/") {
			urls = append(urls, url)
		}
	}
	for url := range s.Models {
		add(url)
	}
	for url := range s.Canaries {
		add(url)
	}
	for url := range s.Waiting {
		add(url)
	}
	slices.SortFunc(urls, func(a, b serving.EndpointURL) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	return slices.Compact(urls)
}

// Knows tells whether the url is configured, ready or not.
func (r *Router) Knows(url serving.EndpointURL) bool { return r.Snapshot().knows(url) }

func (s *Snapshot) knows(url serving.EndpointURL) bool {
	if _, ok := s.Canaries[url]; ok {
		return true
	}
	if _, ok := s.Models[url]; ok {
		return true
	}
	_, ok := s.Waiting[url]
	return ok
}

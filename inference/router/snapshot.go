// Package router selects the model for a request. It owns the snapshot: an
// immutable table from url to model or canary, replaced as a whole by one
// pointer store. It never does I/O, and a request takes no lock and does not
// allocate.
package router

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// ErrUnknown means that the url is neither an endpoint nor a canary.
var ErrUnknown = errors.New("model inference endpoint not found")

// Obstacle is the reason why a configured url cannot answer.
type Obstacle struct {
	// Loading: a load is in progress; otherwise it has failed and must be corrected.
	Loading bool
	// Unloaded: nothing is wrong, and nothing is loaded until somebody asks for it.
	Unloaded bool
	// Code is the name of the preprocess artifact whose code failed, "" for
	// another cause.
	Code   string
	Reason string
	Stats  *Stats // nil: requests are not counted
}

// NotReadyError means that the url is configured but no model can answer.
type NotReadyError struct {
	URL serving.EndpointURL
	Obstacle
}

func (e *NotReadyError) Error() string {
	return "endpoint '" + string(e.URL) + "' is not ready: " + e.Reason
}

// Live is a loaded model in the table, with a count of the requests
// that use it. Drain is called once.
type Live struct {
	URL     serving.EndpointURL
	ModelID serving.ModelID
	Model   engine.Model
	Stats   *Stats // of the url; may be replaced before the model is in the table
	// Timeout bounds one request, 0 for none.
	Timeout time.Duration
	// Header names the answering endpoint for the client; it is created once.
	Header []engine.Header

	logShare atomic.Uint64 // bits of a float64: it may change while the model serves
	refs     atomic.Int64
	closing  atomic.Bool
	idle     chan struct{} // closed by the last release after Drain

	described atomic.Pointer[engine.Signature] // nil: what the model tells
	reported  atomic.Pointer[reported]
	lessonsMu sync.Mutex       // guards the rest
	told      engine.Signature // without the lessons
	lessons   *engine.Lessons
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

// Signature describes the model's inputs and outputs; known is false if nothing tells of them.
func (l *Live) Signature() (s engine.Signature, known bool) {
	if composed, ok := l.Model.(engine.Composed); ok {
		s = composed.Signature()
		l.lessonsMu.Lock()
		defer l.lessonsMu.Unlock()
		if l.lessons != nil {
			s = l.lessons.Apply(s)
		}
		return s, s.Source != engine.SourceNone
	}
	signed, ok := l.Model.(engine.Signed)
	if s := l.described.Load(); s != nil {
		return *s, ok || s.Source != engine.SourceNone
	}
	if ok {
		return signed.Signature(), true
	}
	return engine.Signature{Source: engine.SourceNone}, false
}

// reported is the report of a signature.
type reported struct {
	of     *engine.Signature
	report *serving.SignatureReport
}

// SignatureReport returns what make makes of the signature: once for each signature, because it has many parts. It is
// shared and not changed.
func (l *Live) SignatureReport(make func(engine.Signature) *serving.SignatureReport) *serving.SignatureReport {
	of := l.described.Load()
	if made := l.reported.Load(); made != nil && of != nil && made.of == of {
		return made.report
	}
	signature, _ := l.Signature()
	if of != nil {
		signature = *of
	}
	report := make(signature)
	l.reported.Store(&reported{of, report})
	return report
}

// Describe sets the signature and what was learned from requests before; nil leaves the lessons as they are.
func (l *Live) Describe(s engine.Signature, lessons *engine.Lessons) {
	l.lessonsMu.Lock()
	defer l.lessonsMu.Unlock()
	if l.told = s; lessons != nil {
		l.lessons = lessons
	}
	l.describe()
}

// Learn completes the signature by an exchange that was recorded.
func (l *Live) Learn(e serving.Exchange) {
	l.lessonsMu.Lock()
	defer l.lessonsMu.Unlock()
	if l.lessons == nil {
		l.lessons = &engine.Lessons{}
	}
	if l.described.Load() == nil {
		l.told = engine.Signature{Source: engine.SourceNone}
		if signed, ok := l.Model.(engine.Signed); ok {
			l.told = signed.Signature()
		}
	}
	if l.lessons.Add(e, engine.ExampleRecorded) {
		l.describe()
	}
}

func (l *Live) describe() {
	s := l.told
	if l.lessons != nil {
		s = l.lessons.Apply(s)
	}
	l.described.Store(&s)
}

// SetLogShare sets the share of requests whose variables are recorded, 0 to 1.
func (l *Live) SetLogShare(share float64) { l.logShare.Store(math.Float64bits(share)) }

// LogShare is the share of requests whose variables are recorded.
func (l *Live) LogShare() float64 { return math.Float64frombits(l.logShare.Load()) }

// Hold takes a reference. It fails if the model is being closed; the caller then
// uses the newer snapshot. Hold counts first and then reads closing; Drain does the
// reverse, so at least one of them sees the other.
func (l *Live) Hold() bool {
	l.refs.Add(1)
	if l.closing.Load() {
		l.Release()
		return false
	}
	return true
}

// Release drops a reference obtained from Router.Acquire or Hold.
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

// Drain refuses new references and waits until the last one is released or
// ctx ends. It does not close the model. It is called once.
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

// Snapshot is an immutable routing table. It must not be changed after
// Router.Swap.
type Snapshot struct {
	Models   map[serving.EndpointURL]*Live
	Canaries map[serving.EndpointURL]*Canary
	// Waiting has the urls that are configured but cannot answer, with the reasons.
	Waiting map[serving.EndpointURL]Obstacle
	// Unclear is the reason why a url that is not in the table may still be configured, ""
	// if the table is complete.
	Unclear string
}

// Router holds the current snapshot.
type Router struct{ current atomic.Pointer[Snapshot] }

// Swap makes next the current snapshot for new requests.
func (r *Router) Swap(next *Snapshot) { r.current.Store(next) }

// Snapshot returns the current table, never nil.
func (r *Router) Snapshot() *Snapshot {
	if s := r.current.Load(); s != nil {
		return s
	}
	return &Snapshot{}
}

// Acquire finds the model for url, by a draw if url is a canary, and takes a
// reference: the caller calls Release after the answer has been written.
func (r *Router) Acquire(url serving.EndpointURL) (*Live, error) {
	live, _, err := r.Choose(url)
	return live, err
}

// Main is Acquire without a draw: of a canary, it takes the target that gets most requests.
func (r *Router) Main(url serving.EndpointURL) (*Live, error) {
	for {
		s := r.current.Load()
		if s == nil {
			return nil, notRead(url)
		}
		var live *Live
		var err error
		if c, ok := s.Canaries[url]; ok {
			live, err = c.Main()
		} else {
			live, err = s.find(url)
		}
		if err != nil {
			return nil, err
		}
		if live.Hold() {
			return live, nil
		}
	}
}

// Drawn says how a canary has drawn a model. It is zero for a model that was not drawn.
type Drawn struct {
	Canary serving.EndpointURL
	Arms   *Arms // count the request, nil: it counts in no rollout
}

// Choose is Acquire that also says how the model was drawn.
func (r *Router) Choose(url serving.EndpointURL) (live *Live, drawn Drawn, err error) {
	for {
		s := r.current.Load()
		if s == nil {
			return nil, Drawn{}, notRead(url)
		}
		if c, ok := s.Canaries[url]; ok {
			drawn.Canary = c.URL
			live, drawn.Arms, err = c.Draw()
		} else {
			drawn = Drawn{} // the snapshot before may have had a canary
			live, err = s.find(url)
		}
		if err != nil {
			return nil, Drawn{}, err
		}
		if live.Hold() {
			return live, drawn, nil
		}
	}
}

// Check returns an error if no model can answer url now, without taking a reference. Else it
// returns the url in the table, which remains valid longer than the caller's text.
func (r *Router) Check(url serving.EndpointURL) (*serving.EndpointURL, error) {
	s := r.current.Load()
	if s == nil {
		return nil, notRead(url)
	}
	return s.Check(url)
}

// Check is that of a Router with this table.
func (s *Snapshot) Check(url serving.EndpointURL) (*serving.EndpointURL, error) {
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

// notRead is the error before the configuration has been read.
func notRead(url serving.EndpointURL) error {
	return &NotReadyError{URL: url, Obstacle: Obstacle{Loading: true, Reason: "the configuration has not been read yet"}}
}

// find looks up a url that is not a canary's: a canary hides an endpoint of the same url.
func (s *Snapshot) find(url serving.EndpointURL) (*Live, error) {
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

// Stats returns the counters for requests to a url that reach no model, nil if the url is
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

// Near lists configured urls that are similar to one that is not configured: those with a
// version appended to it, else its other versions. name is their common part.
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

// below lists the urls with one more part than name, shorter ones first: 2 before 10.
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

// Knows reports whether the url is configured, ready or not.
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

// Package graph is the engine of endpoints that are made of others, without code: sequences, ensembles,
// switches and splitters. It asks the other endpoints through the core, in this process, so that their canaries,
// versions, limits and statistics hold for these calls as for those of clients.
package graph

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// Engine loads graphs. Its models are asked while it runs.
type Engine struct {
	running chan struct{} // closed when asker is set
	asker   engine.Asker
	log     *slog.Logger

	mu     sync.Mutex // guards models
	models map[serving.EndpointURL]map[*Model]bool
}

// New creates an Engine.
func New(log *slog.Logger) *Engine {
	return &Engine{log: log, running: make(chan struct{}), models: map[serving.EndpointURL]map[*Model]bool{}}
}

// Run implements engine.Runner.
func (e *Engine) Run(ctx context.Context, c engine.Caller) error {
	asker, ok := c.(engine.Asker)
	if !ok {
		return fmt.Errorf("engine graph: the caller %T cannot be asked", c)
	}
	e.asker = asker
	close(e.running)
	<-ctx.Done()
	return nil
}

// ready waits until the engine runs.
func (e *Engine) ready(ctx context.Context) (engine.Asker, error) {
	select {
	case <-e.running:
		return e.asker, nil
	default:
	}
	select {
	case <-e.running:
		return e.asker, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Load implements engine.Loader. It refuses a graph that closes a circle of those that are loaded. That is not
// final: another of them may change.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	g, err := serving.GraphOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	settings, err := engine.SignatureOf(spec.Endpoint.Tensors)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	asker, err := e.ready(ctx)
	if err := cmp.Or(err, context.Cause(ctx)); err != nil {
		return nil, err
	}
	m := &Model{e: e, url: spec.URL, asker: asker, g: g, root: g.Nodes[serving.GraphRoot], calls: g.Endpoints(), settings: settings}
	e.mu.Lock()
	defer e.mu.Unlock()
	if path := e.circle(m); path != nil {
		return nil, &engine.LoadError{Text: fmt.Sprintf("the graph would call itself: %s", strings.Join(path, " -> "))}
	}
	if e.models[m.url] == nil {
		e.models[m.url] = map[*Model]bool{}
	}
	e.models[m.url][m] = true
	return m, nil
}

// circle is a path of calls from a new model back to its url, nil if there is none. e.mu is held.
func (e *Engine) circle(m *Model) []string {
	seen := map[serving.EndpointURL]bool{}
	var walk func(calls []serving.EndpointURL, path []string) []string
	walk = func(calls []serving.EndpointURL, path []string) []string {
		for _, called := range calls {
			for _, url := range m.asker.Targets(called) {
				through := append(slices.Clip(path), string(called))
				if url != called {
					through = append(through, string(url))
				}
				if url == m.url {
					return through
				}
				if seen[url] {
					continue
				}
				seen[url] = true
				for other := range e.models[url] {
					if found := walk(other.calls, through); found != nil {
						return found
					}
				}
			}
		}
		return nil
	}
	return walk(m.calls, []string{string(m.url)})
}

// Model is one graph.
type Model struct {
	e        *Engine
	url      serving.EndpointURL
	asker    engine.Asker
	g        *serving.Graph
	root     *serving.GraphNode
	calls    []serving.EndpointURL
	settings engine.Signature
	answered atomic.Uint64
}

// Status implements engine.Model.
func (m *Model) Status() serving.ModelReport {
	r := serving.ModelReport{State: serving.StateReady, Answered: m.answered.Load()}
	for _, url := range m.calls {
		if err := m.asker.Obstacle(url); err != nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("a step calls '%s', which cannot answer: %v", url, err))
		}
	}
	return r
}

// Close implements engine.Model.
func (m *Model) Close(context.Context) error {
	m.e.mu.Lock()
	defer m.e.mu.Unlock()
	delete(m.e.models[m.url], m)
	if len(m.e.models[m.url]) == 0 {
		delete(m.e.models, m.url)
	}
	return nil
}

// Infer implements engine.Model.
func (m *Model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	r := run{m: m, req: req}
	out, err := r.node(ctx, m.root, payload{tensors: req.Tensors, as: req.TensorsAs, body: req.Body, contentType: req.ContentType}, true)
	if err != nil {
		return m.failed(err)
	}
	m.answered.Add(1)
	if out.last != nil {
		answer := *out.last
		answer.Stats = nil // those of the step's endpoint
		return &answer, nil
	}
	return &engine.Response{Status: 200, ContentType: out.contentType, Body: out.body, Tensors: out.tensors, TensorsAs: out.as}, nil
}

// failed is the answer or the error of a graph that has failed.
func (m *Model) failed(err error) (*engine.Response, error) {
	f, ok := err.(*fault) //nolint:errorlint // it is never wrapped
	if !ok {
		return nil, err
	}
	if f.answer == nil {
		return nil, &engine.Error{Kind: f.kind, Endpoint: m.url, Text: f.text, RetryAfter: f.retryAfter, Err: f.cause}
	}
	m.answered.Add(1)
	answer := *f.answer
	answer.Body, answer.ContentType, answer.Tensors, answer.Stats = serving.Detail(f.text), jsonType, nil, nil
	return &answer, nil
}

const jsonType = "application/json"

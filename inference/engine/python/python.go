// Package python is the engine of everything that user code in Python computes:
// sklearn, xgboost, lightgbm, custom and custom_async. It translates between the
// data plane's requests and package worker's, which owns the processes. It
// never looks into a body.
package python

import (
	"context"
	"errors"
	"sync/atomic"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// Options of an Engine.
type Options struct {
	// Worker configures the processes; its Caller is set by the Engine.
	Worker worker.Options
	// Unusable says why there is no interpreter to run anything with. Every load
	// then fails with it, and the rest of the instance goes on.
	Unusable error
	// Workers is the number of processes of each endpoint. Default 1.
	Workers int
	// Env is the environment that user code finds, "NAME=value".
	Env []string
}

// Engine loads models that run in Python workers.
type Engine struct {
	o      Options
	pool   *worker.Pool // nil when there is no usable interpreter
	caller atomic.Pointer[engine.Caller]
}

// New prepares an Engine; Run starts it.
func New(o Options) *Engine {
	e := &Engine{o: o}
	if o.Unusable == nil {
		o.Worker.Caller = e
		e.pool = worker.New(o.Worker)
	}
	return e
}

// Run owns the worker processes until ctx ends. Calls of user code go to caller.
func (e *Engine) Run(ctx context.Context, caller engine.Caller) error {
	e.caller.Store(&caller)
	if e.pool == nil {
		<-ctx.Done()
		return nil
	}
	return e.pool.Run(ctx)
}

// Load starts the workers of an endpoint; it fulfils engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if e.pool == nil {
		return nil, &engine.LoadError{Text: e.o.Unusable.Error(), Err: e.o.Unusable}
	}
	fields, err := spec.Endpoint.Record()
	if err != nil {
		return nil, err
	}
	group, err := e.pool.Start(ctx, worker.Spec{
		Endpoint: string(spec.URL), Engine: spec.Endpoint.EngineType,
		CodePath: spec.CodePath, CodeName: spec.CodeName, ModelPath: spec.ModelPath,
		Fields: fields, Variables: spec.Variables, Workers: e.o.Workers, Env: e.o.Env,
	})
	if err != nil {
		return nil, loadError(err)
	}
	return &model{url: spec.URL, group: group}, nil
}

func loadError(err error) error {
	if failed, ok := errors.AsType[*worker.LoadError](err); ok {
		return &engine.LoadError{Text: failed.Error(), Traceback: failed.Traceback, Err: err}
	}
	return err
}

// Call takes a send_request of user code to the router; it fulfils worker.Caller.
func (e *Engine) Call(ctx context.Context, c worker.CallRequest) (worker.CallResponse, error) {
	resp, err := (*e.caller.Load()).Call(ctx, engine.Call{
		From: serving.EndpointURL(c.From), Endpoint: c.URL, Version: c.Version, ID: c.RequestID,
		Body: c.Body, ContentType: c.ContentType, Depth: c.Depth,
	})
	if err != nil {
		return worker.CallResponse{}, err
	}
	return worker.CallResponse{Status: resp.Status, ContentType: resp.ContentType, Body: resp.Body}, nil
}

// model is one endpoint's group of workers.
type model struct {
	url   serving.EndpointURL
	group *worker.Group
}

// Infer fulfils engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	answer, err := m.group.Do(ctx, &worker.Request{ID: req.ID, Body: req.Body, ContentType: req.ContentType, Depth: req.Depth, Sampled: req.Sampled})
	if err != nil {
		return nil, m.failure(err)
	}
	resp := &engine.Response{Status: answer.Status, ContentType: answer.ContentType, Body: answer.Body, Stats: answer.Stats}
	for _, h := range answer.Headers {
		resp.Header = append(resp.Header, engine.Header{Name: h.Name, Value: h.Value})
	}
	if answer.Stream != nil {
		resp.Stream = answer.Stream
	}
	return resp, nil
}

// failure gives a worker's error the kind that the data plane decides by.
func (m *model) failure(err error) error {
	e := &engine.Error{Kind: engine.KindInternal, Endpoint: m.url, Text: "Error processing request", Err: err}
	var died *worker.DiedError
	var unavailable *worker.UnavailableError
	switch {
	case errors.Is(err, worker.ErrOverloaded):
		e.Kind = engine.KindOverloaded
	case errors.Is(err, worker.ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		e.Kind = engine.KindDeadline
	case errors.Is(err, worker.ErrTooLarge):
		e.Kind = engine.KindTooLarge
	case errors.As(err, &died):
		e.Kind = engine.KindDied
	case errors.As(err, &unavailable):
		e.Kind, e.RetryAfter = engine.KindUnavailable, unavailable.RetryAfter
	}
	return e
}

// Status fulfils engine.Model.
func (m *model) Status() engine.Status {
	s := m.group.Status()
	status := engine.Status{State: string(s.State), Reason: s.Reason, Queued: s.Queued, Restarts: s.Restarts, LastDeath: s.LastDeath, Shared: s.Shared, SharedReason: s.SharedReason}
	for _, w := range s.Workers {
		status.Workers = append(status.Workers, engine.WorkerInfo{PID: w.PID, State: w.State, Since: w.Since, Requests: w.Requests, InFlight: w.InFlight})
	}
	return status
}

// Close fulfils engine.Model.
func (m *model) Close(ctx context.Context) error { return m.group.Close(ctx) }

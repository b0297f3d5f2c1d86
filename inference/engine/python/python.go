// Package python is the engine of everything that user code in Python computes:
// sklearn, xgboost, lightgbm, custom and custom_async. It translates between the
// data plane's requests and package worker's, which owns the processes. It
// never looks into a body.
package python

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/venv"
)

// Options of an Engine.
type Options struct {
	// Worker configures the processes; its Caller and Environment are set by the Engine.
	Worker worker.Options
	// Find looks for the interpreter when Run begins, so that nothing else has to
	// wait for it. With its error every load fails, and the rest of the instance
	// goes on.
	Find func(ctx context.Context) (*worker.Environment, error)
	// Workers is the number of processes of each endpoint. Default 1.
	Workers int
	// Env is the environment that user code finds, "NAME=value".
	Env []string
	// Environments makes Python environments beside the interpreter's own, for
	// endpoints that ask for one and for Extra; nil: none can be made.
	Environments *venv.Maker
	// Extra are packages that every endpoint without an environment of its own
	// finds besides the interpreter's, in the words of "pip install".
	Extra []string
}

// Engine loads models that run in Python workers.
type Engine struct {
	o            Options
	environments *environments
	pools        *pools
	instance     instanceFile
	begun        chan struct{} // closed when Run has looked for the interpreter
	unusable     error         // why there is none; valid once begun
	caller       atomic.Pointer[engine.Caller]
}

// New prepares an Engine; Run starts it.
func New(o Options) *Engine {
	e := &Engine{o: o, begun: make(chan struct{}), instance: newInstanceFile(o.Worker.RuntimeDir)}
	log := o.Worker.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e.environments = &environments{
		maker: o.Environments, extra: o.Extra, env: o.Env, known: map[string]*worker.Environment{},
	}
	ahead := o.Worker.Ahead
	if ahead == nil {
		ahead = worker.NewAhead(0) // one for all pools
	}
	e.pools = &pools{log: log, byPath: map[string]*pool{}, make: func(at place) *worker.Pool {
		own := o.Worker
		own.Caller, own.Environment, own.Restore = e, at.Environment, at.remake
		own.Ahead = ahead
		if at.Environment != e.environments.base {
			own.ZygoteEnv = at.env
		}
		return worker.New(own)
	}}
	return e
}

// Run owns the worker processes until ctx ends. Calls of user code go to caller.
// It is called once.
func (e *Engine) Run(ctx context.Context, caller engine.Caller) error {
	e.caller.Store(&caller)
	defer e.instance.remove()
	e.environments.base, e.unusable = e.o.Find(ctx)
	close(e.begun)
	if e.unusable != nil {
		<-ctx.Done()
		return nil
	}
	if e.o.Environments != nil {
		defer e.o.Environments.Close()
		if _, err := e.o.Environments.Prune(); err != nil {
			e.pools.log.Warn("old python environments stay", "err", err)
		}
	}
	if budget := e.o.Worker.Budget; budget != nil {
		watched, stop := context.WithCancel(context.WithoutCancel(ctx)) // as long as there are workers
		var watch sync.WaitGroup
		watch.Go(func() { budget.Run(watched) })
		defer watch.Wait()
		defer stop()
	}
	defer e.pools.close()
	e.warm(ctx)
	<-ctx.Done()
	return nil
}

// warm has the shared environment's workers ready before the first endpoint asks,
// and keeps them ready while none does.
func (e *Engine) warm(ctx context.Context) {
	at, err := e.environments.shared(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.pools.log.Error("python environment cannot be made; endpoints try again", "err", err)
		}
		return
	}
	_, _, _ = e.pools.take(at) // close takes it back; after close there is nothing to be ready for
}

// ready waits until the interpreter is known, and says why there is none.
func (e *Engine) ready(ctx context.Context) error {
	select {
	case <-e.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if e.unusable != nil {
		return &engine.LoadError{Text: e.unusable.Error(), Err: e.unusable}
	}
	return nil
}

// Prepare makes the endpoint's Python environment; it fulfils engine.Preparer.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	if err := e.ready(ctx); err != nil {
		return ctx.Err() // Load says what is wrong with the interpreter
	}
	_, err := e.environments.of(ctx, spec)
	return err
}

// Load starts the workers of an endpoint; it fulfils engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	batching, err := serving.BatchingOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	fields, err := spec.Endpoint.Record()
	if err != nil {
		return nil, err
	}
	at, err := e.environments.of(ctx, spec)
	if err != nil {
		return nil, err
	}
	pool, release, err := e.pools.take(at)
	if err != nil {
		return nil, err
	}
	least, most := spec.Limits.Workers(e.o.Workers)
	group, err := pool.Start(ctx, worker.Spec{
		Endpoint: string(spec.URL), Engine: spec.Endpoint.EngineType,
		CodePath: spec.CodePath, CodeName: spec.CodeName, ModelPath: spec.ModelPath, Restore: at.restore(spec),
		Fields: fields, Variables: spec.Variables, Workers: most, Elastic: most - least, Limits: limitsOf(spec.Limits), Env: at.env,
		Batch: worker.Batch{Rows: batching.MaxRows, Delay: batching.Delay, Preferred: batching.Preferred},
		Extra: map[string]any{"instance_file": e.instance.path},
	})
	if err != nil {
		release()
		return nil, loadError(err)
	}
	return &model{url: spec.URL, group: group, release: release}, nil
}

// limitsOf gives limits in the worker's words.
func limitsOf(l *serving.Limits) worker.Limits {
	if l == nil {
		return worker.Limits{}
	}
	return worker.Limits{
		MaxQueue: l.MaxQueue, IdleAfter: time.Duration(l.IdleTimeout * float64(time.Second)), Memory: l.Memory,
		RecycleRequests: l.RecycleRequests, RecycleMemory: l.RecycleMemory,
	}
}

func loadError(err error) error {
	if failed, ok := errors.AsType[*worker.LoadError](err); ok {
		text := failed.Text
		if !failed.Death.IsZero() {
			text = failed.Error() // with its last lines
		}
		// The runtime begins so what it says of code, as the original does.
		byUser := failed.Traceback != "" || strings.HasPrefix(failed.Text, "Failed loading preprocess code")
		return &engine.LoadError{Text: text, Traceback: failed.Traceback, UserCode: byUser, Err: err}
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
	url     serving.EndpointURL
	group   *worker.Group
	release func() // of the pool
}

// Infer fulfils engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	question := worker.Request{ID: req.ID, Body: req.Body, ContentType: req.ContentType, Depth: req.Depth, Sampled: req.Sampled}
	question.Loan, _ = req.Loan.(*worker.Loan) // another Lender's is not
	answer, err := m.group.Do(ctx, &question)
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

// Lend fulfils engine.Lender.
func (m *model) Lend(size int) engine.Loan {
	if l := m.group.Lend(size); l != nil {
		return l
	}
	return nil // not a nil *worker.Loan
}

// SetVariables fulfils engine.VariableSetter.
func (m *model) SetVariables(names []string) error { return m.group.SetVariables(names) }

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
	status := engine.Status{
		State: string(s.State), Reason: s.Reason, Queued: s.Queued, Asleep: s.Asleep,
		Restarts: s.Restarts, LastDeath: s.LastDeath, LastLines: s.LastLines,
		MinWorkers: s.Least, MaxWorkers: s.Most, MaxQueue: s.MaxQueue, Shared: s.Shared, SharedReason: s.SharedReason,
		Warnings: s.Warnings,
	}
	if s.State == worker.StateLoading { // for some milliseconds; requests are held meanwhile
		status.State = string(worker.StateDegraded)
	}
	for _, w := range s.Workers {
		status.Workers = append(status.Workers, engine.WorkerInfo{PID: w.PID, State: w.State, Since: w.Since, Requests: w.Requests, InFlight: w.InFlight})
	}
	status.Batching = batchingOf(m.group)
	return status
}

func batchingOf(g *worker.Group) *engine.Batching {
	b, on := g.Batching()
	if !on {
		return nil
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	return &engine.Batching{
		MaxRows: b.Rows, DelayUS: b.Delay.Microseconds(), Preferred: b.Preferred,
		Batches: b.Batches, LastRows: b.LastRows, LastRequests: b.LastRequests, MeanRows: b.MeanRows,
		PerRowUS: us(b.PerRow), PerBatchUS: us(b.PerBatch), Limit: b.Limit, LimitedBy: b.Why,
	}
}

// Close fulfils engine.Model.
func (m *model) Close(ctx context.Context) error {
	defer m.release()
	return m.group.Close(ctx)
}

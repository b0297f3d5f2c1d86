// Package python is the engine of endpoints with user code in Python:
// sklearn, xgboost, lightgbm, custom and custom_async. It translates between the
// data plane's requests and those of package worker, which owns the processes. It
// never parses a body.
package python

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/tracing"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

// Options of an Engine.
type Options struct {
	// Host runs the workers. The Engine's Run runs it; other engines may use it too.
	Host *host.Host
	// Traced: requests may be traced.
	Traced bool
	// Workers is the number of processes of each endpoint. Default 1.
	Workers int
	// RecycleRequests is the number of requests after which a worker is replaced, for endpoints without a limit of their own.
	// Default: never.
	RecycleRequests int
	// Logger is told what is odd but no failure; nil discards it.
	Logger *slog.Logger
}

// Engine loads models that run in Python workers.
type Engine struct{ o Options }

// New prepares an Engine; Run starts it.
func New(o Options) *Engine { return &Engine{o} }

// Host runs the Engine's workers.
func (e *Engine) Host() *host.Host { return e.o.Host }

// Run runs the Host until ctx ends. Calls of user code go to caller. It is called once.
func (e *Engine) Run(ctx context.Context, caller engine.Caller) error {
	return e.o.Host.Run(ctx, calls{caller})
}

// SetInstanceTask sets the id of the instance's task for user code.
func (e *Engine) SetInstanceTask(taskID string) { e.o.Host.SetInstanceTask(taskID) }

// Prepare creates the endpoint's Python environment; it implements engine.Preparer.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	own, err := serving.OwnEnvironment(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	return loadError(e.o.Host.Prepare(ctx, own, spec.CodePath))
}

// Load starts the workers of an endpoint; it implements engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	batching, err := serving.BatchingOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	method, err := serving.Method(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	extra := map[string]any{}
	if method != "" {
		extra[serving.AuxMethod] = method
	}
	group, err := e.Start(ctx, spec, worker.Spec{Engine: spec.Endpoint.EngineType, Extra: extra, Batch: batching})
	if err != nil {
		return nil, err
	}
	// Python can load the model even if the settings are not a valid signature, or its own is none.
	settings, _ := engine.SignatureOf(spec.Endpoint.Tensors)
	signature, err := engine.ParseSignature(group.Signature())
	if err != nil && e.o.Logger != nil {
		e.o.Logger.Warn("signature not usable", "endpoint", spec.URL, "err", err)
	}
	return &model{url: spec.URL, group: group, signature: signature.With(settings)}, nil
}

// Start starts the workers of an endpoint with the Engine, Extra and Batch of own: for Load, and for user code
// around a computation that is not in Python. Its errors are those of Load.
func (e *Engine) Start(ctx context.Context, spec engine.Spec, own worker.Spec) (*host.Group, error) {
	fields, err := spec.Endpoint.Record()
	if err != nil {
		return nil, err
	}
	environment, err := serving.OwnEnvironment(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	nanAsNull, err := serving.NaNAsNull(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	if e.o.Traced {
		own.Extra["traced"] = true
	}
	if nanAsNull {
		own.Extra[serving.AuxNaNAsNull] = true
	}
	least, most := spec.Limits.Workers(e.o.Workers)
	if spec.Limits != nil {
		own.Limits = *spec.Limits
	}
	own.Limits.RecycleRequests = cmp.Or(own.Limits.RecycleRequests, e.o.RecycleRequests)
	own.Endpoint, own.Fields, own.Variables = string(spec.URL), fields, spec.Variables
	own.CodePath, own.CodeName, own.ModelPath, own.Restore = spec.CodePath, spec.CodeName, spec.ModelPath, spec.Restore
	own.Workers, own.Elastic = most, most-least
	group, err := e.o.Host.Start(ctx, environment, own)
	if err != nil {
		return nil, loadError(err)
	}
	return group, nil
}

// loadError converts an error of the endpoint to an *engine.LoadError.
func loadError(err error) error {
	if failed, ok := errors.AsType[*host.EnvironmentError](err); ok {
		return &engine.LoadError{Text: failed.Error(), Final: failed.Final(), Err: failed.Err}
	}
	if failed, ok := errors.AsType[*worker.LoadError](err); ok {
		text := failed.Text
		if !failed.Death.IsZero() {
			text = failed.Error() // with its last lines
		}
		byUser := failed.Traceback != "" || failed.Cause != ""
		return &engine.LoadError{Text: text, Cause: failed.Cause, Traceback: failed.Traceback, UserCode: byUser, Final: final(failed), Err: err}
	}
	return err
}

// final reports whether the endpoint itself is the cause. A lack of memory is caused by the machine;
// SIGKILL, and an end by the service, may be.
func final(failed *worker.LoadError) bool {
	if failed.Death.IsZero() {
		return !strings.HasPrefix(failed.Cause, "MemoryError") && !strings.Contains(failed.Text, "MemoryError")
	}
	return !failed.Death.OOM && !failed.Death.Asked && failed.Death.Signal != syscall.SIGKILL
}

// calls forwards each send_request of user code to the data plane.
type calls struct{ to engine.Caller }

// Call implements worker.Caller.
func (s calls) Call(ctx context.Context, c worker.CallRequest) (worker.CallResponse, error) {
	resp, err := s.to.Call(ctx, engine.Call{
		From: serving.EndpointURL(c.From), Endpoint: c.URL, Version: c.Version, ID: c.RequestID,
		Body: c.Body, ContentType: c.ContentType, Depth: c.Depth, Traceparent: c.Traceparent,
	})
	if err != nil {
		return worker.CallResponse{}, err
	}
	return worker.CallResponse{Status: resp.Status, ContentType: resp.ContentType, Body: resp.Body}, nil
}

// model is one endpoint's group of workers.
type model struct {
	url       serving.EndpointURL
	group     *host.Group
	signature engine.Signature
}

// Infer implements engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	question, at := Question(req, m.group)
	var begun time.Time
	if req.Span != nil {
		begun = time.Now()
	}
	var answer *worker.Response
	var err error
	if req.Tensors == nil {
		answer, err = m.group.Do(ctx, &question)
	} else {
		var in *worker.Value
		if in, err = ValueOf(m.url, req); err != nil {
			return nil, err
		}
		answer, err = m.group.DoTensors(ctx, &question, in)
	}
	if err != nil {
		return nil, Failure(m.url, err)
	}
	if req.Span != nil {
		sent, now := begun.Add(answer.Queued), time.Now()
		req.Span.Later().Between("queue", begun, sent)
		at.Between("worker", sent, now)
	}
	return ResponseOf(m.url, answer)
}

// Question converts a request, without its tensors. at is the span of the worker, if the request is traced.
func Question(req *engine.Request, to *host.Group) (question worker.Request, at tracing.Later) {
	question = worker.Request{ID: req.ID, Body: req.Body, ContentType: req.ContentType, Depth: req.Depth, Sampled: req.Sampled}
	if req.Client != nil && to.ShowsClient() {
		question.Client = clientOf(req.Client(), req.Parameters)
	}
	question.Loan, _ = req.Loan.(*worker.Loan) // nil for a loan of another Lender
	if req.Span != nil {
		at = req.Span.Later()
		question.Traceparent, question.Spans = at.Traceparent(), req.Span.Add
	}
	return question, at
}

// ResponseOf converts an answer of user code.
func ResponseOf(url serving.EndpointURL, answer *worker.Response) (*engine.Response, error) {
	resp := &engine.Response{Status: answer.Status, ContentType: answer.ContentType, Body: answer.Body, Stats: answer.Stats, Unread: answer.ErrorKind == "request", Queued: answer.Queued}
	for _, h := range answer.Headers {
		resp.Header = append(resp.Header, engine.Header{Name: h.Name, Value: h.Value})
	}
	switch {
	case answer.Answers != nil:
		resp.Stream, resp.PieceTensors, resp.ContentType = answer.Answers, pieceTensors, ""
	case answer.Stream != nil:
		resp.Stream = answer.Stream
	}
	if answer.Tensors != nil {
		var err error
		if resp.Tensors, err = Tensors(answer.Tensors, "output-"); err != nil {
			return nil, &engine.Error{Kind: engine.KindInternal, Endpoint: url, Text: "the answer cannot be sent", Err: err}
		}
		resp.TensorsAs = answer.Tensors.As
	}
	return resp, nil
}

// clientOf is a client, and the parameters of its request, in the worker's form.
func clientOf(c engine.Client, parameters []byte) []byte {
	var b []byte
	for _, text := range []string{c.Method, c.Path, c.Query, c.Address} {
		b = worker.AppendClientText(b, text)
	}
	for _, h := range c.Header {
		b = worker.AppendClientText(worker.AppendClientText(b, h.Name), h.Value)
	}
	if parameters != nil {
		b = worker.AppendClientText(b, string(parameters))
	}
	return b
}

// Signature implements engine.Signed.
func (m *model) Signature() engine.Signature { return m.signature }

// Lend implements engine.Lender.
func (m *model) Lend(size int) engine.Loan {
	if l := m.group.Lend(size); l != nil {
		return l
	}
	return nil // an untyped nil, not a nil *worker.Loan
}

// SetVariables implements engine.VariableSetter.
func (m *model) SetVariables(names []string) error { return m.group.SetVariables(names) }

// Failure converts a worker's error to an engine.Error with its kind.
func Failure(url serving.EndpointURL, err error) error {
	e := &engine.Error{Kind: engine.KindInternal, Endpoint: url, Text: "Error processing request", Err: err}
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

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	s := m.group.Status()
	if s.State == serving.StateLoading { // for a few milliseconds, in which requests wait
		s.State = serving.StateDegraded
	}
	return s
}

// Close implements engine.Model.
func (m *model) Close(ctx context.Context) error { return m.group.Close(ctx) }

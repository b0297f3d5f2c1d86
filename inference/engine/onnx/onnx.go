// Package onnx is the engine of ONNX models: it computes them with ONNX Runtime in this process. A
// model is loaded and run in a child process first, so that one that crashes, hangs or needs too much
// memory does that there.
package onnx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/batch"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/engine/prepost"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/onnxruntime"
	"clearmlserving/serving"
)

// Options of an Engine.
type Options struct {
	// Find finds ONNX Runtime's shared library. Its error says what to do.
	Find func(ctx context.Context) (path string, err error)
	// Python runs the code of endpoints that have some. Required for these.
	Python *python.Engine
	// Trial is the command that tries a model in a child process: a program that passes its other
	// arguments to Trial. Required.
	Trial []string
	// TrialEnv is the environment of that process.
	TrialEnv []string
	// Memory bounds what the runs of all models use together, and what a model may need to load, in
	// bytes. 0: no bound.
	Memory int64
	// MaxQueue bounds the waiting requests of an endpoint without a limit of its own. Default 4096.
	MaxQueue int
	Logger   *slog.Logger
}

// Engine loads ONNX models.
type Engine struct {
	o     Options
	cores int
	// slots are the cores, which runs of all models share: more threads than cores would only make
	// all of them slower.
	slots *semaphore.Weighted
	// trials bounds the child processes at a time: each holds a model.
	trials *semaphore.Weighted
}

// New creates an Engine.
func New(o Options) *Engine {
	o.MaxQueue, o.Logger = cmp.Or(o.MaxQueue, 4096), cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	cores := runtime.GOMAXPROCS(0)
	return &Engine{o: o, cores: cores, slots: semaphore.NewWeighted(int64(cores)), trials: semaphore.NewWeighted(int64(cores))}
}

// Library is the path of ONNX Runtime. The error says what to do.
func (e *Engine) Library(ctx context.Context) (string, error) { return e.o.Find(ctx) }

// Load implements engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	settings, err := serving.ONNXOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	batching, err2 := serving.BatchingOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	nanAsNull, err3 := serving.NaNAsNull(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err := cmp.Or(err, err2, err3); err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	settings.Threads = min(settings.Threads, e.cores)
	file, err := modelFile(spec.ModelPath)
	if err != nil {
		return nil, err
	}
	library, err := e.o.Find(ctx)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	limit := e.o.Memory
	if spec.Limits != nil && spec.Limits.Memory > 0 {
		limit = spec.Limits.Memory
	}
	if err := e.trials.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	tried, err := e.try(ctx, trial{Library: library, Model: file, Threads: settings.Threads, Providers: settings.Providers, Memory: limit})
	e.trials.Release(1)
	if err != nil {
		return nil, err
	}
	m, err := e.load(ctx, library, file, settings, tried)
	if err != nil {
		return nil, err
	}
	m.url, m.nanAsNull = spec.URL, nanAsNull
	_ = m.SetVariables(spec.Variables) // it never fails
	if m.embedder, err = embedderOf(filepath.Dir(file), m.signature); err != nil && !errors.Is(err, errNoEmbedder) {
		m.warning = cmp.Or(m.warning, "the model answers no requests for embeddings: "+err.Error())
	}
	if spec.Limits != nil && spec.Limits.MaxQueue > 0 {
		m.maxQueue = int64(spec.Limits.MaxQueue)
	}
	if batching.On() {
		if err := m.batchable(); err != nil {
			m.session.Close()
			return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
		}
		m.batcher = batch.New(batch.Options{URL: spec.URL, Batching: batching, Compute: m.compute, AtOnce: max(e.cores/settings.Threads, 1), MaxQueue: int(m.maxQueue)})
	}
	if spec.CodePath == "" {
		return m, nil
	}
	around, err := prepost.Load(ctx, e.o.Python, spec, prepost.Middle{
		Compute: m.between, Signature: m.signature, Process: true, Report: m.report, Close: m.close,
		FromJSON: func(body []byte) ([]engine.Tensor, error) { return jsontensor.Tensors(body, m.signature.Inputs) },
	})
	if err != nil {
		m.close()
		return nil, err
	}
	return around, nil
}

// Prepare implements engine.Preparer: it creates the environment of the endpoint's code.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	if spec.CodePath == "" {
		return nil
	}
	return e.o.Python.Prepare(ctx, spec)
}

// load loads a tried model in this process.
func (e *Engine) load(ctx context.Context, library, file string, settings serving.ONNX, tried *outcome) (*model, error) {
	runtime, err := onnxruntime.Open(library, onnxruntime.Options{RunMemory: e.o.Memory})
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Err: err}
	}
	session, err := runtime.NewSession(file, onnxruntime.SessionOptions{Threads: settings.Threads, Providers: settings.Providers})
	if err != nil {
		return nil, &engine.LoadError{Text: loadText(file, err), Err: err} // the trial has loaded it: this process is the cause
	}
	m := &model{e: e, session: session, threads: int64(settings.Threads), maxQueue: int64(e.o.MaxQueue)}
	if err := m.describe(); err != nil {
		session.Close()
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	if tried.Probe >= 0 {
		m.warm(ctx, tried.Probe)
	} else {
		m.warning = "the model fails with every input of ones and zeros that was tried at its load, so that it was not run before its first request: " + tried.RunError
	}
	if err := context.Cause(ctx); err != nil {
		session.Close()
		return nil, err
	}
	return m, nil
}

// modelFile finds the model in a file or folder.
func modelFile(path string) (string, error) {
	fault := func(format string, args ...any) error {
		return &engine.LoadError{Text: fmt.Sprintf(format, args...), Final: true}
	}
	if path == "" {
		return "", fault("engine onnx needs a model: give one with --model-id, or --name and --project")
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", &engine.LoadError{Text: err.Error(), Err: err}
	}
	if !info.IsDir() {
		return path, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", &engine.LoadError{Text: err.Error(), Err: err}
	}
	var found []string
	for _, entry := range entries {
		if ext := strings.ToLower(filepath.Ext(entry.Name())); ext == ".onnx" || ext == ".ort" {
			found = append(found, entry.Name())
		}
	}
	switch {
	case len(found) == 0:
		return "", fault("the model's folder has no file with the ending .onnx or .ort")
	case len(found) > 1 && !slices.Contains(found, "model.onnx"):
		return "", fault("the model's folder has several models (%s): name the one to serve model.onnx", strings.Join(found, ", "))
	case len(found) > 1:
		return filepath.Join(path, "model.onnx"), nil
	}
	return filepath.Join(path, found[0]), nil
}

// loadText explains why a model cannot be loaded.
func loadText(file string, err error) string {
	if missing, ok := errors.AsType[*onnxruntime.ProviderError](err); ok {
		return missing.Error() + ". Remove it from --aux-config providers, or install a package of ONNX Runtime with it and name its library: --onnxruntime-library"
	}
	return fmt.Sprintf("%s cannot be loaded by ONNX Runtime: %s", filepath.Base(file), err)
}

// model is a session of one endpoint.
type model struct {
	jsontensor.Logged

	e         *Engine
	url       serving.EndpointURL
	session   *onnxruntime.Session
	threads   int64
	nanAsNull bool
	maxQueue  int64
	batcher   *batch.Batcher // nil: requests are computed one by one
	signature engine.Signature
	embedder  *embedder // nil: the model does not embed texts
	warning   string
	keys      []keysOf // of the maps of an output, as the first run has returned them

	waiting, answered atomic.Int64
}

type keysOf = atomic.Pointer[[]string]

// Signature implements engine.Signed.
func (m *model) Signature() engine.Signature { return m.signature }

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	r := serving.ModelReport{State: serving.StateReady, Answered: uint64(m.answered.Load()), MaxQueue: int(m.maxQueue)} //nolint:gosec // positive
	m.report(&r)
	return r
}

// report completes the report of the endpoint.
func (m *model) report(r *serving.ModelReport) {
	r.Queued += int(max(m.waiting.Load(), 0))
	if m.batcher != nil {
		r.Batching, r.Queued = m.batcher.Report(), r.Queued+m.batcher.Queued()
	}
	if m.warning != "" {
		r.Warnings = append(slices.Clip(r.Warnings), m.warning)
	}
}

// Close implements engine.Model.
func (m *model) Close(context.Context) error {
	m.close()
	return nil
}

func (m *model) close() {
	if m.batcher != nil {
		m.batcher.Close()
	}
	m.session.Close()
}

// between computes what preprocess has returned.
func (m *model) between(ctx context.Context, tensors []engine.Tensor) ([]engine.Tensor, error) {
	in, err := m.order(tensors)
	if err != nil {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: err.Error()}
	}
	out, err := m.ask(ctx, &engine.Request{}, in)
	if err != nil {
		return nil, m.failure(err)
	}
	m.answered.Add(1)
	return out, nil
}

// Infer implements engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if req.Tensors != nil {
		in, err := m.order(req.Tensors)
		if err != nil {
			return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: err.Error()}
		}
		resp := &engine.Response{Status: 200}
		if resp.Tensors, err = m.ask(ctx, req, in); err != nil {
			return nil, m.failure(err)
		}
		m.answered.Add(1)
		resp.Stats = m.Stats(req, in, resp.Tensors)
		return resp, nil
	}
	if m.embedder != nil && req.Route == openaiapi.Embeddings {
		return m.embed(ctx, req)
	}
	in, err := jsontensor.Tensors(req.Body, m.signature.Inputs)
	if err != nil {
		m.answered.Add(1)
		return jsontensor.Refused(err), nil
	}
	out, err := m.ask(ctx, req, in)
	if err != nil {
		err := m.failure(err)
		if failed, ok := errors.AsType[*engine.Error](err); ok && failed.Kind == engine.KindBadRequest {
			m.answered.Add(1)
			return jsontensor.Refused(err), nil
		}
		return nil, err
	}
	m.answered.Add(1)
	resp := m.answer(out)
	resp.Stats = m.Stats(req, in, out)
	return resp, nil
}

// ask computes the outputs of ordered inputs, alone or with others.
func (m *model) ask(ctx context.Context, req *engine.Request, in []engine.Tensor) ([]engine.Tensor, error) {
	begun := time.Now()
	if m.batcher != nil {
		out, err := m.batcher.Do(ctx, in)
		if req.Span != nil {
			req.Span.Later().Between("batch", begun, time.Now())
		}
		return out, err
	}
	if m.waiting.Add(1) > m.maxQueue {
		m.waiting.Add(-1)
		return nil, &engine.Error{Kind: engine.KindOverloaded, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': %d requests wait already", m.url, m.maxQueue)}
	}
	err := m.e.slots.Acquire(ctx, m.threads)
	m.waiting.Add(-1)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	out, err := m.run(ctx, in)
	m.e.slots.Release(m.threads)
	if req.Span != nil {
		later := req.Span.Later()
		later.Between("queue", begun, started)
		later.Between("onnxruntime", started, time.Now())
	}
	return out, err
}

// compute computes a batch.
func (m *model) compute(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	if err := m.e.slots.Acquire(ctx, m.threads); err != nil {
		return nil, err
	}
	defer m.e.slots.Release(m.threads)
	return m.run(ctx, in)
}

// run computes the outputs in this goroutine.
func (m *model) run(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	values := make([]onnxruntime.Value, len(in))
	for i := range in {
		values[i] = onnxruntime.Value{Kind: onnxruntime.KindTensor, Type: elementTypes[in[i].Datatype], Shape: in[i].Shape, Data: in[i].Data}
	}
	outs, err := m.session.Run(ctx, values)
	if err != nil {
		return nil, err
	}
	tensors := make([]engine.Tensor, 0, len(outs))
	for i := range outs {
		if tensors, err = m.output(tensors, i, &outs[i]); err != nil {
			return nil, err
		}
	}
	for i := range tensors { // texts, as from ONNX Runtime in Python
		if tensors[i].Datatype == engine.Bytes && valid(tensors[i]) == nil {
			tensors[i].ContentType = "str"
		}
	}
	return tensors, nil
}

// failure is the error of a run, as the data plane knows it.
func (m *model) failure(err error) error {
	if _, ok := errors.AsType[*engine.Error](err); ok {
		return err
	}
	at := func(kind engine.Kind, text string) error {
		return &engine.Error{Kind: kind, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': %s", m.url, text), Err: nil}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return at(engine.KindDeadline, "the deadline has passed")
	}
	if errors.Is(err, context.Canceled) {
		return &engine.Error{Endpoint: m.url, Text: "the request was cancelled", Err: err}
	}
	if _, ok := errors.AsType[*onnxruntime.InputError](err); ok {
		return at(engine.KindBadRequest, err.Error())
	}
	if _, ok := errors.AsType[*onnxruntime.MemoryError](err); ok && !onnxruntime.OutOfMemory(err) {
		return at(engine.KindOverloaded, err.Error())
	}
	if onnxruntime.OutOfMemory(err) {
		return at(engine.KindTooLarge, "the model needs more memory for this request than runs may use: "+err.Error())
	}
	if failed, ok := errors.AsType[*onnxruntime.Error](err); ok && failed.Code == onnxruntime.InvalidArgument {
		return at(engine.KindBadRequest, failed.Text)
	}
	return &engine.Error{Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': the model failed", m.url), Err: err}
}

// mostExample bounds the example of a signature.
const mostExample = 4 << 10

// warm runs the model once, and takes the input as the signature's example.
func (m *model) warm(ctx context.Context, number int) {
	in, ok := probe(m.signature.Inputs, number)
	if !ok {
		return
	}
	if _, err := m.compute(ctx, in); err != nil {
		m.warning = "the model fails with an input that it has accepted before: " + err.Error()
		return
	}
	if m.signature.Example = example(in, m.signature.Table); m.signature.Example != nil {
		m.signature.ExampleOf = engine.ExampleMade
	}
}

// example is the JSON body of inputs, nil if it is long.
func example(in []engine.Tensor, table bool) []byte {
	size := 0
	for _, t := range in {
		size += len(t.Data)
	}
	if size > mostExample {
		return nil
	}
	object := len(in) > 1 || table
	var body []byte
	var err error
	for i := range in {
		t := in[i]
		if table { // a record
			t.Shape = nil
		}
		if object {
			body = append(jsontensor.AppendText(append(body, "{,"[min(i, 1)]), t.Name), ':')
		}
		if body, err = jsontensor.AppendTensor(body, &t, false); err != nil {
			return nil
		}
	}
	if object {
		body = append(body, '}')
	}
	if len(body) > mostExample {
		return nil
	}
	return body
}

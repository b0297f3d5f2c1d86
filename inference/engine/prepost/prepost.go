// Package prepost puts user code around a computation in this process: preprocess runs in a Python
// worker, then the computation, while the worker executes other requests, then postprocess in the
// same worker, with the request's state. An engine uses it for endpoints with code; without code it
// answers requests itself:
//
//	func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
//		m, err := e.session(spec)
//		if err != nil || spec.CodePath == "" {
//			return m, err
//		}
//		around, err := prepost.Load(ctx, e.o.Python, spec, prepost.Middle{
//			Compute:   m.compute, // func(context.Context, []engine.Tensor) ([]engine.Tensor, error)
//			Signature: m.signature,
//			FromJSON:  func(body []byte) ([]engine.Tensor, error) { return jsontensor.Tensors(body, m.signature.Inputs) },
//			Close:     m.close,
//		})
//		if err != nil {
//			m.close() // a Middle is closed by the Model only
//			return nil, err
//		}
//		return around, nil
//	}
//
// The engine's Prepare calls that of e.o.Python, which makes the code's environment.
package prepost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/batch"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/engine/python"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

// Middle is the computation between preprocess and postprocess.
type Middle struct {
	// Compute may be called from many goroutines. It gets the tensors that preprocess returned: a
	// dict of arrays with its names, other arrays with the names of the Signature's inputs if there
	// are as many, else "input-0" and so on. Arrays of numbers have the datatypes of the inputs. All
	// else is left to Compute to check. An *engine.Error of KindBadRequest is answered with 422, as a
	// ValueError of a model in Python.
	//
	// postprocess gets an array, or a list of them in their order if there are several. Those with
	// the content type "str" have text as elements, other BYTES have bytes.
	Compute func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error)
	// ComputeBody, if not nil, is called instead of Compute with a body: bytes that preprocess returned, the JSON
	// of anything else. postprocess gets the value of an answer that is JSON, and the bytes of any other. An answer
	// with an error status is the client's.
	ComputeBody func(ctx context.Context, body []byte, contentType string) (*engine.Response, error)
	// Signature has the inputs and outputs of Compute.
	Signature engine.Signature
	// FromJSON makes tensors of a JSON body, for preprocess that returns lists or records, or is not
	// there. An error says what is wrong with the body. nil: only arrays are accepted.
	FromJSON func(body []byte) ([]engine.Tensor, error)
	// Batching has requests computed together, AtOnce at the same time. Zero: one by one, for a
	// Compute that batches by itself or needs no batches.
	Batching serving.Batching
	AtOnce   int
	// Process: a method process of the code replaces the computation, as with the engine triton of the
	// original. Else it is ignored, as with its other engines.
	Process bool
	// Report completes the workers' report with that of a Compute that batches, or has warnings. nil: nothing to
	// add.
	Report func(*serving.ModelReport)
	// Close releases the computation, when no request is left. nil: nothing to release.
	Close func()
}

// Model is an endpoint of user code around a Middle.
type Model struct {
	m         Middle
	url       serving.EndpointURL
	group     *host.Group
	signature engine.Signature
	processes bool           // a method of the code replaces the computation
	batcher   *batch.Batcher // nil: one by one
	compute   func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error)
}

// Load starts the workers of the endpoint's code. The Model owns the Middle, unless Load fails.
func Load(ctx context.Context, workers *python.Engine, spec engine.Spec, m Middle) (*Model, error) {
	inputs, outputs := [][2]string{}, []string{}
	for _, t := range m.Signature.Inputs {
		inputs = append(inputs, [2]string{t.Name, python.DType(t.Datatype)})
	}
	for _, t := range m.Signature.Outputs {
		outputs = append(outputs, t.Name)
	}
	group, err := workers.Start(ctx, spec, worker.Spec{
		Engine: serving.EngineCustom, Extra: map[string]any{"inputs": inputs, "outputs": outputs},
	})
	if err != nil {
		return nil, err
	}
	p := &Model{m: m, url: spec.URL, group: group, compute: m.Compute, processes: m.Process && group.HasMethod("process")}
	settings, _ := engine.SignatureOf(spec.Endpoint.Tensors) // as in Python: settings that are no valid signature tell nothing
	p.signature = signatureOf(group, m.Signature, settings, p.processes)
	if m.Batching.On() {
		queue := 0
		if spec.Limits != nil {
			queue = spec.Limits.MaxQueue
		}
		p.batcher = batch.New(batch.Options{URL: spec.URL, Batching: m.Batching, Compute: m.Compute, AtOnce: m.AtOnce, MaxQueue: queue})
		p.compute = p.batcher.Do
	}
	return p, nil
}

// HasModel reports whether the method load of the code has returned a model.
func (m *Model) HasModel() bool { return m.group.HasModel() }

// Infer implements engine.Model.
func (m *Model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	arrived := time.Now()
	question, at := python.Question(req, m.group)
	var in *worker.Value
	if req.Tensors != nil {
		var err error
		if in, err = python.ValueOf(m.url, req); err != nil {
			return nil, err
		}
	}
	if m.processes {
		return m.whole(ctx, &question, in)
	}
	var p *worker.Prepared
	var refused *worker.Response
	var err error
	if in != nil {
		p, refused, err = m.group.PreTensors(ctx, &question, in)
	} else {
		p, refused, err = m.group.Pre(ctx, &question)
	}
	switch {
	case err != nil:
		return nil, python.Failure(m.url, err)
	case refused != nil:
		return python.ResponseOf(m.url, refused)
	}
	defer p.Drop()
	begun := time.Now()
	result, failed, err := m.result(ctx, &p.Data)
	if req.Span != nil {
		req.Span.Later().Between("compute", begun, time.Now())
		defer func() { at.Between("worker", arrived.Add(p.Queued), time.Now()) }()
	}
	if err != nil {
		return refusal(err, p.Queued)
	}
	if failed != nil {
		failed.Queued = p.Queued
		return failed, nil
	}
	answer, err := p.Post(ctx, *result)
	if err != nil {
		return nil, python.Failure(m.url, err)
	}
	answer.Queued = p.Queued
	return python.ResponseOf(m.url, answer)
}

// whole has a request answered by the code alone.
func (m *Model) whole(ctx context.Context, question *worker.Request, in *worker.Value) (answer *engine.Response, err error) {
	var r *worker.Response
	if in != nil {
		r, err = m.group.DoTensors(ctx, question, in)
	} else {
		r, err = m.group.Do(ctx, question)
	}
	if err != nil {
		return nil, python.Failure(m.url, err)
	}
	return python.ResponseOf(m.url, r)
}

// result is the input of postprocess, or the answer of a computation that says why there is none.
func (m *Model) result(ctx context.Context, v *worker.Value) (result *worker.Value, failed *engine.Response, err error) {
	if m.m.ComputeBody != nil {
		return m.bodyResult(ctx, v)
	}
	out, err := m.between(ctx, v)
	if err != nil {
		return nil, nil, err
	}
	result, err = python.ValueOf(m.url, &engine.Request{Tensors: out})
	if err != nil {
		return nil, nil, &engine.Error{Kind: engine.KindInternal, Endpoint: m.url, Text: "the model's answer is not usable", Err: err}
	}
	result.Layout = worker.OneArray
	if len(out) != 1 {
		result.Layout = worker.ListOfArrays
	}
	return result, nil, nil
}

const (
	jsonType  = "application/json"
	bytesType = "application/octet-stream"
)

// bodyResult is result for a computation on bodies.
func (m *Model) bodyResult(ctx context.Context, v *worker.Value) (result *worker.Value, failed *engine.Response, err error) {
	body, contentType := v.Body, v.ContentType
	if v.Tensors != nil {
		if body, err = m.asJSON(v); err != nil {
			return nil, nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: err.Error()}
		}
		contentType = jsonType
	}
	answer, err := m.m.ComputeBody(ctx, body, contentType)
	if err != nil || answer.Status >= http.StatusBadRequest {
		return nil, answer, err
	}
	kind, _, _ := strings.Cut(answer.ContentType, ";")
	if strings.EqualFold(strings.TrimSpace(kind), jsonType) && json.Valid(answer.Body) {
		return &worker.Value{ContentType: jsonType, Body: answer.Body}, nil, nil
	}
	return &worker.Value{ContentType: bytesType, Body: answer.Body}, nil, nil
}

// asJSON is the JSON of arrays: of one, or an object with those that have names.
func (m *Model) asJSON(v *worker.Value) ([]byte, error) {
	tensors, err := python.Tensors(v, "input-")
	if err != nil {
		return nil, err
	}
	if v.Layout == worker.OneArray && len(tensors) == 1 {
		return jsontensor.AppendTensor(nil, &tensors[0], false)
	}
	return jsontensor.AppendObject(nil, tensors, false)
}

// between computes what preprocess returned.
func (m *Model) between(ctx context.Context, v *worker.Value) ([]engine.Tensor, error) {
	in, err := m.input(v)
	if err != nil {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: err.Error()}
	}
	return m.compute(ctx, in)
}

// input makes the tensors of what preprocess returned.
func (m *Model) input(v *worker.Value) ([]engine.Tensor, error) {
	switch {
	case v.Tensors != nil:
		return python.Tensors(v, "input-")
	case v.ContentType != "application/json":
		return nil, errors.New("preprocess returned bytes, and the model takes arrays")
	case m.m.FromJSON == nil:
		return nil, errors.New("preprocess returned no arrays, which the model takes")
	}
	return m.m.FromJSON(m.inOrder(v.Body))
}

// inOrder converts a list with a value for each of several inputs to an object with their names. Other bodies stay.
func (m *Model) inOrder(body []byte) []byte {
	inputs := m.m.Signature.Inputs
	if m.m.Signature.Table || len(inputs) < 2 || !bytes.HasPrefix(body, []byte("[")) {
		return body
	}
	var parts []json.RawMessage
	if json.Unmarshal(body, &parts) != nil || len(parts) != len(inputs) {
		return body // with NaN, or something else: FromJSON says what is wrong
	}
	named := make(map[string]json.RawMessage, len(parts))
	for i, part := range parts {
		if !bytes.HasPrefix(part, []byte("[")) {
			return body
		}
		named[inputs[i].Name] = part
	}
	object, err := json.Marshal(named)
	if err != nil {
		return body
	}
	return object
}

// refusal is the answer or error of a computation that has failed.
func refusal(err error, queued time.Duration) (*engine.Response, error) {
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok || failed.Kind != engine.KindBadRequest {
		return nil, err
	}
	return &engine.Response{
		Status: http.StatusUnprocessableEntity, ContentType: "application/json", Queued: queued,
		Body: serving.Detail(fmt.Sprintf("Error [<class 'ValueError'>] processing request: %s", failed)),
	}, nil
}

// signatureOf is the signature of the computation with what the code tells of bodies and answers. What preprocess takes,
// and postprocess returns, is known from the settings only.
func signatureOf(group *host.Group, s, settings engine.Signature, processes bool) engine.Signature {
	code, err := engine.ParseSignature(group.Signature())
	if err != nil { // the computation's is known anyway
		code = engine.Signature{}
	}
	if processes {
		s = engine.Signature{Source: engine.SourceNone}
	}
	s.Preprocessed = s.Preprocessed || group.HasMethod("preprocess")
	s.Postprocessed = s.Postprocessed || group.HasMethod("postprocess")
	var around engine.Signature
	if s.Preprocessed { // the example is one of the computation
		s.Example, s.ExampleOf = nil, ""
		s.Inputs, s.ModelInputs, s.Table = nil, s.Inputs, false
		around.Inputs = settings.Inputs
	}
	if s.Postprocessed {
		s.Outputs, s.ModelOutputs = nil, s.Outputs
		around.Outputs = settings.Outputs
	}
	s = s.With(around)
	if code.BodySchema != nil {
		s.BodySchema, s.Example, s.ExampleOf = code.BodySchema, code.Example, code.ExampleOf
	}
	if code.AnswerSchema != nil {
		s.AnswerSchema = code.AnswerSchema
	}
	s.Source = s.Also(code.Source)
	return s
}

// Signature implements engine.Signed.
func (m *Model) Signature() engine.Signature { return m.signature }

// Lend implements engine.Lender.
func (m *Model) Lend(size int) engine.Loan {
	if l := m.group.Lend(size); l != nil {
		return l
	}
	return nil // an untyped nil, not a nil *worker.Loan
}

// SetVariables implements engine.VariableSetter.
func (m *Model) SetVariables(names []string) error { return m.group.SetVariables(names) }

// Status implements engine.Model: the workers', and what the computation adds.
func (m *Model) Status() serving.ModelReport {
	s := m.group.Status()
	if s.State == serving.StateLoading { // for a few milliseconds, in which requests wait
		s.State = serving.StateDegraded
	}
	if m.batcher != nil {
		s.Batching = m.batcher.Report()
	}
	if m.m.Report != nil {
		m.m.Report(&s)
	}
	return s
}

// Close implements engine.Model.
func (m *Model) Close(ctx context.Context) error {
	err := m.group.Close(ctx)
	if m.batcher != nil {
		m.batcher.Close()
	}
	if m.m.Close != nil {
		m.m.Close()
	}
	return err
}

package inference_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// toyEngine is a complete engine: it computes in this process, by the endpoint's url.
type toyEngine struct {
	running chan struct{} // closed by Run
	caller  engine.Caller // set by Run
}

func newToyEngine() *toyEngine { return &toyEngine{running: make(chan struct{})} }

func (e *toyEngine) Run(ctx context.Context, caller engine.Caller) error {
	e.caller = caller
	close(e.running)
	<-ctx.Done()
	return nil
}

func (e *toyEngine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if spec.URL == "broken" {
		return nil, &engine.LoadError{Text: "Failed loading preprocess code for 'py_code_broken': its code has a fault", Cause: "its code has a fault", UserCode: true}
	}
	if spec.URL == "cannot load" {
		panic("a toy breaks while it loads")
	}
	return &toyModel{e, spec.URL}, ctx.Err()
}

type toyModel struct {
	e   *toyEngine
	url serving.EndpointURL
}

func (m *toyModel) Status() serving.ModelReport { return serving.ModelReport{State: "ready"} }
func (m *toyModel) Close(context.Context) error { return nil }

func (m *toyModel) Signature() engine.Signature {
	x := []engine.TensorSpec{{Name: "x", Datatype: engine.Int8, Shape: []int64{-1}}}
	return engine.Signature{Inputs: x, Outputs: x, Source: "toy"}
}

func (m *toyModel) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if req.Tensors != nil && m.url != "streams" {
		return m.double(req.Tensors)
	}
	switch m.url {
	case "waits":
		<-ctx.Done()
		return nil, ctx.Err()
	case "refuses":
		return &engine.Response{Status: 422, ContentType: "text/plain", Body: []byte("no")}, nil
	case "streams":
		return &engine.Response{Status: 200, Stream: &toyStream{left: [][]byte{req.Body, req.Body}}}, nil
	case "routed", "routed2":
		return &engine.Response{Status: 200, ContentType: "application/json", Body: []byte(`"` + req.Route + `"`)}, nil
	case "over":
		time.Sleep(50 * time.Millisecond)
		return nil, &engine.Error{Kind: engine.KindUnavailable, Endpoint: m.url, Text: "gone", Fallback: "left"}
	case "left": // the time that is left
		end, _ := ctx.Deadline()
		return &engine.Response{Status: 200, Body: []byte(time.Until(end).String())}, nil
	case "panics":
		panic("a toy breaks")
	case "busy":
		return nil, &engine.Error{Kind: engine.KindOverloaded, Text: "the queue is full"}
	case "calls": // on a separate goroutine, like the calls of user code
		type result struct {
			resp *engine.Response
			err  error
		}
		done := make(chan result, 1)
		<-m.e.running
		go func() {
			resp, err := m.e.caller.Call(ctx, engine.Call{From: m.url, Endpoint: string(req.Body), Body: []byte("called"), Depth: req.Depth + 1})
			done <- result{resp, err}
		}()
		r := <-done
		return r.resp, r.err
	}
	return &engine.Response{Status: 200, ContentType: req.ContentType, Body: bytes.Clone(req.Body)}, nil
}

func (m *toyModel) double(in []engine.Tensor) (*engine.Response, error) {
	if len(in) != 1 || in[0].Datatype != engine.Int8 {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Text: "give one tensor of type INT8"}
	}
	out := in[0]
	out.Data = bytes.Clone(out.Data)
	for i := range out.Data {
		out.Data[i] *= 2
	}
	return &engine.Response{Status: 200, Tensors: []engine.Tensor{out}}, nil
}

type toyStream struct {
	left   [][]byte
	closed bool
}

func (s *toyStream) Next(context.Context) ([]byte, error) {
	if s.closed {
		return nil, errors.New("read after close")
	}
	if len(s.left) == 0 {
		return nil, io.EOF
	}
	next := s.left[0]
	s.left = s.left[1:]
	return next, nil
}

func (s *toyStream) Close() error {
	s.closed = true
	return nil
}

package inference

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

// signatureOf is the signature of a model, empty if it has none.
func signatureOf(m engine.Model) engine.Signature {
	if signed, ok := m.(engine.Signed); ok {
		return signed.Signature()
	}
	return engine.Signature{}
}

// misfit is an error about a client's tensors. Its text may have one of their values, so it is not logged.
type misfit struct{ error }

func (m misfit) Unwrap() error { return m.error }

// LogValue implements slog.LogValuer.
func (misfit) LogValue() slog.Value {
	return slog.StringValue("the tensors do not fit the inputs of the model; the client has been told how")
}

// inferTensors asks a model with tensors that fit its signature. Of the free tensors, req then has the body instead, so
// that copies of the request are those of any other.
func inferTensors(ctx context.Context, m engine.Model, req *engine.Request) (*engine.Response, error) {
	signature := signatureOf(m)
	if len(signature.Inputs) == 0 {
		if body, ok := v2.FreeBody(req.Tensors); ok {
			req.Body, req.ContentType, req.Tensors, req.Loan = body, jsonType, nil, nil
			return m.Infer(ctx, req)
		}
	}
	if name := onlyInput(&signature); req.Renames && name != "" && len(req.Tensors) == 1 && req.Tensors[0].Name != name {
		only := req.Tensors[0]
		only.Name = name
		req.Tensors = []engine.Tensor{only}
	}
	tensors, err := v2.Fit(&signature, req.Tensors)
	if err != nil {
		return nil, misfit{err}
	}
	req.Tensors = tensors
	return m.Infer(ctx, req)
}

// onlyInput is the name of the only input of a model, "" if it has several, or columns.
func onlyInput(s *engine.Signature) string {
	if len(s.Inputs) != 1 || s.Table {
		return ""
	}
	return s.Inputs[0].Name
}

// toTensors makes the answer to the free tensors one. Any other request with tensors has been answered with tensors.
func toTensors(answer *engine.Response) {
	if answer.Tensors == nil && answer.Stream == nil && answer.Status < http.StatusBadRequest {
		answer.Tensors, answer.Body = []engine.Tensor{v2.FreeAnswer(answer.Body)}, nil
	}
}

// rowsOf is the number of rows of a request to a model that computes on rows, else 1.
func rowsOf(m engine.Model, tensors []engine.Tensor) int64 {
	signature := signatureOf(m)
	if len(tensors) == 0 || len(tensors[0].Shape) == 0 || !v2.Batched(&signature) {
		return 1
	}
	return max(tensors[0].Shape[0], 1)
}

// plainForms are a request with tensors and its answer as JSON, for those that keep copies of bodies; a streamed answer is
// not kept. ok is false if they have no such form.
func plainForms(m engine.Model, req *engine.Request, answer *engine.Response) (body, answered []byte, ok bool) {
	signature := signatureOf(m)
	body, err := v2.Body(req.Tensors, signature.Table)
	if err != nil {
		return nil, nil, false
	}
	if answer.Stream != nil {
		return body, nil, true
	}
	if answer.Status >= http.StatusBadRequest || answer.Tensors == nil {
		return body, bytes.Clone(answer.Body), true
	}
	answered, err = plainAnswer(answer.Tensors)
	return body, answered, err == nil
}

// plainAnswer is what a model would answer as JSON: an only output alone, several by name.
func plainAnswer(outputs []engine.Tensor) ([]byte, error) {
	for i := range outputs {
		if err := v2.CheckData(&outputs[i]); err != nil {
			return nil, err
		}
	}
	if len(outputs) == 1 {
		return v2.AppendNested(nil, &outputs[0])
	}
	return v2.Body(outputs, false)
}

func sizeOf(tensors []engine.Tensor) (size int) {
	for i := range tensors {
		size += len(tensors[i].Data)
	}
	return size
}

// leastSize is a lower bound of the size of a copy with its JSON, in which each element takes at least a quarter of
// its binary form.
func leastSize(request, answer []engine.Tensor) int64 {
	size := sizeOf(request)
	return int64(size + (size+sizeOf(answer))/4)
}

// cloneTensors copies what is left of a request without its client.
func cloneTensors(req *engine.Request) *engine.Request {
	c := engine.Request{TensorsAs: strings.Clone(req.TensorsAs), Parameters: bytes.Clone(req.Parameters), Outputs: slices.Clone(req.Outputs), Tensors: slices.Clone(req.Tensors)}
	for i := range c.Tensors {
		t := &c.Tensors[i]
		t.Name, t.Shape, t.Data = strings.Clone(t.Name), slices.Clone(t.Shape), bytes.Clone(t.Data)
	}
	return &c
}

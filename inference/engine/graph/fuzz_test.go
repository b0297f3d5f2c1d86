package graph_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/graph"
	"clearmlserving/serving"
)

// echoes is a world in which every endpoint answers its request.
type echoes struct{ world }

func (*echoes) Ask(_ context.Context, _ serving.EndpointURL, req *engine.Request, _ bool) (*engine.Response, error) {
	return &engine.Response{Status: 200, ContentType: "application/json", Body: bytes.Clone(req.Body), Tensors: req.Tensors}, nil
}

// Whatever a graph and a request are, there is an answer or an error that names what was wrong.
func FuzzGraphRequest(f *testing.F) {
	f.Add("nodes: {root: {routerType: Sequence, response: {a: $steps.s.x, b: $response}, steps: [{serviceName: e, name: s}, {serviceName: e, data: {x: $request.y.z}, dependency: Soft}]}}", `{"x":[1,NaN],"y":{"z":{}}}`, false)
	f.Add("nodes: {root: {routerType: Switch, field: x, steps: [{serviceName: e, value: [1, a]}, {serviceName: e, condition: '#(a>1)#|0.b'}, {serviceName: e}]}}", `[{"a":2,"b":"\ud800"}]`, true)
	f.Add("nodes: {root: {routerType: Ensemble, combiner: vote, steps: [{serviceName: e}, {serviceName: e, weight: 3}]}}", `{"x":[1,"a",null,true]}`, false)
	f.Add("nodes: {root: {routerType: Ensemble, combiner: mean, steps: [{serviceName: e}, {serviceName: e}]}}", `[[1e308,2],[-0.0]]`, true)
	f.Fuzz(func(t *testing.T, text, body string, tensors bool) {
		w := &echoes{}
		e := graph.New(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx, w) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		m, err := e.Load(ctx, spec("g", text))
		if err != nil {
			return
		}
		req := &engine.Request{Body: []byte(body), ContentType: "application/json"}
		if tensors {
			req = &engine.Request{Tensors: []engine.Tensor{textTensor("x", body), int64s("y.z", int64(len(body)))}, Parameters: []byte(body)}
		}
		resp, err := m.Infer(ctx, req)
		failed, named := errors.AsType[*engine.Error](err)
		switch {
		case err == nil && (resp == nil || resp.Status < 200):
			t.Errorf("the answer is %+v", resp)
		case err != nil && (!named || failed.Text == ""):
			t.Errorf("the error is %v", err)
		}
	})
}

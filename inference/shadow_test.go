package inference

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

func TestACopyThatFailsLikeItsRequestIsCountedAlike(t *testing.T) {
	for name, err := range map[string]error{
		"refused": &engine.Error{Kind: engine.KindOverloaded},
		"late":    &engine.Error{Kind: engine.KindDeadline},
		"died":    &engine.Error{Kind: engine.KindDied},
		"a panic": errors.New("panic"),
	} {
		arms := router.NewArms(serving.Rollout{Candidate: "new", Baseline: "old", Step: serving.MirrorStep}, 0)
		s := newShadows(slog.New(slog.DiscardHandler))
		s.arms = func(_, _ serving.EndpointURL) *router.Arms { return arms }
		s.answer = func(context.Context, serving.EndpointURL, copied) (*engine.Response, error) { return nil, err }
		answered := (&Failure{Kind: kindOfError(err)}).Response().Status
		s.compare(t.Context(), &pair{}, copied{exchange: serving.Exchange{Status: answered}})
		candidate, baseline := arms.Take()
		if candidate.Requests != 1 || candidate.Errors != baseline.Errors || candidate.ClientErrors != baseline.ClientErrors {
			t.Errorf("%s: %+v, but %+v of an answer with status %d", name, candidate, baseline, answered)
		}
		if failed := answered >= http.StatusInternalServerError; failed != (candidate.Errors == 1) {
			t.Errorf("%s: %+v", name, candidate)
		}
	}
}

func TestRequestsWithTensorsAreCopiedAndCompared(t *testing.T) {
	tensor := func(name string, list ...float32) engine.Tensor {
		x := engine.Tensor{Name: name, Datatype: engine.FP32, Shape: []int64{int64(len(list))}}
		for _, f := range list {
			x.Data = binary.LittleEndian.AppendUint32(x.Data, math.Float32bits(f))
		}
		return x
	}
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		client, copy engine.Response
		equal        bool
	}{
		"equal":         {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1)}}, engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1)}}, true},
		"nearly equal":  {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1)}}, engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1.0001)}}, true},
		"different":     {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1)}}, engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 2)}}, false},
		"another name":  {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1)}}, engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("z", 1)}}, false},
		"a NaN":         {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", nan)}}, engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", nan)}}, true},
		"another NaN":   {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", nan)}}, engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", nan, 1)}}, false},
		"refused alike": {engine.Response{Status: 422, Body: []byte(`{"detail":"no"}`)}, engine.Response{Status: 422, Body: []byte(`{"detail":"no"}`)}, true},
		"refused":       {engine.Response{Status: 200, Tensors: []engine.Tensor{tensor("y", 1)}}, engine.Response{Status: 422, Body: []byte(`{"detail":"no"}`)}, false},
	} {
		all := taps{shadows: newShadows(slog.New(slog.DiscardHandler))}
		all.follow(serving.Plan{Options: map[serving.EndpointURL]serving.EndpointOptions{"a": {Shadow: &serving.Shadow{To: "b", Share: 1, Tolerance: 0.01}}}})
		req := &engine.Request{ID: "r", Tensors: []engine.Tensor{tensor("x", 3)}, TensorsAs: "np", Outputs: []string{"y"}}
		all.see("a", &router.Live{URL: "a"}, req, &c.client, 0)
		clear(req.Tensors[0].Data) // the front uses it again
		p := all.shadows.inUse()[pairKey{"a", "b"}]
		got := <-p.queue
		if got.asked[0].Data[2] != 0x40 || got.tensorsAs != "np" || got.outputs[0] != "y" || got.id != "r" {
			t.Errorf("%s: %+v", name, got)
		}
		all.shadows.arms = func(_, _ serving.EndpointURL) *router.Arms { return nil }
		all.shadows.answer = func(context.Context, serving.EndpointURL, copied) (*engine.Response, error) { return &c.copy, nil }
		p.pending.Add(-got.size())
		all.shadows.compare(t.Context(), p, got)
		if equal := p.equal.Load() == 1; equal != c.equal || p.different.Load()+p.equal.Load() != 1 || p.pending.Load() != 0 {
			t.Errorf("%s: equal %t", name, equal)
		}
	}
}

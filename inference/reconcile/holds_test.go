package reconcile_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// holding configures an endpoint of each of two engines, the first with code that does not exist.
func holding(s *reconcile.State) {
	text, _ := json.Marshal(map[string]any{
		"t": map[string]any{"engine_type": "triton", "serving_url": "t", "version": "", "model_id": "m1", "preprocess_artifact": "no such code"},
		"c": map[string]any{"engine_type": "custom", "serving_url": "c", "version": ""},
	})
	s.Sections[serving.SectionEndpoints] = text
	s.Models["m1"] = reconcile.Model{URI: "http://files/m1.onnx", Framework: "ONNX"}
}

func TestWhoHoldsModelsForOthersLoadsTheirModelsAlone(t *testing.T) {
	w := newWorld()
	holding(w.state)
	canary(1)(w.state)
	synctest.Test(t, func(t *testing.T) {
		w.bell = make(chan struct{}, 1) // channels of a bubble are made in it
		r := reconcile.New(reconcile.Options{Router: &router.Router{}, Source: w, Files: w, Loader: loader{w}, Changes: w, Poll: time.Hour, Holds: []string{"triton"}})
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- r.Run(ctx) }()
		settle()
		status := r.Status()
		if len(status.Endpoints) != 1 || status.Endpoints[0].URL != "t" || status.Endpoints[0].State != serving.StateReady || len(status.Canaries) != 0 {
			t.Errorf("%+v", status.Endpoints)
		}
		w.mu.Lock()
		if !slices.Equal(w.loads, []string{"t "}) || len(w.fetched) != 1 {
			t.Errorf("loaded %q, fetched %v", w.loads, w.fetched)
		}
		w.replaced = "other content"
		w.loadErr["t"] = &engine.LoadError{Text: "refused", Final: true}
		w.mu.Unlock()
		w.set(func(s *reconcile.State) { s.Models["m1"] = reconcile.Model{URI: "http://files/m2.onnx"} })
		settle()
		status = r.Status()
		if e := status.Endpoints[0]; e.State != serving.StateUpdating || e.Failure == nil || e.Failure.Reason != "refused" || e.Refusal != nil {
			t.Errorf("%+v", e)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

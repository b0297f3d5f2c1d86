package python

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
)

func TestAnEndpointThatAsksForBatchingSaysHowItDecides(t *testing.T) {
	e := running(t)
	code := filepath.Join(t.TempDir(), "preprocess.py")
	text := "class Preprocess:\n    def process_batch(self, data, state, collect):\n        return data\n"
	if err := os.WriteFile(code, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{"max_batch_size": 8.0, "dynamic_batching": map[string]any{"preferred_batch_size": []any{4.0}}}
	m, err := e.Load(t.Context(), specOf("batched", code, settings))
	if err != nil {
		t.Fatal(err)
	}
	if got := answer(t, m); got != "{}" {
		t.Errorf("answered %s", got)
	}
	b := m.Status().Batching
	if b == nil || b.MaxRows != 8 || len(b.Preferred) != 1 || b.Batches != 1 || b.LastRows != 1 || b.LimitedBy == "" {
		t.Errorf("status: %+v", b)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for field, aux := range map[string]map[string]any{
		"auxiliary_cfg.max_batch_size":   {"max_batch_size": "many"},
		"auxiliary_cfg.dynamic_batching": {"max_batch_size": 8, "dynamic_batching": 3},
	} {
		_, err := e.Load(t.Context(), specOf("wrong", code, aux))
		if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !strings.Contains(failed.Text, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

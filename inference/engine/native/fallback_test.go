package native

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/inference/engine"
)

// failing is a loader that always fails.
type failing struct{ loads atomic.Int32 }

func (f *failing) Load(context.Context, engine.Spec) (engine.Model, error) {
	f.loads.Add(1)
	return nil, errors.New("no such module")
}

func TestAPythonThatCannotBeLoadedIsNotTriedByEachRequest(t *testing.T) {
	loader := &failing{}
	f := newFallback(loader, engine.Spec{URL: "m"})
	for range 50 {
		_, err := f.get(t.Context())
		failed, ok := errors.AsType[*engine.Error](err)
		if !ok || failed.Kind != engine.KindUnavailable || failed.RetryAfter < time.Second || failed.Err == nil {
			t.Fatalf("%+v", err)
		}
	}
	f.mu.Lock()
	first := f.failed
	f.again = time.Time{}
	f.mu.Unlock()
	if _, err := f.get(t.Context()); err == nil {
		t.Error("it is loaded")
	}
	f.mu.Lock()
	failed := f.failed
	f.mu.Unlock()
	if loads := int(loader.loads.Load()); loads != first+1 || failed != first+1 {
		t.Errorf("%d loads and %d failures after %d failures", loads, failed, first)
	}
	if err := f.close(t.Context()); err != nil {
		t.Error(err)
	}
}

package python

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
	"clearmlserving/worker/workertest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// running is an Engine with the interpreter of the machine.
func running(t *testing.T) *Engine {
	t.Helper()
	return runningWith(t, Options{})
}

func runningWith(t *testing.T, o Options) *Engine {
	t.Helper()
	base, env := workertest.Environment(t)
	o.Host = host.New(host.Options{
		Find:   func(context.Context) (*worker.Environment, error) { return base, nil },
		Worker: worker.Options{RuntimeDir: t.TempDir(), ZygoteEnv: env, Preload: []string{}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))},
		Env:    env,
	})
	e := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := e.Run(ctx, nil); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		run.Wait()
	})
	return e
}

func specOf(url, code string, aux any) engine.Spec {
	return engine.Spec{
		URL: serving.EndpointURL(url), CodePath: code, CodeName: "py_code_" + url,
		Endpoint: serving.Endpoint{EngineType: serving.EngineCustom, ServingURL: url, AuxiliaryCfg: aux},
	}
}

func answer(t *testing.T, m engine.Model) string {
	t.Helper()
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`{}`), ContentType: "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	return string(resp.Body)
}

func TestAnEnvironmentThatCannotBeMadeIsAFailureOfThatEndpoint(t *testing.T) {
	e := running(t)
	for environment, says := range map[string]string{"mine": "give own or shared", "own": "no folder for environments"} {
		for what, try := range map[string]func(context.Context, engine.Spec) error{
			"load":    func(ctx context.Context, spec engine.Spec) error { _, err := e.Load(ctx, spec); return err },
			"prepare": e.Prepare,
		} {
			err := try(t.Context(), specOf("d", "", map[string]any{"environment": environment}))
			if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !strings.Contains(failed.Text, says) {
				t.Errorf("%s, environment=%s: %v", what, environment, err)
			}
		}
	}
}

func TestAWorkerIsReplacedAfterTheInstancesNumberOfRequestsOrTheEndpoints(t *testing.T) {
	e := runningWith(t, Options{RecycleRequests: 3})
	code := filepath.Join(t.TempDir(), "preprocess.py")
	text := "import os\nclass Preprocess:\n    def process(self, data, state, collect):\n        return os.getpid()\n"
	if err := os.WriteFile(code, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, limits := range map[string]*serving.Limits{"instance": nil, "endpoint": {RecycleRequests: 1000}} {
		spec := specOf(url, code, nil)
		spec.Limits = limits
		m, err := e.Load(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		first := answer(t, m)
		for begun := time.Now(); answer(t, m) == first && time.Since(begun) < time.Minute; time.Sleep(100 * time.Millisecond) {
			if limits != nil && time.Since(begun) > 3*time.Second {
				break
			}
		}
		if replaced := answer(t, m) != first; replaced != (limits == nil) {
			t.Errorf("%s: the worker was replaced: %t", url, replaced)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

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

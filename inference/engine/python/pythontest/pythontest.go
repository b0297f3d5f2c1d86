// Package pythontest runs the Python engine for the tests of engines around it.
package pythontest

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/python"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
	"clearmlserving/worker/workertest"
)

// Start runs the Python engine with the interpreter CLEARML_SERVING_TEST_PYTHON, else python3, until the test
// ends. Calls of user code go to caller, which may be nil. Without an interpreter the test is skipped, or fails
// if the variable names one.
func Start(t *testing.T, caller engine.Caller) *python.Engine {
	t.Helper()
	base, env := workertest.Environment(t)
	e := python.New(python.Options{Host: host.New(host.Options{
		Find:   func(context.Context) (*worker.Environment, error) { return base, nil },
		Worker: worker.Options{RuntimeDir: t.TempDir(), ZygoteEnv: env, Preload: []string{}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))},
		Env:    env,
	})})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := e.Run(ctx, caller); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		run.Wait()
	})
	return e
}

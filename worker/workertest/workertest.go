// Package workertest finds the interpreter for tests that start workers.
package workertest

import (
	"os"
	"testing"

	"clearmlserving/worker"
)

// Environment is the interpreter CLEARML_SERVING_TEST_PYTHON, else python3, and the variables that it runs with.
// Without an interpreter the test is skipped, or fails if the variable names one.
func Environment(tb testing.TB) (base *worker.Environment, env []string) {
	tb.Helper()
	named := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	interpreter := named
	if named == "" {
		interpreter = "python3"
	}
	env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tb.TempDir()}
	base, err := worker.FindEnvironment(tb.Context(), worker.Search{Candidates: []string{interpreter}, Env: env})
	if err != nil {
		if named != "" {
			tb.Fatal(err)
		}
		tb.Skipf("no Python: %v", err)
	}
	return base, env
}

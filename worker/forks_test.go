package worker_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"clearmlserving/worker"
)

// TestAForkedChildNeverAnswersForItsWorker has user code fork at each request, the
// child return to the runtime, and the parent's answer be the only one.
func TestAForkedChildNeverAnswersForItsWorker(t *testing.T) {
	w := newWorld(t, nil)
	w.start(t, "other", "echo.py", nil)
	for _, c := range []struct {
		name, file, question, says string
		change                     func(*worker.Spec)
	}{
		{"process", "forks.py", `{"in":"process","do":"return","n":%d}`, "returned from the code to the worker's runtime", nil},
		{"fork in C", "forks.py", `{"in":"process","do":"native","n":%d}`, "returned from the code to the worker's runtime", nil},
		{"preprocess", "forks.py", `{"in":"preprocess","do":"return","n":%d}`, "returned from the code", nil},
		{"thread", "forks.py", `{"in":"thread","do":"return","n":%d}`, "", nil},
		{"sys.exit", "forks.py", `{"in":"process","do":"exit","n":%d}`, "", nil},
		{"exception", "forks.py", `{"in":"process","do":"raise","n":%d}`, "the child's own failure", nil},
		{"send_request", "forks.py", `{"in":"process","do":"ask","n":%d}`, "send_request was called in a process that", nil},
		{"load", "forks.py", `{"n":%d}`, "returned from the code", func(s *worker.Spec) { s.Env = append(s.Env, "FORK_IN_LOAD=1") }},
		{"load of a template", "forks.py", `{"in":"process","do":"return","n":%d}`, "returned from the code", func(s *worker.Spec) {
			s.Workers, s.Env = 2, append(s.Env, "FORK_IN_LOAD=1")
		}},
		{"batch", "forks.py", `{"in":"process","do":"return","n":%d}`, "returned from the code", func(s *worker.Spec) { s.Batch.MaxRows = 8 }},
		{"preprocess of a batch", "forks.py", `{"in":"preprocess","do":"return","n":%d}`, "returned from the code", func(s *worker.Spec) { s.Batch.MaxRows = 8 }},
		{"async", "forks_async.py", `{"do":"return","n":%d}`, "returned from the code", func(s *worker.Spec) { s.Engine = "custom_async" }},
		{"async, sys.exit", "forks_async.py", `{"do":"exit","n":%d}`, "", func(s *worker.Spec) { s.Engine = "custom_async" }},
		{"async, exception", "forks_async.py", `{"do":"raise","n":%d}`, "the child's own failure", func(s *worker.Spec) { s.Engine = "custom_async" }},
		{"async, send_request", "forks_async.py", `{"do":"ask","n":%d}`, "send_request was called in a process that", func(s *worker.Spec) { s.Engine = "custom_async" }},
		{"async, await", "forks_async.py", `{"do":"await","n":%d}`, "", func(s *worker.Spec) { s.Engine = "custom_async" }},
		{"async, exit in a callback", "forks_async.py", `{"do":"callback","n":%d}`, "", func(s *worker.Spec) { s.Engine = "custom_async" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := w.start(t, c.name, c.file, c.change)
			var all sync.WaitGroup
			for n := range 24 {
				all.Go(func() {
					r, err := g.Do(t.Context(), &worker.Request{Body: fmt.Appendf(nil, c.question, n), ContentType: "application/json"})
					if err != nil {
						t.Errorf("request %d: %v", n, err)
						return
					}
					if want := fmt.Sprintf(`{"n":%d,`, n); r.Status != 200 || !strings.HasPrefix(string(r.Body), want) {
						t.Errorf("request %d: %d %s, not %s", n, r.Status, r.Body, want)
					}
				})
			}
			all.Wait()
			if s := g.Status(); s.Restarts != 0 {
				t.Errorf("%d workers died: %s %q", s.Restarts, s.LastDeath, s.LastLines)
			}
			if c.says != "" {
				w.log.waitFor(t, c.says)
			}
		})
	}
}

func TestAForkInAStreamLeavesItWhole(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stream", "forks.py", nil)
	r := do(t, g, `{"in":"stream","do":"return","n":1}`)
	if r.Stream == nil {
		t.Fatalf("no stream: %d %s", r.Status, r.Body)
	}
	text, err := drain(t.Context(), r)
	if err != nil || text != "0,1,2," {
		t.Errorf("%q, %v", text, err)
	}
}

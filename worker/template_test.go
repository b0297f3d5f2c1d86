package worker_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clearmlserving/serving"
	"clearmlserving/worker"
)

// answersOf asks until as many workers have answered as are wanted; each answer is
// [own pid, pid of the process that loaded].
func answersOf(t *testing.T, g *worker.Group, want int) map[int]int {
	t.Helper()
	seen := make(map[int]int)
	var mu sync.Mutex
	eventually(t, strconv.Itoa(want)+" workers answer", func() bool {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				var pids [2]int
				if err := json.Unmarshal(do(t, g, `1`).Body, &pids); err != nil {
					t.Error(err)
				}
				mu.Lock()
				seen[pids[0]] = pids[1]
				mu.Unlock()
			})
		}
		all.Wait()
		return len(seen) >= want && g.Status().State == serving.StateReady
	})
	return seen
}

func TestSeveralWorkersShareOneLoadedModel(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "heavy", "heavy.py", func(s *worker.Spec) { s.Workers = 4 })
	loaders := make(map[int]bool)
	for pid, loader := range answersOf(t, g, 3) {
		loaders[loader] = true
		if pid == loader {
			t.Error("the template answers requests")
		}
	}
	if len(loaders) != 1 {
		t.Errorf("loaded %d times", len(loaders))
	}
	s := g.Status()
	if !s.Shared || len(s.Workers) != 4 {
		t.Errorf("status = %+v", s)
	}
	for _, w := range s.Workers {
		if m := worker.MemoryOf(w.PID); m > 20<<20 {
			t.Errorf("worker %d takes %d MB: the model of 32 MB is not shared", w.PID, m>>20)
		}
	}
}

func TestATemplatesChildrenAreReplacedAndItselfToo(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "heavy", "heavy.py", func(s *worker.Spec) { s.Workers = 2 })
	var template int
	for _, loader := range answersOf(t, g, 2) {
		template = loader
	}
	if err := askErr(t.Context(), g, `"die"`); err == nil || !strings.Contains(err.Error(), "exited with code 1") {
		t.Errorf("err = %v", err)
	}
	for _, loader := range answersOf(t, g, 2) {
		if loader != template {
			t.Error("a worker that died was not replaced from the template")
		}
	}
	if err := syscall.Kill(template, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is another template", func() bool {
		var pids [2]int
		r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`1`)})
		return err == nil && json.Unmarshal(r.Body, &pids) == nil && pids[1] != template
	})
}

func TestWhereForkingIsUnsafeEachWorkerLoads(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "threaded", "threaded.py", func(s *worker.Spec) { s.Workers = 2 })
	eventually(t, "both are ready", func() bool { return g.Status().State == serving.StateReady })
	s := g.Status()
	if s.Shared || !strings.Contains(s.SharedReason, "thread") || len(s.Workers) != 2 {
		t.Errorf("status = %+v", s)
	}
	for range 20 {
		ask(t, g, `1`)
	}
}

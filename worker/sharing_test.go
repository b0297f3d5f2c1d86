package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clearmlserving/worker"
)

const (
	loadWorkers  = 3
	loadClients  = 6
	loadRequests = 240
)

// loadStates are the codes of testdata/load by name. Each leaves something else behind
// when it has loaded; its first line says whether its workers may share the loaded process.
func loadStates(tb testing.TB) map[string]bool {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "load", "*.py"))
	if err != nil || len(files) < 40 {
		tb.Fatalf("%d codes (%v)", len(files), err)
	}
	states := make(map[string]bool)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		first, _, _ := bytes.Cut(source, []byte("\n"))
		if kind := string(first); kind != "# shared" && kind != "# separate" {
			tb.Fatalf("%s begins with %q", file, kind)
		}
		states[strings.TrimSuffix(filepath.Base(file), ".py")] = string(first) == "# shared"
	}
	return states
}

// numberedLines is the model of the codes: line n holds 7n+3.
func numberedLines(tb testing.TB) string {
	tb.Helper()
	var lines bytes.Buffer
	for n := range 1000 {
		fmt.Fprintf(&lines, "%07d\n", 7*n+3)
	}
	file := filepath.Join(tb.TempDir(), "lines")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// owned asks every worker, each request for another part, and returns what the workers
// say is their own. Every answer must be right.
func owned(t *testing.T, g *worker.Group) map[string]bool {
	t.Helper()
	eventually(t, "all workers are there", func() bool {
		s := g.Status()
		return s.State == worker.StateReady && len(s.Workers) == loadWorkers
	})
	var mu sync.Mutex
	own := make(map[string]bool)
	questions := make(chan int)
	var clients sync.WaitGroup
	for range loadClients {
		clients.Go(func() {
			for n := range questions {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				r, err := g.Do(ctx, &worker.Request{Body: fmt.Appendf(nil, `{"n": %d}`, n), ContentType: "application/json"})
				cancel()
				if err != nil {
					t.Errorf("n=%d: %v", n, err)
					continue
				}
				var got struct {
					Y   *int
					Own json.RawMessage
				}
				if r.Status != 200 || json.Unmarshal(r.Body, &got) != nil || got.Y == nil || *got.Y != 7*n+3 {
					t.Errorf("n=%d: want %d, got %d %.300s", n, 7*n+3, r.Status, r.Body)
				}
				if got.Own != nil {
					mu.Lock()
					own[string(got.Own)] = true
					mu.Unlock()
				}
			}
		})
	}
	for n := range loadRequests {
		questions <- n * 37 % 1000
	}
	close(questions)
	clients.Wait()
	return own
}

func TestWorkersAnswerRightWhateverTheirLoadLeaves(t *testing.T) {
	lines := numberedLines(t)
	w := newWorld(t, func(o *worker.Options) { o.Preload = []string{"numpy"} })
	installed(t, "numpy")
	for name, shared := range loadStates(t) {
		t.Run(name, func(t *testing.T) {
			folder, err := os.MkdirTemp("", "") // t.TempDir is too long for the name of a socket
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(folder) }()
			g := w.start(t, name, filepath.Join("..", "load", name+".py"), func(s *worker.Spec) {
				s.Workers, s.ModelPath = loadWorkers, lines
				s.Env = append(s.Env, "TMPDIR="+folder)
			})
			defer func() { _ = g.Close(context.Background()) }()
			own := owned(t, g)
			s := g.Status()
			if s.Shared != shared || s.SharedReason == "" {
				t.Errorf("shared: %t (%s), want %t", s.Shared, s.SharedReason, shared)
			}
				if s.Restarts > 0 {
				t.Errorf("%d workers died: %s", s.Restarts, s.LastDeath)
			}
			if len(own) == 0 || t.Failed() {
				return
			}
			asked := 0
			for _, one := range s.Workers {
				if one.Requests > 0 {
					asked++
				}
			}
			if len(own) != asked {
				t.Errorf("%d workers say that %d things are their own: %v", asked, len(own), own)
			}
			for _, one := range s.Workers {
				_ = syscall.Kill(one.PID, syscall.SIGKILL)
			}
			eventually(t, "all workers are replaced", func() bool { return g.Status().Restarts == loadWorkers })
			for again := range owned(t, g) {
				if own[again] {
					t.Errorf("after a restart a worker says again that %s is its own", again)
				}
			}
		})
	}
}

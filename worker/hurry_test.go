package worker_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/worker"
)

// priorities are those at which a worker of polite.py has loaded, and answers.
func priorities(t *testing.T, g *worker.Group) (loaded, answers int) {
	t.Helper()
	var both [2]int
	if err := json.Unmarshal([]byte(ask(t, g, `1`)), &both); err != nil {
		t.Fatal(err)
	}
	return both[0], both[1]
}

func TestALoadThatRequestsWaitForHasTheirPriorityUnlessItIsLarge(t *testing.T) {
	w := newWorld(t, nil)
	large := filepath.Join(t.TempDir(), "model")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 100<<20); err != nil { // takes no space
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		model   string
		hurries bool
	}{"small": {"", true}, "large": {large, false}} {
		t.Run(name, func(t *testing.T) {
			g := w.start(t, name, "polite.py", func(s *worker.Spec) { s.ModelPath = tc.model })
			loaded, answers := priorities(t, g)
			if loaded == answers {
				t.Skip("a process may not return to its priority here")
			}
			if loaded != min(answers+10, 19) {
				t.Errorf("beside others it was loaded at %d, and answers at %d", loaded, answers)
			}
			g.LoadedAtOnce()
			_ = diesOf(t, g, `{"do":"die"}`)
			if again, _ := priorities(t, g); (again == answers) != tc.hurries {
				t.Errorf("while requests waited it was loaded at %d, and answers at %d", again, answers)
			}
		})
	}
}

package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/worker"
)

const trainScript = `
import sys, joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
x, y = load_iris(return_X_y=True)
joblib.dump(LogisticRegression(max_iter=500).fit(x, y), sys.argv[1])
`

// TestTheZygoteSharesTheHeavyPackages needs scikit-learn in the interpreter that
// CLEARML_SERVING_TEST_PYTHON names.
func TestTheZygoteSharesTheHeavyPackages(t *testing.T) {
	env := installed(t, "sklearn", "numpy", "joblib")
	model := filepath.Join(t.TempDir(), "model.pkl")
	child, err := process.Start(t.Context(), process.Spec{Path: env.Executable, Args: []string{"-c", trainScript, model}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Fatal(d.Detail())
	}
	w := newWorld(t, func(o *worker.Options) { o.Preload = nil })
	w.start(t, "warm", "echo.py", nil)
	started := time.Now()
	g := w.start(t, "iris", "rows.py", func(s *worker.Spec) { s.Engine, s.ModelPath = "sklearn", model })
	if got := ask(t, g, `{"x":[5.1,3.5,1.4,0.2]}`); got != `{"y":[0]}` {
		t.Errorf("got %s", got)
	}
	took := time.Since(started)
	private := privateMemory(t, g.Status().Workers[0].PID)
	t.Logf("ready and answered in %s, private memory %d kB", took, private)
	if private > 32<<10 {
		t.Errorf("a worker has %d kB of its own: the packages are not shared", private)
	}
	if log := w.log.String(); strings.Contains(log, "zygote has threads") || strings.Contains(log, "cannot be imported") {
		t.Errorf("log:\n%s", log)
	}
	_, err = w.tryStart("bad", "rows.py", func(s *worker.Spec) { s.Engine, s.ModelPath = "sklearn", code("rows.py") })
	if err == nil || !strings.Contains(err.Error(), "rows.py") {
		t.Errorf("a model file that is none: err = %v", err)
	}
}

// privateMemory is what the process shares with nobody, in kB.
func privateMemory(t *testing.T, pid int) int {
	t.Helper()
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		t.Logf("the system does not tell what processes take: %v", err)
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(string(b)) {
		var n int
		if strings.HasPrefix(line, "Private_") {
			if _, err := fmt.Sscanf(strings.Fields(line)[1], "%d", &n); err != nil {
				t.Fatal(err)
			}
			total += n
		}
	}
	return total
}

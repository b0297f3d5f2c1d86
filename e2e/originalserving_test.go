//go:build linux

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// originalServing is the interpreter with all of the original, including its services.
func originalServing(t *testing.T) string {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_CLIENTS") == "" {
		t.Skip("needs an environment with the original and its services: make e2e-clients")
	}
	python := filepath.Join(root, ".venv-bench-original/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Skipf("%v; the original's services exist for Python 3.11 only", err)
	}
	return python
}

// background starts a program in the installation's environment and stops it at the end of the test.
func (s *system) background(t *testing.T, name string, env []string, path string, args ...string) (log string) {
	t.Helper()
	log = filepath.Join(s.dir, name+".log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the child has its own
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(s.dir, "work"), out, out
	cmd.Env = slices.Concat(s.env, s.sdk, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with the SDK's reporter, which survives SIGTERM
		_ = cmd.Wait()                                      // killed on purpose
		if t.Failed() {
			t.Logf("the log of the original's %s ends:\n%s", name, lastLines(log))
		}
	})
	return log
}

// freePort returns a port that is free now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // only its number is needed
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestClientsTheOriginalsInferenceServesWhatOurCommandsConfigured(t *testing.T) {
	python := originalServing(t)
	s := up(t)
	_, id, _ := strings.Cut(s.must(t, "create", "--name", "shared"), "id=")
	id = strings.TrimSpace(strings.SplitN(id, "\n", 2)[0])
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "before", "--preprocess", code("echo.py"))
	port := freePort(t)
	s.background(t, "inference", []string{"CLEARML_SERVING_TASK_ID=" + id, "CLEARML_SERVING_POLL_FREQ=0.02"},
		python, "-m", "uvicorn", "clearml_serving.serving.main:app", "--host", "127.0.0.1", "--port", port)
	answers := func(endpoint string) {
		t.Helper()
		s.eventually(t, patience, endpoint+" answers from the original", func() error {
			status, got := roundTrip("POST", "http://127.0.0.1:"+port+"/serve/"+endpoint, "application/json", strings.NewReader(`{"x":1}`))
			return answerError(status, got, `{"echo":{"x":1}}`)
		})
	}
	answers("before")
	// An endpoint that is added while it runs is served after one poll of the configuration.
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "while-it-runs", "--preprocess", code("echo.py"), "--wait")
	answers("while-it-runs")
	// Ours answers the same, from the same configuration.
	for _, endpoint := range []string{"before", "while-it-runs"} {
		s.wants(t, endpoint, `{"x":1}`, `{"echo":{"x":1}}`)
	}
}

// Without a broker the original's statistics wait for one. Before that they find the
// service, register their task and open their metrics page.
func TestClientsTheOriginalsStatisticsFindTheServiceAndTheirTask(t *testing.T) {
	python := originalServing(t)
	s := up(t)
	_, id, _ := strings.Cut(s.must(t, "create", "--name", "shared"), "id=")
	id = strings.TrimSpace(strings.SplitN(id, "\n", 2)[0])
	port := freePort(t)
	s.background(t, "statistics", []string{
		"CLEARML_SERVING_TASK_ID=" + id, "CLEARML_SERVING_POLL_FREQ=0.02", "CLEARML_SERVING_PORT=" + port,
		"CLEARML_DEFAULT_KAFKA_SERVE_URL=127.0.0.1:" + freePort(t),
	}, python, "-m", "clearml_serving.statistics.main")
	s.eventually(t, patience, "the metrics page answers", func() error {
		status, page := s.get(t, "http://127.0.0.1:"+port+"/metrics")
		if status != 200 || !strings.Contains(page, "process_cpu_seconds_total") {
			return fmt.Errorf("status %d: %.200s", status, page)
		}
		return nil
	})
	wantsOK(t, s.python(t, python, "statistics_task.py"))
}

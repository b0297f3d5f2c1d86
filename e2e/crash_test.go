//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAfterKillOfTheServiceAllIsAsBefore(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "survivor", "--tags", "kept"))
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"), "--wait")
	before := s.must(t, "--id", id, "--json", "model", "list")
	for round := range 3 {
		c := s.clients(2, "steady", `{"x": 1}`, func(string) error { return nil })
		time.Sleep(50 * time.Millisecond)
		s.kill(t)
		c.stopping.Store(true) // requests while no instance is running may fail
		c.all.Wait()
		begun := time.Now()
		s.start(t, role{})
		s.eventually(t, patience, "the endpoint is back", func() error {
			status, got := s.ask(t, "steady", `{"x": 1}`)
			return answerError(status, got, `{"echo":{"x":1}}`)
		})
		t.Logf("round %d: answered again %v after the start", round, time.Since(begun))
	}
	if after := s.must(t, "--id", id, "--json", "model", "list"); after != before {
		t.Errorf("after the kills model list prints\n%s\nbefore it printed\n%s", after, before)
	}
}

func TestAKilledWorkerIsReplacedAndItsDeathHasACause(t *testing.T) {
	s := up(t)
	s.must(t, "create")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "dying", "--preprocess", code("dies.py"), "--wait")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"), "--wait")
	c := s.clients(2, "steady", `{"x": 1}`, func(answer string) error { return answerError(http.StatusOK, answer, `{"echo":{"x":1}}`) })
	for _, death := range []struct{ body, word string }{
		{`{"how": "exit"}`, "exit"},
		{`{"how": "segv"}`, "segmentation"},
	} {
		status, got := s.ask(t, "dying", death.body)
		if status != http.StatusInternalServerError {
			t.Errorf("a request that kills its worker (%s) was answered %d %s, want 500", death.body, status, got)
		}
		wantWords(t, "the answer", got, "dying", death.word)
		wantNoTrace(t, "the answer", got)
		s.eventually(t, patience, "the endpoint answers again", func() error {
			status, got := s.ask(t, "dying", `{}`)
			return statusError(status, got)
		})
	}
	c.end(t)
}

func TestAnyKilledPythonProcessComesBack(t *testing.T) {
	s := up(t)
	s.must(t, "create")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"), "--wait")
	victims := s.pythons()
	if len(victims) < 2 {
		t.Fatalf("found %v below the service, want the process that forks workers, and a worker", victims)
	}
	for _, victim := range victims { // one of them forks the others
		if err := syscall.Kill(victim.pid, syscall.SIGKILL); err != nil {
			continue // it ended with its parent
		}
		s.eventually(t, patience, "the endpoint answers after a kill of "+victim.String(), func() error {
			status, got := s.ask(t, "steady", `{"x": 1}`)
			return answerError(status, got, `{"echo":{"x":1}}`)
		})
	}
}

func TestInferenceServesFromItsCacheWhileTheControlPlaneIsDown(t *testing.T) {
	s := install(t)
	s.start(t, role{args: []string{"server", "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0"}})
	s.must(t, "create", "--name", "apart")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"))

	inference := install(t)
	inference.sdk = s.sdk
	alone := role{args: []string{"inference", "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}, env: s.sdk}
	inference.start(t, alone)
	answers := func() error {
		status, got := inference.ask(t, "steady", `{"x": 1}`)
		return answerError(status, got, `{"echo":{"x":1}}`)
	}
	inference.eventually(t, patience, "the endpoint answers", answers)

	// The control plane stops under load.
	c := inference.clients(2, "steady", `{"x": 1}`, func(answer string) error { return answerError(http.StatusOK, answer, `{"echo":{"x":1}}`) })
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.end(t, patience); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
	c.further(t, inference, 100)
	c.end(t)

	// It is still stopped when the inference service restarts, even after a kill.
	if err := inference.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	inference.end(t, patience)
	inference.start(t, alone)
	inference.eventually(t, patience, "the endpoint answers from the cache", answers)
	inference.eventually(t, patience, "the status tells both", func() error { // the cache may be served before the first poll has failed
		status, body := inference.get(t, inference.urls["serve"]+"/status")
		if status != http.StatusOK || !strings.Contains(body, `"from_cache": true`) || !strings.Contains(body, "control_plane_error") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	inference.stop(t)
	s.noProcessLeft(t)
}

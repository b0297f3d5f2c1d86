package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"clearmlserving/worker"
)

// vanishing is an endpoint whose code and runtime can be taken away.
type vanishing struct {
	*world
	g        *worker.Group
	dir      string // of the code
	runtime  string
	restored atomic.Int32
	distrust atomic.Int32
	missing  atomic.Bool // it cannot be brought back
}

const vanishingCode = `
import os
import time


class Preprocess:
    def process(self, data, state, collect):
        if data == "sleep":
            time.sleep(0.3)
        return os.getpid()
`

func newVanishing(t *testing.T, change func(*worker.Spec)) *vanishing {
	t.Helper()
	v := &vanishing{dir: filepath.Join(t.TempDir(), "code")}
	v.world = newWorld(t, func(o *worker.Options) { v.runtime = o.RuntimeDir })
	v.put(t)
	v.g = v.start(t, "m", "", func(s *worker.Spec) {
		s.CodePath = v.dir
		s.Restore = func(_ context.Context, distrust bool) error {
			v.restored.Add(1)
			if distrust {
				v.distrust.Add(1)
			}
			if v.missing.Load() {
				return errors.New("the file server is away")
			}
			v.put(t)
			return nil
		}
		if change != nil {
			change(s)
		}
	})
	return v
}

func (v *vanishing) put(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(v.dir, 0o755), os.WriteFile(filepath.Join(v.dir, "__init__.py"), []byte(vanishingCode), 0o600)); err != nil {
		t.Error(err)
	}
}

func (v *vanishing) vanish(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(v.dir), os.RemoveAll(v.runtime)); err != nil {
		t.Fatal(err)
	}
}

func (v *vanishing) pids() (list []int) {
	for _, w := range v.g.Status().Workers {
		list = append(list, w.PID)
	}
	return list
}

func (v *vanishing) answers(t *testing.T) int {
	t.Helper()
	var pid int
	eventually(t, "an answer", func() bool {
		r, err := v.g.Do(t.Context(), &worker.Request{Body: []byte(`1`), ContentType: "application/json"})
		return err == nil && r.Status == 200 && json.Unmarshal(r.Body, &pid) == nil
	})
	return pid
}

func TestFilesThatVanishedAreBroughtBackForTheNextProcess(t *testing.T) {
	kill := func(v *vanishing) {
		for _, pid := range v.pids() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	t.Run("death of the worker", func(t *testing.T) {
		v := newVanishing(t, nil)
		before := v.answers(t)
		v.vanish(t)
		kill(v)
		if v.answers(t) == before || v.restored.Load() == 0 {
			t.Errorf("restored %d times", v.restored.Load())
		}
	})
	t.Run("async", func(t *testing.T) { // imports more of the runtime
		v := newVanishing(t, func(s *worker.Spec) { s.Engine = "custom_async" })
		before := v.answers(t)
		v.vanish(t)
		kill(v)
		if v.answers(t) == before {
			t.Error("the same worker")
		}
	})
	t.Run("scale-up", func(t *testing.T) {
		v := newVanishing(t, func(s *worker.Spec) { s.Workers, s.Elastic = 2, 1 })
		v.vanish(t)
		var all sync.WaitGroup
		eventually(t, "a second worker", func() bool {
			for range 4 {
				all.Go(func() { _, _ = v.g.Do(t.Context(), &worker.Request{Body: []byte(`"sleep"`)}) })
			}
			all.Wait()
			return len(v.pids()) == 2
		})
		if v.restored.Load() == 0 {
			t.Error("nothing was restored")
		}
	})
	t.Run("a template that died", func(t *testing.T) {
		v := newVanishing(t, func(s *worker.Spec) { s.Workers = 2 })
		eventually(t, "both workers", func() bool { return len(v.pids()) == 2 })
		template := parentOf(t, strconv.Itoa(v.pids()[0]))
		v.vanish(t)
		_ = syscall.Kill(template, syscall.SIGKILL)
		eventually(t, "another template", func() bool {
			for _, pid := range v.pids() {
				if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(stat), ") S "+strconv.Itoa(template)+" ") {
					return false
				}
			}
			return len(v.pids()) == 2
		})
		v.answers(t)
	})
	t.Run("wake after idle timeout", func(t *testing.T) {
		v := newVanishing(t, func(s *worker.Spec) { s.Workers, s.Elastic, s.Limits.IdleTimeout = 1, 1, 0.05 })
		v.answers(t)
		eventually(t, "it sleeps", func() bool { return len(v.pids()) == 0 })
		v.vanish(t)
		v.answers(t)
		if v.restored.Load() == 0 {
			t.Error("nothing was restored")
		}
	})
	t.Run("the process that forks workers", func(t *testing.T) {
		v := newVanishing(t, nil)
		before := v.pids()[0]
		zygote := parentOf(t, strconv.Itoa(before))
		v.vanish(t)
		_ = syscall.Kill(zygote, syscall.SIGKILL)
		eventually(t, "another worker answers", func() bool { return v.answers(t) != before })
	})
}

func TestWhatCannotBeBroughtBackIsSaid(t *testing.T) {
	v := newVanishing(t, nil)
	v.missing.Store(true)
	v.vanish(t)
	_ = syscall.Kill(v.pids()[0], syscall.SIGKILL)
	eventually(t, "the reason", func() bool { return strings.Contains(v.g.Status().Reason, "the file server is away") })
	v.missing.Store(false)
	v.answers(t)
}

func TestAfterAFailedLoadTheFilesAreCompared(t *testing.T) {
	v := newVanishing(t, nil)
	if err := os.WriteFile(filepath.Join(v.dir, "__init__.py"), []byte("raise ValueError('damaged')"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.missing.Store(true) // nothing is put back until it is asked to compare
	_ = syscall.Kill(v.pids()[0], syscall.SIGKILL)
	eventually(t, "a failure", func() bool { return v.restored.Load() > 0 })
	v.missing.Store(false)
	v.answers(t)
	if v.distrust.Load() == 0 {
		t.Error("never compared")
	}
}

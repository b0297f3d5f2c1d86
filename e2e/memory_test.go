//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"testing"
)

// TestWorkersEndEarlyWhenMemoryIsShortAndNobodyNotices gives all workers a budget
// that is too small for one.
func TestWorkersEndEarlyWhenMemoryIsShortAndNobodyNotices(t *testing.T) {
	s := install(t)
	s.start(t, role{args: []string{"up", "--memory-budget", "1MiB"}})
	t.Cleanup(func() { s.stop(t) })
	s.must(t, "create")
	for _, name := range []string{"sleeps", "stays"} {
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", name, "--preprocess", writeCode(t, s, name+".py", answersWith(name)))
	}
	s.must(t, "model", "limits", "--endpoint", "sleeps", "--min-workers", "0", "--idle-timeout", "3600")
	var told struct {
		Endpoints []struct {
			Endpoint string
			Model    struct {
				Asleep   bool
				Restarts int
			}
		}
		Memory struct {
			Budget, Taken int64
			EndedEarly    int `json:"ended_early"`
			Short         bool
		} `json:"workers_memory"`
	}
	ended := 0
	for range 3 { // a request, then it is stopped again
		s.answers(t, "sleeps", `{"code":"sleeps"}`)
		s.answers(t, "stays", `{"code":"stays"}`)
		s.eventually(t, patience, "it is put to sleep", func() error {
			status, body := s.get(t, s.urls["admin"]+"/status")
			if status != 200 {
				return fmt.Errorf("status %d: %s", status, body)
			}
			decode(t, body, &told)
			if m := told.Memory; m.EndedEarly <= ended || m.Budget != 1<<20 || m.Taken == 0 || !m.Short {
				return fmt.Errorf("%+v", told.Memory)
			}
			asleep := false
			for _, e := range told.Endpoints {
				if e.Model.Restarts > 0 {
					return fmt.Errorf("%s has lost a worker", e.Endpoint)
				}
				asleep = asleep || e.Model.Asleep
			}
			if !asleep {
				return errors.New("no endpoint sleeps")
			}
			return nil
		})
		ended = told.Memory.EndedEarly
	}
}

//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestTheInstancesTaskIsTheCurrentTaskOfUserCode checks that reports of the SDK in user code belong
// to the instance's task, and that the task stays in progress when the worker ends.
func TestTheInstancesTaskIsTheCurrentTaskOfUserCode(t *testing.T) {
	for name, python := range sdks() {
		t.Run(name, func(t *testing.T) {
			s := install(t)
			s.start(t, role{python: python})
			t.Cleanup(func() { s.stop(t) })
			id := createdID(t, s.must(t, "create"))
			call := s.caller(t)
			s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "current", "--preprocess", code("current_task.py"), "--wait")
			s.must(t, "--id", id, "model", "limits", "--endpoint", "current", "--min-workers", "2", "--max-workers", "2")
			var found struct {
				Data struct{ Tasks []struct{ ID, Status string } }
			}
			decode(t, call("tasks.get_all", map[string]any{"type": []string{"inference"}, "only_fields": []string{"id", "status"}}), &found)
			if len(found.Data.Tasks) != 1 {
				t.Fatalf("instances: %+v", found.Data.Tasks)
			}
			instance := found.Data.Tasks[0].ID
			want := fmt.Sprintf(`{"loaded":%[1]q,"task":%[1]q}`, instance)
			for x := range 6 {
				status, got := s.ask(t, "current", fmt.Sprintf(`{"x":%d}`, x))
				got = strings.ReplaceAll(got, " ", "")
				if status != http.StatusOK || (got != want && got != fmt.Sprintf(`{"task":%[1]q,"loaded":%[1]q}`, instance)) {
					t.Fatalf("%d %s, want %s", status, got, want)
				}
			}
			s.must(t, "--id", id, "model", "remove", "--endpoint", "current")
			s.unknown(t, "current")
			s.eventually(t, patience, "what the code reported is on the instance's task", func() error {
				answer := call("events.scalar_metrics_iter_histogram", map[string]any{"task": instance})
				if !strings.Contains(answer, "from user code") || !strings.Contains(answer, "5.0") && !strings.Contains(answer, "5]") {
					return fmt.Errorf("%s", answer)
				}
				return nil
			})
			decode(t, call("tasks.get_all", map[string]any{"id": []string{instance}, "only_fields": []string{"id", "status"}}), &found)
			if found.Data.Tasks[0].Status != "in_progress" {
				t.Errorf("the end of a worker has made the instance's task %s", found.Data.Tasks[0].Status)
			}
		})
	}
}

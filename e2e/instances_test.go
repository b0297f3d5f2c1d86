//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pollMinutes is the poll interval of instances without the change feed.
const pollMinutes = "0.005"

// controlPlane starts only the embedded ClearML server.
func controlPlane(t *testing.T) *system {
	t.Helper()
	s := install(t)
	s.start(t, role{args: []string{"server", "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0"}})
	t.Cleanup(func() { s.stop(t) })
	return s
}

// instance starts an inference service with a separate data folder for one
// serving service of the control plane.
func instance(t *testing.T, plane *system, id string) *system {
	t.Helper()
	s := install(t)
	s.startInstance(t, plane, id)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *system) startInstance(t *testing.T, plane *system, id string) {
	t.Helper()
	s.start(t, role{
		args: []string{"--id", id, "inference", "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"},
		env:  append([]string{"CLEARML_SERVING_POLL_FREQ=" + pollMinutes}, plane.sdk...),
	})
}

// answers waits until an endpoint gives this answer.
func (s *system) answers(t *testing.T, endpoint, answer string) {
	t.Helper()
	s.eventually(t, patience, endpoint+" answers "+answer, func() error {
		status, got := s.ask(t, endpoint, `{"x":1}`)
		if err := answerError(status, got, answer); err != nil {
			_, state := s.get(t, s.urls["serve"]+"/status")
			return fmt.Errorf("%w; status: %s", err, state)
		}
		return nil
	})
}

// unknown waits until no instance serves an endpoint.
func (s *system) unknown(t *testing.T, endpoint string) {
	t.Helper()
	s.eventually(t, patience, endpoint+" is not there", func() error {
		if status, got := s.ask(t, endpoint, `{"x":1}`); status != http.StatusNotFound {
			return fmt.Errorf("%s answered %d %s, want 404", endpoint, status, got)
		}
		return nil
	})
}

// register uploads a model whose file holds text, and returns its id.
func (s *system) register(t *testing.T, service, text string, flags ...string) string {
	t.Helper()
	file := filepath.Join(s.dir, "work", text+".txt")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return s.registerFrom(t, service, append([]string{"--path", file}, flags...)...)
}

func (s *system) registerFrom(t *testing.T, service string, flags ...string) string {
	t.Helper()
	out := s.must(t, append([]string{"--id", service, "model", "upload"}, flags...)...)
	m := regexp.MustCompile(`new Model ID=([0-9a-f]{32})`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("model upload printed no id: %q", out)
	}
	return m[1]
}

func says(model string) string { return fmt.Sprintf(`{"model":%q}`, model) }

// writeCode writes a file of code and returns its path.
func writeCode(t *testing.T, s *system, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, "work", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func answersWith(word string) string {
	return fmt.Sprintf("class Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        return {\"code\": %q}\n", word)
}

func TestTwoServicesOnOneControlPlaneSeeNothingOfEachOther(t *testing.T) {
	plane := controlPlane(t)
	var instances [2][2]*system
	for i, name := range []string{"first", "second"} {
		id := createdID(t, plane.must(t, "create", "--name", name))
		own := writeCode(t, plane, name+".py", answersWith(name))
		for _, endpoint := range []string{"both", "only_" + name} {
			plane.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", endpoint, "--preprocess", own)
		}
		for j := range instances[i] {
			instances[i][j] = instance(t, plane, id)
		}
	}
	for i, name := range []string{"first", "second"} {
		other := []string{"second", "first"}[i]
		for _, s := range instances[i] {
			s.answers(t, "both", fmt.Sprintf(`{"code":%q}`, name))
			s.answers(t, "only_"+name, fmt.Sprintf(`{"code":%q}`, name))
			s.unknown(t, "only_"+other)
			if _, status := s.get(t, s.urls["serve"]+"/status"); strings.Contains(status, "only_"+other) {
				t.Errorf("an instance of %s knows of %s: %s", name, other, status)
			}
		}
	}
}

func TestInstancesOfOneServiceAgreeOnVersionsAndCanaries(t *testing.T) {
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create"))
	a, b := instance(t, plane, id), instance(t, plane, id)
	both := func(check func(s *system)) {
		t.Helper()
		check(a)
		check(b)
	}
	plane.must(t, "--id", id, "model", "auto-update", "--engine", "custom", "--endpoint", "auto", "--max-versions", "2",
		"--project", "agree", "--name", "agreed", "--preprocess", code("reads_model.py"))
	plane.must(t, "--id", id, "model", "canary", "--endpoint", "auto", "--weights", "1.0", "0.0", "--input-endpoint-prefix", "auto/")
	for version, text := range []string{"one", "two", "three"} {
		plane.register(t, id, text, "--name", "agreed", "--project", "agree")
		both(func(s *system) {
			s.answers(t, fmt.Sprintf("auto/%d", version+1), says(text))
			s.answers(t, "auto", says(text)) // the canary sends everything to the newest
		})
	}
	settled := func(s *system) {
		s.unknown(t, "auto/1")
		s.answers(t, "auto/2", says("two"))
		s.answers(t, "auto/3", says("three"))
		s.answers(t, "auto", says("three"))
	}
	both(settled)

	b.stop(t)
	plane.register(t, id, "four", "--name", "agreed", "--project", "agree") // while b is stopped
	a.answers(t, "auto/4", says("four"))
	b.startInstance(t, plane, id)
	fresh := instance(t, plane, id) // one without a cache
	for _, s := range []*system{a, b, fresh} {
		s.unknown(t, "auto/2")
		s.answers(t, "auto/3", says("three"))
		s.answers(t, "auto/4", says("four"))
		s.answers(t, "auto", says("four"))
	}
	if versions := plane.must(t, "--id", id, "--json", "model", "list"); !strings.Contains(versions, `"auto/4"`) || strings.Contains(versions, `"auto/2"`) {
		t.Errorf("the versions that are served are not written back:\n%s", versions)
	}
}

func TestAutoUpdateFollowsItsModels(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	monitor := func(endpoint string, flags ...string) {
		t.Helper()
		s.must(t, append([]string{"--id", id, "model", "auto-update", "--engine", "custom", "--endpoint", endpoint, "--preprocess", code("reads_model.py")}, flags...)...)
	}

	t.Run("a tag brings a model, its loss takes it away, its number stays", func(t *testing.T) {
		monitor("tagged", "--tags", "prod", "--max-versions", "9")
		first := s.register(t, id, "first", "--name", "tagged model", "--project", "tags")
		s.register(t, id, "second", "--name", "tagged model", "--project", "tags", "--tags", "prod")
		s.answers(t, "tagged/1", says("second"))
		s.call(t, "models.edit", map[string]any{"model": first, "tags": []string{"prod", "other"}})
		s.answers(t, "tagged/2", says("first")) // older, but tagged later
		s.call(t, "models.edit", map[string]any{"model": first, "tags": []string{"other"}})
		s.unknown(t, "tagged/2")
		s.answers(t, "tagged/1", says("second"))
		s.call(t, "models.edit", map[string]any{"model": first, "tags": []string{"prod"}})
		s.answers(t, "tagged/2", says("first"))
	})
	t.Run("an archived model leaves, a deleted one too, no number is used twice", func(t *testing.T) {
		monitor("gone", "--project", "gone", "--max-versions", "9")
		one := s.register(t, id, "one", "--name", "one", "--project", "gone")
		two := s.register(t, id, "two", "--name", "two", "--project", "gone")
		s.answers(t, "gone/2", says("two"))
		s.call(t, "models.archive_many", map[string]any{"ids": []string{one}})
		s.unknown(t, "gone/1")
		s.call(t, "models.unarchive_many", map[string]any{"ids": []string{one}})
		s.answers(t, "gone/1", says("one"))
		s.call(t, "models.delete", map[string]any{"model": two, "force": true})
		s.unknown(t, "gone/2")
		s.register(t, id, "three", "--name", "three", "--project", "gone")
		s.answers(t, "gone/3", says("three"))
	})
	t.Run("published only", func(t *testing.T) {
		monitor("published", "--project", "publishing", "--published", "--max-versions", "9")
		draft := s.register(t, id, "draft", "--name", "draft", "--project", "publishing")
		s.register(t, id, "ready", "--name", "ready", "--project", "publishing", "--publish")
		s.answers(t, "published/1", says("ready"))
		s.call(t, "models.set_ready", map[string]any{"model": draft, "publish_task": false})
		s.answers(t, "published/2", says("draft"))
	})
	t.Run("the newest by creation up to the maximum", func(t *testing.T) {
		for _, text := range []string{"old", "newer", "newest"} {
			s.register(t, id, text, "--name", "window", "--project", "window")
		}
		monitor("window", "--project", "window", "--max-versions", "2")
		s.answers(t, "window/1", says("newer"))
		s.answers(t, "window/2", says("newest"))
		s.unknown(t, "window/3")
		monitor("window", "--project", "window", "--max-versions", "3") // a higher maximum: an older one is added last
		s.answers(t, "window/3", says("old"))
		s.answers(t, "window/2", says("newest"))
	})
	t.Run("a model that is still being uploaded waits", func(t *testing.T) {
		monitor("upload", "--project", "uploading", "--max-versions", "1")
		s.register(t, id, "whole", "--name", "whole", "--project", "uploading")
		s.answers(t, "upload/1", says("whole"))
		late := s.registerFrom(t, id, "--name", "late", "--project", "uploading", "--url", s.urls["files"]+"/uploading_file")
		// An instance that serves a later model has also processed this one.
		monitor("upload_seen", "--project", "seen")
		s.register(t, id, "seen", "--name", "seen", "--project", "seen")
		s.answers(t, "upload_seen/1", says("seen"))
		s.answers(t, "upload/1", says("whole"))
		s.unknown(t, "upload/2")
		s.call(t, "models.edit", map[string]any{"model": late, "uri": s.upload(t, "uploading/late.txt", []byte("late"))})
		s.answers(t, "upload/2", says("late"))
		s.unknown(t, "upload/1")
	})
	t.Run("a project that does not exist yet", func(t *testing.T) {
		monitor("later", "--project", "not there yet", "--max-versions", "1")
		s.eventually(t, patience, "the status names the project", func() error {
			if _, status := s.get(t, s.urls["serve"]+"/status"); !strings.Contains(status, `project \"not there yet\" does not exist yet`) {
				return fmt.Errorf("status: %s", status)
			}
			return nil
		})
		s.register(t, id, "come", "--name", "come", "--project", "not there yet")
		s.answers(t, "later/1", says("come"))
	})
	t.Run("the end of the rule is the end of its versions", func(t *testing.T) {
		s.must(t, "--id", id, "model", "remove", "--endpoint", "later")
		s.unknown(t, "later/1")
	})
}

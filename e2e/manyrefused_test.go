//go:build linux

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestManyRefusedModelsLeaveTheGoodOneServing registers more models that do not load than the
// instance looks up beside the newest ones.
func TestManyRefusedModelsLeaveTheGoodOneServing(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "revisions"))
	s.must(t, "model", "auto-update", "--engine", "custom", "--endpoint", "auto", "--project", "autos", "--max-versions", "1", "--preprocess", writeCode(t, s, "loads.py", loadsModel))
	s.must(t, "model", "canary", "--endpoint", "latest", "--weights", "1", "--input-endpoint-prefix", "auto/")
	s.register(t, id, "good1", "--name", "autos", "--project", "autos")
	s.answers(t, "latest", `{"code":"good"}`)
	const bad = 23
	for i := range bad {
		s.register(t, id, fmt.Sprintf("bad%d", i), "--name", "autos", "--project", "autos")
		s.wants(t, "latest", `{"x":1}`, `{"code":"good"}`)
	}
	s.kill(t)
	s.start(t, role{})
	s.answers(t, "latest", `{"code":"good"}`)
	s.register(t, id, "good2", "--name", "autos", "--project", "autos")
	s.unknown(t, "auto/1")
	s.wants(t, "latest", `{"x":1}`, `{"code":"good"}`)
}

// TestAVersionThatCannotBeFetchedTakesNoTraffic registers a model without a file: the canary stays
// with the good version, also after a restart.
func TestAVersionThatCannotBeFetchedTakesNoTraffic(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "revisions"))
	s.must(t, "model", "auto-update", "--engine", "custom", "--endpoint", "auto", "--project", "autos", "--max-versions", "1", "--preprocess", writeCode(t, s, "loads.py", loadsModel))
	s.must(t, "model", "canary", "--endpoint", "latest", "--weights", "1", "--input-endpoint-prefix", "auto/")
	s.register(t, id, "good1", "--name", "autos", "--project", "autos")
	s.answers(t, "latest", `{"code":"good"}`)
	late := s.registerFrom(t, id, "--name", "autos", "--project", "autos", "--url", s.urls["files"]+"/not/there.txt")
	failed := func() {
		t.Helper()
		s.eventually(t, patience, "the second version cannot be fetched", func() error {
			if list := s.must(t, "model", "list", "--verbose"); !strings.Contains(list, "not/there.txt") {
				return fmt.Errorf("%s", list)
			}
			return nil
		})
	}
	failed()
	s.wants(t, "latest", `{"x":1}`, `{"code":"good"}`)
	s.kill(t)
	s.start(t, role{})
	s.answers(t, "latest", `{"code":"good"}`)
	failed()
	s.wants(t, "latest", `{"x":1}`, `{"code":"good"}`)
	s.call(t, "models.edit", map[string]any{"model": late, "uri": s.upload(t, "late/good2.txt", []byte("good2"))})
	s.unknown(t, "auto/1")
	s.wants(t, "latest", `{"x":1}`, `{"code":"good"}`)
}

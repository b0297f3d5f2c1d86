//go:build linux

package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// judgedVersion is code whose answer and speed differ by version.
func judgedVersion(t *testing.T, s *system, name, answer string) string {
	t.Helper()
	file := filepath.Join(s.dir, "work", name+".py")
	text := "import time\n\n\nclass Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        " + answer + "\n"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRecordedAnswersRefuseABrokenASlowAndAWrongVersion(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "judged")
	add := func(name, answer string) result {
		t.Helper()
		return s.cli(t, "model", "add", "--engine", "custom", "--endpoint", "judged", "--preprocess", judgedVersion(t, s, name, answer), "--wait")
	}
	if r := add("good", `return {"y": [data["x"] * 2]}`); r.code != 0 {
		t.Fatal(r)
	}
	s.must(t, "model", "record", "--endpoint", "judged", "--wait")
	for _, x := range []string{"1", "2.5"} {
		s.ask(t, "judged", `{"x":`+x+`}`)
	}
	recording := filepath.Join(s.data, "recordings", "judged.jsonl")
	s.eventually(t, patience, "both requests are recorded", func() error {
		data, err := os.ReadFile(recording)
		if err == nil && strings.Count(string(data), "\n") < 2 {
			err = os.ErrNotExist
		}
		return err
	})
	s.must(t, "model", "record", "--endpoint", "judged", "--off", "--wait")
	judgeWithin := func(limit string) {
		t.Helper()
		s.must(t, "model", "golden", "--endpoint", "judged", "--samples", recording, "--timeout", limit, "--wait")
	}
	judgeWithin("1m") // a stalled machine must not fail the test

	ctx, stop := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for asked := 0; ctx.Err() == nil || asked == 0; asked++ {
			if status, body := s.ask(t, "judged", `{"x":3}`); status != 200 || (body != `{"y":[6]}` && body != `{"y":[6.0]}`) {
				t.Errorf("answered %d %s", status, body)
				return
			}
		}
	})
	refused := func(name, answer, cause string) {
		t.Helper()
		r := add(name, answer)
		if r.code != 1 || !strings.Contains(r.out, "golden: ") || !strings.Contains(r.out, cause) {
			t.Errorf("%s: %v", name, r)
		}
		if list := s.must(t, "model", "list", "--verbose"); !strings.Contains(list, cause) {
			t.Errorf("%s: model list does not name the reason:\n%s", name, list)
		}
	}
	refused("broken", `raise ValueError("no such column")`, "status is 422, expected 200")
	refused("wrong", `return {"y": [data["x"] * 2 + 0.01]}`, "sample 1 of 2: y[0] is 2.01, expected 2")
	if r := add("equal", `return {"y": [data["x"] * 2.0]}`); r.code != 0 {
		t.Error(r)
	}
	judgeWithin("500ms")
	refused("slow", `time.sleep(2); return {"y": [data["x"] * 2]}`, "no answer within 500ms")
	s.wants(t, "judged", `{"x":3}`, `{"y":[6.0]}`)
	stop()
	traffic.Wait()
}

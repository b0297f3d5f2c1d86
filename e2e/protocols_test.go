//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// protocolModel is an endpoint that the clients of the open protocols ask.
type protocolModel struct {
	endpoint, code string
	flags          []string
}

// tensorFlags describe inputs and outputs of one type and shape.
func tensorFlags(datatype, shape string, inputs, outputs []string) []string {
	var flags []string
	for _, side := range []struct {
		name    string
		tensors []string
	}{{"input", inputs}, {"output", outputs}} {
		if len(side.tensors) == 0 {
			continue
		}
		flags = append(flags, "--"+side.name+"-name")
		flags = append(flags, side.tensors...)
		flags = append(flags, "--"+side.name+"-type")
		for range side.tensors {
			flags = append(flags, datatype)
		}
		flags = append(flags, "--"+side.name+"-size")
		for range side.tensors {
			flags = append(flags, shape)
		}
	}
	return flags
}

// protocolModels are those of the judges, and those that Triton's examples ask for.
func protocolModels() []protocolModel {
	two, one := []string{"INPUT0", "INPUT1"}, []string{"OUTPUT0", "OUTPUT1"}
	sequence := tensorFlags("int32", "[-1, 1]", []string{"INPUT"}, []string{"OUTPUT"})
	return []protocolModel{
		{"simple", "simple.py", tensorFlags("int32", "[-1, 16]", two, one)},
		{"simple_int8", "simple.py", tensorFlags("int8", "[-1, 16]", two, one)},
		{"densenet_onnx", "densenet.py", append(tensorFlags("float32", "[3, 224, 224]", []string{"data_0"}, nil), "--output-name", "fc6_1", "--output-type", "float32", "--output-size", "[1000]")},
		{"pieces", "pieces.py", nil},
		{"repeat_int32", "repeat_int32.py", nil},
		{"slow", "slow.py", nil},
		{"simple_string", "simple_string.py", tensorFlags("string", "[-1, 16]", two, one)},
		{"simple_identity", "identity.py", tensorFlags("string", "[-1, 16]", two[:1], one[:1])},
		{"custom_identity_int32", "identity.py", tensorFlags("int32", "[-1, 16]", two[:1], one[:1])},
		{"simple_sequence", "sequence.py", sequence},
		{"simple_dyna_sequence", "dyna_sequence.py", sequence},
		{"simple_string_dyna_sequence", "string_dyna_sequence.py", sequence},
		{"identity", "identity.py", nil},
		{"group/identity", "identity.py", nil},
		{"free", "free.py", nil},
		{"rows", "rows.py", tensorFlags("float64", "[-1, 2]", []string{"rows"}, nil)},
		{"words", "words.py", nil},
		{"sizes", "sizes.py", nil},
		{"years", "years.py", nil},
		{"table", "table.py", nil},
	}
}

// openProtocols starts an instance with the models, whose code has numpy and pandas.
func openProtocols(t *testing.T) *system {
	t.Helper()
	s := install(t)
	python := filepath.Join(root, ".venv-runtime/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatal("no .venv-runtime: make e2e-protocols")
	}
	s.start(t, role{python: python})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	for _, m := range protocolModels() {
		args := []string{"--id", id, "model", "add", "--engine", "custom", "--endpoint", m.endpoint, "--preprocess", filepath.Join(root, "e2e/testdata/protocols", m.code), "--no-wait"}
		s.must(t, append(args, m.flags...)...)
	}
	s.eventually(t, patience, "all models are ready", func() error {
		_, text := roundTrip("POST", s.urls["serve"]+"/v2/repository/index", "application/json", strings.NewReader(`{"ready":true}`))
		var ready []struct{ Name string }
		if err := json.Unmarshal([]byte(text), &ready); err != nil {
			return err
		}
		if len(ready) != len(protocolModels()) {
			return fmt.Errorf("%d of %d models are ready: %s", len(ready), len(protocolModels()), text)
		}
		return nil
	})
	return s
}

// judge runs a script of a client in its environment, with the address for HTTP clients.
func (s *system) judge(t *testing.T, environment, script string, args ...string) {
	t.Helper()
	python := filepath.Join(root, ".venv-"+environment, "bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("no .venv-%s: make e2e-protocols", environment)
	}
	s.python(t, python, filepath.Join(root, "e2e/testdata/protocols", script), append([]string{strings.TrimPrefix(s.urls["serve"], "http://")}, args...)...)
}

// needsProtocols skips a test that only make e2e-protocols runs, for its large environments.
func needsProtocols(t *testing.T) {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_PROTOCOLS") == "" {
		t.Skip("make e2e-protocols runs it")
	}
}

func TestProtocolsNvidiasClientGetsRightAnswersOverHTTP(t *testing.T) {
	openProtocols(t).judge(t, "v2-triton", "judge_tritonclient.py")
}

func TestProtocolsAskModelsWithoutCode(t *testing.T) {
	s := install(t)
	python := filepath.Join(root, ".venv-runtime/bin/python")
	s.start(t, role{python: python})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	s.python(t, python, filepath.Join(root, "e2e/testdata/protocols/train_tables.py"))
	work := filepath.Join(s.dir, "work")
	for model, flags := range map[string][]string{"forest": nil, "line": {"--aux-config", "method=predict_proba"}} {
		s.must(t, "--id", id, "model", "upload", "--name", model, "--project", "protocols", "--framework", "scikitlearn", "--path", filepath.Join(work, model+".pkl"))
		args := []string{"--id", id, "model", "add", "--engine", "sklearn", "--endpoint", model, "--name", model, "--project", "protocols", "--wait"}
		s.must(t, append(args, flags...)...)
	}
	s.judge(t, "v2-triton", "judge_tables.py", work)
}

func TestProtocolsOtherClientsGetRightAnswersOverHTTP(t *testing.T) {
	needsProtocols(t)
	s := openProtocols(t)
	t.Run("kserve", func(t *testing.T) { s.judge(t, "v2-kserve", "judge_kserve.py") })
	t.Run("mlserver codecs", func(t *testing.T) { s.judge(t, "v2-mlserver", "judge_mlserver.py") })
	t.Run("mlserver infer", s.mlserverInfer)
	t.Run("open-inference-openapi", func(t *testing.T) { s.judge(t, "v2-openapi", "judge_openapi.py") })
	t.Run("schemathesis", s.schemathesis)
}

// mlserverInfer sends a file of requests with MLServer's batch client.
func (s *system) mlserverInfer(t *testing.T) {
	const requests = 50
	in, out := filepath.Join(s.dir, "requests"), filepath.Join(s.dir, "answers")
	var lines strings.Builder
	for n := range requests {
		fmt.Fprintf(&lines, `{"id":"%d","inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"INT32","data":[%[2]s]},{"name":"INPUT1","shape":[1,16],"datatype":"INT32","data":[%[2]s]}]}`+"\n",
			n, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%d,", n), 16), ","))
	}
	if err := os.WriteFile(in, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, ".venv-v2-mlserver/bin/mlserver"), "infer", "--url", strings.TrimPrefix(s.urls["serve"], "http://"), "--model-name", "simple", "--input-data-path", in, "--output-data-path", out, "--workers", "4")
	if printed, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var answer struct {
			ID      string
			Outputs []struct {
				Name string
				Data []int
			}
		}
		if err := json.Unmarshal([]byte(line), &answer); err != nil || len(answer.Outputs) != 2 {
			t.Fatalf("%v: %s", err, line)
		}
		id, err := strconv.Atoi(answer.ID)
		if want := 2 * id; err != nil || answer.Outputs[0].Name != "OUTPUT0" || len(answer.Outputs[0].Data) != 16 || answer.Outputs[0].Data[15] != want {
			t.Errorf("%s, want %d", line, want)
		}
		seen[answer.ID] = true
	}
	if len(seen) != requests {
		t.Errorf("%d answers of %d", len(seen), requests)
	}
}

// schemathesis sends generated requests that follow, and break, the specification's OpenAPI document, KServe's:
// CLEARML_SERVING_V2_OPENAPI, which scripts/v2-specification.sh fetches.
func (s *system) schemathesis(t *testing.T) {
	document := os.Getenv("CLEARML_SERVING_V2_OPENAPI")
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(s.dir, "work")
	for name, content := range map[string]string{
		"protocol.yaml":     strings.ReplaceAll(string(text), "${", "{"), // its paths would have a $ before each parameter
		"schemathesis.toml": "[parameters]\n\"path.MODEL_NAME\" = \"free\"\n\"path.MODEL_VERSION\" = \"1\"\n",
	} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(root, ".venv-v2-openapi/bin/schemathesis"), "run", "protocol.yaml", "--url", s.urls["serve"],
		"--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance", "--max-examples", "100", "--seed", "1")
	cmd.Dir = work
	printed, err := cmd.CombinedOutput()
	t.Logf("%s", printed)
	if err != nil {
		t.Error(err)
	}
}

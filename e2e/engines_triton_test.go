//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// pythonTriton is the interpreter of an environment with Triton.
func pythonTriton(t *testing.T) string {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_ENGINES") == "" {
		t.Skip("it needs Triton: make e2e-engines")
	}
	return filepath.Join(root, ".venv-bench-triton/bin/python")
}

// tritonBox is a role triton with the server of NVIDIA's wheel.
type tritonBox struct {
	*system

	grpc string
	http string
}

// wheelOf asks an interpreter where its Triton is.
const wheelOf = `
import pathlib, sys, sysconfig, pytriton
home = pathlib.Path(pytriton.__file__).parent
stub = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
print(home / "tritonserver", home.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"), stub)
`

// tritonRole starts a role triton for a service.
func tritonRole(t *testing.T, plane *system, id string, flags ...string) *tritonBox {
	t.Helper()
	python := pythonTriton(t)
	out, err := exec.Command(python, "-c", wheelOf).Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(out))
	home, libraries, stub := words[0], words[1]+":"+words[2], words[3]
	s := install(t)
	backend := filepath.Join(s.dir, "backends", "python")
	if err := os.MkdirAll(backend, 0o755); err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob(filepath.Join(home, "backends", "python", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range append(parts, filepath.Join(home, stub)) {
		text, err := os.ReadFile(part)
		if err != nil {
			continue // a folder
		}
		if err := os.WriteFile(filepath.Join(backend, filepath.Base(part)), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ports := freePorts(t, 3)
	box := &tritonBox{s, "127.0.0.1:" + ports[1], "http://127.0.0.1:" + ports[0]}
	args := append([]string{
		"triton", "--serving-id", id, "--triton-addr", "127.0.0.1:0", "--tritonserver", filepath.Join(home, "bin", "tritonserver"),
		"--t-http-port", ports[0], "--t-grpc-port", ports[1], "--t-metrics-port", ports[2], "--metric-frequency", "0.02",
	}, flags...)
	args = append(args, "--backend-directory="+filepath.Dir(backend), "--allow-gpu-metrics=false", "--exit-timeout-secs=3")
	s.start(t, role{args: args, env: append([]string{
		"PATH=" + filepath.Dir(python) + ":" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + libraries, "CLEARML_TRITON_T_LOG_VERBOSE=0", "CLEARML_TRITON_POLL_FREQ=" + pollMinutes,
	}, plane.sdk...)})
	return box
}

// freePorts are ports that nobody listens on now.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)) //nolint:forcetypeassert // of tcp
	}
	return ports
}

// model is a model folder of the tests.
func (b *tritonBox) model(name string) string {
	return filepath.Join(root, "e2e/testdata/triton", name)
}

// tensorsOfTriton are the flags of the tests' models.
var tensorsOfTriton = []string{
	"--engine", "triton", "--input-name", "x", "--input-type", "float32", "--input-size", "1", "4", "--output-name", "y", "--output-type", "float32", "--output-size", "1", "4",
}

// state waits until an endpoint has a state in the role's status, and returns why.
func (b *tritonBox) state(t *testing.T, endpoint, state string) (reason string) {
	t.Helper()
	b.eventually(t, patience, endpoint+" is "+state, func() error {
		_, body := b.get(t, b.urls["triton"]+"/status")
		var status struct {
			Endpoints []struct {
				Endpoint, State string
				Failure         struct{ Reason string }
			}
		}
		if err := json.Unmarshal([]byte(body), &status); err != nil {
			return err
		}
		for _, e := range status.Endpoints {
			if e.Endpoint == endpoint && e.State == state && (state == "ready") == (e.Failure.Reason == "") {
				reason = e.Failure.Reason
				return nil
			}
		}
		return errors.New(body)
	})
	return reason
}

// asked is what triton_load.py prints.
type asked struct {
	Answers, Errors map[string]int
}

// load asks a model from several threads until the returned function is called.
func (b *tritonBox) load(t *testing.T, model string) (end func() asked) {
	t.Helper()
	cmd := exec.Command(pythonTriton(t), filepath.Join(root, "e2e/testdata/python/triton_load.py"), b.grpc, model)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() (result asked) {
		_ = stdin.Close()
		text, err := io.ReadAll(lines)
		if err := errors.Join(err, cmd.Wait(), json.Unmarshal(text, &result)); err != nil {
			t.Fatal(err)
		}
		return result
	}
}

// serverPID is the id of tritonserver.
func (b *tritonBox) serverPID(t *testing.T) int {
	t.Helper()
	_, body := b.get(t, b.urls["triton"]+"/status")
	var status struct{ Server struct{ PID int } }
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	return status.Server.PID
}

// stubs are the processes of the Python backend.
func (b *tritonBox) stubs() (found []int) {
	for _, p := range below(b.cmd.Process.Pid) {
		if strings.Contains(p.command, "triton_python_backend_stub") {
			found = append(found, p.pid)
		}
	}
	return found
}

func TestEnginesTritonFollowsTheService(t *testing.T) {
	pythonTriton(t)
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create"))
	box := tritonRole(t, plane, id)
	defer func() { box.stop(t) }()
	register := func(name string) string {
		return plane.registerFrom(t, id, "--name", "model "+name, "--project", "models", "--path", box.model(name))
	}
	add := func(endpoint, model string, flags ...string) {
		plane.must(t, slices.Concat([]string{"--id", id, "model", "add", "--endpoint", endpoint, "--model-id", model}, tensorsOfTriton, flags)...)
	}
	double, triple, broken := register("double"), register("triple"), register("broken")

	// A new model is published under load.
	add("factor/1", double, "--aux-config", "backend=python")
	box.state(t, "factor/1", "ready")
	end := box.load(t, "factor_1")
	add("factor/1", triple, "--aux-config", "backend=python")
	box.eventually(t, patience, "the new model is there", func() error {
		text, err := os.ReadFile(filepath.Join(box.data, "triton/models/factor_1/1/model.py"))
		if err != nil || !strings.Contains(string(text), "FACTOR = 3") {
			return fmt.Errorf("%w: %s", err, text)
		}
		return nil
	})
	box.state(t, "factor/1", "ready")

	// A model that Triton refuses leaves the one before, and says why, where its owner looks.
	add("factor/1", broken, "--aux-config", "backend=python")
	if reason := box.state(t, "factor/1", "updating"); !strings.Contains(reason, "Triton refuses the model") || !strings.Contains(reason, "the weights are missing") {
		t.Errorf("reason: %q", reason)
	}
	plane.eventually(t, patience, "model list shows the reason", func() error {
		if out := plane.must(t, "--id", id, "model", "list", "-v"); !strings.Contains(out, "(triton): updating; load: Triton refuses the model") {
			return errors.New(out)
		}
		return nil
	})

	// Backends that are not there, and a configuration that cannot be read, in Triton's words. Others go on.
	notONNX := filepath.Join(box.dir, "work", "network.onnx")
	if err := os.WriteFile(notONNX, []byte("no network"), 0o600); err != nil {
		t.Fatal(err)
	}
	add("network", plane.registerFrom(t, id, "--name", "model network", "--project", "models", "--path", notONNX))
	if reason := box.state(t, "network", "failed"); !strings.Contains(reason, "unable to find backend library for backend 'onnxruntime'") {
		t.Errorf("reason: %q", reason)
	}
	add("wrong", double, "--aux-config", "backend=python", "max_batch_size=lots")
	if reason := box.state(t, "wrong", "failed"); !strings.Contains(reason, `Expected integer, got: "lots"`) {
		t.Errorf("reason: %q", reason)
	}
	result := end()
	if len(result.Errors) > 0 || result.Answers["2.0"] == 0 || result.Answers["3.0"] == 0 || len(result.Answers) != 2 {
		t.Errorf("under load: %+v", result)
	}

	// Monitored models, with settings of Triton.
	plane.must(t, slices.Concat([]string{"--id", id, "model", "auto-update", "--endpoint", "newest", "--max-versions", "1", "--name", "model double"}, tensorsOfTriton,
		[]string{"--aux-config", "backend=python", "instance_group=[{kind:KIND_CPU,count:2}]", "parameters.note=a"})...)
	box.state(t, "newest/1", "ready")
	if status, body := box.get(t, box.http+"/v2/models/newest_1/config"); status != http.StatusOK || !strings.Contains(body, `"count":2`) || !strings.Contains(body, `"note":{"string_value":"a"}`) {
		t.Errorf("%d %s", status, body)
	}
	config, err := os.ReadFile(filepath.Join(box.data, "triton/models/newest_1/config.pbtxt"))
	if err != nil || !strings.Contains(string(config), "backend: \"python\"\n") {
		t.Errorf("%s, %v", config, err)
	}

	// Metrics: the role's, and Triton's, on the role's page and on the tasks.
	if _, page := box.get(t, box.urls["triton"]+"/metrics"); !strings.Contains(page, "clearml_serving_triton_up 1\n") || !strings.Contains(page, `nv_inference_count{model="factor_1",version="1"}`) ||
		!strings.Contains(page, `clearml_serving_triton_model_ready{endpoint="network",model="network"} 0`) {
		t.Errorf("metrics:\n%s", page)
	}

	// An endpoint that is removed is unloaded.
	plane.must(t, "--id", id, "model", "remove", "--endpoint", "factor/1")
	box.eventually(t, patience, "it is unloaded", func() error {
		if status, body := box.get(t, box.http+"/v2/models/factor_1/ready"); status == http.StatusOK {
			return errors.New(body)
		}
		_, err := os.Stat(filepath.Join(box.data, "triton/models/factor_1"))
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("its folder is there: %w", err)
		}
		return nil
	})
}

// The whole of the original: the control plane, Triton beside it, and an inference service that asks Triton. A new
// model is published under load.
func TestEnginesTritonAnswersRequestsOfTheService(t *testing.T) {
	pythonTriton(t)
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create"))
	box := tritonRole(t, plane, id)
	defer func() { box.stop(t) }()
	plane.must(t, "--id", id, "config", "--triton-grpc-server", box.grpc)
	serve := instance(t, plane, id)
	publish := func(name string) {
		model := plane.registerFrom(t, id, "--name", "model "+name, "--project", "models", "--path", box.model(name))
		plane.must(t, slices.Concat([]string{"--id", id, "model", "add", "--endpoint", "factor/1", "--model-id", model, "--wait"}, tensorsOfTriton, []string{"--aux-config", "backend=python"})...)
	}
	publish("double")
	const question, before, after = `[[1,2,3,4]]`, `[[2.0,4.0,6.0,8.0]]`, `[[3.0,6.0,9.0,12.0]]`
	serve.wants(t, "factor/1", question, before)
	over, done := make(chan struct{}), make(chan map[string]int)
	go func() { // ends with over
		answers := map[string]int{}
		for {
			select {
			case <-over:
				done <- answers
				return
			default:
			}
			status, body := serve.ask(t, "factor/1", question)
			answers[fmt.Sprint(status, " ", body)]++
		}
	}()
	publish("triple")
	serve.eventually(t, patience, "the new model answers", func() error {
		if status, body := serve.ask(t, "factor/1", question); status != http.StatusOK || body != after {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	close(over)
	answers := <-done
	if len(answers) != 2 || answers["200 "+before] == 0 || answers["200 "+after] == 0 {
		t.Errorf("under load: %v", answers)
	}

	// The error of a change is told to who waits for it.
	broken := plane.registerFrom(t, id, "--name", "model broken", "--project", "models", "--path", box.model("broken"))
	r := plane.cli(t, slices.Concat([]string{"--id", id, "model", "add", "--endpoint", "factor/1", "--model-id", broken, "--wait"}, tensorsOfTriton, []string{"--aux-config", "backend=python"})...)
	if r.code == 0 || !strings.Contains(r.out+r.err, "Triton refuses the model") || !strings.Contains(r.out+r.err, "the weights are missing") {
		t.Errorf("%+v", r)
	}
	serve.wants(t, "factor/1", question, after)
}

// closedCalls asks Triton to load and to unload a model.
const closedCalls = `
import sys, tritonclient.grpc
client = tritonclient.grpc.InferenceServerClient(sys.argv[1])
print("factor is ready:", client.is_model_ready("factor"))
for call in (client.load_model, client.unload_model):
    try:
        call("factor")
    except Exception as error:
        print(error)
`

func TestEnginesTritonComesBack(t *testing.T) {
	pythonTriton(t)
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create"))
	box := tritonRole(t, plane, id)
	defer func() { box.stop(t) }()
	double := plane.registerFrom(t, id, "--name", "model double", "--project", "models", "--path", box.model("double"))
	plane.must(t, slices.Concat([]string{"--id", id, "model", "add", "--endpoint", "factor", "--model-id", double}, tensorsOfTriton, []string{"--aux-config", "backend=python"})...)
	box.state(t, "factor", "ready")
	const question = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}`
	answers := func() error {
		status, body := roundTrip(http.MethodPost, box.http+"/v2/models/factor/infer", "application/json", strings.NewReader(question))
		if status != http.StatusOK || !strings.Contains(body, `"data":[2.0,4.0,6.0,8.0]`) {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	}
	box.eventually(t, patience, "it answers", answers)

	// A process of the model is killed: Triton would say that the model is ready for ever.
	before := box.stubs()
	if len(before) != 1 {
		t.Fatalf("processes of the model: %v", before)
	}
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	box.eventually(t, patience, "the model is loaded again", func() error {
		if now := box.stubs(); len(now) != 1 || now[0] == before[0] {
			return fmt.Errorf("processes: %v", now)
		}
		return answers()
	})

	// Triton is killed, and stopped.
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		pid := box.serverPID(t)
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		if signal == syscall.SIGSTOP {
			box.eventually(t, patience, "it is seen", func() error {
				if status, body := box.get(t, box.urls["triton"]+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "Triton is unresponsive: it does not answer its probe") {
					return fmt.Errorf("%d %s", status, body)
				}
				return nil
			})
		}
		box.eventually(t, patience, "it is back", func() error {
			if now := box.serverPID(t); now == pid || now == 0 {
				return fmt.Errorf("process %d", now)
			}
			return answers()
		})
		box.state(t, "factor", "ready")
	}
	if _, page := box.get(t, box.urls["triton"]+"/metrics"); !strings.Contains(page, "clearml_serving_triton_restarts_total 2\n") {
		t.Errorf("metrics:\n%s", page)
	}

	// The role itself is killed: nothing of it is left, and it starts again in the same place.
	box.kill(t)
	again := tritonRole(t, plane, id, "--t-grpc-address", "0.0.0.0")
	defer func() { again.stop(t) }()
	again.state(t, "factor", "ready")

	// At an address of other machines, the calls that could load any code are closed, and requests are not.
	out, err := exec.Command(pythonTriton(t), "-c", closedCalls, again.grpc).CombinedOutput()
	if err != nil || strings.Count(string(out), "This protocol is restricted") != 2 || !strings.Contains(string(out), "factor is ready: True") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestEnginesTritonConfigurationsAreReadByNVIDIAsOwnDescription(t *testing.T) {
	python := pythonTriton(t)
	folder := filepath.Join(root, "sidecar/triton/testdata")
	files, err := filepath.Glob(filepath.Join(folder, "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, filepath.Join(root, "e2e/testdata/python/triton_configs.py"), folder).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(len(files)) {
		t.Errorf("%v: %s", err, out)
	}
}

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"clearmlserving/atomicfile"
)

// engine is a kind of server that computes the models of endpoints.
type engine struct {
	name       string // in those of its faults
	what       string
	supervised bool // one of our processes starts it again
	role       bool // which is a role
	real       bool // the server itself, and no stand-in
	lies       bool // an answer that is broken JSON is known to be wrong
	// needs is a file that is there if the server is installed, and hint says how to install it.
	needs, hint string
	// start starts the server and adds the endpoints.
	start func(ctx context.Context, r *engineRun) error
}

// missing says why the server cannot run here, "" if it can.
func (e engine) missing() string {
	if e.needs == "" {
		return ""
	}
	if _, err := os.Stat(e.needs); err != nil {
		return fmt.Sprintf("there is no %s: %s", e.needs, e.hint)
	}
	return ""
}

const (
	tritonPython     = ".venv-bench-triton/bin/python"
	torchServePython = ".venv-torchserve/bin/python"
	openAIPython     = ".venv-openai/bin/python"
)

func engines() []engine {
	return []engine{
		{name: "v2", what: "a server of the V2 protocol (REST and gRPC)", lies: true, start: startV2},
		{name: "torchserve", what: "a TorchServe (REST and gRPC) that somebody else runs", start: startTorchServe},
		{name: "openai", what: "a server of the OpenAI API", lies: true, start: startOpenAI},
		{name: "vllm", what: "the child of the engine vllm", supervised: true, lies: true, start: startVLLM},
		{name: "triton-role", what: "the server of the role triton", supervised: true, role: true, start: startTritonRole},
		{name: "torchserve-role", what: "the server of the role torchserve", supervised: true, role: true, start: startTorchServeRole},
		{name: "llama", what: "llama.cpp", real: true, needs: openAIPython, hint: "make venv-openai", start: startLlama},
		{name: "llama-child", what: "llama.cpp as the child of the engine vllm", supervised: true, real: true, needs: openAIPython, hint: "make venv-openai", start: startLlamaChild},
		{name: "real-triton", what: "NVIDIA's Triton under the role triton", supervised: true, role: true, real: true, needs: tritonPython, hint: "make engines-env", start: startRealTriton},
		{name: "real-torchserve", what: "TorchServe under its role", supervised: true, role: true, real: true, needs: torchServePython, hint: "make engines-env", start: startRealTorchServe},
	}
}

// engineRun is a server that runs, and its endpoints.
type engineRun struct {
	w                *world
	dir              string
	supervised, lies bool
	asked            []question
	load             *engineLoad
	role             *server // that supervises it

	pid   func(ctx context.Context) (int, error) // of the server
	up    func(ctx context.Context) error        // nil if the server itself answers
	again func(ctx context.Context) error        // starts the server, or its role, at the same address
	ends  []func() error                         // in reverse
}

// be sets the mood of a stand-in.
func (r *engineRun) be(mood string) error {
	return atomicfile.Write(filepath.Join(r.dir, "mood"), []byte(mood), 0o600)
}

// add adds an endpoint that is asked something.
func (r *engineRun) add(ctx context.Context, q question, flags ...string) error {
	r.asked = append(r.asked, q)
	r.ends = append(r.ends, func() error {
		return r.w.cli(context.WithoutCancel(ctx), "model", "remove", "--endpoint", q.name, "--wait", "--wait-timeout", "1m")
	})
	return r.w.cli(ctx, append([]string{"model", "add", "--endpoint", q.name, "--wait", "--wait-timeout", "1m"}, flags...)...)
}

// stand makes the stand-in known: where it is, by the file that it writes, and how it is asked whether it works.
func (r *engineRun) stand(name, path string) (program string, err error) {
	r.pid = func(context.Context) (int, error) {
		pid, _, err := served(r.dir)
		return pid, err
	}
	r.up = func(ctx context.Context) error {
		pid, address, err := served(r.dir)
		if err == nil {
			err = syscall.Kill(pid, 0)
		}
		if err == nil {
			_, err = fetch(ctx, "http://"+address+path)
		}
		return err
	}
	return standFolder(r.dir, name)
}

// runs starts a program that nobody supervises, and says how it is started again.
func (r *engineRun) runs(ctx context.Context, program string, args ...string) error {
	var s *server
	r.ends = append(r.ends, func() error {
		if s == nil {
			return nil
		}
		return s.stop()
	})
	r.again = func(ctx context.Context) (err error) {
		if s, err = r.w.launchProgram(program, filepath.Base(r.dir), nil, args...); err != nil {
			return err
		}
		return s.wait(ctx, func() error { return r.up(ctx) })
	}
	return r.again(ctx)
}

// openPorts are ports that nobody listens on. No connection gets one of them by itself, which could be made to itself.
func openPorts(n int) ([]string, error) {
	const first, count, attempts = 20_000, 10_000, 100
	for range attempts {
		begin := first + rand.IntN(count) //nolint:gosec // a port
		var ports []string
		for port := begin; port < begin+n; port++ {
			if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil { //nolint:noctx // at once
				ports = append(ports, strconv.Itoa(port))
				_ = l.Close() // it was only a try
			}
		}
		if len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("there are no %d ports in a row that nobody listens on", n)
}

// one is the answer to a number if it is this text.
func one(want func(n int) string) func(n int, body string) int {
	return func(n int, body string) int {
		if body != want(n) {
			return 0
		}
		return http.StatusOK
	}
}

// doubled is a tensor of the double of a number.
func doubled(name string) question {
	return question{name: name, path: name, body: func(n int) string { return fmt.Sprintf("[[%d]]", n) }, judge: one(func(n int) string { return fmt.Sprintf("[[%d.0]]", 2*n) })}
}

func startV2(ctx context.Context, r *engineRun) error {
	ports, err := openPorts(3)
	if err != nil {
		return err
	}
	program, err := r.stand("tritonserver", "/v2/health/ready")
	if err != nil {
		return err
	}
	if err := r.runs(ctx, program, "--http-port="+ports[0], "--grpc-port="+ports[1], "--metrics-port="+ports[2]); err != nil {
		return err
	}
	if err := r.add(ctx, doubled(beside), "--engine", "v2", "--aux-config", "address=127.0.0.1:"+ports[0], "protocol=rest", "model=double"); err != nil {
		return err
	}
	q := doubled(beside + "/grpc")
	q.binary = true
	return r.add(ctx, q, "--engine", "v2", "--aux-config", "address=127.0.0.1:"+ports[1], "model=double")
}

// doubledBody is a body that is a number, and its double.
func doubledBody(name string) question {
	return question{name: name, path: name, body: strconv.Itoa, judge: one(func(n int) string { return strconv.Itoa(2 * n) })}
}

func startTorchServe(ctx context.Context, r *engineRun) error {
	ports, err := openPorts(4)
	if err != nil {
		return err
	}
	program, err := r.stand("java", "/ping")
	if err != nil {
		return err
	}
	config := filepath.Join(r.dir, "config.properties")
	text := fmt.Sprintf("inference_address=http://127.0.0.1:%s\nmanagement_address=http://127.0.0.1:%s\ngrpc_inference_port=%s\ngrpc_management_port=%s\ndisable_token_authorization=true\nload_models=double\n",
		ports[0], ports[1], ports[2], ports[3])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	if err := r.runs(ctx, program, "-f", config); err != nil {
		return err
	}
	if err := r.add(ctx, doubledBody(beside), "--engine", "torchserve", "--aux-config", "address=127.0.0.1:"+ports[0], "model=double"); err != nil {
		return err
	}
	return r.add(ctx, doubledBody(beside+"/grpc"), "--engine", "torchserve", "--aux-config", "grpc_address=127.0.0.1:"+ports[2], "protocol=grpc", "model=double")
}

// chat is a question for a language model; every other one is answered by a stream. further are more fields of it.
func chat(further func(n int) string, want func(n int) string) question {
	return question{
		name: beside, path: "openai/v1/chat/completions",
		body: func(n int) string {
			return fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"%d"}]%s}`, beside, n/besideClients%2 == 0, n, further(n))
		},
		judge: func(n int, body string) int {
			text, failed := said(body)
			switch {
			case failed:
				return http.StatusInternalServerError
			case text != want(n):
				return 0
			}
			return http.StatusOK
		},
	}
}

// said is the text of a whole answer. failed: it is a stream that its server has not ended, and that says so.
func said(body string) (text string, failed bool) {
	type choice struct {
		Message, Delta struct{ Content string }
		Finish         string `json:"finish_reason"`
	}
	type answer struct {
		Choices []choice
		Error   struct{ Code string }
	}
	read := func(body string) (a answer) {
		if json.Unmarshal([]byte(body), &a) != nil || len(a.Choices) > 1 {
			return answer{Choices: []choice{{Finish: "of something else: " + body}}}
		}
		return a
	}
	if !strings.HasPrefix(body, "data: ") {
		for _, c := range read(body).Choices {
			if text += c.Message.Content; c.Finish != "stop" && c.Finish != "length" {
				return "an end " + c.Finish, false
			}
		}
		return text, false
	}
	ended, done := false, false
	for event := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		event, ok := strings.CutPrefix(event, "data: ")
		switch {
		case !ok || done:
			return "no event: " + event, false
		case event == "[DONE]":
			done = true
			continue
		}
		a := read(event)
		if a.Error.Code != "" {
			return "", a.Error.Code == "engine_failed" && !ended
		}
		for _, c := range a.Choices {
			text += c.Delta.Content
			ended = ended || c.Finish == "stop" || c.Finish == "length"
		}
	}
	if !ended || !done {
		return "a stream without an end: " + body, false
	}
	return text, false
}

func standChat() question {
	return chat(func(int) string { return "" }, func(n int) string { return strconv.Itoa(2 * n) })
}

func startOpenAI(ctx context.Context, r *engineRun) error {
	ports, err := openPorts(1)
	if err != nil {
		return err
	}
	program, err := r.stand("llm", "/v1/models")
	if err != nil {
		return err
	}
	if err := r.runs(ctx, program, "127.0.0.1", ports[0], "double"); err != nil {
		return err
	}
	return r.add(ctx, standChat(), "--engine", "openai", "--aux-config", "address=http://127.0.0.1:"+ports[0]+"/v1")
}

func startVLLM(ctx context.Context, r *engineRun) error {
	program, err := r.stand("llm", "/v1/models")
	if err != nil {
		return err
	}
	return r.add(ctx, standChat(), "--engine", "vllm", "--aux-config", "command="+program+" <host> <port> <name>")
}

// upload stores a model once.
func (w *world) upload(ctx context.Context, name, path string) error {
	if w.uploaded[name] {
		return nil
	}
	w.uploaded[name] = true
	return w.cli(ctx, "model", "upload", "--name", name, "--project", "chaos", "--path", path)
}

// runRole starts one of our roles, which supervises the server, and waits for what ready says.
func (r *engineRun) runRole(ctx context.Context, ready func() error, env []string, args ...string) error {
	r.ends = append(r.ends, func() error {
		if r.role == nil {
			return nil
		}
		return r.role.stop()
	})
	r.again = func(ctx context.Context) (err error) {
		if r.role, err = r.w.launch(filepath.Base(r.dir), append(env, r.w.env...), args...); err != nil {
			return err
		}
		return r.role.wait(ctx, ready)
	}
	return r.again(ctx)
}

func startTritonRole(ctx context.Context, r *engineRun) error {
	program, err := r.stand("tritonserver", "/v2/health/live")
	if err != nil {
		return err
	}
	return r.runTriton(ctx, program, nil)
}

// runTriton starts the role triton with an endpoint whose model is on its server.
func (r *engineRun) runTriton(ctx context.Context, program string, env []string, further ...string) error {
	ports, err := openPorts(3)
	if err != nil {
		return err
	}
	data := filepath.Join(r.dir, "data")
	args := append([]string{
		"triton", "--serving-id", r.w.service, "--data-dir", data, "--triton-addr", "127.0.0.1:0", "--tritonserver", program,
		"--t-http-port", ports[0], "--t-grpc-port", ports[1], "--t-metrics-port", ports[2],
	}, further...)
	ready := func() error {
		if err := r.role.readAddresses(data); err != nil {
			return err
		}
		return get(ctx, r.role.urls["triton"]+"/livez")
	}
	if err := r.runRole(ctx, ready, append(env, "CLEARML_TRITON_T_LOG_VERBOSE=0", "CLEARML_TRITON_POLL_FREQ="+poll), args...); err != nil {
		return err
	}
	if r.pid == nil { // no stand-in
		r.pid = func(ctx context.Context) (int, error) { return r.serverOf(ctx, "triton") }
		r.up = func(ctx context.Context) error {
			return get(ctx, "http://127.0.0.1:"+ports[0]+"/v2/models/"+beside+"/ready")
		}
	}
	if err := r.w.cli(ctx, "config", "--triton-grpc-server", "127.0.0.1:"+ports[1]); err != nil {
		return err
	}
	folder, err := filepath.Abs("e2e/testdata/triton/double")
	if err != nil {
		return err
	}
	if err := r.w.upload(ctx, "triton double", folder); err != nil {
		return err
	}
	return r.add(ctx, doubled(beside), "--engine", "triton", "--name", "triton double", "--project", "chaos",
		"--input-name", "x", "--input-type", "float32", "--input-size", "1", "1", "--output-name", "y", "--output-type", "float32", "--output-size", "1", "1",
		"--aux-config", "backend=python")
}

// serverOf is the process of the server of a role, as its status tells.
func (r *engineRun) serverOf(ctx context.Context, url string) (int, error) {
	body, err := fetch(ctx, r.role.urls[url]+"/status")
	if err != nil {
		return 0, err
	}
	var status struct{ Server struct{ PID int } }
	if err := json.Unmarshal(body, &status); err != nil {
		return 0, err
	}
	if status.Server.PID == 0 {
		return 0, errors.New("the role has no server")
	}
	return status.Server.PID, nil
}

// tritonOf asks an interpreter where its Triton is.
const tritonOf = `
import pathlib, sys, sysconfig, pytriton
home = pathlib.Path(pytriton.__file__).parent
stub = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
print(home / "tritonserver", home.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"), stub)
`

func startRealTriton(ctx context.Context, r *engineRun) error {
	python, err := filepath.Abs(tritonPython)
	if err != nil {
		return err
	}
	out, err := r.w.command(ctx, nil, python, "-c", tritonOf)
	if err != nil {
		return err
	}
	words := strings.Fields(string(out))
	if len(words) != 4 {
		return fmt.Errorf("%s does not say where its Triton is: %s", python, out)
	}
	home := words[0]
	backend := filepath.Join(r.dir, "backends", "python")
	parts, err := filepath.Glob(filepath.Join(home, "backends", "python", "*"))
	if err := errors.Join(err, os.MkdirAll(backend, 0o755)); err != nil {
		return err
	}
	for _, part := range append(parts, filepath.Join(home, words[3])) {
		if info, err := os.Stat(part); err != nil || info.IsDir() {
			continue
		}
		if err := os.Symlink(part, filepath.Join(backend, filepath.Base(part))); err != nil {
			return err
		}
	}
	env := []string{"PATH=" + filepath.Dir(python) + ":" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + words[1] + ":" + words[2]}
	return r.runTriton(ctx, filepath.Join(home, "bin", "tritonserver"), env, "--backend-directory="+filepath.Dir(backend), "--allow-gpu-metrics=false", "--exit-timeout-secs=3")
}

func startTorchServeRole(ctx context.Context, r *engineRun) error {
	java, err := r.stand("java", "/ping")
	if err != nil {
		return err
	}
	// The role asks an interpreter for its package.
	python, frontend := filepath.Join(r.dir, "python"), filepath.Join(r.dir, "ts", "frontend")
	err = errors.Join(
		os.WriteFile(python, []byte("#!/bin/sh\necho 0.12.0\necho '"+filepath.Dir(frontend)+"'\n"), 0o755), //nolint:gosec // a program
		os.MkdirAll(frontend, 0o755), os.WriteFile(filepath.Join(frontend, "model-server.jar"), nil, 0o600),
	)
	if err != nil {
		return err
	}
	// With keys a question needs one; whether it listens is enough.
	r.up = func(ctx context.Context) error {
		_, address, err := served(r.dir)
		if err != nil {
			return err
		}
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	return r.runTorchServe(ctx, "--torchserve-java", java, "--torchserve-python", python)
}

// runTorchServe starts the role torchserve for the instance, with endpoints whose models are on its server.
func (r *engineRun) runTorchServe(ctx context.Context, further ...string) error {
	state := filepath.Join(r.w.serving().data, "torchserve", "server.json")
	if err := os.Remove(state); err != nil && !errors.Is(err, os.ErrNotExist) { // of the fault before
		return err
	}
	ports, err := openPorts(5)
	if err != nil {
		return err
	}
	ready := func() error {
		text, err := os.ReadFile(state)
		if err == nil {
			err = json.Unmarshal(text, &r.role.urls)
		}
		if err == nil {
			err = get(ctx, r.role.urls["operators"]+"/readyz")
		}
		return err
	}
	args := append([]string{"torchserve", "--data-dir", r.w.serving().data, "--torchserve-addr", "127.0.0.1:0", "--torchserve-port", ports[0], "--addr-fallback"}, further...)
	if err := r.runRole(ctx, ready, nil, args...); err != nil {
		return err
	}
	if r.pid == nil { // no stand-in
		r.pid = func(ctx context.Context) (int, error) { return r.serverOf(ctx, "operators") }
		r.up = r.torchServeWorks
	}
	archive := filepath.Join(r.dir, "double.mar")
	if err := writeArchive(archive); err != nil {
		return err
	}
	if err := r.w.upload(ctx, "torch double", archive); err != nil {
		return err
	}
	for _, q := range []struct{ name, protocol string }{{beside, "rest"}, {beside + "/grpc", "grpc"}} {
		if err := r.add(ctx, doubledBody(q.name), "--engine", "torchserve", "--name", "torch double", "--project", "chaos", "--aux-config", "protocol="+q.protocol); err != nil {
			return err
		}
	}
	return nil
}

// doubleHandler is a handler of TorchServe that doubles numbers.
const doubleHandler = `def handle(data, context):
    return data and [str(2 * int(row.get("data") or row.get("body") or 0)) for row in data]
`

// writeArchive writes an archive of TorchServe.
func writeArchive(file string) error {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range map[string]string{
		"MAR-INF/MANIFEST.json": `{"createdOn": "30/11/2026 12:00:00", "runtime": "python", "model": {"modelName": "double", "handler": "handler.py", "modelVersion": "1.0"}, "archiverVersion": "0.12.0"}`,
		"handler.py":            doubleHandler,
	} {
		part, err := z.Create(name)
		if err != nil {
			return err
		}
		if _, err := part.Write([]byte(text)); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

// torchServeWorks asks a real server for its models: each must have a worker that is ready.
func (r *engineRun) torchServeWorks(ctx context.Context) error {
	text, err := os.ReadFile(r.role.urls["key_file"])
	if err != nil {
		return err
	}
	var keys map[string]struct{ Key string }
	if err := json.Unmarshal(text, &keys); err != nil {
		return err
	}
	ask := func(path string, to any) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.role.urls["management"]+path, nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+keys["management"].Key)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		return json.NewDecoder(response.Body).Decode(to)
	}
	var list struct{ Models []struct{ ModelName string } }
	if err := ask("/models?limit=100", &list); err != nil {
		return err
	}
	if len(list.Models) != len(r.asked) {
		return fmt.Errorf("TorchServe has %d models", len(list.Models))
	}
	for _, m := range list.Models {
		var told []struct{ Workers []struct{ Status string } }
		if err := ask("/models/"+m.ModelName, &told); err != nil {
			return err
		}
		if len(told) != 1 || len(told[0].Workers) != 1 || told[0].Workers[0].Status != "READY" {
			return fmt.Errorf("model %s: %+v", m.ModelName, told)
		}
	}
	return nil
}

func startRealTorchServe(ctx context.Context, r *engineRun) error {
	python, err := filepath.Abs(torchServePython)
	if err != nil {
		return err
	}
	return r.runTorchServe(ctx, "--torchserve-python", python, "--torchserve-vmargs", "-Xmx256m -XX:+UseSerialGC")
}

// llamaTokens are tokens of the tiny model that its answers are forced to be.
const llamaTokens = 8

// tiny makes a language model of random weights and says how llama.cpp runs it.
func (r *engineRun) tiny(ctx context.Context) (python, serve, file string, err error) {
	file = filepath.Join(r.dir, "tiny.gguf")
	python, err = filepath.Abs(openAIPython)
	make, err2 := filepath.Abs("e2e/testdata/openai/tiny.py")
	serve, err3 := filepath.Abs("examples/chat/serve.py")
	if err := errors.Join(err, err2, err3); err != nil {
		return "", "", "", err
	}
	_, err = r.w.command(ctx, nil, python, make, file)
	return python, serve, file, err
}

// forced are the fields of a question that is answered by one token, which the number chooses.
func forced(n int) string {
	return fmt.Sprintf(`,"max_tokens":3,"ignore_eos":true,"logit_bias":{"%d":100}`, 65+n%llamaTokens)
}

// addLlama adds an endpoint that llama.cpp answers, and learns its answers.
func (r *engineRun) addLlama(ctx context.Context, flags ...string) error {
	known := map[int]string{}
	q := chat(forced, func(n int) string { return known[n%llamaTokens] })
	if err := r.add(ctx, q, flags...); err != nil {
		return err
	}
	different := map[string]bool{}
	for n := range llamaTokens {
		status, body, err := post(ctx, http.DefaultClient, r.w.serving().urls["serve"]+"/serve/"+q.path, []byte(q.body(n)))
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("llama.cpp answers %d %s (%w)", status, body, err)
		}
		known[n], _ = said(string(body))
		different[known[n]] = true
	}
	if len(different) != llamaTokens {
		return fmt.Errorf("the answers of llama.cpp are not different: %v", known)
	}
	return nil
}

func startLlama(ctx context.Context, r *engineRun) error {
	python, serve, file, err := r.tiny(ctx)
	if err != nil {
		return err
	}
	ports, err := openPorts(1)
	if err != nil {
		return err
	}
	r.up = func(ctx context.Context) error { return get(ctx, "http://127.0.0.1:"+ports[0]+"/health") }
	r.pid = func(context.Context) (int, error) { return r.llama() }
	if err := r.runs(ctx, python, serve, file, ports[0], "tiny"); err != nil {
		return err
	}
	return r.addLlama(ctx, "--engine", "openai", "--aux-config", "address=http://127.0.0.1:"+ports[0]+"/v1")
}

func startLlamaChild(ctx context.Context, r *engineRun) error {
	python, serve, file, err := r.tiny(ctx)
	if err != nil {
		return err
	}
	r.pid = func(context.Context) (int, error) { return r.llama() }
	r.up = func(ctx context.Context) error {
		pid, err := r.llama()
		if err != nil {
			return err
		}
		args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			return err
		}
		words := strings.Split(string(args), "\x00")
		return get(ctx, "http://127.0.0.1:"+words[3]+"/health")
	}
	return r.addLlama(ctx, "--engine", "vllm", "--aux-config", "command="+python+" "+serve+" "+file+" <port> <name>")
}

// llama is the process of llama.cpp that has the model of this fault.
func (r *engineRun) llama() (int, error) {
	for _, pid := range r.w.processes() {
		args, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		words := strings.Split(string(args), "\x00")
		if err == nil && len(words) > 5 && filepath.Base(words[1]) == "serve.py" && filepath.Dir(words[2]) == r.dir {
			return pid, nil
		}
	}
	return 0, errors.New("llama.cpp does not run")
}

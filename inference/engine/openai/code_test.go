package openai_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/openai"
	"clearmlserving/inference/engine/python/pythontest"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
)

// withCode loads an endpoint with a class Preprocess of these methods.
func withCode(t *testing.T, kind string, aux map[string]any, methods string, o openai.Options) (engine.Model, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(file, []byte("class Preprocess:\n    "+strings.ReplaceAll(methods, "\n", "\n    ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Python = pythontest.Start(t, nil)
	e := openai.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx, nil) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	m, err := e.Load(ctx, engine.Spec{
		URL: "llm", CodePath: file, CodeName: "py_code_llm", ModelPath: "/models/some model",
		Endpoint: serving.Endpoint{EngineType: kind, ServingURL: "llm", AuxiliaryCfg: aux},
	})
	if err == nil {
		t.Cleanup(func() {
			if err := m.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	return m, err
}

const changes = `def preprocess(self, body, state, collect):
    if body.get("user") == "nobody":
        raise ValueError("who is that?")
    state["n"] = 0
    body["messages"].insert(0, {"role": "system", "content": "be kind"})
    return body
def postprocess(self, data, state, collect):
    state["n"] += 1
    for choice in data.get("choices", ()):
        part = choice.get("delta") or choice.get("message")
        if part and part.get("content"):
            if part["content"] == "bad":
                return None
            if part["content"] == "worse":
                raise ValueError("a bad word")
            part["content"] = part["content"].upper() + str(state["n"])
    return data
`

func TestCodeChangesRequestsAndAnswers(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}`)
	})
	m, err := withCode(t, serving.EngineOpenAI, map[string]any{"address": s.URL}, changes, openai.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if resp := ask(t, m, openaiapi.Chat, hello); resp.Status != http.StatusOK || !strings.Contains(string(resp.Body), `"HELLO1"`) {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
	sent := s.last(t)
	if messages := string(sent.Get("messages")); !strings.HasPrefix(messages, `[{"role":"system","content":"be kind"}`) {
		t.Errorf("%s", messages)
	}
	if resp := ask(t, m, openaiapi.Chat, strings.Replace(hello, "{", `{"user":"nobody",`, 1)); resp.Status != http.StatusUnprocessableEntity || !strings.Contains(string(resp.Body), "who is that?") {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}

	s.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, chunk("a", "null")+chunk("bad", "null")+chunk("b", "null")+chunk("", `"stop"`)+"data: [DONE]\n\n")
	}
	pieces, err := read(t, ask(t, m, openaiapi.Chat, streamed).Stream)
	text := strings.Join(pieces, "")
	if err != nil || !strings.Contains(text, `"A1"`) || !strings.Contains(text, `"B3"`) || strings.Contains(text, "bad") || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Errorf("%s, %v", text, err)
	}

	s.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, chunk("worse", "null")+chunk("", `"stop"`)+"data: [DONE]\n\n")
	}
	pieces, err = read(t, ask(t, m, openaiapi.Chat, streamed).Stream)
	if text := strings.Join(pieces, ""); err == nil || !strings.Contains(text, `{"error":`) || !strings.Contains(text, "a bad word") {
		t.Errorf("%s, %v", text, err)
	}
	if resp := ask(t, m, openaiapi.Chat, hello); resp.Stream != nil || resp.Status != http.StatusOK { // the workers are there, also for what has no postprocess
		if resp.Stream != nil {
			_ = resp.Stream.Close()
		}
	}
}

func TestWhatCodeCollectsInAStreamIsKnownAtItsEnd(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, chunk("a", "null")+chunk("b", "null")+chunk("", `"stop"`)+"data: [DONE]\n\n")
	})
	const collects = `def preprocess(self, body, state, collect):
    state["n"] = 0
    if collect:
        collect({"asked": 1})
    return body
def postprocess(self, data, state, collect):
    state["n"] += 1
    if collect:
        collect({"events": state["n"]})
    return data
`
	m, err := withCode(t, serving.EngineOpenAI, map[string]any{"address": s.URL}, collects, openai.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, sampled := range []bool{true, false} {
		resp, err := m.Infer(t.Context(), &engine.Request{Route: openaiapi.Chat, Body: []byte(streamed), ContentType: "application/json", Sampled: sampled})
		if err != nil {
			t.Fatal(err)
		}
		stream, ok := resp.Stream.(engine.LateStats)
		if !ok {
			t.Fatalf("%T has no variables", resp.Stream)
		}
		if _, err := read(t, stream); err != nil {
			t.Fatal(err)
		}
		want := ""
		if sampled {
			want = `{"asked":1,"events":3}`
		}
		if got := string(stream.Stats()); got != want {
			t.Errorf("sampled %t: %s, want %s", sampled, got, want)
		}
	}
}

func TestAClientThatLeavesAStreamWithCodeEndsIt(t *testing.T) {
	left := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, chunk("a", "null"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(left)
	})
	m, err := withCode(t, serving.EngineOpenAI, map[string]any{"address": s.URL}, changes, openai.Options{})
	if err != nil {
		t.Fatal(err)
	}
	resp := ask(t, m, openaiapi.Chat, streamed)
	if _, err := resp.Stream.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	_ = resp.Stream.Close()
	<-left
}

// original is the form of the class of the original's example.
const original = `def load(self, local_file_name):
    self.file = local_file_name
    return {
        "vllm_model_config": {"lora_modules": None, "prompt_adapters": None, "response_role": "assistant", "chat_template": None,
                              "return_tokens_as_token_ids": False, "max_log_len": None},
        "chat_settings": {"reasoning_parser": None, "enable_auto_tools": True, "expand_tools_even_if_tool_choice_none": False,
                          "tool_parser": "hermes", "enable_prompt_tokens_details": False, "enable_force_include_usage": False,
                          "chat_template_content_format": "auto"},
    }
async def preprocess(self, body, state, collect_custom_statistics_fn):
    if "messages" in body["request"]:
        body["request"]["messages"] = body["request"]["messages"][-1:]
    return body
`

// A program with the name vllm stands for vLLM; see TestMain.
func standIn(t *testing.T) (openai.Options, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "vllm")); err != nil {
		t.Fatal(err)
	}
	calls := filepath.Join(dir, "calls")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	env := []string{"PATH=" + os.Getenv("PATH"), "STAND_IN_CALLS=" + calls, `VLLM_ENGINE_ARGS='{"disable_log_requests":true,"disable_log_stats":false,"gpu_memory_utilization":0.95,"enforce_eager":true,"model":"x"}'`}
	return openai.Options{Env: env, Child: openai.ChildOptions{Env: env}}, calls
}

func TestVLLMIsStartedAsTheOriginalConfiguresIt(t *testing.T) {
	o, calls := standIn(t)
	m, err := withCode(t, serving.EngineVLLM, map[string]any{"engine_args": map[string]any{"max_model_len": 8192}}, original, o)
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Split(strings.TrimSpace(string(line)), "\x00")
	port := words[5]
	want := []string{
		"serve", "/models/some model", "--host", "127.0.0.1", "--port", port, "--served-model-name", "llm",
		"--disable-log-requests", "--enforce-eager", "--gpu-memory-utilization", "0.95", "--max-model-len", "8192",
		"--chat-template-content-format", "auto", "--enable-auto-tool-choice", "--response-role", "assistant", "--tool-call-parser", "hermes",
	}
	if got := fmt.Sprint(words); got != fmt.Sprint(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	const two = `{"model":"canary","messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}]}`
	for _, route := range []string{openaiapi.Chat, openaiapi.Completions, "tokenize", "detokenize", "pooling", "classify", "score", "rerank", "v1/rerank", openaiapi.Embeddings} {
		body := strings.Replace(two, "{", `{"prompt":"x","input":"y",`, 1)
		resp := ask(t, m, route, body)
		if text := string(resp.Body); resp.Status != http.StatusOK || !strings.Contains(text, `"route":"/`+route+`"`) || !strings.Contains(text, `"model":"llm"`) || !strings.Contains(text, `"messages":1`) {
			t.Errorf("%s: %d %s", route, resp.Status, text)
		}
	}
	form := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ncanary\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b--\r\n"
	for _, route := range []string{openaiapi.Transcriptions, openaiapi.Translations} {
		resp, err := m.Infer(t.Context(), &engine.Request{Route: route, Body: []byte(form), ContentType: "multipart/form-data; boundary=b"})
		if err != nil || !strings.Contains(string(resp.Body), `"form_model":"llm"`) || !strings.Contains(string(resp.Body), `"file":"RIFF"`) {
			t.Errorf("%s: %+v, %v", route, resp, err)
		}
	}
}

func TestAServerThatDiesIsStartedAgain(t *testing.T) {
	o, _ := standIn(t)
	m, err := withCode(t, serving.EngineVLLM, nil, original, o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Infer(t.Context(), &engine.Request{Route: openaiapi.Chat, ContentType: "application/json", Body: []byte(`{"model":"llm","die":true,"messages":[{"role":"user","content":"b"}]}`)})
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok || failed.Kind != engine.KindDied && failed.Kind != engine.KindUnavailable {
		t.Errorf("%v", err)
	}
	for { // until it is back
		resp, err := m.Infer(t.Context(), &engine.Request{Route: openaiapi.Chat, ContentType: "application/json", Body: []byte(hello)})
		if err == nil && resp.Status == http.StatusOK {
			break
		}
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindUnavailable && failed.Kind != engine.KindDied {
			t.Fatalf("%+v %v", resp, err)
		}
	}
	if r := m.Status(); r.Restarts != 1 || !strings.Contains(r.LastDeath, "exit") || len(r.LastLines) == 0 || r.LastLines[len(r.LastLines)-1] != "told to die, key ***" {
		t.Errorf("%+v", r)
	}
}

func TestAServerThatCannotStartIsAFailedLoad(t *testing.T) {
	o, _ := standIn(t)
	_, err := withCode(t, serving.EngineVLLM, map[string]any{"engine_args": map[string]any{"fail": true}}, original, o)
	if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !strings.Contains(failed.Text, "no such GPU") {
		t.Errorf("%v", err)
	}
	_, err = withCode(t, serving.EngineVLLM, map[string]any{"command": "vllm-of-nobody <model> <port>"}, original, o)
	if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !strings.Contains(failed.Text, "vllm-of-nobody") {
		t.Errorf("%v", err)
	}
}

const generates = `def postprocess(self, data, state, collect):
    if data.get("choices", [{}])[0].get("delta"):
        return ("x" * 1000 for _ in iter(int, 1))
    return data
`

// A generator that postprocess returns for an event is not read, and does not hold its worker.
func TestAGeneratorForAnEventDoesNotHoldItsWorker(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, chunk("a", "null")+"data: [DONE]\n\n")
	})
	m, err := withCode(t, serving.EngineOpenAI, map[string]any{"address": s.URL}, generates, openai.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pieces, err := read(t, ask(t, m, openaiapi.Chat, streamed).Stream)
	if text := strings.Join(pieces, ""); err == nil || !strings.Contains(text, "generator") {
		t.Errorf("%s, %v", text, err)
	}
	s.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}`)
	}
	soon, cancel := context.WithTimeout(context.Background(), 4*time.Second) // slow readers are cut after 5 s
	defer cancel()
	resp, err := m.Infer(soon, &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"})
	if err != nil || !strings.Contains(string(resp.Body), "hello") {
		t.Errorf("the worker does not answer any more: %v, %v", resp, err)
	}
}

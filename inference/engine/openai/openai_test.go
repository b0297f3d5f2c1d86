package openai_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/openai"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
)

// server is a server of the API that answers as a test wants.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	bodies []string
	auth   []string
	answer http.HandlerFunc
}

func newServer(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	s := &server{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/v1/models" {
			_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"tiny"}]}`)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.bodies, s.auth = append(s.bodies, string(body)), append(s.auth, r.Header.Get("Authorization"))
		s.mu.Unlock()
		s.answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// last is the body of the newest request.
func (s *server) last(t *testing.T) openaiapi.Object {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.bodies) == 0 {
		t.Fatal("the server got no request")
	}
	o, err := openaiapi.ParseObject([]byte(s.bodies[len(s.bodies)-1]))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// load loads an endpoint with the settings.
func load(t *testing.T, aux map[string]any, limits *serving.Limits, env ...string) engine.Model {
	t.Helper()
	e := openai.New(openai.Options{Env: env})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx, nil) })
	m, err := e.Load(ctx, engine.Spec{URL: "llm", Endpoint: serving.Endpoint{EngineType: serving.EngineOpenAI, ServingURL: "llm", AuxiliaryCfg: aux}, Limits: limits})
	if err != nil {
		cancel()
		running.Wait()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
	return m
}

func ask(t *testing.T, m engine.Model, route, body string) *engine.Response {
	t.Helper()
	resp, err := m.Infer(context.Background(), &engine.Request{Route: route, Body: []byte(body), ContentType: "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

const hello = `{"model":"llm","messages":[{"role":"user","content":"hi"}]}`

const streamed = `{"model":"llm","stream":true,"messages":[{"role":"user","content":"hi"}]}`

// read reads a stream to its end.
func read(t *testing.T, s engine.Stream) (pieces []string, err error) {
	t.Helper()
	defer s.Close() //nolint:errcheck // of a test
	for {
		piece, err := s.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return pieces, nil
		}
		if err != nil {
			return pieces, err
		}
		pieces = append(pieces, string(piece))
	}
}

func TestAnAnswerGetsTheFieldsThatItLacks(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `{"id":"x","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5},"timings":{"a":1}}`)
	})
	m := load(t, map[string]any{"address": s.URL + "/v1"}, nil)
	resp := ask(t, m, openaiapi.Chat, hello)
	var got struct {
		Object, Model string
		Timings       map[string]int
		Choices       []struct {
			Logprobs json.RawMessage
			Message  struct{ Refusal json.RawMessage }
		}
	}
	if err := json.Unmarshal(resp.Body, &got); err != nil || resp.Status != http.StatusOK {
		t.Fatalf("%d %s %v", resp.Status, resp.Body, err)
	}
	if got.Object != "chat.completion" || got.Model != "tiny" || got.Timings["a"] != 1 || string(got.Choices[0].Logprobs) != "null" || string(got.Choices[0].Message.Refusal) != "null" {
		t.Errorf("%s", resp.Body)
	}
	sent := s.last(t)
	if sent.Text("model") != "tiny" {
		t.Errorf("the server was asked for the model %s", sent.Get("model"))
	}
	if r := m.Status().Tokens; r.Prompt != 3 || r.Completion != 2 {
		t.Errorf("%+v", r)
	}
}

func TestAWholeAnswerStaysAsItIs(t *testing.T) {
	const whole = `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}] }`
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, whole)
	})
	if got := ask(t, load(t, map[string]any{"address": s.URL}, nil), openaiapi.Chat, hello); string(got.Body) != whole {
		t.Errorf("%s", got.Body)
	}
}

// chunk is a chunk of a stream with a piece of content.
func chunk(content, finish string) string {
	return fmt.Sprintf(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":0,"delta":{"content":%q},"finish_reason":%s}]}`+"\n\n", content, finish)
}

func TestPiecesOfAStreamComeWhenTheServerSendsThem(t *testing.T) {
	next := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range []string{chunk("a", "null"), chunk("b", "null"), chunk("", `"stop"`) + "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2,\"total_tokens\":6}}\n\n", "data: [DONE]\n\n"} {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	m := load(t, map[string]any{"address": s.URL}, nil)
	resp := ask(t, m, openaiapi.Chat, streamed)
	if resp.Stream == nil {
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	defer resp.Stream.Close() //nolint:errcheck // of a test
	for i, want := range []string{chunk("a", "null"), chunk("b", "null"), chunk("", `"stop"`), "data: [DONE]\n\n"} {
		piece, err := resp.Stream.Next(context.Background())
		if err != nil || string(piece) != want {
			t.Fatalf("piece %d: %q, %v", i, piece, err)
		}
		next <- struct{}{} // the server sends the next one only now
	}
	if _, err := resp.Stream.Next(context.Background()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	sent := s.last(t)
	if options := string(sent.Get("stream_options")); options != `{"include_usage":true}` {
		t.Errorf("stream_options: %s", options)
	}
	r := m.Status().Tokens
	if r.Prompt != 4 || r.Completion != 2 || sum(r.First.Counts) != 1 || sum(r.Between.Counts) != 1 {
		t.Errorf("%+v", r)
	}
}

func sum(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestAClientThatLeavesEndsTheGeneration(t *testing.T) {
	left := make(chan struct{})
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, chunk("a", "null"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(left)
	})
	m := load(t, map[string]any{"address": s.URL}, nil)
	resp := ask(t, m, openaiapi.Chat, streamed)
	ctx, leave := context.WithCancel(context.Background())
	if _, err := resp.Stream.Next(ctx); err != nil {
		t.Fatal(err)
	}
	leave()
	<-left
	_ = resp.Stream.Close()

	// The same before the answer has begun.
	arrived, gone := make(chan struct{}), make(chan struct{})
	s.answer = func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	}
	ctx, leave = context.WithCancel(context.Background())
	go func() { <-arrived; leave() }()
	if _, err := m.Infer(ctx, &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"}); err == nil {
		t.Error("it was answered")
	}
	<-gone
}

func TestAServerThatFailsInAStreamIsTold(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"killed": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, chunk("a", "null"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, chunk("a", "null")+"data: ]]garbage\n\n")
		},
		"ended": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, chunk("a", "null")) },
		"own error": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, chunk("a", "null")+`data: {"error":{"message":"out of memory","code":500}}`+"\n\n")
		},
		"silent": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, chunk("a", "null"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				answer(w, r)
			})
			m := load(t, map[string]any{"address": s.URL, "stall": 1}, nil)
			pieces, err := read(t, ask(t, m, openaiapi.Chat, streamed).Stream)
			text := strings.Join(pieces, "")
			if err == nil || !strings.HasPrefix(text, chunk("a", "null")) || !strings.Contains(text, `data: {"error":{"message":`) {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

func TestAnEngineThatIsAwayIsUnavailableWithItsFallback(t *testing.T) {
	s := newServer(t, nil)
	s.Close()
	m := load(t, map[string]any{"address": s.URL, "fallback": "other"}, nil)
	_, err := m.Infer(context.Background(), &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"})
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok || failed.Kind != engine.KindUnavailable || failed.Fallback != "other" {
		t.Errorf("%v", err)
	}
}

func TestAnotherAddressAnswersForOneThatIsAway(t *testing.T) {
	away, s := newServer(t, nil), newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[]}`)
	})
	away.Close()
	m := load(t, map[string]any{"address": []any{away.URL, s.URL}}, nil)
	for range 4 {
		if resp := ask(t, m, openaiapi.Chat, hello); resp.Status != http.StatusOK {
			t.Errorf("%d %s", resp.Status, resp.Body)
		}
	}
}

func TestRequestsThatNoServerCouldAnswerAreRefused(t *testing.T) {
	s := newServer(t, func(_ http.ResponseWriter, _ *http.Request) { t.Error("the server was asked") })
	m := load(t, map[string]any{"address": s.URL}, nil)
	for _, tc := range []struct{ route, body, param string }{
		{openaiapi.Chat, `{`, ""},
		{openaiapi.Chat, `[]`, ""},
		{openaiapi.Chat, `{"model":"llm"}`, "messages"},
		{openaiapi.Chat, `{"model":"llm","messages":[]}`, "messages"},
		{openaiapi.Chat, `{"model":"llm","messages":["a"]}`, "messages"},
		{openaiapi.Chat, `{"model":"llm","messages":[{"content":"a"}]}`, "messages"},
		{openaiapi.Chat, `{"model":"llm","stream":"yes","messages":[{"role":"user","content":"a"}]}`, "stream"},
		{openaiapi.Chat, `{"model":"llm","temperature":3,"messages":[{"role":"user","content":"a"}]}`, "temperature"},
		{openaiapi.Completions, `{"model":"llm"}`, "prompt"},
		{openaiapi.Embeddings, `{"model":"llm"}`, "input"},
		{openaiapi.Responses, `{"model":"llm"}`, "input"},
		{openaiapi.Responses, `{"model":"llm","input":"a","previous_response_id":"resp_1"}`, "previous_response_id"},
		{openaiapi.Responses, `{"model":"llm","input":[{"type":"message","role":"nobody","content":"a"}]}`, "input"},
		{openaiapi.Responses, `{"model":"llm","input":"a","tools":[{"type":"web_search"}]}`, "tools"},
	} {
		resp := ask(t, m, tc.route, tc.body)
		var told struct {
			Error struct {
				Message, Type string
				Param         *string
			}
		}
		if err := json.Unmarshal(resp.Body, &told); err != nil || resp.Status != http.StatusBadRequest || told.Error.Type != "invalid_request_error" || told.Error.Message == "" {
			t.Errorf("%s: %d %s", tc.body, resp.Status, resp.Body)
		}
		if tc.param != "" && (told.Error.Param == nil || *told.Error.Param != tc.param) {
			t.Errorf("%s: %s", tc.body, resp.Body)
		}
	}
}

func TestErrorsOfTheServerAreInTheFormOfTheAPI(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		want   int
		text   string
	}{
		{400, `{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}`, 400, `{"error":{"message":"too long","type":"exceed_context_size_error","param":null,"code":null}}`},
		{500, `{"error":{"code":500,"message":"image input is not supported","type":"server_error"}}`, 400, `"type":"invalid_request_error"`},
		{500, `oops`, 500, `"message":"oops"`},
		{429, `{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, 429, `"code":"rate_limit_exceeded"`},
		{404, `{"object":"error","message":"no such model","code":404}`, 404, `"message":"no such model"`},
	} {
		s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(tc.status)
			_, _ = io.WriteString(w, tc.body)
		})
		resp := ask(t, load(t, map[string]any{"address": s.URL}, nil), openaiapi.Chat, hello)
		if resp.Status != tc.want || !strings.Contains(string(resp.Body), tc.text) {
			t.Errorf("%s: %d %s", tc.body, resp.Status, resp.Body)
		}
	}
}

func TestTheKeyIsSentAndNeverTold(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	m := load(t, map[string]any{"address": s.URL, "key_env": "SOME_KEY"}, nil, "SOME_KEY=sk-secret")
	_, err := m.Infer(context.Background(), &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"})
	if err == nil || strings.Contains(err.Error(), "sk-secret") || !strings.Contains(err.Error(), "key_env") {
		t.Errorf("%v", err)
	}
	if s.auth[0] != "Bearer sk-secret" {
		t.Errorf("%q", s.auth)
	}
	report, _ := json.Marshal(m.Status())
	if strings.Contains(string(report), "sk-secret") {
		t.Errorf("%s", report)
	}
}

func TestATokenQuotaRefusesUntilTokensAreBack(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[],"usage":{"prompt_tokens":600,"completion_tokens":500,"total_tokens":1100}}`)
	})
	m := load(t, map[string]any{"address": s.URL}, &serving.Limits{TokensPerDay: 1000})
	if resp := ask(t, m, openaiapi.Chat, hello); resp.Status != http.StatusOK {
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	resp := ask(t, m, openaiapi.Chat, hello)
	if resp.Status != http.StatusTooManyRequests || len(resp.Header) != 1 || resp.Header[0].Name != "Retry-After" || !strings.Contains(string(resp.Body), "rate_limit_exceeded") {
		t.Errorf("%d %v %s", resp.Status, resp.Header, resp.Body)
	}
}

func TestTheDeadlineEndsARequest(t *testing.T) {
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m := load(t, map[string]any{"address": s.URL}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := m.Infer(ctx, &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindDeadline {
		t.Errorf("%v", err)
	}
}

// A server that closes a kept connection at the moment of the next request has not refused it.
func TestAClosedKeptConnectionCostsNoRequest(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const answer = `{"choices":[]}`
	var serving sync.WaitGroup
	serving.Go(func() { // answers one request of each connection, and reads the next one before it closes
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close() //nolint:errcheck // of a test
				in := bufio.NewReader(c)
				for n := range 2 {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					if n == 0 {
						_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
					}
				}
			})
		}
	})
	defer serving.Wait()
	defer l.Close() //nolint:errcheck // of a test
	m := load(t, map[string]any{"address": "http://" + l.Addr().String()}, nil)
	for range 6 {
		if resp := ask(t, m, openaiapi.Chat, hello); resp.Status != http.StatusOK {
			t.Errorf("%d %s", resp.Status, resp.Body)
		}
	}
}

// An answer that breaks off is the server's failure: 503 would tell clients that no server has had the request.
func TestAnAnswerThatBreaksOffIsNoServerThatCannotBeReached(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusBadRequest} {
		s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"choices":[`)
		})
		m := load(t, map[string]any{"address": s.URL, "fallback": "other"}, nil)
		_, err := m.Infer(context.Background(), &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"})
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindDied || failed.Fallback != "other" {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// The allowed functions are looked up by name: a client chooses how many there are of both.
func TestManyAllowedFunctionsAreFoundInOnePass(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"a"}}]}`)
	})
	m := load(t, map[string]any{"address": s.URL}, nil)
	var tools, allowed []string
	for i := range 10_000 {
		tools = append(tools, fmt.Sprintf(`{"type":"function","name":"f%d"}`, i))
		allowed = append(allowed, fmt.Sprintf(`{"name":"g%d"}`, i))
	}
	allowed = append(allowed, `{"name":"f7"}`)
	begun := time.Now()
	resp := ask(t, m, openaiapi.Responses, `{"model":"llm","input":"a","tools":[`+strings.Join(tools, ",")+`],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[`+strings.Join(allowed, ",")+`]}}`)
	if took := time.Since(begun); resp.Status != http.StatusOK || took > 5*time.Second {
		t.Errorf("%d after %s", resp.Status, took)
	}
	sent := s.last(t)
	if got := string(sent.Get("tools")); got != `[{"type":"function","function":{"name":"f7"}}]` {
		t.Errorf("%.100s", got)
	}
}

// A form says nothing of what is asked: without a route of the API it has no meaning.
func TestAFormNeedsARoute(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) })
	m := load(t, map[string]any{"address": s.URL}, nil)
	const form = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nllm\r\n--x--\r\n"
	resp, err := m.Infer(context.Background(), &engine.Request{Body: []byte(form), ContentType: "multipart/form-data; boundary=x"})
	if err != nil || resp.Status != http.StatusBadRequest {
		t.Errorf("%v, %v", resp, err)
	}
}

// Some servers answer routes beside those of the API with a list.
func TestAListIsAnAnswerBesideTheAPI(t *testing.T) {
	const list = `[{"score":0.5,"index":0}]`
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, list)
	})
	m := load(t, map[string]any{"address": s.URL}, nil)
	if resp := ask(t, m, "v1/rerank", `{"model":"llm","query":"a","documents":["b"]}`); resp.Status != http.StatusOK || string(resp.Body) != list {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
	if _, err := m.Infer(context.Background(), &engine.Request{Route: openaiapi.Chat, Body: []byte(hello), ContentType: "application/json"}); err == nil {
		t.Error("a list is taken for a chat's answer")
	}
}

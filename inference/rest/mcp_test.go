package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"clearmlserving/serving"
	"clearmlserving/tracing"
	"clearmlserving/tracing/tracingtest"
)

// keyed sends a key with each request.
type keyed struct{ key string }

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+k.key)
	return http.DefaultTransport.RoundTrip(r)
}

// agent is connected to an instance until the end of the test. changed gets a value for each change of the tools.
func agent(t *testing.T, base, key, version string, changed chan<- struct{}) *sdk.ClientSession {
	t.Helper()
	o := &sdk.ClientOptions{}
	if changed != nil {
		o.ToolListChangedHandler = func(context.Context, *sdk.ToolListChangedRequest) { changed <- struct{}{} }
	}
	transport := &sdk.StreamableClientTransport{Endpoint: base + "/mcp", HTTPClient: &http.Client{Transport: keyed{key}}, MaxRetries: -1, DisableStandaloneSSE: true}
	session, err := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, o).Connect(t.Context(), transport, &sdk.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func toolNames(t *testing.T, s *sdk.ClientSession) []string {
	t.Helper()
	list, err := s.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	return names
}

func called(t *testing.T, s *sdk.ClientSession, name string, arguments any) string {
	t.Helper()
	result, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: name, Arguments: arguments})
	if err != nil {
		return "error: " + err.Error()
	}
	var b strings.Builder
	if result.IsError {
		b.WriteString("tool error: ")
	}
	for _, c := range result.Content {
		switch c := c.(type) {
		case *sdk.TextContent:
			b.WriteString(c.Text)
		default:
			fmt.Fprintf(&b, "%T", c)
		}
	}
	if result.StructuredContent != nil {
		text, err := json.Marshal(result.StructuredContent)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(" = " + string(text))
	}
	return b.String()
}

func offering(tools string) func(*options) {
	return func(o *options) {
		o.Source.(fixedSource).state.Sections[serving.SectionOptions] = json.RawMessage(tools) //nolint:forcetypeassert // start made it
	}
}

func TestEndpointsAreToolsForAgents(t *testing.T) {
	base := start(t, offering(`{"table/1":{"tool":{"description":"Doubles a."}},"echo":{"tool":{"name":"repeat"}},"busy":{"tool":{}},"stream":{"tool":{}},"answers":{"tool":{}},"a/b/c":{"tool":{}},"nobody":{"tool":{}}}`),
		"table/1", "echo", "busy", "stream", "answers", "a/b/c", "ask")
	for _, version := range []string{"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"} {
		t.Run(version, func(t *testing.T) {
			s := agent(t, base, "", version, nil)
			if got, want := toolNames(t, s), []string{"a_b_c", "answers", "busy", "repeat", "stream", "table_1"}; !slices.Equal(got, want) {
				t.Errorf("the tools are %q, want %q", got, want)
			}
			list, err := s.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, tool := range list.Tools {
				input, err := json.Marshal(tool.InputSchema)
				if err != nil {
					t.Fatal(err)
				}
				switch tool.Name {
				case "table_1":
					if tool.Description != "Doubles a." || string(input) != `{"additionalProperties":false,"properties":{"a":{"type":"number"}},"required":["a"],"type":"object"}` {
						t.Errorf("%s: %s %s", tool.Name, tool.Description, input)
					}
				case "repeat":
					if tool.Description != "Asks the model endpoint 'echo' (engine custom)." || !strings.Contains(string(input), `"required":["body"]`) {
						t.Errorf("%s: %s %s", tool.Name, tool.Description, input)
					}
				}
			}
			for _, c := range []struct {
				tool      string
				arguments any
				want      string
			}{
				{"table_1", map[string]any{"a": 1}, "null"},
				{"repeat", map[string]any{"body": []int{1, 2}}, "echo|application/json|[1,2]"},
				{"repeat", map[string]any{}, "tool error: the argument 'body' is missing: it is the body of the request"},
				{"a_b_c", map[string]any{"body": "x"}, `a/b/c|application/json|"x"`},
				{"busy", map[string]any{"body": 1}, "tool error: the queue of 'busy' is full"},
				{"answers", map[string]any{"body": "x"}, "tool error: no JSON"},
				{"stream", map[string]any{"body": 1}, "one,two,three"},
			} {
				if got := called(t, s, c.tool, c.arguments); got != c.want {
					t.Errorf("%s %v: %s, want %s", c.tool, c.arguments, got, c.want)
				}
			}
			if _, err := s.ListPrompts(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "not found") && !strings.Contains(err.Error(), "not support") {
				t.Errorf("prompts: %v", err)
			}
			if got := called(t, s, "ask", nil); !strings.Contains(got, `unknown tool "ask"`) {
				t.Errorf("an endpoint that is not offered: %s", got)
			}
			if err := s.Ping(t.Context(), nil); err != nil && version < "2026" {
				t.Error(err)
			}
		})
	}
}

func TestAToolIsSeenByTheKeysOfItsEndpoint(t *testing.T) {
	keys := newKeyRing()
	all, one := keys.add("all", time.Time{}), keys.add("one", time.Time{}, "echo")
	base := start(t, keys.with(t, offering(`{"echo":{"tool":{}},"busy":{"tool":{}}}`)), "echo", "busy")
	if got := toolNames(t, agent(t, base, all, "", nil)); !slices.Equal(got, []string{"busy", "echo"}) {
		t.Errorf("a key for all sees %q", got)
	}
	s := agent(t, base, one, "", nil)
	if got := toolNames(t, s); !slices.Equal(got, []string{"echo"}) {
		t.Errorf("a key for one sees %q", got)
	}
	if got := called(t, s, "echo", map[string]any{"body": 1}); got != "echo|application/json|1" {
		t.Error(got)
	}
	if got := called(t, s, "busy", map[string]any{"body": 1}); !strings.Contains(got, `unknown tool "busy"`) {
		t.Error(got)
	}
	resp, body := post(t, base+"/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "Content-Type", "application/json", "Accept", "application/json, text/event-stream")
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != `Bearer realm="clearml-serving"` {
		t.Errorf("without a key: %d %s", resp.StatusCode, body)
	}
}

func TestMessagesOfOtherOriginsAreRefused(t *testing.T) {
	base := start(t, func(o *options) {
		offering(`{"echo":{"tool":{}}}`)(o)
		o.Origins = []string{"https://app.example.com"}
	}, "echo")
	const list = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	for origin, want := range map[string]int{
		"": 200, "https://app.example.com": 200, "http://localhost:6274": 200, "http://127.0.0.1": 200, "http://[::1]:3": 200,
		"https://evil.example.com": 403, "http://localhost.evil.example.com": 403, "null": 403, "http://127.0.0.1.evil.com": 403, "::": 403,
	} {
		headers := []string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream"}
		if origin != "" {
			headers = append(headers, "Origin", origin)
		}
		if resp, body := post(t, base+"/mcp", list, headers...); resp.StatusCode != want {
			t.Errorf("%q: %d %s", origin, resp.StatusCode, body)
		}
	}
	for name, want := range map[string]int{"text/plain": 415, "application/json": 400} {
		if resp, body := post(t, base+"/mcp", "{", "Content-Type", name, "Accept", "application/json, text/event-stream"); resp.StatusCode != want {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
	if resp, body := get(t, base+"/mcp"); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d %s", resp.StatusCode, body)
	}
}

func TestWithoutToolsThereIsNothingForAgents(t *testing.T) {
	base := start(t, nil, "echo")
	if resp, body := post(t, base+"/mcp", "{}"); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "clearml-serving model tool") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestAgentsAreToldOfNewTools(t *testing.T) {
	changes, changed := make(chan struct{}, 1), make(chan struct{}, 100)
	source := &editedSource{}
	base := start(t, func(o *options) {
		offering(`{"echo":{"tool":{}}}`)(o)
		source.set(o.Source.(fixedSource).state) //nolint:forcetypeassert // start made it
		o.Source, o.Changes = source, ring(changes)
	}, "echo", "busy")
	s := agent(t, base, "", "", changed)
	if got := toolNames(t, s); !slices.Equal(got, []string{"echo"}) {
		t.Fatalf("%q", got)
	}
	source.edit(serving.SectionOptions, []byte(`{"busy":{"tool":{"name":"echo_2"}}}`))
	changes <- struct{}{}
	for end := time.After(patience); !slices.Equal(toolNames(t, s), []string{"echo_2"}); {
		select {
		case <-changed:
		case <-end:
			t.Fatal("never told")
		}
	}
}

// A client that goes away ends the work of the call, and a stop ends the connections of clients that listen.
func TestAPanicCostsTheCallOfATool(t *testing.T) {
	base := start(t, offering(`{"panics":{"tool":{}},"echo":{"tool":{}}}`), "panics", "echo")
	s := agent(t, base, "", "", nil)
	for _, body := range []string{"x", "no answer", "stream"} {
		if got := called(t, s, "panics", map[string]any{"body": body}); got != "tool error: Internal Server Error" {
			t.Errorf("%s: %s", body, got)
		}
	}
	if got, want := called(t, s, "echo", map[string]any{"body": 1}), "echo|application/json|1"; got != want {
		t.Errorf("after it: %s, want %s", got, want)
	}
}

func TestCallsOfToolsAreCounted(t *testing.T) {
	recorder := &countingRecorder{}
	base := start(t, func(o *options) {
		offering(`{"echo":{"tool":{}},"busy":{"tool":{}},"panics":{"tool":{}}}`)(o)
		o.Recorder = recorder
	}, "echo", "busy", "panics")
	s := agent(t, base, "", "", nil)
	for _, name := range []string{"echo", "busy", "panics"} {
		called(t, s, name, map[string]any{"body": 1})
		called(t, s, name, map[string]any{"no body": 1})
	}
	want := map[serving.EndpointURL]serving.Counts{
		"echo":   {Requests: 2, BadRequests: 1},
		"busy":   {Requests: 2, Refused: 1, BadRequests: 1},
		"panics": {Requests: 2, Errors: 1, BadRequests: 1},
	}
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	if !maps.Equal(recorder.counts, want) {
		t.Errorf("recorded %+v, want %+v", recorder.counts, want)
	}
}

func TestACallEndsWithItsClient(t *testing.T) {
	python := &fakePython{release: make(chan struct{})}
	base := start(t, func(o *options) {
		offering(`{"held":{"tool":{}}}`)(o)
		o.Python = python
	}, "held")
	s := agent(t, base, "", "", make(chan struct{}, 10))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.CallTool(ctx, &sdk.CallToolParams{Name: "held", Arguments: map[string]any{"body": 1}})
		done <- err
	}()
	holds := func(want int32) {
		t.Helper()
		for end := time.Now().Add(patience); python.held.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d calls are held, want %d", python.held.Load(), want)
			}
		}
	}
	holds(1)
	cancel()
	if err := <-done; err == nil {
		t.Error("a call that was given up has an answer")
	}
	holds(0)
}

func TestACallOfAToolIsTraced(t *testing.T) {
	to := tracingtest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	tracer, err := tracing.New(t.Context(), "1.2", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	base := start(t, func(o *options) {
		offering(`{"echo":{"tool":{}}}`)(o)
		o.front.Tracer = tracer
	}, "echo")
	if got := called(t, agent(t, base, "", "", nil), "echo", map[string]any{"body": 1}); got != "echo|application/json|1" {
		t.Fatal(got)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, s := range to.Spans() {
		names = append(names, s.Name)
	}
	if !slices.Contains(names, "tools/call echo") || !slices.Contains(names, "infer echo") {
		t.Errorf("the spans are %q", names)
	}
}

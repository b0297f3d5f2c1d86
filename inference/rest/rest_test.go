package rest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/rest"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds the wait for events that must happen, on a slow machine.
const patience = 2 * time.Minute

// fakePython is an engine whose models are functions of this test.
type fakePython struct {
	mu     sync.Mutex
	caller engine.Caller
	lent   atomic.Int32 // unreleased loans
	held   atomic.Int32 // requests at the endpoint "held"

	release chan struct{} // closed: the endpoint "held" answers
}

func (p *fakePython) Run(ctx context.Context, caller engine.Caller) error {
	p.mu.Lock()
	p.caller = caller
	p.mu.Unlock()
	<-ctx.Done()
	return nil
}

// calls returns the caller that answers send_request.
func (p *fakePython) calls() engine.Caller {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.caller
}

func (p *fakePython) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	if spec.Endpoint.ServingURL == "badcode" {
		return nil, &engine.LoadError{Text: "NameError: x", Traceback: "preprocess.py, line 3", UserCode: true}
	}
	return &fakeModel{p: p, url: spec.URL}, nil
}

type fakeModel struct {
	p   *fakePython
	url serving.EndpointURL
}

func (m *fakeModel) Status() serving.ModelReport {
	switch m.url {
	case "mute":
		return serving.ModelReport{State: "failed", Reason: "no answer for 11s, and 5 requests wait"}
	case "limping":
		return serving.ModelReport{State: "degraded", Reason: "1 of 2 workers answer"}
	}
	return serving.ModelReport{State: "ready"}
}
func (m *fakeModel) Close(context.Context) error { return nil }

// Lend implements engine.Lender; only one of the endpoints has memory.
func (m *fakeModel) Lend(size int) engine.Loan {
	switch m.url {
	case "lends":
	case "panics":
		panic("a lender panics")
	default:
		return nil
	}
	m.p.lent.Add(1)
	return &fakeLoan{make([]byte, size), m.p}
}

type fakeLoan struct {
	memory []byte
	p      *fakePython
}

func (l *fakeLoan) Bytes() []byte { return l.memory }
func (l *fakeLoan) Release()      { l.p.lent.Add(-1) }

func (m *fakeModel) Infer(ctx context.Context, r *engine.Request) (*engine.Response, error) {
	answer := func(status int, body string) (*engine.Response, error) {
		return &engine.Response{Status: status, ContentType: "application/json", Body: []byte(body), Stats: []byte(`{"x":1}`)}, nil
	}
	switch string(m.url) {
	case "lends":
		if r.Loan == nil {
			return answer(200, fmt.Sprintf("own %d", len(r.Body)))
		}
		return answer(200, fmt.Sprintf("lent %d %t", len(r.Body), &r.Body[0] == &r.Loan.Bytes()[0]))
	case "echo", "echo/1", "a/b/c", "a/ü%":
		return answer(200, fmt.Sprintf("%s|%s|%s", m.url, r.ContentType, r.Body))
	case "shows", "shows/2":
		if r.Client == nil {
			return answer(200, "nobody")
		}
		c := r.Client()
		return answer(200, fmt.Sprintf("%s %s ?%s %s %q", c.Method, c.Path, c.Query, c.Address, c.Header))
	case "asksshows":
		return m.p.calls().Call(ctx, engine.Call{From: "asksshows", Endpoint: "shows", Version: string(r.Body), Depth: r.Depth + 1})
	case "big":
		return answer(200, `"`+strings.Repeat("a", 100_000)+`"`)
	case "huge":
		return answer(200, `"`+strings.Repeat("a", 64<<20)+`"`)
	case "stream":
		return &engine.Response{Status: 200, ContentType: "text/event-stream", Stream: &pieces{left: []string{"one,", "two,", "three"}}}, nil
	case "cut":
		return &engine.Response{Status: 200, ContentType: "text/plain", Stream: &pieces{left: []string{"one,"}, err: errors.New("worker died")}}, nil
	case "late":
		return &engine.Response{Status: 200, ContentType: "text/plain", Stream: &latePieces{pieces{left: []string{"one,", "two"}}}}, nil
	case "late-cut":
		return &engine.Response{Status: 200, ContentType: "text/plain", Stream: &latePieces{pieces{left: []string{"one,"}, err: errors.New("worker died")}}}, nil
	case "panics":
		switch string(r.Body) {
		case "no answer":
			return nil, nil //nolint:nilnil // forbidden for engines
		case "stream":
			return &engine.Response{Status: 200, Stream: panickingStream{}}, nil
		}
		panic("an engine panics")
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "held":
		m.p.held.Add(1)
		defer m.p.held.Add(-1)
		select {
		case <-m.p.release:
			return answer(200, "null")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "busy":
		return nil, &engine.Error{Kind: engine.KindOverloaded, Text: "the queue of 'busy' is full"}
	case "answers":
		if status, err := strconv.Atoi(string(r.Body)); err == nil {
			return answer(status, "null")
		}
		return &engine.Response{Status: 422, Body: []byte("no JSON"), Unread: true}, nil
	case "away":
		return nil, &engine.Error{Kind: engine.KindUnavailable, Text: "no worker answers"}
	case "died":
		return nil, &engine.Error{Kind: engine.KindDied, Text: "worker of 'died' was killed by signal 9"}
	case "loop":
		resp, err := m.p.calls().Call(ctx, engine.Call{From: "loop", Endpoint: "loop", Depth: r.Depth + 1, Body: r.Body})
		return resp, err
	case "ask":
		return m.p.calls().Call(ctx, engine.Call{From: "ask", Endpoint: "/echo/", Version: "1", Depth: r.Depth + 1, ContentType: "text/x", Body: r.Body})
	case "askstream":
		return m.p.calls().Call(ctx, engine.Call{From: "askstream", Endpoint: "stream", Depth: r.Depth + 1})
	}
	return answer(200, "null")
}

type pieces struct {
	left []string
	err  error
}

func (p *pieces) Next(context.Context) ([]byte, error) {
	if len(p.left) == 0 {
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	}
	next := p.left[0]
	p.left = p.left[1:]
	return []byte(next), nil
}
func (p *pieces) Close() error { return nil }

// panickingStream is a stream that panics.
type panickingStream struct{}

func (panickingStream) Next(context.Context) ([]byte, error) { panic("a stream panics") }
func (panickingStream) Close() error                         { return nil }

type fixedSource struct{ state *reconcile.State }

func (f fixedSource) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	return f.state, nil
}

type noFiles struct{}

func (noFiles) Fetch(_ context.Context, f reconcile.File) (reconcile.Local, error) {
	return reconcile.Local{Path: f.URL, Release: func() {}}, nil
}

type countingRecorder struct {
	mu      sync.Mutex
	samples []serving.Sample
	streams []int // their bytes
	counts  map[serving.EndpointURL]serving.Counts
}

// count adds an outcome; mu is held.
func (c *countingRecorder) count(url serving.EndpointURL, outcome serving.Outcome) {
	if c.counts == nil {
		c.counts = map[serving.EndpointURL]serving.Counts{}
	}
	n := serving.Counts{Requests: 1}
	switch outcome {
	case serving.Errors:
		n.Errors = 1
	case serving.TimedOut:
		n.TimedOut = 1
	case serving.Refused:
		n.Refused = 1
	case serving.ClientErrors:
		n.ClientErrors = 1
	case serving.BadRequests:
		n.BadRequests = 1
	}
	url = serving.EndpointURL(strings.Clone(string(url))) // that of the caller is valid during the call only
	n.Add(c.counts[url])
	c.counts[url] = n
}

func (c *countingRecorder) Count(url, canary serving.EndpointURL, outcome serving.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(url, outcome)
	if canary != "" {
		c.count(canary+" > "+url, outcome)
	}
}

func (c *countingRecorder) Record(s serving.Sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = append(c.samples, s)
	if s.Streamed {
		return
	}
	c.count(s.URL, s.Outcome)
	if s.Canary != "" {
		c.count(s.Canary+" > "+s.URL, s.Outcome)
	}
}

func (c *countingRecorder) RecordStream(_ serving.EndpointURL, bytes int, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if took <= 0 {
		bytes = -1
	}
	c.streams = append(c.streams, bytes)
}

// core and front are the options of an instance's core and of its front under test.
type (
	core  = inference.Options
	front = rest.Options
)

// options are those of an instance under test.
type options struct {
	core
	front
	Python engine.Loader
}

// instance creates a core with its front, and a function that runs them.
func (o options) instance() (s *inference.Service, run func(context.Context) error) {
	o.Engines = []inference.Engine{{Kinds: []string{"custom"}, Loader: o.Python}}
	s = inference.New(o.core)
	f := rest.New(s, o.front)
	return s, func(ctx context.Context) error { return s.Run(ctx, f) }
}

// start runs an instance with an endpoint for each url and returns its address.
func start(t *testing.T, change func(*options), urls ...string) string {
	t.Helper()
	records := map[string]any{}
	for _, u := range urls {
		record := map[string]any{"engine_type": "custom", "serving_url": u, "version": ""}
		if u == "badcode" {
			record["preprocess_artifact"] = "py_code_badcode"
		}
		records[u] = record
	}
	text, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[serving.Section]json.RawMessage{serving.SectionEndpoints: text}
	if slices.Contains(urls, "slow") { // only this endpoint may exceed its deadline
		sections[serving.SectionOptions] = json.RawMessage(`{"slow":{"limits":{"deadline":0.3}}}`)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := options{Python: &fakePython{}}
	o.Listener, o.MaxBody = l, 1<<20
	o.Files, o.RequestTimeout = noFiles{}, patience
	o.Source = fixedSource{&reconcile.State{
		ServiceID: "S", Sections: sections,
		Artifacts: map[string]reconcile.Artifact{"py_code_badcode": {URI: "x"}},
	}}
	if change != nil {
		change(&o)
	}
	_, run := o.instance()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	base := "http://" + l.Addr().String()
	for deadline := time.Now().Add(patience); ; {
		if resp, _ := get(t, base+"/readyz"); resp.StatusCode == http.StatusOK {
			return base
		}
		if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}
}

func do(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		body = append(body, []byte("!"+err.Error())...)
	}
	return resp, string(body)
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, req)
}

func post(t *testing.T, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return do(t, req)
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

func TestLargeBodiesLieInTheModelsMemory(t *testing.T) {
	python := &fakePython{}
	base := start(t, func(o *options) { o.Python = python }, "lends", "echo")
	large := strings.Repeat("x", engine.LendFrom)
	for _, c := range []struct{ path, body, want string }{
		{"/serve/lends", large, fmt.Sprintf("lent %d true", len(large))},
		{"/serve/lends", "small", "own 5"},
		{"/serve/echo", large, "echo||" + large},
		{"/serve/nobody", large, `{"detail":"Error processing request, endpoint was not found: Model inference endpoint 'nobody' not found"}`},
	} {
		if _, got := post(t, base+c.path, c.body); got != c.want {
			t.Errorf("%s with %d bytes: %.100s", c.path, len(c.body), got)
		}
	}
	for end := time.Now().Add(patience); python.lent.Load() != 0; time.Sleep(time.Millisecond) { // released after the answer
		if time.Now().After(end) {
			t.Fatalf("%d loans were not given back", python.lent.Load())
		}
	}
}

func TestRequestsAndTheirAnswers(t *testing.T) {
	base := start(t, nil, "echo", "echo/1", "a/b/c", "a/ü%", "slow", "busy", "died", "loop", "ask", "badcode", "askstream", "stream")
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		want                     string // what the body contains
	}{
		{"an endpoint", "POST", "/serve/echo", "hi", []string{"Content-Type", "text/plain"}, 200, "echo|text/plain|hi"},
		{"without a content type", "POST", "/serve/echo", "hi", nil, 200, "echo||hi"},
		{"with slashes around", "POST", "/serve//echo//", "", nil, 200, "echo||"},
		{"a version", "POST", "/serve/echo/1", "", nil, 200, "echo/1||"},
		{"a version in the query", "POST", "/serve/echo?version=1", "", nil, 200, "echo/1||"},
		{"a version in the path wins", "POST", "/serve/echo/1?version=7", "", nil, 200, "echo/1||"},
		{"an unknown version in the query", "POST", "/serve/echo?version=7", "", nil, 404, "Model inference endpoint 'echo/7' not found"},
		{"three parts", "POST", "/serve/a/b/c", "", nil, 200, "a/b/c||"},
		{"three parts, the last two in the query", "POST", "/serve/a?version=b/c", "", nil, 200, "a/b/c||"},
		{"encoded characters", "POST", "/serve/a/%C3%BC%25", "", nil, 200, "a/ü%||"},
		{"encoded slashes", "POST", "/serve/a%2Fb%2Fc", "", nil, 200, "a/b/c||"},
		{"unknown endpoint", "POST", "/serve/nobody", "", nil, 404, `{"detail":"Error processing request, endpoint was not found: Model inference endpoint 'nobody' not found"}`},
		{"no endpoint", "POST", "/serve/", "", nil, 404, "not found"},
		{"other method", "GET", "/serve/echo", "", nil, 405, "Method Not Allowed"},
		{"other path", "POST", "/other", "", nil, 404, "Not Found"},
		{"gzip", "POST", "/serve/echo", zipped("hello"), []string{"Content-Encoding", "GZIP"}, 200, "echo||hello"},
		{"gzip twice", "POST", "/serve/echo", zipped(zipped("hello")), []string{"Content-Encoding", "gzip, gzip"}, 200, "echo||hello"},
		{"broken gzip", "POST", "/serve/echo", "not gzip", []string{"Content-Encoding", "gzip"}, 400, "There was an error parsing the body"},
		{"gzip cut short", "POST", "/serve/echo", zipped("hello")[:20], []string{"Content-Encoding", "gzip"}, 400, "There was an error parsing the body"},
		{"unknown encoding", "POST", "/serve/echo", "x", []string{"Content-Encoding", "br"}, 415, `Content encoding \"br\" is not supported`},
		{"gzip bomb", "POST", "/serve/echo", zipped(strings.Repeat("a", 5<<20)), []string{"Content-Encoding", "gzip"}, 413, "larger than the limit of 1048576 bytes"},
		{"oversized body", "POST", "/serve/echo", strings.Repeat("a", 1<<20+1), nil, 413, "larger than the limit of 1048576 bytes"},
		{"too slow", "POST", "/serve/slow", "", nil, 504, "Error processing request"},
		{"queue full", "POST", "/serve/busy", "", nil, 429, "the queue of 'busy' is full"},
		{"worker died", "POST", "/serve/died", "", nil, 500, "killed by signal 9"},
		{"calls in a circle", "POST", "/serve/loop", "", nil, 508, "call each other in a circle"},
		{"a call to another endpoint", "POST", "/serve/ask", "hi", nil, 200, "echo/1|text/x|hi"},
		{"a call to a stream", "POST", "/serve/askstream", "", nil, 200, "one,two,three"},
		{"code that cannot be loaded", "POST", "/serve/badcode", "", nil, 503, "Failed loading preprocess code for 'py_code_badcode': NameError: x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, base+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(tc.headers); i += 2 {
				req.Header.Set(tc.headers[i], tc.headers[i+1])
			}
			resp, body := do(t, req)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("got %d %s, want %d %s", resp.StatusCode, body, tc.status, tc.want)
			}
			if resp.Header.Get("X-Request-Id") == "" {
				t.Error("no request id")
			}
			if tc.status == 429 && resp.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		})
	}
}

func TestAnswerNamesEndpointAndKeepsTheRequestID(t *testing.T) {
	base := start(t, nil, "echo/1")
	resp, _ := post(t, base+"/serve/echo/1", "", "X-Request-Id", "abc-1")
	if resp.Header.Get("X-Clearml-Endpoint") != "echo/1" || resp.Header.Get("X-Request-Id") != "abc-1" {
		t.Errorf("headers: %v", resp.Header)
	}
	if resp, _ := post(t, base+"/serve/echo/1", "", "X-Request-Id", "two words"); resp.Header.Get("X-Request-Id") == "two words" {
		t.Error("an id that would break a log line was kept")
	}
}

func TestLargeAnswersAreCompressedWhenTheClientAcceptsIt(t *testing.T) {
	base := start(t, nil, "big", "echo")
	for _, tc := range []struct {
		path, accept string
		compressed   bool
	}{{"big", "gzip, deflate", true}, {"big", "*;q=0.5", true}, {"big", "gzip;q=0", false}, {"big", "br", false}, {"echo", "gzip", false}} {
		resp, body := post(t, base+"/serve/"+tc.path, "", "Accept-Encoding", tc.accept)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != tc.compressed {
			t.Errorf("%s, %q: compressed %v", tc.path, tc.accept, got)
		}
		if !tc.compressed {
			continue
		}
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(z); err != nil || len(plain) != 100_002 {
			t.Errorf("%d bytes, %v", len(plain), err)
		}
	}
}

func TestStreamsArriveWholeOrVisiblyCut(t *testing.T) {
	base := start(t, nil, "stream", "cut")
	if resp, body := post(t, base+"/serve/stream", ""); body != "one,two,three" || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%q %v", body, resp.Header)
	}
	if _, body := post(t, base+"/serve/cut", ""); !strings.Contains(body, "!unexpected EOF") {
		t.Errorf("a stream that failed looks whole: %q", body)
	}
}

func TestReadinessTellsTheTruth(t *testing.T) {
	base := start(t, nil, "echo", "badcode", "mute", "limping")
	resp, body := get(t, base+"/readyz")
	if resp.StatusCode != 200 || !strings.Contains(body, `"endpoint": "badcode"`) || !strings.Contains(body, "NameError: x") || !strings.Contains(body, "no answer for 11s") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for endpoint, status := range map[string]int{"echo": 200, "badcode": 503, "mute": 503, "limping": 200, "nobody": 404} {
		if resp, body := get(t, base+"/readyz?endpoint="+endpoint); resp.StatusCode != status {
			t.Errorf("%s: %d %s", endpoint, resp.StatusCode, body)
		}
	}
	if resp, _ := get(t, base+"/livez"); resp.StatusCode != 200 {
		t.Errorf("livez: %d", resp.StatusCode)
	}
	if _, body := get(t, base+"/status"); !strings.Contains(body, `"service_id": "S"`) || !strings.Contains(body, `"state": "failed"`) {
		t.Errorf("status: %s", body)
	}
	if resp, _ := post(t, base+"/readyz", ""); resp.StatusCode != 405 {
		t.Errorf("POST /readyz: %d", resp.StatusCode)
	}
}

func TestSuffixReplacesServe(t *testing.T) {
	base := start(t, func(o *options) { o.Suffix = "predict" }, "echo")
	if resp, _ := post(t, base+"/predict/echo", ""); resp.StatusCode != 200 {
		t.Errorf("suffix: %d", resp.StatusCode)
	}
	if resp, _ := post(t, base+"/serve/echo", ""); resp.StatusCode != 404 {
		t.Errorf("serve: %d", resp.StatusCode)
	}
}

func TestRequestsThatComeToAModelAreRecorded(t *testing.T) {
	recorder := &countingRecorder{}
	base := start(t, func(o *options) { o.Recorder = recorder }, "echo", "busy", "ask", "echo/1", "answers")
	for _, path := range []string{"echo", "echo", "busy", "nobody", "ask"} {
		post(t, base+"/serve/"+path, "12345")
	}
	post(t, base+"/serve/answers", "422")
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	got, sampled := map[serving.EndpointURL]int{}, map[serving.EndpointURL]int{}
	for _, s := range recorder.samples {
		got[s.URL]++
		if s.Latency <= 0 || s.Answered == (s.URL == "busy") || s.Answered == (s.AnswerBytes < 0) {
			t.Errorf("sample %+v", s)
		}
		if !s.Sampled {
			continue
		}
		sampled[s.URL]++
		if s.Weight != 1 || string(s.Variables) != `{"x":1}` {
			t.Errorf("sample %+v", s)
		}
	}
	if want := (map[serving.EndpointURL]int{"echo": 2, "ask": 1, "echo/1": 1, "busy": 1, "answers": 1}); !maps.Equal(got, want) {
		t.Errorf("recorded %v", got)
	}
	if want := (map[serving.EndpointURL]int{"echo": 2, "ask": 1, "echo/1": 1}); !maps.Equal(sampled, want) {
		t.Errorf("sampled %v", sampled)
	}
}

func TestStreamsThatAreSentWholeAreRecordedWithTheirSize(t *testing.T) {
	recorder := &countingRecorder{}
	base := start(t, func(o *options) { o.Recorder = recorder }, "stream", "cut")
	post(t, base+"/serve/cut", "")
	_, body := post(t, base+"/serve/stream", "")
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	if len(recorder.samples) != 2 || !slices.Equal(recorder.streams, []int{len(body)}) {
		t.Errorf("%+v, streams of %v bytes; the answer has %d", recorder.samples, recorder.streams, len(body))
	}
}

// latePieces is a stream whose variables are known at its end.
type latePieces struct{ pieces }

func (p *latePieces) Stats() []byte { return fmt.Appendf(nil, `{"left":%d}`, len(p.left)) }

func TestVariablesOfAStreamAreRecordedAtItsEnd(t *testing.T) {
	recorder := &countingRecorder{}
	base := start(t, func(o *options) { o.Recorder = recorder }, "late", "late-cut")
	post(t, base+"/serve/late", "")
	post(t, base+"/serve/late-cut", "")
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	if len(recorder.samples) != 2 || len(recorder.streams) != 1 {
		t.Fatalf("%+v, %v", recorder.samples, recorder.streams)
	}
	if whole := recorder.samples[0]; !whole.Sampled || !whole.Streamed || whole.Latency <= 0 || string(whole.Variables) != `{"left":0}` {
		t.Errorf("%+v", whole)
	}
	if cut := recorder.samples[1]; cut.Sampled || cut.Variables != nil {
		t.Errorf("it has failed: %+v", cut)
	}
}

func TestAClientThatDoesNotReadItsWholeAnswerHoldsNoModel(t *testing.T) {
	base := start(t, nil, "huge")
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST /serve/huge HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // the answer has begun
		t.Fatal(err)
	}
	if _, body := get(t, base+"/status"); !strings.Contains(body, `"in_use": 0`) {
		t.Errorf("status: %s", body)
	}
	_ = c.Close()
}

func TestRequestsUnderWayEndBeforeTheStop(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	text := json.RawMessage(`{"held":{"engine_type":"custom","serving_url":"held","version":""}}`)
	python := &fakePython{release: make(chan struct{})}
	s, run := options{
		front: front{Listener: l, StopTimeout: patience}, Python: python,
		core: core{Files: noFiles{}, Source: fixedSource{&reconcile.State{Sections: map[serving.Section]json.RawMessage{serving.SectionEndpoints: text}}}},
	}.instance()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	base := "http://" + l.Addr().String()
	for {
		if resp, _ := get(t, base+"/readyz"); resp.StatusCode == http.StatusOK {
			break
		}
	}
	answered := make(chan int, 1)
	go func() {
		resp, _ := post(t, base+"/serve/held", "")
		answered <- resp.StatusCode
	}()
	for s.Status().Endpoints[0].InUse == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	for { // until it stops accepting connections
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			break
		}
		_ = c.Close()
	}
	select {
	case err := <-done:
		t.Fatalf("it ended before its request, with %v", err)
	default:
	}
	close(python.release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the request under way got %d", status)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAStoppingInstanceServesUntilBalancersHaveNoticed(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	text := json.RawMessage(`{"echo":{"engine_type":"custom","serving_url":"echo","version":""}}`)
	_, run := options{
		front: front{Listener: l, DrainDelay: time.Hour}, Python: &fakePython{},
		core: core{Files: noFiles{}, Source: fixedSource{&reconcile.State{Sections: map[serving.Section]json.RawMessage{serving.SectionEndpoints: text}}}},
	}.instance()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	base := "http://" + l.Addr().String()
	ready := func(status int) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			resp, body := get(t, base+"/readyz")
			if resp.StatusCode == status {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("/readyz still says %d %s", resp.StatusCode, body)
			}
		}
	}
	ready(http.StatusOK)
	if resp, _ := post(t, base+"/serve/echo", "1"); resp.Close {
		t.Error("a connection is given up before the stop")
	}
	cancel()
	ready(http.StatusServiceUnavailable)
	if resp, body := get(t, base+"/"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"ready": false`) {
		t.Errorf("the root: %d %s", resp.StatusCode, body)
	}
	for range 3 {
		// The answer has "Connection: close" after linger has called Retire.
		for end := time.Now().Add(patience); ; {
			resp, body := post(t, base+"/serve/echo", "1")
			if resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "echo|") {
				t.Fatalf("while it lingers: %d %s", resp.StatusCode, body)
			}
			if resp.Close {
				break
			}
			if time.Now().After(end) {
				t.Fatal("answers do not ask for their connection's end")
			}
		}
	}
	if err := l.Close(); err != nil { // the end of a part also ends the wait
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("err = %v", err)
	}
}

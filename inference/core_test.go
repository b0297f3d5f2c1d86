package inference_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

type fixedSource struct{ state *reconcile.State }

func (f fixedSource) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	return f.state, nil
}

type noFiles struct{}

func (noFiles) Fetch(_ context.Context, f reconcile.File) (reconcile.Local, error) {
	return reconcile.Local{Path: f.URL, Release: func() {}}, nil
}

// ready is a follower that signals once that all endpoints have loaded or failed.
type ready chan struct{}

func (ready) Planned(*reconcile.State, serving.Plan, bool) {}

func (r ready) StatusChanged(status func() serving.Status) {
	if now := status(); now.Ready() {
		select {
		case r <- struct{}{}:
		default:
		}
	}
}

// core runs a core with the toy engine until the end of the test. fronts may be nil.
func core(t *testing.T, o inference.Options, fronts func(*inference.Service) []inference.Front, options string, urls ...string) *inference.Service {
	t.Helper()
	records := map[string]any{}
	for _, u := range urls {
		record := map[string]any{"engine_type": "vllm", "serving_url": u, "version": ""}
		if u == "broken" {
			record["preprocess_artifact"] = "py_code_broken"
		}
		records[u] = record
	}
	text, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	loaded := make(ready, 1)
	o.Engines, o.Followers = []inference.Engine{{Kinds: []string{"vllm"}, Loader: newToyEngine()}}, []reconcile.Follower{loaded}
	state := &reconcile.State{
		ServiceID: "S", Sections: map[serving.Section]json.RawMessage{serving.SectionEndpoints: text, serving.SectionOptions: json.RawMessage(options)},
		Artifacts: map[string]reconcile.Artifact{"py_code_broken": {URI: "x"}},
	}
	if o.Source != nil {
		maps.Copy(state.Sections, o.Source.(fixedSource).state.Sections) //nolint:forcetypeassert // these tests use no other type
	}
	o.Source, o.Files = fixedSource{state}, noFiles{}
	s := inference.New(o)
	var all []inference.Front
	if fronts != nil {
		all = fronts(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, all...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-loaded:
	case <-time.After(patience):
		t.Fatal("never ready")
	}
	return s
}

// ask sends a question without a key.
func ask(t *testing.T, s *inference.Service, url string, req engine.Request) (*engine.Response, *inference.Failure) {
	t.Helper()
	ticket, failure := s.Admit(inference.Head{Endpoint: serving.EndpointURL(url)})
	if failure != nil {
		return nil, failure
	}
	return s.AskWhole(t.Context(), ticket, &inference.Question{Request: req})
}

// The time limit is that of the whole request, whoever answers in the end.
func TestAFallbackHasTheTimeThatIsLeft(t *testing.T) {
	const limit = 10 * time.Second
	s := core(t, inference.Options{}, nil, `{}`, "over", "left")
	ticket, failure := s.Admit(inference.Head{Endpoint: "over"})
	if failure != nil {
		t.Fatal(failure)
	}
	answer, failure := s.Ask(t.Context(), ticket, &inference.Question{Request: engine.Request{Body: []byte("x")}, Within: limit})
	if failure != nil {
		t.Fatal(failure)
	}
	left, err := time.ParseDuration(string(answer.Body))
	if err != nil || left <= 0 || left > limit-50*time.Millisecond {
		t.Errorf("%s is left of %s after 50ms, %v", left, limit, err)
	}
}

// An engine and a front need one file each, toyengine_test.go and toyfront_test.go, and
// no changes elsewhere.
func TestANewEngineAndANewFrontServe(t *testing.T) {
	secret, id := serving.NewAccessKey()
	other, otherID := serving.NewAccessKey()
	keys, err := json.Marshal(map[string]any{
		"service": map[string]any{"required": true}, id: map[string]any{"sha256": serving.DigestOf(secret).String()},
		otherID: map[string]any{"sha256": serving.DigestOf(other).String(), "endpoints": []string{"streams"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := inference.Options{Source: fixedSource{&reconcile.State{Sections: map[serving.Section]json.RawMessage{serving.SectionAccess: keys}}}}
	s := core(t, o, func(s *inference.Service) []inference.Front { return []inference.Front{&toyFront{s, l}} },
		`{"waits":{"limits":{"deadline":0.05}}}`, "echo", "streams", "refuses", "busy", "waits", "broken", "calls")
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	answers := bufio.NewScanner(c)
	for _, tc := range []struct{ endpoint, key, text, want string }{
		{"echo", secret, "hi", "200 hi"},
		{"streams", other, "a", "200 aa"},
		{"refuses", secret, "x", "422 no"},
		{"calls", secret, "echo", "200 called"},
		{"busy", secret, "x", "later the queue is full"},
		{"waits", secret, "x", "late Error processing request: context deadline exceeded (its limit is 50ms)"},
		{"nobody", secret, "x", "unknown Error processing request, endpoint was not found"},
		{"broken", secret, "x", "code Error [<class 'ValueError'>] processing request: Error: Failed loading preprocess code for 'py_code_broken': its code has a fault"},
		{"echo", "", "x", "who Not authenticated"},
		{"nobody", "wrong", "x", "who The key is not known"},
		{"echo", other, "x", "forbidden The key"},
	} {
		if _, err := fmt.Fprintf(c, "%s %s %s\n", tc.endpoint, tc.key, tc.text); err != nil {
			t.Fatal(err)
		}
		if answers.Scan(); !strings.HasPrefix(answers.Text(), tc.want) {
			t.Errorf("%s with %q: %q, want %q", tc.endpoint, tc.text, answers.Text(), tc.want)
		}
	}
	for _, e := range s.Status().Endpoints {
		if e.InUse != 0 {
			t.Errorf("%s: %d references are left", e.URL, e.InUse)
		}
	}
}

func TestNothingIsAskedWithoutAdmission(t *testing.T) {
	s := core(t, inference.Options{}, nil, "{}", "echo")
	if _, failure := s.Ask(t.Context(), inference.Ticket{}, &inference.Question{}); failure == nil {
		t.Error("Ask takes a ticket that Admit has not given")
	}
	if _, failure := s.AskWhole(t.Context(), inference.Ticket{}, &inference.Question{}); failure == nil {
		t.Error("AskWhole takes a ticket that Admit has not given")
	}
	if _, _, failure := s.Signature(inference.Ticket{}); failure == nil {
		t.Error("Signature takes a ticket that Admit has not given")
	}
	if loan := s.Lend(inference.Ticket{}, 1); loan != nil {
		t.Error("memory is lent for a ticket that Admit has not given")
	}
}

func TestTensorsAndSignaturesPassTheCore(t *testing.T) {
	s := core(t, inference.Options{}, nil, "{}", "echo")
	in := engine.Tensor{Name: "x", Datatype: engine.Int8, Shape: []int64{2}, Data: []byte{1, 2}}
	resp, failure := ask(t, s, "echo", engine.Request{Tensors: []engine.Tensor{in}})
	if failure != nil || len(resp.Tensors) != 1 || string(resp.Tensors[0].Data) != "\x02\x04" {
		t.Errorf("%+v, %v", resp, failure)
	}
	in.Datatype = engine.Bytes
	if _, failure := ask(t, s, "echo", engine.Request{Tensors: []engine.Tensor{in}}); failure == nil || failure.Kind != inference.KindBadRequest || failure.Response().Status != 400 {
		t.Errorf("a tensor that the model does not take: %+v", failure)
	}
	ticket, failure := s.Admit(inference.Head{Endpoint: "echo"})
	if failure != nil {
		t.Fatal(failure)
	}
	if signature, known, failure := s.Signature(ticket); failure != nil || !known || signature.Source != "toy" {
		t.Errorf("%+v %t %v", signature, known, failure)
	}
}

func TestValuesOfTensorsAreNotLogged(t *testing.T) {
	var log lockedLog
	s := core(t, inference.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil, `{}`, "echo")
	x := engine.Tensor{Name: "x", Datatype: engine.Uint16, Shape: []int64{1}, Data: []byte{0x39, 0x30}}
	_, failure := ask(t, s, "echo", engine.Request{Tensors: []engine.Tensor{x}})
	if failure == nil || failure.Kind != inference.KindBadRequest || !strings.Contains(failure.Text, "12345") {
		t.Fatalf("%+v", failure)
	}
	if text := log.String(); !strings.Contains(text, "request failed") || strings.Contains(text, "12345") {
		t.Error(text)
	}
}

// lockedLog is a text that several goroutines write.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestQuestionsAboutAModelAreNotCountedAsRequests(t *testing.T) {
	s := core(t, inference.Options{}, nil, `{}`, "broken")
	about := inference.Head{Endpoint: "broken"}
	_, first := s.ModelMetadata(about, "broken")
	_, second := s.ModelConfig(about, "broken")
	_, third := s.ModelStatistics(about, "broken", "")
	for _, failure := range []*inference.Failure{first, second, third} {
		if failure == nil || failure.Kind != inference.KindNotReady {
			t.Errorf("%+v", failure)
		}
	}
	if e := s.Status().Endpoints[0]; e.Requests != 0 || e.Errors != 0 {
		t.Errorf("%+v", e.Counts)
	}
	if _, failure := s.Admit(about); failure == nil || s.Status().Endpoints[0].Errors != 1 {
		t.Errorf("a request: %+v", failure)
	}
}

func TestRequestsWithTensorsAreNeitherRecordedNorCopiedAsEmptyOnes(t *testing.T) {
	s := core(t, inference.Options{RecordingsDir: t.TempDir()}, nil, `{"echo":{"record":{"share":1},"shadow":{"to":"x","share":1}}}`, "echo", "x")
	in := []engine.Tensor{{Name: "x", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{1}}}
	if _, failure := ask(t, s, "echo", engine.Request{Tensors: in}); failure != nil {
		t.Fatal(failure)
	}
	status := s.Status()
	if r := status.Recordings[0]; r.Skipped != 1 || r.Recorded != 0 {
		t.Errorf("%+v", r)
	}
	for end := time.Now().Add(patience); status.Shadows[0].Shadowed == 0 && time.Now().Before(end); status = s.Status() {
		time.Sleep(time.Millisecond)
	}
	if p := status.Shadows[0]; p.Dropped != 0 || p.Shadowed != 1 || p.Equal != 1 { // the copy has the tensors too
		t.Errorf("%+v", p)
	}
}

// A panic on a goroutine without a connection would end the process.
func TestAPanicCostsItsCallCopyOrLoad(t *testing.T) {
	s := core(t, inference.Options{}, nil, `{"echo":{"shadow":{"to":"panics","share":1}}}`, "echo", "calls", "panics", "cannot load")
	resp, failure := ask(t, s, "calls", engine.Request{Body: []byte("panics")})
	if failure != nil || resp.Status != 500 {
		t.Errorf("a call: %+v %v", resp, failure)
	}
	if resp, failure := ask(t, s, "echo", engine.Request{Body: []byte("x")}); failure != nil || string(resp.Body) != "x" {
		t.Errorf("%+v %v", resp, failure)
	}
	for end := time.Now().Add(patience); s.Status().Shadows[0].Errors != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a copy: %+v", s.Status().Shadows)
		}
	}
	for _, e := range s.Status().Endpoints {
		if e.InUse != 0 {
			t.Errorf("%s: %d references are left", e.URL, e.InUse)
		}
		if failed := e.Failure != nil && strings.Contains(e.Failure.Reason, "panicked"); failed != (e.URL == "cannot load") {
			t.Errorf("%s: %+v", e.URL, e.Failure)
		}
	}
}

func TestTheToyEngineFulfilsTheContractOfEngines(t *testing.T) {
	at := func(url serving.EndpointURL, want func(int) string) *enginetest.Endpoint {
		return &enginetest.Endpoint{Spec: engine.Spec{URL: url}, Want: want, Request: func(i int) *engine.Request {
			return &engine.Request{Body: fmt.Append(nil, i)}
		}}
	}
	tensors := at("echo", nil)
	tensors.Request = func(int) *engine.Request {
		return &engine.Request{Tensors: []engine.Tensor{{Name: "x", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{1}}}}
	}
	enginetest.Run(t, enginetest.Engine{
		Loader: newToyEngine(), Answers: *at("echo", func(i int) string { return fmt.Sprint(i) }),
		Waits: at("waits", nil), Refuses: at("refuses", nil), Broken: at("broken", nil), BrokenByUser: true, Tensors: tensors,
		Streams: at("streams", func(i int) string { return fmt.Sprint(i, i)[:1] + fmt.Sprint(i) }),
	})
}

func TestTheSignatureIsLearnedFromRecordedRequests(t *testing.T) {
	s := core(t, inference.Options{RecordingsDir: t.TempDir()}, nil, `{"echo":{"record":{"share":1,"redact":["secret"]}}}`, "echo")
	for _, body := range []string{`{"secret":"hidden"}`, `{"x": 1}`, `{"x": 2, "y": "z"}`} {
		if _, failure := ask(t, s, "echo", engine.Request{Body: []byte(body), ContentType: "application/json"}); failure != nil {
			t.Fatal(failure)
		}
	}
	for end := time.Now().Add(patience); s.Status().Recordings[0].Recorded != 3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", s.Status().Recordings)
		}
	}
	ticket, failure := s.Admit(inference.Head{Endpoint: "echo"})
	if failure != nil {
		t.Fatal(failure)
	}
	signature, known, failure := s.Signature(ticket)
	if failure != nil || !known || signature.Source != "toy, requests" || string(signature.Example) != `{"x":1}` {
		t.Errorf("%+v %t %v", signature, known, failure)
	}
	if want := `{"properties":{"x":{"type":"number"},"y":{"type":"string"}},"required":["x"],"type":"object"}`; string(signature.BodySchema) != want {
		t.Errorf("%s, want %s", signature.BodySchema, want)
	}
	if told := s.Status().Endpoints[0].Signature; told == nil || told.ExampleOf != engine.ExampleRecorded || string(told.Example) != `{"x":1}` {
		t.Errorf("the status: %+v", told)
	}
}

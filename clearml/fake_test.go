package clearml_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// fakeServer answers calls as a ClearML server does: with the recorded envelope,
// tokens that it has given out, and whatever a test puts in the way.
type fakeServer struct {
	t *testing.T

	mu       sync.Mutex // guards everything below
	answers  map[string]func(body map[string]any) (int, string)
	obstacle func(w http.ResponseWriter, r *http.Request, call string) bool
	calls    []string
	requests []map[string]any // bodies, one per call
	headers  []http.Header
	tokens   int
	life     time.Duration
	version  string
	clock    time.Time // what the server's clock shows; zero: the real time
}

func newFake(t *testing.T) *fakeServer {
	t.Helper()
	return &fakeServer{t: t, answers: map[string]func(map[string]any) (int, string){}, life: 30 * 24 * time.Hour, version: "2.31"}
}

// start serves over a real socket and returns a client of it.
func (f *fakeServer) start(change ...func(*clearml.Options)) *clearml.Client {
	f.t.Helper()
	server := httptest.NewServer(f)
	f.t.Cleanup(server.Close)
	return f.client(server.URL, change...)
}

// direct returns a client that calls the handler without a socket, so that it
// can run inside a bubble of testing/synctest.
func (f *fakeServer) direct(change ...func(*clearml.Options)) *clearml.Client {
	f.t.Helper()
	transport := roundTrip(func(r *http.Request) (*http.Response, error) {
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w.Result(), nil
	})
	return f.client("http://fake:8008", append([]func(*clearml.Options){func(o *clearml.Options) { o.HTTP = &http.Client{Transport: transport} }}, change...)...)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f *fakeServer) client(url string, change ...func(*clearml.Options)) *clearml.Client {
	f.t.Helper()
	o := clearml.Options{
		Config: clearml.Config{
			API: clearml.Setting{Value: url, From: "the test"}, Files: clearml.Setting{Value: url, From: "the test"},
			AccessKey: clearml.Setting{Value: "key", From: "the test"}, SecretKey: clearml.NewSecret("secret:with:colons", "the test"),
			WorkerName: clearml.Setting{Value: "worker-1"},
		},
		ClientName: "clearml-serving-1.3.5",
		Retry:      clearml.Retry{First: time.Millisecond},
	}
	for _, c := range change {
		c(&o)
	}
	c, err := clearml.New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// on answers a call with data.
func (f *fakeServer) on(call, data string) {
	f.handle(call, func(map[string]any) (int, string) { return 200, data })
}

// refuse answers a call with an error.
func (f *fakeServer) refuse(call string, code, subcode int, msg string) {
	f.handle(call, func(map[string]any) (int, string) { return code*1000 + subcode, msg })
}

func (f *fakeServer) handle(call string, h func(body map[string]any) (int, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[call] = h
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.clock.IsZero() {
		w.Header().Set("Date", f.clock.UTC().Format(http.TimeFormat))
	}
	call := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	text, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("read the body of %s: %v", call, err)
	}
	f.calls = append(f.calls, call)
	f.headers = append(f.headers, r.Header.Clone())
	if f.obstacle != nil && f.obstacle(w, r, call) {
		return
	}
	if call == "auth.login" {
		f.login(w, r)
		return
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !strings.Contains(token, fmt.Sprintf("t%d.", f.tokens)) {
		envelope(w, 401, 30, "Unauthorized (invalid token)", "{}")
		return
	}
	if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/v2.") {
		f.t.Errorf("%s %s: want POST with a version", r.Method, r.URL.Path)
	}
	var body map[string]any
	if r.Header.Get("Content-Type") == "application/json-lines" {
		body = map[string]any{"lines": string(text)}
	} else if err := json.Unmarshal(text, &body); err != nil {
		f.t.Errorf("%s: body %q: %v", call, text, err)
	}
	f.requests = append(f.requests, body)
	answer := f.answers[call]
	if answer == nil {
		envelope(w, 404, 0, "Unable to find endpoint for name "+call, "{}")
		return
	}
	code, data := answer(body)
	if code != 200 {
		envelope(w, code/1000, code%1000, data, "{}")
		return
	}
	envelope(w, 200, 0, "OK", data)
}

func (f *fakeServer) login(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	bearer := strings.HasPrefix(r.Header.Get("Authorization"), "Bearer from-environment") || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t")
	if !bearer && (user != "key" || password != "secret:with:colons") {
		envelope(w, 401, 20, "Unauthorized (invalid credentials)", "{}")
		return
	}
	f.tokens++
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{"exp":%d,"iat":%d,"api_version":%q}`, now+int64(f.life/time.Second), now, f.version)
	token := fmt.Sprintf("t%d.%s.s", f.tokens, base64.RawURLEncoding.EncodeToString([]byte(claims)))
	envelope(w, 200, 0, "OK", `{"token":"`+token+`"}`)
}

// revoke makes the server refuse every token that it has given out so far.
func (f *fakeServer) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens++
}

func envelope(w http.ResponseWriter, code, subcode int, msg, data string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	m, _ := json.Marshal(msg)
	_, _ = fmt.Fprintf(w, `{"meta":{"id":"1","trx":"1","endpoint":{"name":"x","requested_version":"2.23","actual_version":"1.0"},"result_code":%d,"result_subcode":%d,"result_msg":%s,"error_stack":null,"error_data":{}},"data":%s}`, code, subcode, m, data)
}

// seen lists the calls so far and forgets them.
func (f *fakeServer) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// last is the body of the last call that was let in.
func (f *fakeServer) last() map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 {
		return nil
	}
	return f.requests[len(f.requests)-1]
}

package security_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/controlplane"
	"clearmlserving/feedback"
	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/rest"
	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// world is a control plane and an inference instance in this process, with their
// logs.
type world struct {
	api, files, serve, admin string // URLs
	access, secret           string
	key                      string // of the data plane
	dir                      string
	control                  *controlplane.Server
	instance                 *rest.Front
	log                      *journal
	stop                     func() // also waits for running requests
}

// journal stores the log of many goroutines.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// patience bounds the wait for events that must happen, on a slow machine.
const patience = 2 * time.Minute

// thorough reports whether the suite runs alone (make security). As a part of all tests, with the
// race detector, it tests only a sample.
func thorough() bool { return os.Getenv("CLEARML_SERVING_E2E") != "" }

func open(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newWorld starts both; keys are required.
func newWorld(t *testing.T, change ...func(*controlplane.Options)) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), log: &journal{}}
	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	api, files, serve, admin := open(t), open(t), open(t), open(t)
	w.api, w.files = "http://"+api.Addr().String(), "http://"+files.Addr().String()
	w.serve, w.admin = "http://"+serve.Addr().String(), "http://"+admin.Addr().String()
	ready := make(chan struct{})
	var err error
	opts := controlplane.Options{
		DataDir: w.dir, API: api, Files: files, Version: "test", Grace: patience, Ready: func() { close(ready) }, Logger: log,
	}
	for _, f := range change {
		f(&opts)
	}
	w.control, err = controlplane.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	w.access, w.secret = w.control.Credentials()
	secret, id := serving.NewAccessKey()
	w.key = secret
	keys, err := json.Marshal(map[string]any{"service": map[string]any{"required": true}, id: map[string]any{"sha256": serving.DigestOf(secret).String()}})
	if err != nil {
		t.Fatal(err)
	}
	core := inference.New(inference.Options{
		Engines: []inference.Engine{{Kinds: []string{"custom"}, Loader: plainEngine{}}}, Files: noFiles{}, Logger: log,
		Source: fixedSource{&reconcile.State{ServiceID: "S", Sections: map[serving.Section]json.RawMessage{
			serving.SectionEndpoints: json.RawMessage(`{"echo":{"engine_type":"custom","serving_url":"echo"},"slow":{"engine_type":"custom","serving_url":"slow"},"fails":{"engine_type":"custom","serving_url":"fails"},"stubborn":{"engine_type":"custom","serving_url":"stubborn"}}`),
			serving.SectionOptions:   json.RawMessage(`{"slow":{"limits":{"deadline":0.5}}}`),
			serving.SectionAccess:    keys,
		}}},
	})
	metrics, err := statistics.New().Handler(core.Status, log)
	if err != nil {
		t.Fatal(err)
	}
	w.instance = rest.New(core, rest.Options{Listener: serve, Admin: admin, Metrics: metrics, MaxBody: 1 << 20, Logger: log, Feedback: feedback.New(feedback.Options{Dir: t.TempDir(), Logger: log})})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{w.control.Run, func(ctx context.Context) error { return core.Run(ctx, w.instance) }} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	w.stop = sync.OnceFunc(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		running.Wait()
	})
	t.Cleanup(w.stop)
	<-ready
	for deadline := time.Now().Add(patience); ; {
		if status, _ := w.ask(t, "GET", w.serve+"/readyz", "", nil); status == http.StatusOK {
			return w
		}
		if time.Now().After(deadline) {
			t.Fatal("the instance is never ready")
		}
	}
}

// ask sends a request unchanged and returns status and body.
func (w *world) ask(t *testing.T, method, url, body string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err.Error()
	}
	return resp.StatusCode, string(text)
}

// basic are the credentials of the control plane.
func (w *world) basic() map[string]string {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(w.access, w.secret)
	return map[string]string{"Authorization": req.Header.Get("Authorization")}
}

// alive fails the test if one of the listeners no longer answers correctly.
func (w *world) alive(t *testing.T) {
	t.Helper()
	if status, body := w.ask(t, "POST", w.serve+"/serve/echo", "still here", map[string]string{"Authorization": "Bearer " + w.key}); status != 200 || body != "still here" {
		t.Errorf("the data plane answers %d %s", status, body)
	}
	if status, body := w.ask(t, "GET", w.api+"/server.info", "", w.basic()); status != 200 {
		t.Errorf("the control plane answers %d %s", status, body)
	}
}

// send writes raw bytes to a listener and returns the answer.
func send(t *testing.T, base, raw string) string {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, raw) // the server may have refused already
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 {
		return "error: " + err.Error()
	}
	return string(answer)
}

// plainEngine serves endpoints without Python.
type plainEngine struct{}

func (plainEngine) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	return plainModel{spec.URL}, nil
}

type plainModel struct{ url serving.EndpointURL }

func (plainModel) Status() serving.ModelReport { return serving.ModelReport{State: "ready"} }
func (plainModel) Close(context.Context) error { return nil }
func (m plainModel) Infer(ctx context.Context, r *engine.Request) (*engine.Response, error) {
	switch m.url {
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "stubborn":
		stubborn.enter()
		defer stubborn.leave()
		time.Sleep(10 * time.Millisecond) // even if its client has disconnected
	case "fails":
		return nil, fmt.Errorf("the model is broken")
	}
	return &engine.Response{Status: 200, ContentType: "application/octet-stream", Body: bytes.Clone(r.Body)}, nil
}

// stubborn counts the requests that the endpoint of that name executes.
var stubborn busy

// busy counts executions, in total and at the same time.
type busy struct{ now, most, all atomic.Int64 }

func (b *busy) enter() {
	b.all.Add(1)
	n := b.now.Add(1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
}

func (b *busy) leave() { b.now.Add(-1) }

type fixedSource struct{ state *reconcile.State }

func (f fixedSource) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	return f.state, nil
}

type noFiles struct{}

func (noFiles) Fetch(_ context.Context, f reconcile.File) (reconcile.Local, error) {
	return reconcile.Local{Path: f.URL, Release: func() {}}, nil
}

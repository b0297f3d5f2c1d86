package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/rest"
	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

// hotPathCode answers at once, one by one and together.
const hotPathCode = `
class Preprocess:
    def process(self, data, state, collect):
        return data

    def process_batch(self, data, state, collect):
        return data
`

type hotPathState struct{ state *reconcile.State }

func (s hotPathState) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	return s.state, nil
}

type hotPathFiles struct{}

func (hotPathFiles) Fetch(_ context.Context, f reconcile.File) (reconcile.Local, error) {
	return reconcile.Local{Path: f.URL, Release: func() {}}, nil
}

// hotPath is a client's connection to a data plane with all its rooms: listener,
// router, engine, worker.
type hotPath struct {
	conn    net.Conn
	request []byte
	answer  []byte
	buf     []byte
}

// newHotPath serves the endpoints "plain" and "batched". It needs a Python.
func newHotPath(tb testing.TB, recorder inference.Recorder) net.Addr {
	tb.Helper()
	return serveCode(tb, map[string]endpointCode{
		"plain": {engine: "custom", code: hotPathCode}, "batched": {engine: "custom", code: hotPathCode, together: 16},
	}, recorder)
}

// endpointCode is an endpoint of a test: its code, and how many requests are executed
// together, 0 for one by one.
type endpointCode struct {
	engine, code string
	together     int
}

// serveCode serves endpoints until the end of the test, which it skips without a Python.
func serveCode(tb testing.TB, endpoints map[string]endpointCode, recorder inference.Recorder) net.Addr {
	tb.Helper()
	environ := []string{"PATH=" + os.Getenv("PATH")}
	env, err := worker.FindEnvironment(tb.Context(), worker.Search{Candidates: []string{os.Getenv("CLEARML_SERVING_TEST_PYTHON"), "python3"}, Env: environ})
	if err != nil {
		tb.Skipf("no python: %v", err)
	}
	all, artifacts := map[string]any{}, map[string]reconcile.Artifact{}
	for name, e := range endpoints {
		code := filepath.Join(tb.TempDir(), "preprocess.py")
		if err := os.WriteFile(code, []byte(e.code), 0o600); err != nil {
			tb.Fatal(err)
		}
		record := map[string]any{"engine_type": e.engine, "serving_url": name, "preprocess_artifact": name}
		if e.together > 0 {
			record["auxiliary_cfg"] = map[string]any{"max_batch_size": e.together}
		}
		all[name], artifacts[name] = record, reconcile.Artifact{URI: code}
	}
	records, err := json.Marshal(all)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	inPython := python.New(python.Options{Workers: 1, Host: host.New(host.Options{
		Find:   func(context.Context) (*worker.Environment, error) { return env, nil },
		Worker: worker.Options{RuntimeDir: tb.TempDir(), ZygoteEnv: environ, Preload: []string{}},
		Env:    environ,
	})})
	service := inference.New(inference.Options{
		Files: hotPathFiles{}, RequestTimeout: time.Minute, Recorder: recorder,
		Engines: loaders{python: inPython}.table(),
		Source: hotPathState{&reconcile.State{
			ServiceID: "S", Sections: map[serving.Section]json.RawMessage{serving.SectionEndpoints: records}, Artifacts: artifacts,
		}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx, rest.New(service, rest.Options{Listener: l, MaxBody: 1 << 20})) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return l.Addr()
}

// connect waits until the endpoint answers, and keeps what it answers.
func connect(tb testing.TB, addr net.Addr, endpoint string) *hotPath {
	tb.Helper()
	body := `{"x0": 1, "x1": 2}`
	h := &hotPath{
		request: fmt.Appendf(nil, "POST /serve/%s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", endpoint, len(body), body),
		answer:  []byte(`{"x0":1,"x1":2}`),
		buf:     make([]byte, 4096),
	}
	var err error
	if h.conn, err = new(net.Dialer).DialContext(tb.Context(), "tcp", addr.String()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.conn.Close() })
	for end := time.Now().Add(2 * time.Minute); ; {
		err := h.ask()
		if err == nil {
			return h
		}
		if time.Now().After(end) {
			tb.Fatal(err)
		}
	}
}

// ask asks once and allocates nothing unless it fails.
func (h *hotPath) ask() error {
	if _, err := h.conn.Write(h.request); err != nil {
		return err
	}
	have := 0
	for {
		n, err := h.conn.Read(h.buf[have:])
		if err != nil {
			return err
		}
		have += n
		switch got := h.buf[:have]; {
		case bytes.HasSuffix(got, h.answer):
			return nil
		case !bytes.HasPrefix(got, []byte("HTTP/1.1 200")) && bytes.Contains(got, []byte("\r\n\r\n")):
			return fmt.Errorf("answered %q", got)
		case have == len(h.buf):
			return io.ErrShortBuffer
		}
	}
}

// The way of a request, with one connection; its allocations are bounded below.
func BenchmarkHotPath(b *testing.B) {
	for name, recorder := range map[string]inference.Recorder{"statistics": statistics.New(), "no statistics": nil} {
		addr := newHotPath(b, recorder)
		for _, endpoint := range []string{"plain", "batched"} {
			h := connect(b, addr, endpoint)
			b.Run(name+"/"+endpoint, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := h.ask(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestARequestAllocatesLittleFromTheSocketToTheWorkerAndBack(t *testing.T) {
	addr := newHotPath(t, statistics.New())
	for endpoint, most := range map[string]float64{"plain": 10, "batched": 10} {
		h := connect(t, addr, endpoint)
		got := math.Inf(1)
		for range 20 { // what else the program does meanwhile counts too: the fewest are the request's
			got = min(got, testing.AllocsPerRun(500, func() {
				if err := h.ask(); err != nil {
					t.Fatal(err)
				}
			}))
			if got <= most {
				break
			}
		}
		if got > most {
			t.Errorf("%s: %v allocations a request, at most %v are allowed", endpoint, got, most)
		}
		t.Logf("%s: %v allocations", endpoint, got)
	}
}

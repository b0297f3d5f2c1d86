package triton_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/process"
	"clearmlserving/serving"
	"clearmlserving/sidecar"
	"clearmlserving/sidecar/triton"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "guard":
			os.Exit(process.Guard(os.Args[2:]))
		case "triton":
			pretend(os.Args[2], os.Args[3])
		}
	}
	os.Exit(m.Run())
}

// pretend is a server with Triton's model control. The content of a model's file says what happens to it:
// "refuse: words", "die" and "slow"; anything else is loaded, and answered at /content/<model>.
func pretend(address, repository string) {
	var mu, loading sync.Mutex // Triton loads one model of a name after the other
	loaded := map[string]string{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/health/live", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /v2/repository/index", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		index := []map[string]string{}
		for name := range loaded {
			index = append(index, map[string]string{"name": name, "version": "1", "state": "READY"})
		}
		_ = json.NewEncoder(w).Encode(index)
	})
	mux.HandleFunc("POST /v2/repository/models/{name}/load", func(w http.ResponseWriter, r *http.Request) {
		loading.Lock()
		defer loading.Unlock()
		name := r.PathValue("name")
		files, _ := filepath.Glob(filepath.Join(repository, name, "1", "*"))
		if len(files) != 1 {
			http.Error(w, `{"error":"failed to load '`+name+`', failed to poll from model repository"}`, http.StatusBadRequest)
			fmt.Fprintf(os.Stderr, "[libprotobuf ERROR x.cc:1] Error parsing text-format inference.ModelConfig: 2:17: Expected integer\nE1130 x.cc:2] \"Poll failed for model directory '%s': no\"\n", name)
			return
		}
		text, _ := os.ReadFile(files[0])
		if strings.HasPrefix(string(text), "die") {
			fmt.Fprintln(os.Stderr, "Signal (11) received.")
			os.Exit(139)
		}
		if words, refused := strings.CutPrefix(string(text), "refuse: "); refused {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": words})
			return
		}
		if strings.HasPrefix(string(text), "slow") {
			time.Sleep(500 * time.Millisecond) // also if nobody waits for it any more
		}
		mu.Lock()
		loaded[name] = string(text)
		mu.Unlock()
	})
	mux.HandleFunc("POST /v2/repository/models/{name}/unload", func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		delete(loaded, r.PathValue("name"))
		mu.Unlock()
	})
	mux.HandleFunc("GET /content/{name}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write([]byte(loaded[r.PathValue("name")]))
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("nv_x 1\n")) })
	l, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, mux)) //nolint:gosec // of a test
}

// world is a repository with its server.
type world struct {
	t       *testing.T
	models  *triton.Repository
	server  *sidecar.Server
	control *triton.Control
	dir     string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	w := &world{t: t, dir: t.TempDir(), control: triton.NewControl("http://"+address, "http://"+address)}
	w.server = sidecar.New(sidecar.Options{
		Name: "triton", Guard: []string{os.Args[0], "guard"}, ProbeEvery: 20 * time.Millisecond, Probe: w.control.Live, Line: func(string) {},
		Command: func(context.Context) (sidecar.Command, error) {
			return sidecar.Command{Path: os.Args[0], Args: []string{"triton", address, triton.Models(w.dir)}}, nil
		},
	})
	if w.models, err = triton.New(triton.Options{Dir: w.dir, Server: w.server, Control: w.control}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = w.server.Run(ctx) })
	parts.Go(func() { _ = w.models.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
	return w
}

// load loads a model whose file has a content.
func (w *world) load(url, content string) (engine.Model, error) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.models.Load(w.t.Context(), engine.Spec{URL: serving.EndpointURL(url), ModelPath: path, Endpoint: serving.Endpoint{EngineType: serving.EngineTriton}})
}

func (w *world) mustLoad(url, content string) engine.Model {
	w.t.Helper()
	m, err := w.load(url, content)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// content is that of a model in the server.
func (w *world) content(name string) string {
	r, err := http.Get(w.control.URL + "/content/" + name)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	text := make([]byte, 100)
	n, _ := r.Body.Read(text)
	return string(text[:n])
}

// eventually waits until something holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	w.t.Fatalf("never: %s", what)
}

func TestAModelIsReplacedInItsPlaceAndUnloadedAtItsEnd(t *testing.T) {
	w := newWorld(t)
	first := w.mustLoad("a/1", "first")
	if got := w.content("a_1"); got != "first" {
		t.Errorf("Triton has %q", got)
	}
	second := w.mustLoad("a/1", "second")
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := w.content("a_1"); got != "second" {
		t.Errorf("after the end of the first one Triton has %q", got)
	}
	if s := first.Status(); s.State != serving.StateClosed {
		t.Errorf("first: %+v", s)
	}
	if s := second.Status(); s.State != serving.StateReady {
		t.Errorf("second: %+v", s)
	}
	if _, err := second.Infer(t.Context(), &engine.Request{}); err == nil {
		t.Error("it answers requests")
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := w.content("a_1"); got != "" {
		t.Errorf("after the end Triton has %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "*", "*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestARefusedModelLeavesTheOneBeforeInItsPlace(t *testing.T) {
	w := newWorld(t)
	w.mustLoad("a", "first")
	_, err := w.load("a", "refuse: version 1 is at UNAVAILABLE state: no such operator;\n")
	refused, ok := errors.AsType[*engine.LoadError](err)
	if !ok || !refused.Final || refused.Text != "Triton refuses the model: version 1 is at UNAVAILABLE state: no such operator" {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "models", "a", "1", "model.onnx"))
	if err != nil || string(text) != "first" || w.content("a") != "first" {
		t.Errorf("on disk %q, %v; in Triton %q", text, err, w.content("a"))
	}
	other := w.mustLoad("b", "other")
	if s := other.Status(); s.State != serving.StateReady {
		t.Errorf("%+v", s)
	}
}

func TestALoadThatIsGivenUpLeavesTheOneBeforeInItsPlace(t *testing.T) {
	w := newWorld(t)
	first := w.mustLoad("a", "first")
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, []byte("slow"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.models.Load(ctx, engine.Spec{URL: "a", ModelPath: path, Endpoint: serving.Endpoint{EngineType: serving.EngineTriton}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	begun := time.Now()
	w.eventually("Triton has the first one after the end of the load", func() bool {
		return time.Since(begun) > time.Second && w.content("a") == "first" && first.Status().State == serving.StateReady
	})
}

func TestTheLogCompletesTritonsWords(t *testing.T) {
	w := newWorld(t)
	folder := t.TempDir()
	for _, name := range []string{"model.py", "other"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.models.Load(t.Context(), engine.Spec{URL: "a", ModelPath: folder})
	if err == nil || !strings.Contains(err.Error(), "failed to poll from model repository: Poll failed for model directory 'a': no (inference.ModelConfig: 2:17: Expected integer)") {
		t.Errorf("got %v", err)
	}
}

func TestModelsAreLoadedAgainIntoATritonThatWasStartedAgain(t *testing.T) {
	w := newWorld(t)
	a, b := w.mustLoad("a", "first"), w.mustLoad("b", "second")
	before := w.server.Status()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.eventually("both are back", func() bool {
		return w.server.Status().Starts == 2 && w.content("a") == "first" && w.content("b") == "second" && a.Status().State == serving.StateReady && b.Status().State == serving.StateReady
	})
}

func TestAModelThatTritonLostIsReported(t *testing.T) {
	w := newWorld(t)
	a := w.mustLoad("a", "first")
	r, err := http.Post(w.control.URL+"/v2/repository/models/a/unload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	w.eventually("it is reported", func() bool {
		s := a.Status()
		return s.State == serving.StateFailed && strings.Contains(s.Reason, "not loaded")
	})
}

func TestAModelThatEndsTritonIsNotLoadedAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	good := w.mustLoad("good", "good")
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "model.onnx")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	load := func(path string) error {
		_, err := w.models.Load(t.Context(), engine.Spec{URL: "bad", ModelPath: path})
		return err
	}
	bad := write("die")
	var last error
	w.eventually("it is given up", func() bool {
		last = load(bad)
		return strings.Contains(last.Error(), "not loaded again until it changes")
	})
	if !strings.Contains(last.Error(), "Signal (11) received.") || !strings.Contains(last.Error(), "exited with code 139") {
		t.Errorf("got %v", last)
	}
	w.eventually("the other one is back", func() bool { return w.content("good") == "good" && good.Status().State == serving.StateReady })
	restarts := w.server.Status().Restarts
	if err := load(bad); err == nil || err.Error() != last.Error() || w.server.Status().Restarts != restarts {
		t.Errorf("got %v after %d restarts", err, w.server.Status().Restarts)
	}
	if err := load(write("repaired")); err != nil {
		t.Errorf("another model: %v", err)
	}
}

func TestTwoEndpointsWithOneNameInTritonAreToldApart(t *testing.T) {
	w := newWorld(t)
	first := w.mustLoad("a/b", "first")
	if _, err := w.load("a_b", "second"); err == nil || !strings.Contains(err.Error(), "called a_b in Triton, as that of endpoint 'a/b'") {
		t.Errorf("got %v", err)
	}
	if got := w.content("a_b"); got != "first" {
		t.Errorf("Triton has %q", got)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	w.mustLoad("a_b", "second")
}

func TestATritonThatCannotStartIsTheReason(t *testing.T) {
	dir := t.TempDir()
	server := sidecar.New(sidecar.Options{Name: "triton", Probe: func(context.Context) error { return errors.New("no") }, Line: func(string) {}, Command: func(context.Context) (sidecar.Command, error) {
		return sidecar.Command{Path: "/bin/sh", Args: []string{"-c", "echo tritonserver: unrecognized option >&2; for i in $(seq 2000); do echo '  --some-flag <integer>' >&2; done; exit 1"}}, nil
	}})
	models, err := triton.New(triton.Options{Dir: dir, Server: server, Control: triton.NewControl("http://127.0.0.1:1", "")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = models.Load(t.Context(), engine.Spec{URL: "a", ModelPath: path})
	if err == nil || !strings.Contains(err.Error(), "Triton does not run: exited with code 1: tritonserver: unrecognized option") {
		t.Errorf("got %v", err)
	}
	if _, err := models.Load(t.Context(), engine.Spec{URL: "a"}); err == nil || !strings.Contains(err.Error(), "has no model") {
		t.Errorf("got %v", err)
	}
}

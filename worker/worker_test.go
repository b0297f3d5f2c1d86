package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/leaktest"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// record is a log that tests can ask.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

func (r *record) waitFor(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the log says "+text, func() bool { return strings.Contains(r.String(), text) })
}

// patience bounds what must come, however slow the machine is at that moment.
const patience = 2 * time.Minute

// eventually waits for what other processes do, of which no event reaches us.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it never happened that %s", what)
}

// world is a running pool whose endpoints call each other.
type world struct {
	*worker.Pool
	log *record

	mu     sync.Mutex
	groups map[string]*worker.Group
}

func (w *world) Call(ctx context.Context, c worker.CallRequest) (worker.CallResponse, error) {
	w.mu.Lock()
	g := w.groups[strings.Trim(c.URL+"/"+c.Version, "/")]
	w.mu.Unlock()
	if g == nil {
		return worker.CallResponse{Status: 404, ContentType: "application/json", Body: []byte(`{"detail":"unknown endpoint"}`)}, nil
	}
	if c.Depth > 40 {
		return worker.CallResponse{Status: 508, Body: []byte("too deep")}, nil
	}
	r, err := g.Do(ctx, &worker.Request{Body: c.Body, ContentType: c.ContentType, Depth: c.Depth, ID: c.RequestID})
	if err != nil {
		return worker.CallResponse{}, err
	}
	return worker.CallResponse{Status: r.Status, ContentType: r.ContentType, Body: r.Body}, nil
}

var python = sync.OnceValues(func() (*worker.Environment, error) {
	return worker.FindEnvironment(context.Background(), worker.Search{Candidates: []string{os.Getenv("CLEARML_SERVING_TEST_PYTHON"), "python3"}, Env: os.Environ()})
})

// installed is the interpreter with these packages. It skips where they are missing,
// unless the interpreter is the one that make test has made for the tests: there they
// must be.
func installed(tb testing.TB, packages ...string) *worker.Environment {
	tb.Helper()
	env, err := python()
	if err == nil {
		err = env.Require(packages...)
	}
	switch {
	case err == nil:
	case os.Getenv("CLEARML_SERVING_TEST_PYTHON") != "":
		tb.Fatal(err)
	default:
		tb.Skip(err)
	}
	return env
}

func newWorld(tb testing.TB, change func(*worker.Options)) *world {
	tb.Helper()
	env := installed(tb)
	w := &world{log: &record{}, groups: make(map[string]*worker.Group)}
	o := worker.Options{
		Environment: env, RuntimeDir: filepath.Join(tb.TempDir(), "runtime"), ZygoteEnv: os.Environ(), Caller: w,
		Preload: []string{},
		Logger:  slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	o.Bound(worker.Bounds{MaxBackoff: 200 * time.Millisecond, KillGrace: 50 * time.Millisecond})
	if change != nil {
		change(&o)
	}
	w.Pool = worker.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("Run: %v", err)
		}
		if tb.Failed() {
			tb.Logf("log:\n%s", w.log)
		}
	})
	return w
}

func code(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", "code", name))
	if err != nil {
		panic(err)
	}
	return path
}

func (w *world) start(tb testing.TB, name, file string, change func(*worker.Spec)) *worker.Group {
	tb.Helper()
	g, err := w.tryStart(name, file, change)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func (w *world) tryStart(name, file string, change func(*worker.Spec)) (*worker.Group, error) {
	spec := worker.Spec{
		Endpoint: name, Engine: "custom", CodePath: code(file), CodeName: "py_code_" + name,
		Env: []string{"PATH=" + os.Getenv("PATH"), "CLEARML_TEST=1"},
	}
	if change != nil {
		change(&spec)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g, err := w.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.groups[name] = g
	w.mu.Unlock()
	return g, nil
}

func ask(tb testing.TB, g *worker.Group, question string) string {
	tb.Helper()
	r := do(tb, g, question)
	if r.Status != 200 {
		tb.Fatalf("%s: status %d: %s", question, r.Status, r.Body)
	}
	return string(r.Body)
}

func do(tb testing.TB, g *worker.Group, question string) *worker.Response {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := g.Do(ctx, &worker.Request{ID: "r1", Body: []byte(question), ContentType: "application/json"})
	if err != nil {
		tb.Fatalf("%s: %v", question, err)
	}
	return r
}

func TestAnswersWhatUserCodeReturns(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	for _, q := range []string{`{"x":1}`, `[1,2,3]`, `"text"`, `null`, `12.5`} {
		if got := ask(t, g, q); got != q {
			t.Errorf("asked %s, got %s", q, got)
		}
	}
	r := do(t, g, `{"do":"raise","text":"bad luck"}`)
	if r.Status != 500 || r.ErrorKind != "user" || !strings.Contains(string(r.Body), "bad luck") {
		t.Errorf("a raising endpoint answered %d %q %s", r.Status, r.ErrorKind, r.Body)
	}
	if r := do(t, g, `{"do":"value","text":"wrong shape"}`); r.Status != 422 || r.ContentType != "application/json" {
		t.Errorf("a ValueError answered %d %s %s", r.Status, r.ContentType, r.Body)
	}
	w.log.waitFor(t, "bad luck") // the traceback
	odd := &worker.Request{ID: "\xff\x00", Body: []byte("1"), ContentType: "application/json\xff"}
	if _, err := g.Do(t.Context(), odd); err != nil {
		t.Errorf("odd bytes in id and content type: %v", err)
	}
	if s := g.Status(); s.State != serving.StateReady || len(s.Workers) != 1 || s.Answered != 8 {
		t.Errorf("status = %+v", s)
	}
}

func TestStatisticsOnlyWhenSampled(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", func(s *worker.Spec) { s.Variables = []string{"x"} })
	body := []byte(`{"do":"collect","x":5}`)
	r, err := g.Do(t.Context(), &worker.Request{Body: body, Sampled: true})
	if err != nil {
		t.Fatal(err)
	}
	var stats map[string]any
	if err := json.Unmarshal(r.Stats, &stats); err != nil || stats["x"] != 5.0 || stats["seen"] != 1.0 {
		t.Errorf("stats = %s (%v)", r.Stats, err)
	}
	r, err = g.Do(t.Context(), &worker.Request{Body: []byte(`{"x":5}`)})
	if err != nil || r.Stats != nil {
		t.Errorf("not sampled: stats = %s, err = %v", r.Stats, err)
	}
}

func TestTheTimeInTheQueueIsTold(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	const n, each = 12, 20 * time.Millisecond
	queued := make([]time.Duration, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"do":"sleep","seconds":0.02}`), ContentType: "application/json"})
			if err != nil {
				t.Error(err)
				return
			}
			queued[i] = r.Queued
		})
	}
	all.Wait()
	slices.Sort(queued)
	// Few are sent ahead; the last one waits until nearly all others have been executed.
	if queued[0] != 0 || queued[n-1] < (n-4)*each {
		t.Errorf("queued: %v", queued)
	}
}

func TestVariablesChangeWithoutANewLoad(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*worker.Spec){
		"sync": func(*worker.Spec) {}, "async": func(s *worker.Spec) { s.Engine = "custom_async" },
		"template": func(s *worker.Spec) { s.Workers = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			file := "echo.py"
			if name == "async" {
				file = "awaits.py"
			}
			g := w.start(t, name, file, func(s *worker.Spec) {
				s.Variables = []string{"x"}
				change(s)
			})
			eventually(t, "all workers", func() bool { return g.Status().State == serving.StateReady })
			pids := func() (list []int) {
				for _, w := range g.Status().Workers {
					list = append(list, w.PID)
				}
				slices.Sort(list)
				return list
			}
			before := pids()
			check := func(want string) {
				t.Helper()
				r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"x":5,"y":6}`), Sampled: true})
				if err != nil || string(r.Stats) != want {
					t.Errorf("stats %s (%v), want %s", r.Stats, err, want)
				}
			}
			check(`{"x":5}`)
			if err := g.SetVariables([]string{"y"}); err != nil {
				t.Fatal(err)
			}
			check(`{"y":6}`)
			if !slices.Equal(pids(), before) {
				t.Errorf("workers %v, before %v", pids(), before)
			}
			for _, pid := range before { // a new one, forked from an older template or not, knows them too
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			eventually(t, "new workers", func() bool { return g.Status().State == serving.StateReady && !slices.Equal(pids(), before) })
			check(`{"y":6}`)
			if err := g.SetVariables(nil); err != nil {
				t.Fatal(err)
			}
			check("")
		})
	}
}

func TestManyAtOnceEachGetsItsOwnAnswer(t *testing.T) {
	w := newWorld(t, nil)
	for name, file := range map[string]string{"sync": "echo.py", "async": "awaits.py"} {
		t.Run(name, func(t *testing.T) {
			g := w.start(t, name, file, func(s *worker.Spec) {
				if name == "async" {
					s.Engine = "custom_async"
				} else {
					s.Workers = 2
				}
			})
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() {
					for j := range 50 {
						size := 10
						if j%25 == 0 {
							size = 300_000 // larger than any buffer between
						}
						q := fmt.Sprintf(`{"i":%d,"j":%d,"fill":"%s"}`, i, j, strings.Repeat("f", size))
						r, err := g.Do(t.Context(), &worker.Request{Body: []byte(q)})
						if err != nil {
							t.Errorf("%d/%d: %v", i, j, err)
							return
						}
						if string(r.Body) != q {
							t.Errorf("%d/%d: another's answer, or a damaged one (%d bytes for %d)", i, j, len(r.Body), len(q))
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

func TestLargeBodiesArriveWhole(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	for _, size := range []int{1, 20_000, 65_000, 70_000, 262_000, 5 << 20, 40 << 20} {
		q := `"` + strings.Repeat("q", size) + `"`
		if got := ask(t, g, q); got != q {
			t.Errorf("%d bytes: %d came back", len(q), len(got))
		}
	}
}

func TestTooLargeIsRefusedInBothDirections(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxFrame: 10_000}) })
	g := w.start(t, "echo", "echo.py", nil)
	_, err := g.Do(t.Context(), &worker.Request{Body: make([]byte, 10_001)})
	if !errors.Is(err, worker.ErrTooLarge) {
		t.Errorf("err = %v, want ErrTooLarge", err)
	}
	r := do(t, g, `{"do":"bytes","size":20000}`)
	if r.Status != 500 || !strings.Contains(string(r.Body), "20002 bytes") {
		t.Errorf("a too large answer: %d %s", r.Status, r.Body)
	}
	if got := ask(t, g, `1`); got != "1" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestUserCodeFindsOnlyItsOwnEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_OURS", "x")
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	var env map[string]string
	if err := json.Unmarshal([]byte(ask(t, g, `{"do":"env"}`)), &env); err != nil {
		t.Fatal(err)
	}
	if env["CLEARML_TEST"] != "1" || env["OMP_NUM_THREADS"] != "1" || env["SECRET_OF_OURS"] != "" {
		t.Errorf("environment = %v", env)
	}
	if got, want := ask(t, g, `{"do":"cwd"}`), fmt.Sprintf("%q", filepath.Dir(code("echo.py"))); got != want {
		t.Errorf("working folder %s, want %s", got, want)
	}
	if got := ask(t, g, `{"do":"threads"}`); got != "1" {
		t.Errorf("a worker has %s threads", got)
	}
	var files []string
	if err := json.Unmarshal([]byte(ask(t, g, `{"do":"fds"}`)), &files); err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, f := range files {
		if strings.Contains(f, "socket:") {
			sockets++
		}
	}
	if sockets != 1 || len(files) > 6 {
		t.Errorf("descriptors of a worker: %q", files)
	}
}

func TestLoadErrorsSayWhatAndWhere(t *testing.T) {
	w := newWorld(t, nil)
	for name, tc := range map[string]struct {
		file  string
		text  []string
		trace string
	}{
		"load raises":           {"raises.py", []string{"no luck today"}, "in deep"},
		"import misses package": {"missing.py", []string{"a_package_that_is_not_there", "pip install"}, "import a_package_that_is_not_there"},
		"process dies":          {"dies.py", []string{"exited with code 9", "about to die"}, ""},
		"no such file":          {"nothing.py", []string{"not there"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, workers := range []int{1, 2} {
				_, err := w.tryStart("bad", tc.file, func(s *worker.Spec) { s.Workers = workers })
				var failed *worker.LoadError
				if !errors.As(err, &failed) {
					t.Fatalf("err = %v, want a *LoadError", err)
				}
				for _, text := range tc.text {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("err = %v, lacks %q", err, text)
					}
				}
				if !strings.Contains(failed.Traceback, tc.trace) || strings.Contains(failed.Traceback, "child.py") {
					t.Errorf("traceback:\n%s", failed.Traceback)
				}
			}
		})
	}
}

// A load that waits is not taken for hung while bytes come in, or while a process that it has started does something.
func TestLoadThatWaitsForSomethingThatMovesIsNotEnded(t *testing.T) {
	const stall = 4 * time.Second
	// A body that comes a byte at a time, for longer than a load may stand still.
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for begun := time.Now(); time.Since(begun) < 2*stall && r.Context().Err() == nil; time.Sleep(stall / 8) {
			_, _ = w.Write([]byte{'x'})
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer slow.Close()
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{LoadStall: stall}) })
	for _, how := range []string{"download", "child"} {
		g, err := w.tryStart(how, "waits.py", func(spec *worker.Spec) {
			spec.Env = append(spec.Env, "HOW="+how, "ADDRESS="+slow.URL, fmt.Sprintf("SECONDS=%d", 2*stall/time.Second))
		})
		if err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		if got := ask(t, g, `{}`); got != `"`+how+`"` {
			t.Errorf("%s: the model answers %s", how, got)
		}
	}
	_, err := w.tryStart("still", "waits.py", func(spec *worker.Spec) { spec.Env = append(spec.Env, "HOW=still") })
	if err == nil || !strings.Contains(err.Error(), "loading made no progress for "+stall.String()) {
		t.Errorf("a load that waits for a process that hangs: err = %v", err)
	}
}

func TestLoadThatHangsIsEndedButASlowOneIsNot(t *testing.T) {
	// Long enough for a busy machine to bring the process to where it hangs.
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{LoadStall: 4 * time.Second}) })
	_, err := w.tryStart("hangs", "hangs.py", nil)
	var failed *worker.LoadError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "no progress") || !strings.Contains(strings.Join(failed.LastLines, "\n"), "hangs.py") {
		t.Errorf("err = %v, want one that says where it hangs", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.Start(ctx, worker.Spec{Endpoint: "hangs", Engine: "custom", CodePath: code("hangs.py")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a load whose context ends: err = %v", err)
	}
}

package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// world is a control plane, a file server and an engine that tests steer.
type world struct {
	mu       sync.Mutex // guards all below
	state    *reconcile.State
	err      error
	loadErr  map[serving.EndpointURL]error
	hold     map[serving.EndpointURL]chan struct{} // a load waits until closed
	stuck    bool                                  // every load waits for its context
	loads    []string
	closed   []string
	released int
	bell     chan struct{}
}

func newWorld() *world {
	return &world{
		state:   &reconcile.State{ServiceID: "S", Sections: map[serving.Section]json.RawMessage{}, Artifacts: map[string]reconcile.Artifact{}, Models: map[serving.ModelID]reconcile.Model{}},
		loadErr: map[serving.EndpointURL]error{}, hold: map[serving.EndpointURL]chan struct{}{}, bell: make(chan struct{}, 1),
	}
}

func (w *world) Load(context.Context) (*reconcile.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	copied := *w.state
	copied.Sections, copied.Artifacts = maps.Clone(w.state.Sections), maps.Clone(w.state.Artifacts)
	return &copied, nil
}

func (w *world) Next(ctx context.Context) error {
	select {
	case <-w.bell:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) Fetch(_ context.Context, f reconcile.File) (reconcile.Local, error) {
	if strings.Contains(f.URL, "gone") {
		return reconcile.Local{}, errors.New("404")
	}
	return reconcile.Local{Path: "/local/" + f.URL, SHA256: f.SHA256, Release: func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.released++
	}}, nil
}

type loader struct{ w *world }

func (l loader) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	l.w.mu.Lock()
	hold, err := l.w.hold[spec.URL], l.w.loadErr[spec.URL]
	l.w.loads = append(l.w.loads, string(spec.URL)+" "+spec.CodePath)
	stuck := l.w.stuck
	l.w.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return &model{w: l.w, name: string(spec.URL) + " " + spec.CodePath}, nil
}

type model struct {
	w    *world
	name string
}

func (m *model) Infer(context.Context, *engine.Request) (*engine.Response, error) {
	return &engine.Response{Status: 200, Body: []byte(m.name)}, nil
}
func (m *model) Status() engine.Status { return engine.Status{State: "ready"} }
func (m *model) Close(context.Context) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.closed = append(m.w.closed, m.name)
	return nil
}

// set changes the configuration and rings.
func (w *world) set(change func(*reconcile.State)) {
	w.mu.Lock()
	change(w.state)
	w.mu.Unlock()
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

func endpoints(code map[string]string) func(*reconcile.State) {
	return func(s *reconcile.State) {
		records := map[string]any{}
		for url, sha := range code {
			name, version, _ := strings.Cut(url, "/")
			records[url] = map[string]any{"engine_type": "custom", "serving_url": name, "version": version, "preprocess_artifact": "code_" + url}
			s.Artifacts["code_"+url] = reconcile.Artifact{URI: "http://files/" + sha, SHA256: sha}
		}
		text, _ := json.Marshal(records)
		s.Sections[serving.SectionEndpoints] = text
	}
}

func canary(weights ...float64) func(*reconcile.State) {
	return func(s *reconcile.State) {
		text, _ := json.Marshal(map[string]any{"c": map[string]any{"endpoint": "c", "weights": weights, "load_endpoint_prefix": "m/"}})
		s.Sections[serving.SectionCanary] = text
	}
}

// run starts a reconciler in a bubble of fake time and stops it at the end.
func run(t *testing.T, w *world, cache string, test func(r *reconcile.Reconciler, rt *router.Router)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.bell = make(chan struct{}, 1) // channels of a bubble are made in it
		var rt router.Router
		r := reconcile.New(reconcile.Options{Router: &rt, Source: w, Files: w, Loader: loader{w}, Changes: w, Poll: time.Minute, CacheFile: cache})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		settle()
		test(r, &rt)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, err := rt.Acquire("m/1"); !errors.Is(err, router.ErrUnknown) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// settle lets a change that has been rung be read and applied.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func answer(t *testing.T, rt *router.Router, url string) string {
	t.Helper()
	live, err := rt.Acquire(serving.EndpointURL(url))
	if err != nil {
		return err.Error()
	}
	defer live.Release()
	resp, err := live.Model.Infer(t.Context(), &engine.Request{})
	if err != nil {
		t.Fatal(err)
	}
	return string(resp.Body)
}

func TestChangedCodeGoesLiveOnlyWhenItIsLoaded(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v1" {
			t.Fatal(got)
		}
		gate := make(chan struct{})
		w.mu.Lock()
		w.hold["m/1"] = gate
		w.mu.Unlock()
		w.set(endpoints(map[string]string{"m/1": "v2"}))
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v1" {
			t.Fatalf("while the new one loads: %s", got)
		}
		if s := r.Status(); s.Endpoints[0].State != "updating" || !s.Ready() {
			t.Fatalf("status %+v", s.Endpoints[0])
		}
		close(gate)
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v2" {
			t.Fatal(got)
		}
		if !slices.Equal(w.closed, []string{"m/1 /local/http://files/v1"}) {
			t.Fatalf("closed: %v", w.closed)
		}
	})
	if w.released != 2 {
		t.Errorf("%d of 2 files released", w.released)
	}
}

func TestOldModelClosesOnlyAfterItsLastRequest(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(_ *reconcile.Reconciler, rt *router.Router) {
		held, err := rt.Acquire("m/1")
		if err != nil {
			t.Fatal(err)
		}
		w.set(endpoints(map[string]string{}))
		settle()
		if _, err := rt.Acquire("m/1"); !errors.Is(err, router.ErrUnknown) {
			t.Fatalf("removed endpoint: %v", err)
		}
		if len(w.closed) != 0 {
			t.Fatal("closed under a request")
		}
		held.Release()
		settle()
		if len(w.closed) != 1 {
			t.Fatal("not closed after the last request")
		}
	})
}

func TestFailedLoadLeavesTheOldServingAndTellsWhy(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		w.mu.Lock()
		w.loadErr["m/1"] = &engine.LoadError{Text: "NameError: x", Traceback: "File preprocess.py, line 1", UserCode: true}
		w.mu.Unlock()
		w.set(endpoints(map[string]string{"m/1": "v2", "n": "v2"}))
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v1" {
			t.Fatal(got)
		}
		if got := answer(t, rt, "n"); !strings.HasPrefix(got, "n /local") {
			t.Fatalf("the neighbour: %s", got)
		}
		e := r.Status().Endpoints[0]
		if e.State != "updating" || e.Failure == nil || e.Failure.Reason != "NameError: x" || e.Failure.Code != "code_m/1" {
			t.Fatalf("status: %+v", e)
		}
		w.mu.Lock()
		delete(w.loadErr, "m/1") // heals without a change of configuration
		w.mu.Unlock()
		time.Sleep(3 * time.Second)
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v2" {
			t.Fatalf("after a retry: %s", got)
		}
	})
}

func TestFailuresAreRetriedEverLessOften(t *testing.T) {
	w := newWorld()
	w.loadErr["m/1"] = errors.New("no")
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, _ *router.Router) {
		time.Sleep(time.Hour)
		settle()
		if n := len(w.loads); n < 10 || n > 25 {
			t.Errorf("%d attempts in an hour", n)
		}
		if s := r.Status(); !s.Ready() || s.Endpoints[0].State != "failed" || s.Endpoints[0].Failure.Attempts != len(w.loads) {
			t.Errorf("%+v", s.Endpoints[0])
		}
	})
}

func TestUnchangedConfigurationLoadsNothing(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1", "m/2": "v1"}))
	run(t, w, "", func(_ *reconcile.Reconciler, _ *router.Router) {
		time.Sleep(10 * time.Minute)
		w.set(endpoints(map[string]string{"m/1": "v1", "m/2": "v9"}))
		settle()
		slices.Sort(w.loads)
		want := []string{"m/1 /local/http://files/v1", "m/2 /local/http://files/v1", "m/2 /local/http://files/v9"}
		if !slices.Equal(w.loads, want) {
			t.Errorf("loads: %v", w.loads)
		}
	})
}

func TestMissingArtifactFailsOnlyItsEndpoint(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1", "m/2": "v1"}))
	w.set(func(s *reconcile.State) { delete(s.Artifacts, "code_m/2") })
	run(t, w, "", func(_ *reconcile.Reconciler, rt *router.Router) {
		if got := answer(t, rt, "m/1"); !strings.HasPrefix(got, "m/1 /local") {
			t.Error(got)
		}
		if got := answer(t, rt, "m/2"); !strings.Contains(got, "could not find preprocessing artifact 'code_m/2' on Task id=S") {
			t.Error(got)
		}
	})
}

func TestCanaryKeepsItsSharesUntilTheNewVersionCanAnswer(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	w.set(canary(1))
	run(t, w, "", func(_ *reconcile.Reconciler, rt *router.Router) {
		gate := make(chan struct{})
		w.mu.Lock()
		w.hold["m/2"] = gate
		w.mu.Unlock()
		w.set(endpoints(map[string]string{"m/1": "v1", "m/2": "v2"}))
		settle()
		if got := answer(t, rt, "c"); !strings.HasPrefix(got, "m/1") {
			t.Fatalf("while m/2 loads: %s", got)
		}
		close(gate)
		settle()
		if got := answer(t, rt, "c"); !strings.HasPrefix(got, "m/2") {
			t.Fatalf("the newest takes the first weight: %s", got)
		}
		w.set(endpoints(map[string]string{"m/1": "v1"}))
		settle()
		if got := answer(t, rt, "c"); !strings.HasPrefix(got, "m/1") {
			t.Fatalf("after m/2 has gone: %s", got)
		}
	})
}

func TestCanaryLeavesOutATargetThatFailed(t *testing.T) {
	w := newWorld()
	w.loadErr["m/2"] = errors.New("no")
	w.set(endpoints(map[string]string{"m/1": "v1", "m/2": "v2"}))
	w.set(canary(0.9, 0.1))
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		for range 50 {
			if got := answer(t, rt, "c"); !strings.HasPrefix(got, "m/1") {
				t.Fatal(got)
			}
		}
		if shares := r.Status().Canaries[0].Shares; len(shares) != 1 || shares["m/1"] != 1 {
			t.Errorf("shares %v", shares)
		}
	})
}

func TestServesFromTheLastGoodStateWhenTheControlPlaneIsAway(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "instance", "state.json")
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, cache, func(*reconcile.Reconciler, *router.Router) {})
	w.err = errors.New("connection refused")
	run(t, w, cache, func(r *reconcile.Reconciler, rt *router.Router) {
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v1" {
			t.Fatal(got)
		}
		if s := r.Status(); !s.FromCache || !s.Ready() || s.SourceError != "connection refused" {
			t.Fatalf("%+v", s)
		}
		w.mu.Lock()
		w.err = nil
		w.mu.Unlock()
		time.Sleep(time.Minute)
		settle()
		if s := r.Status(); s.FromCache || s.SourceError != "" {
			t.Fatalf("after its return: %+v", s)
		}
	})
	if n := len(w.loads); n != 2 {
		t.Errorf("%d loads for 2 runs", n)
	}
}

func TestWithoutAServiceTheInstanceWaitsReady(t *testing.T) {
	w := newWorld()
	w.err = reconcile.ErrNoService
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		if s := r.Status(); !s.Ready() || !strings.Contains(s.SourceError, "clearml-serving create") {
			t.Fatalf("%+v", s)
		}
		w.mu.Lock()
		w.err = nil
		w.mu.Unlock()
		w.set(endpoints(map[string]string{"m/1": "v1"}))
		settle()
		if got := answer(t, rt, "m/1"); !strings.HasPrefix(got, "m/1") {
			t.Fatal(got)
		}
	})
}

func TestAnOvertakenLoadIsGivenUp(t *testing.T) {
	w := newWorld()
	w.stuck = true
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		if s := r.Status(); s.Ready() || s.Endpoints[0].State != "loading" {
			t.Fatalf("%+v", s)
		}
		w.mu.Lock()
		w.stuck = false
		w.mu.Unlock()
		w.set(endpoints(map[string]string{"m/1": "v2"}))
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v2" {
			t.Fatal(got)
		}
	})
}

func TestAThousandChangesLeaveNothingBehind(t *testing.T) {
	w := newWorld()
	run(t, w, "", func(_ *reconcile.Reconciler, rt *router.Router) {
		for i := range 1000 {
			w.set(endpoints(map[string]string{"m/1": fmt.Sprint(i), fmt.Sprintf("n/%d", i%7): "x"}))
			if i%3 == 0 {
				settle()
			}
		}
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/999" {
			t.Fatal(got)
		}
	})
	if len(w.closed) < 2 || w.released < len(w.closed) {
		t.Errorf("%d closed, %d files released", len(w.closed), w.released)
	}
}

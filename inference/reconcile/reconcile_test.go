package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
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
	prepare  map[serving.EndpointURL]chan struct{} // a preparation waits until closed
	stuck    bool                                  // every load waits for its context
	deaf     []chan struct{}                       // the next loads wait for these, whatever becomes of their context
	loads    []string
	fetched  []reconcile.File
	replaced string // the content that every place now has
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

func (w *world) Load(_ context.Context, last *reconcile.State) (*reconcile.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	copied := *w.state
	copied.Sections, copied.Artifacts = maps.Clone(w.state.Sections), maps.Clone(w.state.Artifacts)
	copied.Unreadable, copied.General = maps.Clone(w.state.Unreadable), maps.Clone(w.state.General)
	copied.Keep(last)
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
	w.mu.Lock()
	w.fetched = append(w.fetched, f)
	replaced := w.replaced
	w.mu.Unlock()
	if replaced != "" && f.SHA256 != "" && f.SHA256 != replaced {
		return reconcile.Local{}, errors.New("its SHA-256 is another")
	}
	if replaced != "" {
		f.SHA256 = replaced
	}
	return reconcile.Local{Path: "/local/" + f.URL, SHA256: f.SHA256, Release: func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.released++
	}}, nil
}

type loader struct{ w *world }

func (l loader) Prepare(ctx context.Context, spec engine.Spec) error {
	l.w.mu.Lock()
	gate := l.w.prepare[spec.URL]
	l.w.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l loader) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	l.w.mu.Lock()
	hold, err := l.w.hold[spec.URL], l.w.loadErr[spec.URL]
	l.w.loads = append(l.w.loads, string(spec.URL)+" "+spec.CodePath)
	stuck := l.w.stuck
	var deaf chan struct{}
	if len(l.w.deaf) > 0 {
		deaf, l.w.deaf = l.w.deaf[0], l.w.deaf[1:]
	}
	l.w.mu.Unlock()
	if deaf != nil {
		<-deaf
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
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
	return &model{w: l.w, name: string(spec.URL) + " " + spec.CodePath, restore: spec.Restore}, nil
}

type model struct {
	w         *world
	name      string
	variables []string
	restore   func(ctx context.Context, distrust bool) error
}

func (m *model) SetVariables(names []string) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.variables = names
	return nil
}

func (m *model) Infer(context.Context, *engine.Request) (*engine.Response, error) {
	return &engine.Response{Status: 200, Body: []byte(m.name)}, nil
}
func (m *model) Status() serving.ModelReport { return serving.ModelReport{State: "ready"} }
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

// slow is a follower to whom each comparison of the configuration takes a second.
type slow struct{ comparisons int }

func (s *slow) Planned(*reconcile.State, serving.Plan, bool) {
	s.comparisons++
	time.Sleep(time.Second)
}

func (s *slow) StatusChanged(func() serving.Status) {}

func TestManyNewEndpointsAreComparedTogether(t *testing.T) {
	w := newWorld()
	code := map[string]string{}
	for n := range 100 {
		code[fmt.Sprintf("m/%d", n+1)] = "v1"
	}
	w.set(endpoints(code))
	synctest.Test(t, func(t *testing.T) {
		w.bell = make(chan struct{}, 1)
		var rt router.Router
		s := &slow{}
		r := reconcile.New(reconcile.Options{Router: &rt, Source: w, Files: w, Loader: loader{w}, Changes: w, Poll: time.Hour, Followers: []reconcile.Follower{s}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(10 * time.Second)
		for url := range code {
			if got, want := answer(t, &rt, url), url+" /local/http://files/v1"; !strings.HasPrefix(got, want) {
				t.Errorf("%s answers %s", url, got)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s.comparisons > 5 {
			t.Errorf("the configuration was compared %d times", s.comparisons)
		}
	})
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

// replacedModel is replaced and closed while its status is read.
type replacedModel struct {
	model
	replace func()
}

func (m *replacedModel) Status() serving.ModelReport {
	m.replace()
	return serving.ModelReport{State: serving.StateClosed}
}

// Whoever waits for a change tells by it that what is served has been read since.
func TestTheStatusTellsTheAgeOfTheConfiguration(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, _ *router.Router) {
		before := r.Status()
		changed := time.Unix(1e9, 0)
		w.set(func(s *reconcile.State) { s.Changed = changed }) // and back
		settle()
		if now := r.Status(); !now.StateChanged.Equal(changed) || now.StateHash != before.StateHash {
			t.Errorf("%s %s, before %s", now.StateHash, now.StateChanged, before.StateHash)
		}
	})
}

func TestAModelThatIsReplacedWhileItsStatusIsReadIsNotReported(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		now := rt.Snapshot()
		before := *now
		before.Models = map[serving.EndpointURL]*router.Live{"m/1": router.NewLive("m/1", "", &replacedModel{replace: func() { rt.Swap(now) }})}
		rt.Swap(&before)
		if e := r.Status().Endpoints[0]; e.State != serving.StateReady || e.Model.State != serving.StateReady {
			t.Errorf("endpoint %s, model %s", e.State, e.Model.State)
		}
	})
}

func TestALongPreparationTakesNoPlaceFromLoads(t *testing.T) {
	w := newWorld()
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		gate := make(chan struct{})
		w.prepare = map[serving.EndpointURL]chan struct{}{}
		code := map[string]string{}
		for i := range 5 { // more than may load at once
			url := fmt.Sprintf("slow/%d", i)
			w.prepare[serving.EndpointURL(url)], code[url] = gate, "v1"
		}
		w.set(endpoints(code))
		settle()
		code["quick"] = "v1"
		w.set(endpoints(code))
		settle()
		if got := answer(t, rt, "quick"); got != "quick /local/http://files/v1" {
			t.Errorf("while others are prepared: %s", got)
		}
		close(gate)
		settle()
		for i := range 5 {
			if got, want := answer(t, rt, fmt.Sprintf("slow/%d", i)), fmt.Sprintf("slow/%d /local/http://files/v1", i); got != want {
				t.Errorf("prepared: %s, want %s", got, want)
			}
		}
	})
}

func TestAPreparationThatIsOvertakenIsGivenUp(t *testing.T) {
	w := newWorld()
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		w.prepare = map[serving.EndpointURL]chan struct{}{"m/1": make(chan struct{})} // never opened
		w.set(endpoints(map[string]string{"m/1": "v1"}))
		settle()
		w.mu.Lock()
		w.prepare = nil
		w.mu.Unlock()
		w.set(endpoints(map[string]string{"m/1": "v2"}))
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v2" {
			t.Error(got)
		}
	})
}

// TestATagThatFlapsServesConsistently changes what monitoring finds a hundred
// times in a minute: the number stays, nothing else moves, and each model that
// was loaded is closed.
func TestATagThatFlapsServesConsistently(t *testing.T) {
	w := newWorld()
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		steady := serving.MonitoredModel{ID: "steady", URI: "http://files/steady"}
		flapping := serving.MonitoredModel{ID: "flapping", URI: "http://files/flapping"}
		var versions serving.Versions
		found := func(models ...serving.MonitoredModel) {
			w.set(func(s *reconcile.State) {
				s.Sections[serving.SectionMonitoring] = json.RawMessage(`{"auto":{"base_serving_url":"auto","engine_type":"custom","monitor_tags":["prod"],"max_versions":5}}`)
				versions, _ = versions.Assign("auto", models)
				s.Found, s.Versions = map[string][]serving.MonitoredModel{"auto": models}, versions
				s.Models = map[serving.ModelID]reconcile.Model{"steady": {URI: steady.URI}, "flapping": {URI: flapping.URI}}
			})
			time.Sleep(600 * time.Millisecond)
			synctest.Wait()
		}
		found(steady)
		for range 50 {
			found(flapping, steady)
			if got := answer(t, rt, "auto/2"); got != "auto/2 " {
				t.Fatalf("with the tag: %s", got)
			}
			found(steady)
			if _, err := rt.Acquire("auto/2"); !errors.Is(err, router.ErrUnknown) {
				t.Fatalf("without the tag: %v", err)
			}
			if got := answer(t, rt, "auto/1"); got != "auto/1 " {
				t.Fatalf("the other one: %s", got)
			}
		}
		if len(versions["auto"]) != 2 {
			t.Errorf("numbers were burnt: %v", versions)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if loads, closed := len(w.loads), len(w.closed); loads != 51 || closed != 50 {
			t.Errorf("%d loads and %d closed, want 51 and 50: the steady one is never loaded again", loads, closed)
		}
	})
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

func TestADiskThatTakesNothingStopsNothingAndIsTold(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, filepath.Join(blocked, "state.json"), func(r *reconcile.Reconciler, rt *router.Router) {
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v1" {
			t.Errorf("got %s", got)
		}
		if s := r.Status(); !s.Ready() || !strings.Contains(s.DiskError, "not a directory") {
			t.Errorf("status: %+v", s)
		}
		if err := os.Remove(blocked); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute) // the next poll
		settle()
		if s := r.Status(); s.DiskError != "" {
			t.Errorf("the disk has healed: %q", s.DiskError)
		}
	})
}

func TestLimitsReachTheModelAndTheirChangeLoadsItAnew(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		before := len(w.loads)
		w.mu.Lock()
		w.state.Sections[serving.SectionOptions] = json.RawMessage(`{"m/1":{"limits":{"deadline":2,"max_workers":3}}}`)
		w.mu.Unlock()
		w.bell <- struct{}{}
		time.Sleep(time.Second)
		settle()
		if len(w.loads) != before+1 {
			t.Errorf("loads: %v", w.loads)
		}
		live, err := rt.Acquire("m/1")
		if err != nil {
			t.Fatal(err)
		}
		defer live.Release()
		if live.Timeout != 2*time.Second {
			t.Errorf("a request may take %s", live.Timeout)
		}
	})
}

package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
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

// shelf is a world with a journal: what is recorded is stored in the section.
type shelf struct {
	*world
	mu     sync.Mutex // guards the rest
	err    error
	writes int
	stored map[string]serving.History
	wrote  time.Time // when it was written last
}

func (s *shelf) Record(_ context.Context, _ string, histories map[serving.EndpointURL]serving.History) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.writes++
	s.wrote = time.Now()
	for url, h := range histories {
		s.stored[string(url)], _ = s.stored[string(url)].Merge(h)
	}
	s.world.set(revisions(s.stored))
	return nil
}

// store changes the history of m/1, as a command does.
func (s *shelf) store(change func(serving.History) serving.History) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored["m/1"] = change(s.stored["m/1"])
	s.world.set(revisions(s.stored))
}

// revisions stores histories.
func revisions(stored map[string]serving.History) func(*reconcile.State) {
	return func(s *reconcile.State) {
		text, err := serving.Service{Revisions: stored}.Encode(serving.SectionRevisions)
		if err != nil {
			panic(err)
		}
		s.Sections[serving.SectionRevisions] = json.RawMessage(text)
	}
}

// deployed is the history of m/1 of words like "v1:good", as endpoints configures code.
func deployed(words ...string) serving.History {
	var h serving.History
	for _, word := range words {
		code, state, _ := strings.Cut(word, ":")
		h = h.Add(serving.Revision{By: "ada", Time: time.Unix(1e9, 0), State: serving.RevisionState(state), Step: "load", Reason: "no", Content: serving.Content{
			Endpoint: serving.Endpoint{EngineType: "custom", ServingURL: "m", Version: "1", PreprocessArtifact: "code_m/1"},
			Code:     &serving.ModelCode{URI: "http://files/" + code, SHA256: code},
		}})
	}
	return h
}

// states is what became of the stored revisions of m/1.
func (s *shelf) states() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	for _, r := range s.stored["m/1"].Revisions {
		words = append(words, r.Code.SHA256+":"+string(r.State))
	}
	return strings.Join(words, " ")
}

// codeLoader fails for the codes that are named.
type codeLoader struct {
	w    *world
	mu   sync.Mutex // guards the rest
	errs map[string]error
	hold map[string]chan struct{}
}

func (l *codeLoader) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	code := filepath.Base(spec.CodePath)
	l.w.mu.Lock()
	l.w.loads = append(l.w.loads, code)
	l.w.mu.Unlock()
	l.mu.Lock()
	err, gate := l.errs[code], l.hold[code]
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return &model{w: l.w, name: code}, nil
}

var (
	errUser    = &engine.LoadError{Text: "no class Preprocess", UserCode: true, Final: true}
	errMachine = errors.New("no memory")
)

// runShelf is run for a world with revisions.
func runShelf(t *testing.T, s *shelf, l *codeLoader, cache string, test func(r *reconcile.Reconciler, rt *router.Router)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.bell = make(chan struct{}, 1)
		for code := range l.hold {
			l.hold[code] = make(chan struct{})
		}
		var rt router.Router
		r := reconcile.New(reconcile.Options{Router: &rt, Source: s.world, Files: s.world, Loader: l, Changes: s.world, Poll: time.Minute, CacheFile: cache, Journal: s, Instance: "here"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		settle()
		test(r, &rt)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func newShelf(code string, h serving.History) (*shelf, *codeLoader) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": code}))
	s := &shelf{world: w, stored: map[string]serving.History{}}
	if len(h.Revisions) > 0 {
		s.stored["m/1"] = h
		w.set(revisions(s.stored))
	}
	return s, &codeLoader{w: w, errs: map[string]error{}, hold: map[string]chan struct{}{}}
}

// later lets verdicts be recorded and read.
func later() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

// TestAStartLoadsTheLastGoodRevision covers what a start finds stored.
func TestAStartLoadsTheLastGoodRevision(t *testing.T) {
	for _, tc := range []struct {
		name, code string
		history    serving.History
		errs       map[string]error
		serves     string // after all is settled
		loads      string
		stored     string
	}{
		{"nothing is recorded", "v1", deployed(), nil, "v1", "v1", "v1:good"},
		{"the newest is good", "v2", deployed("v1:good", "v2:good"), nil, "v2", "v2", "v1:good v2:good"},
		{"the newest is refused", "v2", deployed("v1:good", "v2:refused"), nil, "v1", "v1", "v1:good v2:refused"},
		{"the newest is pending: on top of the good one", "v2", deployed("v1:good", "v2:pending"), nil, "v2", "v1 v2", "v1:good v2:good"},
		{"the newest is pending and fails", "v2", deployed("v1:good", "v2:pending"), map[string]error{"v2": errUser}, "v1", "v1 v2", "v1:good v2:refused"},
		{"the good one fails, the newest repairs it", "v2", deployed("v1:good", "v2:pending"), map[string]error{"v1": errUser}, "v2", "v1 v2", "v1:good v2:good"},
		{"another program deployed something", "v3", deployed("v1:good", "v2:refused"), nil, "v3", "v1 v3", "v1:good v2:refused v3:good"},
		{"another program deployed something that fails", "v3", deployed("v1:good"), map[string]error{"v3": errUser}, "v1", "v1 v3", "v1:good v3:refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, l := newShelf(tc.code, tc.history)
			if tc.errs != nil {
				l.errs = tc.errs
			}
			runShelf(t, s, l, "", func(_ *reconcile.Reconciler, rt *router.Router) {
				later()
				if got := answer(t, rt, "m/1"); got != tc.serves {
					t.Errorf("serves %q, want %s", got, tc.serves)
				}
				if got := strings.Join(s.loads, " "); got != tc.loads {
					t.Errorf("loaded %s, want %s", got, tc.loads)
				}
				if got := s.states(); got != tc.stored {
					t.Errorf("stored %s, want %s", got, tc.stored)
				}
				writes := s.writes
				time.Sleep(time.Hour)
				synctest.Wait()
				if s.writes != writes || writes > 2 || strings.Join(s.loads, " ") != tc.loads {
					t.Errorf("%d writes, an hour later %d; loads %v", writes, s.writes, s.loads)
				}
			})
		})
	}
}

func TestTheLastGoodRevisionAnswersWhileTheNewestLoads(t *testing.T) {
	s, l := newShelf("v2", deployed("v1:good", "v2:pending"))
	l.hold["v2"] = nil
	runShelf(t, s, l, "", func(r *reconcile.Reconciler, rt *router.Router) {
		if got := answer(t, rt, "m/1"); got != "v1" {
			t.Errorf("while the newest loads: %s", got)
		}
		if e := r.Status().Endpoints[0]; e.State != "updating" || e.Revision != 1 || e.Configured != 2 {
			t.Errorf("%+v", e)
		}
		close(l.hold["v2"])
		later()
		if got := answer(t, rt, "m/1"); got != "v2" {
			t.Error(got)
		}
		if e := r.Status().Endpoints[0]; e.State != "ready" || e.Revision != 2 {
			t.Errorf("%+v", e)
		}
	})
}

func TestARefusedRevisionIsNamedAndNotTriedAgainUntilItIsDeployedAgain(t *testing.T) {
	s, l := newShelf("v1", deployed("v1:good"))
	l.errs["v2"] = errUser
	runShelf(t, s, l, "", func(r *reconcile.Reconciler, rt *router.Router) {
		s.set(endpoints(map[string]string{"m/1": "v2"}))
		later()
		e := r.Status().Endpoints[0]
		if e.State != "refused" || e.Revision != 1 || e.Configured != 2 || e.Refusal == nil || e.Refusal.Revision != 2 || e.Refusal.Reason != "no class Preprocess" || e.Refusal.Instance != "here" || e.Failure == nil || !e.Failure.NextTry.IsZero() {
			t.Errorf("%+v %+v", e, e.Refusal)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := strings.Join(s.loads, " "); got != "v1 v2" {
			t.Errorf("loaded %s", got)
		}
		l.mu.Lock()
		delete(l.errs, "v2")
		l.mu.Unlock()
		s.store(func(h serving.History) serving.History {
			return h.Add(serving.Revision{Content: h.Newest().Content, By: "ada", Time: time.Now()})
		})
		later()
		if got, stored := answer(t, rt, "m/1"), s.states(); got != "v2" || stored != "v1:good v2:refused v2:good" {
			t.Errorf("deployed again: serves %s, stored %s", got, stored)
		}
	})
}

// A person who was told of a refusal looks at the history next.
func TestAVerdictOnAStoredRevisionIsRecordedAtOnce(t *testing.T) {
	s, l := newShelf("v2", deployed("v1:good", "v2:pending"))
	l.errs["v2"] = errUser
	runShelf(t, s, l, "", func(*reconcile.Reconciler, *router.Router) {
		synctest.Wait()
		if stored := s.states(); stored != "v1:good v2:refused" {
			t.Errorf("stored is %s", stored)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if waited := time.Second - time.Since(s.wrote); waited > 0 { // settle has let a second pass
			t.Errorf("it was recorded after %v", waited)
		}
	})
}

func TestAMachinesFailureRefusesNothing(t *testing.T) {
	s, l := newShelf("v2", deployed("v1:good", "v2:pending"))
	l.errs["v2"] = errMachine
	runShelf(t, s, l, "", func(r *reconcile.Reconciler, rt *router.Router) {
		later()
		if e := r.Status().Endpoints[0]; answer(t, rt, "m/1") != "v1" || e.State != "updating" || e.Refusal != nil || e.Failure == nil || s.states() != "v1:good v2:pending" {
			t.Errorf("%+v, stored %s", e, s.states())
		}
		l.mu.Lock()
		delete(l.errs, "v2")
		l.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if answer(t, rt, "m/1") != "v2" {
			t.Error("it was not tried again")
		}
	})
}

func TestAFirstRevisionThatFailsIsTriedAgain(t *testing.T) {
	s, l := newShelf("v1", deployed())
	l.errs["v1"] = errUser
	runShelf(t, s, l, "", func(r *reconcile.Reconciler, rt *router.Router) {
		later()
		if e := r.Status().Endpoints[0]; e.State != "failed" || e.Failure == nil || e.Failure.Reason != "no class Preprocess" || s.states() != "v1:refused" {
			t.Errorf("%+v, stored %s", e, s.states())
		}
		if got := answer(t, rt, "m/1"); !strings.Contains(got, "no class Preprocess") {
			t.Error(got)
		}
		l.mu.Lock()
		delete(l.errs, "v1")
		l.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got, stored := answer(t, rt, "m/1"), s.states(); got != "v1" || stored != "v1:good" {
			t.Errorf("%s, stored %s", got, stored)
		}
	})
}

// An instance that serves a revision, or is about to, is not stopped by another one that cannot.
func TestWhatAnotherInstanceRefusesMayBeGoodHere(t *testing.T) {
	for _, at := range []string{"serving", "loading", "failing"} {
		t.Run(at, func(t *testing.T) {
			s, l := newShelf("v2", deployed("v1:good", "v2:pending"))
			if at != "serving" {
				l.hold["v2"] = nil
			}
			if at == "failing" {
				l.errs["v2"] = errUser
			}
			runShelf(t, s, l, "", func(_ *reconcile.Reconciler, rt *router.Router) {
				s.store(func(serving.History) serving.History { return deployed("v1:good", "v2:refused") }) // by the other one
				settle()
				if at != "serving" {
					if got := answer(t, rt, "m/1"); got != "v1" {
						t.Errorf("while it loads: %s", got)
					}
					close(l.hold["v2"])
				}
				later()
				want, stored := "v2", "v1:good v2:good"
				if at == "failing" {
					want, stored = "v1", "v1:good v2:refused"
				}
				if got := answer(t, rt, "m/1"); got != want || s.states() != stored {
					t.Errorf("serves %s, stored %s; want %s, %s", got, s.states(), want, stored)
				}
				if !slices.Equal(s.loads, []string{"v1", "v2"}) {
					t.Errorf("loaded %v", s.loads)
				}
			})
		})
	}
}

// Without the right to write, an instance keeps what it knows in its own folder.
func TestAnInstanceWithoutWriteAccessRemembersVerdicts(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "state.json")
	s, l := newShelf("v1", deployed())
	s.err = errors.New("forbidden")
	l.errs["v2"] = errUser
	runShelf(t, s, l, cache, func(_ *reconcile.Reconciler, rt *router.Router) {
		later()
		s.set(endpoints(map[string]string{"m/1": "v2"}))
		later()
		if got := answer(t, rt, "m/1"); got != "v1" {
			t.Errorf("serves %s", got)
		}
	})
	s.loads = nil
	runShelf(t, s, l, cache, func(r *reconcile.Reconciler, rt *router.Router) {
		later()
		if got := answer(t, rt, "m/1"); got != "v1" || !slices.Equal(s.loads, []string{"v1"}) || r.Status().Endpoints[0].State != "refused" {
			t.Errorf("after a restart: serves %s, loaded %v, %+v", got, s.loads, r.Status().Endpoints[0])
		}
	})
	s.loads, s.world.err = nil, errors.New("away")
	runShelf(t, s, l, cache, func(_ *reconcile.Reconciler, rt *router.Router) {
		later()
		if got := answer(t, rt, "m/1"); got != "v1" || !slices.Equal(s.loads, []string{"v1"}) {
			t.Errorf("without the control plane: serves %s, loaded %v", got, s.loads)
		}
	})
}

// What was good is not asked the golden samples again: attaching others costs no version at a start.
func TestSamplesThatAreAttachedLaterRefuseNoGoodRevision(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "wrong"}))
	w.set(golden("m/1", "samples", 0))
	w.set(revisions(map[string]serving.History{"m/1": deployed("wrong:good")}))
	runJudged(t, w, func(r *reconcile.Reconciler, rt *router.Router) {
		if e := r.Status().Endpoints[0]; serves(t, rt) != "wrong" || e.State != "ready" || e.Configured != 2 {
			t.Errorf("at a start: %s serves, %+v", serves(t, rt), e)
		}
		w.set(endpoints(map[string]string{"m/1": "broken"}))
		settle()
		if e := r.Status().Endpoints[0]; serves(t, rt) != "wrong" || e.State != "refused" {
			t.Errorf("the next one is asked: %s serves, %+v", serves(t, rt), e)
		}
	})
}

// A file that is damaged in the cache is no fault of the revision.
func TestADamagedFileRefusesNothing(t *testing.T) {
	s, l := newShelf("v2", deployed("v1:good", "v2:pending"))
	l.errs["v2"] = errUser
	fetch := repairing{s.world, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.errs, "v2") // by the fetch that compares the content
	}}
	synctest.Test(t, func(t *testing.T) {
		s.bell = make(chan struct{}, 1)
		var rt router.Router
		r := reconcile.New(reconcile.Options{Router: &rt, Source: s.world, Files: fetch, Loader: l, Changes: s.world, Poll: time.Minute, Journal: s})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		later()
		if got := answer(t, &rt, "m/1"); got != "v2" || s.states() != "v1:good v2:good" {
			t.Errorf("serves %s, stored %s", got, s.states())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// repairing is a world whose files are damaged until their content is compared.
type repairing struct {
	*world
	repair func()
}

func (r repairing) Fetch(ctx context.Context, f reconcile.File) (reconcile.Local, error) {
	local, err := r.world.Fetch(ctx, f)
	if f.Verify && strings.HasSuffix(f.URL, "v2") {
		r.repair()
		local.Fresh = true
	}
	return local, err
}

// An artifact that another program has taken away leaves the last good revision, whose code is kept.
func TestCodeThatIsTakenAwayLeavesTheLastGoodRevision(t *testing.T) {
	s, l := newShelf("v1", deployed("v1:good"))
	s.set(func(state *reconcile.State) { delete(state.Artifacts, "code_m/1") })
	runShelf(t, s, l, "", func(r *reconcile.Reconciler, rt *router.Router) {
		later()
		if e := r.Status().Endpoints[0]; answer(t, rt, "m/1") != "v1" || e.State != "updating" || e.Failure == nil || !strings.Contains(e.Failure.Reason, "could not find preprocessing artifact") {
			t.Errorf("%s, %+v", answer(t, rt, "m/1"), e)
		}
	})
}

// A version stays until this instance has loaded the next one, also if another instance serves that
// one already, and it keeps the share of a canary.
func TestAVersionStaysUntilTheNextIsLiveHere(t *testing.T) {
	version := func(id string) serving.MonitoredModel {
		return serving.MonitoredModel{ID: serving.ModelID(id), Code: &serving.ModelCode{URI: "http://files/" + id, SHA256: id}}
	}
	s, l := newShelf("v1", serving.History{})
	l.hold["b"] = nil
	found := func(models ...serving.MonitoredModel) func(*reconcile.State) {
		return func(st *reconcile.State) {
			st.Sections[serving.SectionMonitoring] = json.RawMessage(`{"auto":{"base_serving_url":"auto","engine_type":"custom","max_versions":1}}`)
			st.Sections[serving.SectionCanary] = json.RawMessage(`{"latest":{"endpoint":"latest","weights":[1],"load_endpoint_prefix":"auto/"}}`)
			st.Found = map[string][]serving.MonitoredModel{"auto": models}
			st.Versions = serving.Versions{"auto": {"a": 1, "b": 2}}
			st.Models = map[serving.ModelID]reconcile.Model{"a": {URI: "http://files/a"}, "b": {URI: "http://files/b"}}
		}
	}
	s.set(found(version("a")))
	runShelf(t, s, l, "", func(_ *reconcile.Reconciler, rt *router.Router) {
		s.mu.Lock()
		s.stored["auto/2"] = serving.History{}.Add(serving.Revision{State: serving.RevisionGood, By: "ada", Rule: 1, Content: serving.Content{
			Endpoint: serving.Endpoint{EngineType: "custom", ServingURL: "auto", Version: "2", ModelID: "b"}, Code: version("b").Code,
		}})
		s.mu.Unlock()
		s.set(revisions(s.stored))
		s.set(found(version("b"), version("a")))
		later()
		for _, url := range []string{"auto/1", "latest"} {
			if got := answer(t, rt, url); got != "a" {
				t.Errorf("%s before the next version is live: %s", url, got)
			}
		}
		close(l.hold["b"])
		later()
		for _, url := range []string{"auto/2", "latest"} {
			if got := answer(t, rt, url); got != "b" {
				t.Errorf("%s after that: %s", url, got)
			}
		}
		if _, err := rt.Acquire("auto/1"); !errors.Is(err, router.ErrUnknown) {
			t.Errorf("the version before: %v", err)
		}
	})
}

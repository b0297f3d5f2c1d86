package reconcile_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// breakages are the ways in which section "endpoints" with the endpoint m/1 may become unusable.
func breakages() map[string]func(*reconcile.State) {
	text := func(raw string) func(*reconcile.State) {
		return func(s *reconcile.State) { s.Sections[serving.SectionEndpoints] = json.RawMessage(raw) }
	}
	return map[string]func(*reconcile.State){
		"unreadable": func(s *reconcile.State) {
			delete(s.Sections, serving.SectionEndpoints)
			s.Unreadable = map[serving.Section]string{serving.SectionEndpoints: "line 3: expected }"}
		},
		"null": text(`null`), "list": text(`[]`), "number": text(`1`),
		"record null":    text(`{"m/1":null}`),
		"no engine":      text(`{"m/1":{"serving_url":"m","version":"1"}}`),
		"unknown engine": text(`{"m/1":{"serving_url":"m","version":"1","engine_type":"abacus"}}`),
	}
}

func TestAnUnusableSectionOrRecordLeavesWhatServes(t *testing.T) {
	const good = "m/1 /local/http://files/v1"
	for name, breaks := range breakages() {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			cache := filepath.Join(t.TempDir(), "state.json")
			w.set(endpoints(map[string]string{"m/1": "v1"}))
			named := func(r *reconcile.Reconciler) {
				t.Helper()
				problems := r.Status().Problems
				if len(problems) != 1 || problems[0].Section != serving.SectionEndpoints || !strings.Contains(problems[0].Text, "last good form") {
					t.Errorf("problems: %+v", problems)
				}
			}
			run(t, w, cache, func(r *reconcile.Reconciler, rt *router.Router) {
				w.set(breaks)
				settle()
				if got := answer(t, rt, "m/1"); got != good {
					t.Errorf("while it is broken: %s", got)
				}
				named(r)
				if len(w.loads) != 1 {
					t.Errorf("loads: %v", w.loads)
				}
			})
			run(t, w, cache, func(r *reconcile.Reconciler, rt *router.Router) {
				if got := answer(t, rt, "m/1"); got != good {
					t.Errorf("after a restart: %s", got)
				}
				named(r)
				w.set(func(s *reconcile.State) { s.Unreadable = nil })
				w.set(endpoints(map[string]string{"m/1": "v2"}))
				settle()
				if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/v2" || len(r.Status().Problems) != 0 {
					t.Errorf("once it is mended: %s, %+v", got, r.Status().Problems)
				}
				w.set(func(s *reconcile.State) { s.Sections[serving.SectionEndpoints] = json.RawMessage(`{}`) })
				settle()
				if _, err := rt.Acquire("m/1"); !errors.Is(err, router.ErrUnknown) {
					t.Errorf("removed: %v", err)
				}
			})
		})
	}
}

func TestWithoutALastGoodFormTheRestIsServed(t *testing.T) {
	for name, breaks := range breakages() {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.set(breaks)
			w.set(func(s *reconcile.State) {
				s.Sections[serving.SectionMonitoring] = json.RawMessage(`{"auto":{"base_serving_url":"auto","engine_type":"custom","monitor_tags":["prod"]}}`)
				s.Found = map[string][]serving.MonitoredModel{"auto": {{ID: "a", URI: "http://files/a"}}}
				s.Versions = serving.Versions{"auto": {"a": 1}}
				s.Models["a"] = reconcile.Model{URI: "http://files/a"}
			})
			run(t, w, filepath.Join(t.TempDir(), "state.json"), func(r *reconcile.Reconciler, rt *router.Router) {
				if got := answer(t, rt, "auto/1"); got != "auto/1 " {
					t.Errorf("the rest: %s", got)
				}
				var notReady *router.NotReadyError
				if _, err := rt.Acquire("m/1"); !errors.As(err, &notReady) || notReady.Reason == "" {
					t.Errorf("m/1: %v", err)
				}
				if len(r.Status().Problems) != 1 {
					t.Errorf("problems: %+v", r.Status().Problems)
				}
				w.set(func(s *reconcile.State) { s.Unreadable = nil })
				w.set(endpoints(map[string]string{"other": "v1"}))
				settle()
				if _, err := rt.Acquire("m/1"); !errors.Is(err, router.ErrUnknown) {
					t.Errorf("once it is known: %v", err)
				}
			})
		})
	}
}

func TestTheLastGoodFormOfAnotherServiceIsNone(t *testing.T) {
	last := &reconcile.State{ServiceID: "other", Sections: map[serving.Section]json.RawMessage{
		serving.SectionEndpoints: json.RawMessage(`{"m":{"engine_type":"custom","serving_url":"m"}}`),
	}}
	now := &reconcile.State{ServiceID: "S", Unreadable: map[serving.Section]string{serving.SectionEndpoints: "torn"}}
	now.Keep(last)
	if len(now.Kept) != 0 || len(now.Sections) != 0 {
		t.Errorf("%+v", now)
	}
}

func TestACancelledLoadIsNotTakenForALaterOneOfTheSameConfiguration(t *testing.T) {
	w := newWorld()
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		first, second, third := make(chan struct{}), make(chan struct{}), make(chan struct{})
		w.mu.Lock()
		w.deaf = []chan struct{}{first, second, third}
		w.mu.Unlock()
		for _, version := range []string{"a", "b", "a"} {
			w.set(endpoints(map[string]string{"m/1": version}))
			settle()
		}
		close(first) // it was given up long ago
		settle()
		if s := r.Status().Endpoints[0]; s.State != "loading" || s.Failure != nil {
			t.Errorf("the first load is booked as the third: %s, %+v", s.State, s.Failure)
		}
		close(third)
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/a" {
			t.Errorf("the third load: %s", got)
		}
		close(second)
		settle()
		if got := answer(t, rt, "m/1"); got != "m/1 /local/http://files/a" || len(w.loads) != 3 {
			t.Errorf("at the end: %s, loads %v", got, w.loads)
		}
	})
}

func TestWhatIsLoggedChangesWithoutALoad(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "v1"}))
	metrics := func(text string) func(*reconcile.State) {
		return func(s *reconcile.State) { s.Sections[serving.SectionMetrics] = json.RawMessage(text) }
	}
	run(t, w, "", func(_ *reconcile.Reconciler, rt *router.Router) {
		live := func() (*model, float64) {
			l, err := rt.Acquire("m/1")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Release()
			return l.Model.(*model), l.LogShare()
		}
		before, share := live()
		if share != 1 {
			t.Errorf("share %v without any setting", share)
		}
		w.set(func(s *reconcile.State) { s.General = map[string]string{serving.ParamMetricLoggingFreq: "0.25"} })
		w.set(metrics(`{"m/1":{"endpoint":"m/1","metrics":{"x":{"type":"value"},"y":{"type":"value"}}}}`))
		settle()
		m, share := live()
		if m != before || len(w.loads) != 1 {
			t.Errorf("loaded again: %v", w.loads)
		}
		if share != 0.25 || !slices.Equal(m.variables, []string{"x", "y"}) {
			t.Errorf("share %v, variables %v", share, m.variables)
		}
		w.set(metrics(`{"m/1":{"endpoint":"m/1","log_frequency":0.5,"metrics":{"z":{"type":"value"}}}}`))
		settle()
		if m, share = live(); share != 0.5 || !slices.Equal(m.variables, []string{"z"}) || m != before {
			t.Errorf("share %v, variables %v", share, m.variables)
		}
	})
}

func TestFilesAreBroughtBackAsTheyWereOrTheEndpointIsLoadedAnew(t *testing.T) {
	w := newWorld()
	w.set(func(s *reconcile.State) {
		s.Sections[serving.SectionEndpoints] = json.RawMessage(`{"m/1":{"engine_type":"custom","serving_url":"m","version":"1","model_id":"a"}}`)
		s.Models["a"] = reconcile.Model{URI: "http://files/model"}
	})
	w.replaced = "one"
	run(t, w, "", func(r *reconcile.Reconciler, rt *router.Router) {
		live, err := rt.Acquire("m/1")
		if err != nil {
			t.Fatal(err)
		}
		m := live.Model.(*model)
		live.Release()
		if err := m.restore(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if last := w.fetched[len(w.fetched)-1]; last.SHA256 != "one" || !last.Verify {
			t.Errorf("asked for %+v", last)
		}
		if settle(); len(w.loads) != 1 {
			t.Errorf("loads: %v", w.loads)
		}
		w.mu.Lock()
		w.replaced = "two" // at its place is another model now
		w.mu.Unlock()
		if err := m.restore(t.Context(), false); err == nil || !strings.Contains(err.Error(), "model") {
			t.Errorf("another content: %v", err)
		}
		if settle(); len(w.loads) != 2 || r.Status().Endpoints[0].State != "ready" || len(w.closed) != 1 {
			t.Errorf("loads %v, closed %v, %+v", w.loads, w.closed, r.Status().Endpoints[0])
		}
	})
	if len(w.fetched) != 4 || w.released != 3 { // one of them failed
		t.Errorf("%d of %d files released", w.released, len(w.fetched))
	}
}

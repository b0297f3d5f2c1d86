package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"

	"clearmlserving/drift"
)

// world is instances with counters, and a control plane.
type world struct {
	t         *testing.T
	random    *rand.Rand
	of        *drift.Variable
	instances map[string]*drift.Counts // by name
	services  []Service
	told      []string
	reports   map[string]drift.Report
	closed    bool
	broken    error // of queries
	refused   error // of reports
	file      string
	ahead     time.Duration // of the wall clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, random: rand.New(rand.NewPCG(1, 2)), instances: map[string]*drift.Counts{}, reports: map[string]drift.Report{}, file: filepath.Join(t.TempDir(), "new", "state.json")}
	w.of = w.reference(0)
	w.services = []Service{{ID: "s", Variables: []Variable{{Endpoint: "m", Version: "1", Name: "x", Of: w.of, Settings: drift.DefaultSettings()}}}}
	return w
}

func (w *world) reference(shift float64) *drift.Variable {
	w.t.Helper()
	b, err := drift.NewBuilder([]string{"x"}, "")
	if err != nil {
		w.t.Fatal(err)
	}
	for range 2000 {
		if err := b.Row([]any{w.random.NormFloat64() + shift}); err != nil {
			w.t.Fatal(err)
		}
	}
	r, _, err := b.Build()
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Variables["x"]
}

// serve counts requests at an instance.
func (w *world) serve(instance string, n int, shift float64) {
	c := w.instances[instance]
	if c == nil {
		c = drift.NewCounts(w.of)
		w.instances[instance] = c
	}
	for range n {
		c.Add(w.of, w.random.NormFloat64()+shift)
	}
}

func (w *world) Query(_ context.Context, expr string, at time.Time) (v model.Vector, err error) {
	if expr != counters {
		w.t.Error(expr)
	}
	for name, c := range w.instances {
		for i, bin := range w.of.Bins() {
			v = append(v, &model.Sample{
				Metric: model.Metric{
					"__name__": model.LabelValue(expr), "instance": model.LabelValue(name), "endpoint": "m", "version": "1", "variable": "x",
					"reference": model.LabelValue(w.of.Hash()), "bin": model.LabelValue(bin),
				},
				Value: model.SampleValue(c.Bins[i]), Timestamp: model.TimeFromUnixNano(at.UnixNano()),
			})
		}
	}
	return v, w.broken
}

func (w *world) Load(context.Context) ([]Service, error) { return w.services, nil }

func (w *world) Report(_ context.Context, service string, r drift.Report) error {
	w.reports[service] = r
	return w.refused
}

func (w *world) Tell(_ context.Context, service string, e drift.Event) error {
	w.told = append(w.told, service+": "+e.String())
	return nil
}

func (w *world) Close(context.Context) { w.closed = true }

func (w *world) watcher() *Watcher {
	return New(Options{
		Services: w, Series: w, StateFile: w.file, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(w.ahead) },
	})
}

// minutes lets time pass with traffic at instance a.
func (w *world) minutes(watcher *Watcher, n, perMinute int, shift float64) {
	for range n {
		w.serve("a", perMinute, shift)
		time.Sleep(drift.BatchTime + time.Second)
		watcher.look(w.t.Context())
	}
}

func (w *world) row() drift.VariableReport {
	w.t.Helper()
	r := w.reports["s"]
	if len(r.Variables) != 1 {
		w.t.Fatalf("%+v", r)
	}
	return r.Variables[0]
}

func TestDriftIsToldWhenItBeginsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		w.minutes(watcher, 60, 200, 0)
		if row := w.row(); row.Verdict != drift.Steady || row.Rows != 60*200 || len(w.told) > 0 || row.Evidence > row.Threshold/2 {
			t.Fatalf("%+v %v", row, w.told)
		}
		w.minutes(watcher, 4, 200, 1)
		if row := w.row(); row.Verdict != drift.Drifting || len(w.told) != 1 || !strings.HasPrefix(w.told[0], "s: drift began: endpoint 'm/1', variable 'x', PSI ") {
			t.Fatalf("%+v %v", row, w.told)
		}
		if n := testutil.CollectAndCount(watcher); n != 10 {
			t.Error(n, "series")
		}
		if problems, err := testutil.CollectAndLint(watcher); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		w.minutes(watcher, 120, 200, 0)
		if row := w.row(); row.Verdict != drift.Steady || len(w.told) != 2 || w.told[1] != "s: drift ended: endpoint 'm/1', variable 'x'" {
			t.Fatalf("%+v %v", row, w.told)
		}
		if events := w.reports["s"].Events; len(events) != 2 || !events[0].Began || events[1].Began {
			t.Error(events)
		}
	})
}

func TestRowsOfAllInstancesCountOnceAlsoAfterRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		rows := 0
		for i := range 40 {
			w.serve("a", 50, 0)
			w.serve("b", 70, 0)
			rows += 120
			switch i {
			case 10: // an instance restarts: what it has counted since the last look is lost
				w.instances["b"] = drift.NewCounts(w.of)
				rows -= 70
			case 20: // the watcher ends and starts
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				watcher.Run(ctx)
				if !w.closed {
					t.Error("the tasks were not ended")
				}
				watcher = w.watcher()
			case 30: // an instance is away for a while
				away := w.instances["b"]
				delete(w.instances, "b")
				time.Sleep(time.Hour)
				watcher.look(t.Context())
				w.instances["b"] = away
			}
			time.Sleep(time.Minute)
			watcher.look(t.Context())
		}
		time.Sleep(time.Minute)
		watcher.look(t.Context())
		if row := w.row(); row.Rows != uint64(rows) {
			t.Errorf("%d rows, %d were served", row.Rows, rows)
		}
	})
}

func TestEvidenceSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		w.minutes(watcher, 10, 150, 0)
		w.minutes(watcher, 2, 150, 0.6)
		watcher.save()
		before := w.row()
		watcher = w.watcher()
		time.Sleep(2 * time.Minute)
		watcher.look(t.Context())
		if after := w.row(); after.Evidence != before.Evidence || after.Rows != before.Rows || before.Evidence == 0 {
			t.Errorf("%v rows, evidence %v; before %v, %v", after.Rows, after.Evidence, before.Rows, before.Evidence)
		}
	})
}

func TestJumpsOfTheClockLoseAndDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		w.minutes(watcher, 10, 150, 0)
		w.ahead = -time.Hour
		w.minutes(watcher, 10, 150, 0)
		if r := w.reports["s"]; !strings.Contains(r.Problem, "clock was set back") || r.Variables[0].Rows != 10*150 {
			t.Errorf("%+v", r)
		}
		w.minutes(watcher, 55, 150, 0)
		if r := w.reports["s"]; r.Problem != "" || r.Variables[0].Rows != 75*150 {
			t.Errorf("%q %d", r.Problem, r.Variables[0].Rows)
		}
		w.ahead = 24 * time.Hour
		w.minutes(watcher, 10, 150, 0)
		if row := w.row(); row.Rows != 85*150 || row.Verdict != drift.Steady {
			t.Errorf("%+v", row)
		}
	})
}

func TestANewReferenceBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		w.minutes(watcher, 10, 200, 1)
		if row := w.row(); row.Verdict != drift.Drifting {
			t.Fatalf("%+v", row)
		}
		accepted, err := w.of.AcceptLive(w.row())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.reference(5).AcceptLive(w.row()); err == nil {
			t.Error("counts of other bins were accepted")
		}
		old := w.of
		w.of, w.instances = accepted, map[string]*drift.Counts{}
		w.services[0].Variables[0].Of = accepted
		w.minutes(watcher, 20, 200, 1)
		if row := w.row(); row.Verdict != drift.Steady || row.Rows > 20*200 || row.ReferenceHash == old.Hash() || row.Alarms != 0 {
			t.Fatalf("%+v", row)
		}
	})
}

func TestWithoutCountsTheReportSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		w.broken = errors.New("connection refused")
		w.minutes(watcher, 2, 0, 0)
		if r := w.reports["s"]; !strings.Contains(r.Problem, "connection refused") || r.Variables[0].Verdict != drift.Waiting {
			t.Errorf("%+v", r)
		}
		w.broken = nil
		w.minutes(watcher, 2, 150, 0)
		if r := w.reports["s"]; r.Problem != "" || r.Variables[0].Rows != 300 {
			t.Errorf("%+v", r)
		}
	})
}

func TestAVariableThatNeverComesDoesNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		watcher := w.watcher()
		w.instances["a"] = drift.NewCounts(w.of)
		missing := func(n int) {
			for range n {
				w.instances["a"].Add(w.of, nil)
			}
		}
		for range 10 {
			missing(200)
			w.minutes(watcher, 1, 0, 0)
		}
		if row := w.row(); row.Verdict != drift.Absent || row.Rows != 2000 {
			t.Fatalf("%+v", row)
		}
		w.minutes(watcher, 10, 200, 0)
		if row := w.row(); row.Verdict != drift.Steady {
			t.Fatalf("%+v", row)
		}
		for range 10 {
			missing(200)
			w.minutes(watcher, 1, 0, 0)
		}
		if row := w.row(); row.Verdict != drift.Drifting {
			t.Fatalf("the values went away: %+v", row)
		}
	})
}

func TestADamagedStateBeginsAnew(t *testing.T) {
	for i, text := range []string{"", "null", "{", `{"variables":{"x":{"pending":[1]}}}`, `{"variables":7}`} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			if err := os.Mkdir(filepath.Dir(w.file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			watcher := w.watcher()
			w.minutes(watcher, 3, 150, 0)
			if row := w.row(); row.Rows != 450 {
				t.Error(fmt.Sprint(i), row)
			}
		})
	}
}

func TestCountersOfOtherServicesAndReferencesDoNotCount(t *testing.T) {
	w := newWorld(t)
	w.services = append(w.services, Service{ID: "other", Variables: w.services[0].Variables})
	watcher := w.watcher()
	if err := watcher.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	labels := model.Metric{"endpoint": "m", "version": "1", "variable": "x", "reference": model.LabelValue(w.of.Hash()), "bin": model.LabelValue(w.of.Bins()[0]), "service": "other"}
	rows := func(service string) uint64 {
		return watcher.state.Variables[key{service, "m", "1", "x"}.text()].Pending[0]
	}
	watcher.add(labels, 5)
	if rows("s") != 0 || rows("other") != 5 {
		t.Error(rows("s"), rows("other"))
	}
	labels["reference"] = "0"
	watcher.add(labels, 5)
	labels["reference"], labels["bin"] = model.LabelValue(w.of.Hash()), "?"
	watcher.add(labels, 5)
	labels["version"] = "2"
	watcher.add(labels, 5)
	if rows("other") != 5 {
		t.Error(rows("other"))
	}
}

func TestAReportThatCannotBeStoredIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log strings.Builder
		watcher := w.watcher()
		watcher.o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		w.refused = errors.New("the task is of another user")
		w.minutes(watcher, 3, 200, 0)
		if n := strings.Count(log.String(), "the task is of another user"); n != 1 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
		w.refused = nil
		w.minutes(watcher, 1, 200, 0)
		w.refused = errors.New("the task is of another user")
		w.minutes(watcher, 1, 200, 0)
		if n := strings.Count(log.String(), "the task is of another user"); n != 2 {
			t.Errorf("logged %d times: %s", n, log.String())
		}
	})
}

func TestTheMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 20)
	(&Watcher{}).Describe(descs)
	close(descs)
	for d := range descs {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		if !strings.Contains(string(text), "| `"+name+"` |") {
			t.Error(name)
		}
	}
}

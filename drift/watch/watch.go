// Package watch watches the variables of running services for drift. It reads the counters of the
// instances as time series, so that it sees the sum over all instances; package drift decides.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/atomicfile"
	"clearmlserving/drift"
	"clearmlserving/serving"
)

// Querier evaluates PromQL expressions: package timeseries has them.
type Querier interface {
	Query(ctx context.Context, expr string, at time.Time) (model.Vector, error)
}

// Service is a serving service with the variables to watch.
type Service struct {
	ID        string
	Variables []Variable
}

// Variable is a variable of an endpoint.
type Variable struct {
	Endpoint, Version, Name string
	Of                      *drift.Variable
	Settings                drift.Settings
}

// Services are the services on a control plane.
type Services interface {
	// Load reads the services with the variables to watch.
	Load(ctx context.Context) ([]Service, error)
	// Report stores the report of a service.
	Report(ctx context.Context, service string, report drift.Report) error
	// Tell writes an event into the log of a service.
	Tell(ctx context.Context, service string, event drift.Event) error
	// Close ends what Report has begun.
	Close(ctx context.Context)
}

// Options of a Watcher. All are required, except Now.
type Options struct {
	Services Services
	Series   Querier
	// StateFile keeps what the watcher knows across restarts.
	StateFile string
	Logger    *slog.Logger
	Now       func() time.Time // nil: time.Now
}

const (
	lookEvery   = 15 * time.Second
	loadEvery   = time.Minute      // between two readings of the services
	reportEvery = time.Minute      // between two reports without a change of a verdict
	saveEvery   = time.Minute      // between two writings of the state without a change of a verdict
	forgetAfter = 48 * time.Hour   // what is gone for so long is forgotten
	maxEvents   = 100              // kept of a service
	lookTimeout = 30 * time.Second // of one look
	counters    = "clearml_serving_drift_values_total"
)

// Watcher watches all services of a control plane.
type Watcher struct {
	o Options

	// These belong to Run.
	state    state
	services []Service
	loaded   time.Time // by the monotonic clock, as all times but the state's
	reported time.Time
	saved    time.Time
	closed   map[key]time.Time // when the last batch of a variable ended
	trouble  string            // the last problem, so that it is logged once
	unsaved  string            // the last error of save, and of report
	unstored string

	mu      sync.Mutex
	reports map[string]drift.Report // by service
}

// key identifies a watched variable.
type key struct{ service, endpoint, version, variable string }

func (k key) text() string {
	text, _ := json.Marshal([]string{k.service, k.endpoint, k.version, k.variable}) // texts
	return string(text)
}

// state is kept on disk.
type state struct {
	At        time.Time           `json:"at"` // of the last look
	Variables map[string]*watched `json:"variables"`
	Counters  map[string]counter  `json:"counters"` // by fingerprint of the series
	Events    map[string][]told   `json:"events"`   // by service
}

type watched struct {
	drift.State
	Seen time.Time `json:"seen"` // when it was last configured
}

type counter struct {
	Value float64   `json:"value"`
	Seen  time.Time `json:"seen"`
}

type told struct {
	drift.Event
	Untold bool `json:"untold,omitempty"` // it is not in the service's log yet
}

// New reads the stored state. One that cannot be read is set aside: then the watcher begins anew.
func New(o Options) *Watcher {
	if o.Now == nil {
		o.Now = time.Now
	}
	w := &Watcher{o: o, closed: map[key]time.Time{}, reports: map[string]drift.Report{}}
	text, err := os.ReadFile(o.StateFile)
	if err == nil {
		err = json.Unmarshal(text, &w.state)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Logger.Warn("state of drift cannot be read", "file", o.StateFile, "err", err, "effect", "detection begins anew")
		_ = os.Rename(o.StateFile, o.StateFile+".damaged")
		w.state = state{}
	}
	if w.state.Variables == nil {
		w.state.Variables = map[string]*watched{}
	}
	if w.state.Counters == nil {
		w.state.Counters = map[string]counter{}
	}
	if w.state.Events == nil {
		w.state.Events = map[string][]told{}
	}
	return w
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.save()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			w.o.Services.Close(ctx)
			return
		case <-tick.C: // the time series are open by the first one
			w.look(ctx)
		}
	}
}

// look reads the counters once, ends the batches that are complete, and reports.
func (w *Watcher) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	problem, changed := "", false
	if err := w.load(ctx); err != nil {
		if ctx.Err() != nil {
			return
		}
		problem = "the serving services cannot be read: " + err.Error()
	}
	if len(w.services) > 0 {
		if err := w.count(ctx); err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return
			}
			problem = "the counts of the instances cannot be read: " + err.Error()
		}
		changed = w.decide()
	}
	if problem != w.trouble {
		if w.trouble = problem; problem != "" {
			w.o.Logger.Warn("drift cannot be watched", "problem", problem)
		}
	}
	now := time.Now()
	if changed || now.Sub(w.saved) >= saveEvery {
		w.save()
		w.saved = now
	}
	if changed || now.Sub(w.reported) >= reportEvery {
		w.report(ctx, problem)
		w.reported = now
		if changed {
			w.save() // the events are told
		}
	}
}

// load reads the services, if it is due.
func (w *Watcher) load(ctx context.Context) error {
	if !w.loaded.IsZero() && time.Since(w.loaded) < loadEvery {
		return nil
	}
	services, err := w.o.Services.Load(ctx)
	if err != nil {
		return err
	}
	w.services, w.loaded = services, time.Now()
	now := w.o.Now()
	for _, s := range services {
		for _, v := range s.Variables {
			text := key{s.ID, v.Endpoint, v.Version, v.Name}.text()
			one := w.state.Variables[text]
			if one == nil || one.Hash != v.Of.Hash() || len(one.Pending) != len(v.Of.Counts) {
				one = &watched{State: *drift.NewState(v.Of)}
				w.state.Variables[text] = one
			}
			one.Seen = now
		}
	}
	maps.DeleteFunc(w.state.Variables, func(_ string, one *watched) bool { return now.Sub(one.Seen) > forgetAfter })
	maps.DeleteFunc(w.state.Events, func(service string, _ []told) bool {
		return !slices.ContainsFunc(services, func(s Service) bool { return s.ID == service })
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.reports, func(service string, _ drift.Report) bool {
		return !slices.ContainsFunc(services, func(s Service) bool { return s.ID == service })
	})
	return nil
}

// count adds what the counters have grown by to the pending batches. A counter that is less than before
// has begun at 0 again.
func (w *Watcher) count(ctx context.Context) error {
	now := w.o.Now()
	if now.Before(w.state.At) {
		// The clock was set back. Older values of the counters would look like restarts.
		return fmt.Errorf("the clock was set back: counting goes on at %s", w.state.At.Format(time.RFC3339))
	}
	vector, err := w.o.Series.Query(ctx, counters, now)
	if err != nil {
		return err
	}
	w.state.At = now
	for _, sample := range vector {
		value := float64(sample.Value)
		if !(value >= 0) || value > 1<<53 {
			continue
		}
		id := strconv.FormatUint(uint64(sample.Metric.Fingerprint()), 16)
		before := w.state.Counters[id]
		w.state.Counters[id] = counter{value, now}
		grown := value - before.Value
		if grown < 0 {
			grown = value
		}
		if grown >= 1 {
			w.add(sample.Metric, uint64(grown))
		}
	}
	maps.DeleteFunc(w.state.Counters, func(_ string, c counter) bool { return now.Sub(c.Seen) > forgetAfter })
	return nil
}

// add adds rows to the variable that a series counts, if it is watched with that reference.
func (w *Watcher) add(labels model.Metric, rows uint64) {
	service, told := labels["service"]
	for _, s := range w.services {
		if told && string(service) != s.ID {
			continue
		}
		for _, v := range s.Variables {
			if v.Endpoint != string(labels["endpoint"]) || v.Version != string(labels["version"]) || v.Name != string(labels["variable"]) {
				continue
			}
			one := w.state.Variables[key{s.ID, v.Endpoint, v.Version, v.Name}.text()]
			if one == nil || one.Hash != string(labels["reference"]) {
				continue
			}
			if bin := slices.Index(v.Of.Bins(), string(labels["bin"])); bin >= 0 {
				one.Add(bin, rows)
			}
		}
	}
}

// decide ends the batches that are complete. It reports whether a verdict has changed.
func (w *Watcher) decide() (changed bool) {
	for _, s := range w.services {
		for _, v := range s.Variables {
			k := key{s.ID, v.Endpoint, v.Version, v.Name}
			one := w.state.Variables[k.text()]
			if one == nil || !one.Ready() || time.Since(w.closed[k]) < drift.BatchTime {
				continue
			}
			w.closed[k] = time.Now()
			change := one.Close(v.Of, len(s.Variables), v.Settings, w.o.Now())
			if change == drift.None {
				continue
			}
			changed = true
			r := one.Report(v.Of, len(s.Variables), v.Settings)
			event := drift.Event{
				At: w.o.Now().UTC().Truncate(time.Second), Endpoint: v.Endpoint, Version: v.Version, Variable: v.Name, Began: change == drift.Began, PSI: r.PSI, Noise: r.Noise,
			}
			w.o.Logger.Warn("drift changed", "began", event.Began, "service_id", s.ID, "endpoint", serving.JoinURL(v.Endpoint, v.Version), "variable", v.Name, "psi", r.PSI, "noise", r.Noise)
			events := append(w.state.Events[s.ID], told{event, true})
			w.state.Events[s.ID] = events[max(0, len(events)-maxEvents):]
		}
	}
	return changed
}

// report makes the reports, and stores them with the events that are not told yet.
func (w *Watcher) report(ctx context.Context, problem string) {
	reports := map[string]drift.Report{}
	for _, s := range w.services {
		r := drift.Report{At: w.o.Now().UTC().Truncate(time.Second), Problem: problem, Variables: []drift.VariableReport{}}
		for _, v := range s.Variables {
			one := w.state.Variables[key{s.ID, v.Endpoint, v.Version, v.Name}.text()]
			row := one.Report(v.Of, len(s.Variables), v.Settings)
			row.Endpoint, row.Version, row.Variable = v.Endpoint, v.Version, v.Name
			r.Variables = append(r.Variables, row)
		}
		for _, e := range w.state.Events[s.ID] {
			r.Events = append(r.Events, e.Event)
		}
		reports[s.ID] = r
	}
	w.mu.Lock()
	w.reports = reports
	w.mu.Unlock()
	var failed error
	for _, s := range w.services {
		err := w.tell(ctx, s.ID)
		if len(s.Variables) > 0 || len(w.state.Events[s.ID]) > 0 {
			err = errors.Join(err, w.o.Services.Report(ctx, s.ID, reports[s.ID]))
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("service %s: %w", s.ID, err))
		}
	}
	if begins(&w.unstored, failed) && !errors.Is(ctx.Err(), context.Canceled) {
		w.o.Logger.Warn("reports of drift cannot be stored", "err", failed)
	}
}

// tell writes the events into the service's log, the oldest first.
func (w *Watcher) tell(ctx context.Context, service string) error {
	events := w.state.Events[service]
	for i := range events {
		if !events[i].Untold {
			continue
		}
		if err := w.o.Services.Tell(ctx, service, events[i].Event); err != nil {
			return err
		}
		events[i].Untold = false
	}
	return nil
}

// save writes the state. Without it a restart would begin anew, so a full disk is logged once.
func (w *Watcher) save() {
	text, err := json.Marshal(w.state)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(w.o.StateFile), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(w.o.StateFile, text, 0o600)
	}
	if begins(&w.unsaved, err) {
		w.o.Logger.Warn("state of drift cannot be kept on disk", "err", err)
	}
}

// begins reports whether there is an error that is not the last one, so that each is logged once.
func begins(last *string, err error) bool {
	before := *last
	*last = ""
	if err != nil {
		*last = err.Error()
	}
	return *last != "" && *last != before
}

// Reports returns the last reports, by service. They must not be changed.
func (w *Watcher) Reports() map[string]drift.Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reports
}

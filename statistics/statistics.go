// Package statistics records the requests of an instance, and exposes them with
// the instance's state as Prometheus metrics. Recording takes no lock that cores share and parses
// nothing: Run or a scrape reads variables of requests later.
package statistics

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"clearmlserving/serving"
)

// scales of the histograms.
//
//nolint:gochecknoglobals // constant tables
var (
	seconds = newScale(3, -17, 10, 1e-9, []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60})
	sizes   = newScale(1, 4, 30, 1, powers(4, 3, 14))
)

// powers are base^from to base^to.
func powers(base float64, from, to int) (all []float64) {
	for k := from; k <= to; k++ {
		all = append(all, math.Pow(base, float64(k)))
	}
	return all
}

// Metrics are the metrics of one instance.
type Metrics struct {
	lanes   *lanes
	samples *samples

	mu      sync.Mutex  // guards changes of meters
	planned atomic.Bool // the endpoints are known
	meters  atomic.Pointer[map[serving.EndpointURL]*meter]
}

// meter records the requests of one endpoint.
type meter struct {
	endpoint, version                                             string // the labels
	duration, queued, worked, streamed, requestBytes, answerBytes *histogram
	variables                                                     *variables
	recent                                                        *recent
}

// New returns empty Metrics.
func New() *Metrics {
	m := &Metrics{lanes: newLanes()}
	m.samples = newSamples(m.lanes.n)
	m.meters.Store(&map[serving.EndpointURL]*meter{})
	return m
}

func (m *Metrics) newMeter(endpoint, version string) *meter {
	return &meter{
		endpoint: strings.ToValidUTF8(endpoint, "\uFFFD"), version: strings.ToValidUTF8(version, "\uFFFD"),
		duration: newHistogram(seconds, m.lanes.n), queued: newHistogram(seconds, m.lanes.n), worked: newHistogram(seconds, m.lanes.n), streamed: newHistogram(seconds, m.lanes.n),
		requestBytes: newHistogram(sizes, m.lanes.n), answerBytes: newHistogram(sizes, m.lanes.n),
		variables: newVariables(),
		recent:    &recent{marks: [2]mark{{at: time.Now()}, {at: time.Now()}}},
	}
}

// Record implements the data plane's Recorder.
func (m *Metrics) Record(s serving.Sample) {
	t := (*m.meters.Load())[s.URL]
	if t == nil {
		if m.planned.Load() {
			return // it was removed while it answered
		}
		t = m.add(s.URL)
	}
	lane := m.lanes.take()
	t.duration.observe(*lane, int64(s.Latency))
	if s.Answered {
		t.queued.observe(*lane, int64(s.Queued))
		t.worked.observe(*lane, int64(s.Latency-s.Queued))
	}
	if s.RequestBytes >= 0 {
		t.requestBytes.observe(*lane, int64(s.RequestBytes))
	}
	if s.AnswerBytes >= 0 {
		t.answerBytes.observe(*lane, int64(s.AnswerBytes))
	}
	if s.Sampled && (len(s.Variables) > 0 || t.variables.defined.Load()) {
		m.samples.put(*lane, sample{of: t.variables, weight: s.Weight, text: s.Variables})
	}
	m.lanes.put(lane)
}

// RecordStream implements the data plane's Recorder.
func (m *Metrics) RecordStream(url serving.EndpointURL, bytes int, took time.Duration) {
	t := (*m.meters.Load())[url]
	if t == nil {
		return // it was removed
	}
	lane := m.lanes.take()
	t.streamed.observe(*lane, int64(took))
	t.answerBytes.observe(*lane, int64(bytes))
	m.lanes.put(lane)
}

// add makes the meter of an endpoint before the first plan.
func (m *Metrics) add(url serving.EndpointURL) *meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := *m.meters.Load()
	if t := before[url]; t != nil {
		return t
	}
	next := maps.Clone(before)
	t := m.newMeter(split(url))
	next[url] = t
	m.meters.Store(&next)
	return t
}

// split splits a url of unknown origin into endpoint and version.
func split(url serving.EndpointURL) (endpoint, version string) {
	i := strings.LastIndexByte(string(url), '/')
	if last := string(url)[i+1:]; i > 0 && last != "" && strings.Trim(last, "0123456789") == "" {
		return string(url)[:i], last
	}
	return string(url), ""
}

// Follow sets the endpoints and the definitions of their variables. Those that are no longer planned
// are removed.
func (m *Metrics) Follow(plan serving.Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := *m.meters.Load()
	next := make(map[serving.EndpointURL]*meter, len(plan.Endpoints))
	for url, e := range plan.Endpoints {
		endpoint, version := string(url), ""
		if e.Version != "" {
			endpoint, version = string(serving.CleanURL(e.ServingURL)), e.Version
		}
		t := before[url]
		if t == nil {
			t = m.newMeter(endpoint, version)
		} else if t.endpoint != endpoint || t.version != version {
			renamed := *t
			renamed.endpoint, renamed.version = endpoint, version
			t = &renamed
		}
		m.samples.define(t.variables, e.Metrics.Metrics)
		next[url] = t
	}
	m.meters.Store(&next)
	m.planned.Store(true)
}

// Run reads the variables of sampled requests until ctx ends.
func (m *Metrics) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.mark(now)
		case <-m.samples.full:
		}
		m.samples.read()
	}
}

// Handler answers scrapes. status describes the instance; others are the metrics of further parts.
func (m *Metrics) Handler(status func() serving.Status, log *slog.Logger, others ...prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range append([]prometheus.Collector{
		collector{m, status}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, others...) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: errorLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	}), nil
}

// errorLog logs errors of promhttp.
type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.log.Warn("metrics incomplete", "err", fmt.Sprint(v...)) }

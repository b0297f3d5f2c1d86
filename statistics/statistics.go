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
	"runtime/debug"
	"slices"
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
	seconds = newScale(3, -17, 10, 1e-9, []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}, .075, .75)
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
	// file is nil while counters are in memory only. It is changed with samples.mu and the locks of all lanes.
	file    *file
	keeping keeping
	machine machine

	forwarder Forwarder // nil: none

	mu      sync.Mutex // guards changes of tables, and the fields below
	planned bool       // the endpoints are known
	last    uint64     // the highest number of a meter
	tables  atomic.Pointer[tables]
}

// tables are all meters.
type tables struct {
	meters   map[serving.EndpointURL]*meter
	canaries map[route]*meter // of requests that came through a canary
}

func (t *tables) clone() *tables { return &tables{maps.Clone(t.meters), maps.Clone(t.canaries)} }

// find returns the meter of an endpoint or a route.
func (t *tables) find(r route) *meter {
	if r.canary == "" {
		return t.meters[r.endpoint]
	}
	return t.canaries[r]
}

func (t *tables) set(r route, one *meter) {
	if r.canary == "" {
		t.meters[r.endpoint] = one
	} else {
		t.canaries[r] = one
	}
}

// all calls each with every meter.
func (t *tables) all(each func(route, *meter)) {
	for url, one := range t.meters {
		each(route{"", url}, one)
	}
	for r, one := range t.canaries {
		each(r, one)
	}
}

// route is how requests come to an endpoint: through a canary, or by its own url.
type route struct{ canary, endpoint serving.EndpointURL }

// routeMark is between canary and endpoint in a route's name.
const routeMark = "\x00"

func (r route) name() string {
	if r.canary == "" {
		return string(r.endpoint)
	}
	return string(r.canary) + routeMark + string(r.endpoint)
}

func routeOf(name string) route {
	if canary, endpoint, ok := strings.Cut(name, routeMark); ok {
		return route{serving.EndpointURL(canary), serving.EndpointURL(endpoint)}
	}
	return route{"", serving.EndpointURL(name)}
}

// places are the places of a meter's counters in the cells of a block: requests by outcome, then histograms.
//
//nolint:gochecknoglobals // a constant table
var places = newPlaces()

type cellPlaces struct {
	duration, queued, worked, streamed, requestBytes, answerBytes histogram
	size                                                          int
}

func newPlaces() (p cellPlaces) {
	p.size = int(serving.Outcomes)
	add := func(s *scale) histogram {
		h := histogram{s, p.size}
		p.size += h.width()
		return h
	}
	p.duration, p.queued, p.worked, p.streamed = add(seconds), add(seconds), add(seconds), add(seconds)
	p.requestBytes, p.answerBytes = add(sizes), add(sizes)
	return p
}

// meter records the requests of one endpoint, or of one route. Only what its pointers lead to changes.
type meter struct {
	number            uint64
	name              string    // of the route
	endpoint, version string    // the labels
	planned           bool      // it is exposed
	canary            bool      // a canary without an endpoint of its name: it has no answers of its own
	gone              time.Time // since when it is not planned
	blocks            []*block  // by lane, nil before the first request; guarded by the lock of the lane, or of the first one
	variables         *variables
	recent            *recent
	exemplars         *exemplars // of duration
}

// exemplars are the last traced request of each classic bucket, and of what exceeds them.
type exemplars [32]atomic.Pointer[exemplar]

type exemplar struct {
	trace string
	value float64
	at    time.Time
}

// Forwarder gets the sampled requests that were answered without an error, to send them to another
// process.
type Forwarder interface {
	// Forward must not block. Cores mostly use different lanes.
	Forward(lane int, s serving.Sample)
	// Forwarding describes what became of them.
	Forwarding() Forwarding
}

// Forwarding is the report of a Forwarder.
type Forwarding struct {
	// Active: a destination is configured.
	Active bool
	// Sent and Lost are numbers of requests, Lost by the reason.
	Sent uint64
	Lost map[string]uint64
	// Waiting requests are in memory or on the disk. Stored is the size on the disk in bytes.
	Waiting, Stored int64
}

// Lanes is the number of lanes of a Forwarder.
func (m *Metrics) Lanes() int { return m.lanes.n }

// SetForwarder sets the Forwarder, before the first request.
func (m *Metrics) SetForwarder(f Forwarder) { m.forwarder = f }

// goneTime is how long the counters of an endpoint are kept that is no longer configured.
const goneTime = time.Hour

// New returns empty Metrics in memory.
func New() *Metrics {
	m := &Metrics{lanes: newLanes(), samples: newSamples()}
	m.tables.Store(&tables{map[serving.EndpointURL]*meter{}, map[route]*meter{}})
	return m
}

// newMeter makes the meter of a route. mu and samples.mu are held.
func (m *Metrics) newMeter(r route) *meter {
	m.last++
	return m.numbered(m.last, r)
}

func (m *Metrics) numbered(number uint64, r route) *meter {
	t := &meter{number: number, name: r.name(), blocks: make([]*block, m.lanes.n), variables: newVariables(), recent: &recent{}, exemplars: &exemplars{}}
	t.endpoint, t.version = labelsOf(split(r.endpoint))
	t.recent.marks = [2]mark{{at: time.Now()}, {at: time.Now()}}
	m.samples.of[t.number] = t.variables
	return t
}

func labelsOf(endpoint, version string) (string, string) {
	return strings.ToValidUTF8(endpoint, "\uFFFD"), strings.ToValidUTF8(version, "\uFFFD")
}

// Record implements the data plane's Recorder.
func (m *Metrics) Record(s serving.Sample) {
	for !m.record(&s) {
		m.add(route{"", s.URL})
		if s.Canary != "" {
			m.add(route{s.Canary, s.URL})
		}
	}
}

// record counts a request in one change. It fails if there is no meter yet.
func (m *Metrics) record(s *serving.Sample) bool {
	l := m.lanes.lock()
	defer m.unlock(l, debug.SetPanicOnFault(true))
	all := m.tables.Load()
	t, r := all.meters[s.URL], (*meter)(nil)
	if s.Canary != "" {
		r = all.canaries[route{s.Canary, s.URL}]
	}
	if t == nil || (r == nil && s.Canary != "") {
		return false
	}
	c := change{journal: l.journal}
	b := m.block(l, t)
	if !s.Streamed {
		c.add(b, int(s.Outcome), 1)
	}
	places.duration.observe(&c, b, int64(s.Latency))
	if s.Answered {
		places.queued.observe(&c, b, int64(s.Queued))
		places.worked.observe(&c, b, int64(s.Latency-s.Queued))
	}
	if s.RequestBytes >= 0 {
		places.requestBytes.observe(&c, b, int64(s.RequestBytes))
	}
	if s.AnswerBytes >= 0 {
		places.answerBytes.observe(&c, b, int64(s.AnswerBytes))
	}
	if r != nil {
		b := m.block(l, r)
		if !s.Streamed {
			c.add(b, int(s.Outcome), 1)
		}
		places.duration.observe(&c, b, int64(s.Latency))
	}
	if s.Sampled && (len(s.Variables) > 0 || t.variables.defined.Load()) {
		m.sample(l, &c, t, s)
	}
	c.commit()
	if s.Trace != "" {
		i, _ := slices.BinarySearch(seconds.classic, s.Latency.Seconds())
		t.exemplars[i].Store(&exemplar{s.Trace, s.Latency.Seconds(), time.Now()})
	}
	if s.Sampled && m.forwarder != nil {
		m.forwarder.Forward(l.index, *s)
	}
	return true
}

// sample adds the variables of a request to a change.
func (m *Metrics) sample(l *lane, c *change, t *meter, s *serving.Sample) {
	if l.ring.memory == nil {
		m.newRing(l)
	}
	ok, half := l.put(c, t.number, s.Weight, m.samples.now(), s.Variables)
	if !ok {
		m.samples.dropped.Add(1)
	}
	if half {
		m.samples.wake()
	}
}

// Count implements the data plane's Recorder.
func (m *Metrics) Count(url, canary serving.EndpointURL, outcome serving.Outcome) {
	m.count(route{"", url}, outcome)
	if canary != "" {
		m.count(route{canary, url}, outcome)
	}
}

func (m *Metrics) count(r route, outcome serving.Outcome) {
	for !m.change(r, func(c *change, b *block) { c.add(b, int(outcome), 1) }) {
		m.add(r)
	}
}

// RecordStream implements the data plane's Recorder.
func (m *Metrics) RecordStream(url serving.EndpointURL, bytes int, took time.Duration) {
	m.change(route{"", url}, func(c *change, b *block) {
		places.streamed.observe(c, b, int64(took))
		places.answerBytes.observe(c, b, int64(bytes))
	})
}

// change makes one change to a meter's counters. It fails if there is no meter.
func (m *Metrics) change(r route, of func(*change, *block)) bool {
	l := m.lanes.lock()
	defer m.unlock(l, debug.SetPanicOnFault(true))
	t := m.tables.Load().find(r)
	if t == nil {
		return false
	}
	c := change{journal: l.journal}
	of(&c, m.block(l, t))
	c.commit()
	return true
}

// block returns the block of a meter for a lane, whose lock is held.
func (m *Metrics) block(l *lane, t *meter) *block {
	b := t.blocks[l.index]
	if b == nil {
		if b = m.file.allocate(t.number, t.name, nil); b == nil {
			b = newBlock()
		}
		t.blocks[l.index] = b
	}
	return b
}

// add makes the meter of a route, which is exposed only if no plan is known yet.
func (m *Metrics) add(r route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.tables.Load()
	if before.find(r) != nil {
		return
	}
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	r = routeOf(strings.Clone(r.name())) // the caller's texts may not last
	t := m.newMeter(r)
	t.planned, t.gone = !m.planned, time.Now()
	next := before.clone()
	next.set(r, t)
	m.tables.Store(next)
}

// split splits a url of unknown origin into endpoint and version.
func split(url serving.EndpointURL) (endpoint, version string) {
	name := serving.NameOf(url)
	return name.Endpoint, name.Version
}

// Follow sets the endpoints and the definitions of their variables. Those that are no longer planned
// are not exposed, and removed after goneTime.
func (m *Metrics) Follow(plan serving.Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	before, next := m.tables.Load(), &tables{map[serving.EndpointURL]*meter{}, map[route]*meter{}}
	take := func(r route, canary bool, endpoint, version string) *meter {
		t := before.find(r)
		if t == nil {
			t = m.newMeter(r)
		}
		now := *t
		now.planned, now.canary = true, canary
		now.endpoint, now.version = labelsOf(endpoint, version)
		next.set(r, &now)
		return &now
	}
	for url, e := range plan.Endpoints {
		v := take(route{"", url}, false, nameOf(url, e), e.Version).variables
		m.define(v, e.Metrics.Metrics)
		m.watch(v, e)
	}
	for url, canary := range plan.Canaries {
		if _, ok := plan.Endpoints[url]; !ok {
			endpoint, version := split(url)
			take(route{"", url}, true, endpoint, version)
		}
		for _, target := range canary.Targets {
			e := plan.Endpoints[target]
			take(route{url, target}, false, nameOf(target, e), e.Version)
		}
	}
	before.all(func(r route, t *meter) {
		if next.find(r) != nil {
			return
		}
		now := *t
		if t.planned {
			now.planned, now.gone = false, time.Now()
		}
		next.set(r, &now)
	})
	m.tables.Store(next)
	m.planned = true
}

// nameOf is the label of an endpoint without its version.
func nameOf(url serving.EndpointURL, e serving.PlannedEndpoint) string {
	if e.Version == "" {
		return string(url)
	}
	return string(serving.CleanURL(e.ServingURL))
}

// forget removes the meters that are gone for a long time.
func (m *Metrics) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	next, gone := m.tables.Load().clone(), []*meter(nil)
	m.tables.Load().all(func(r route, t *meter) {
		if m.planned && !t.planned && time.Since(t.gone) > goneTime {
			gone = append(gone, t)
			if r.canary == "" {
				delete(next.meters, r.endpoint)
			} else {
				delete(next.canaries, r)
			}
		}
	})
	if len(gone) == 0 {
		return
	}
	m.tables.Store(next)
	for i := range m.lanes.n { // a lane that has seen the old tables is locked
		m.with(&m.lanes.all[i], func() {
			for _, t := range gone {
				m.each(i, t, func(b **block) {
					m.file.release(*b)
					*b = nil
				})
			}
		})
	}
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	for _, t := range gone {
		delete(m.samples.of, t.number)
	}
	m.samples.dirty = true
}

// each calls do with the blocks of a meter that a lane's lock guards.
func (m *Metrics) each(lane int, t *meter, do func(b **block)) {
	for i := range t.blocks {
		if (i == lane || (lane == 0 && i >= m.lanes.n)) && t.blocks[i] != nil {
			do(&t.blocks[i])
		}
	}
}

// sum adds up the counters of a meter.
func (m *Metrics) sum(t *meter) []uint64 {
	cells, part := make([]uint64, places.size), make([]uint64, places.size)
	for i := range m.lanes.n {
		m.with(&m.lanes.all[i], func() {
			clear(part)
			m.each(i, t, func(b **block) {
				for j, n := range (*b).cells {
					part[j] += n
				}
			})
		})
		for j, n := range part {
			cells[j] += n
		}
	}
	return cells
}

// Run reads the variables of sampled requests until ctx ends.
func (m *Metrics) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.mark(now)
			if n%5 == 0 {
				m.renew()
				m.settle()
			}
			if n%60 == 0 {
				m.forget()
			}
		case <-m.samples.full:
		}
		m.samples.mu.Lock()
		m.read()
		m.samples.mu.Unlock()
	}
}

// Gatherer gathers what a scrape gets. status describes the instance; others are the metrics of further parts.
func (m *Metrics) Gatherer(status func() serving.Status, others ...prometheus.Collector) (prometheus.Gatherer, error) {
	registry := prometheus.NewRegistry()
	for _, c := range append([]prometheus.Collector{
		collector{m, status}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, others...) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return registry, nil
}

// Handler answers scrapes. status describes the instance.
func (m *Metrics) Handler(status func() serving.Status, log *slog.Logger, others ...prometheus.Collector) (http.Handler, error) {
	registry, err := m.Gatherer(status, others...)
	if err != nil {
		return nil, err
	}
	return answer(registry, log, func() []OriginalMetric {
		if m.forwarder != nil && m.forwarder.Forwarding().Active {
			return nil // the receiver exposes them
		}
		return m.originals(status())
	}), nil
}

// answer answers scrapes with the metrics of a registry, and those under the original's names.
func answer(registry prometheus.Gatherer, log *slog.Logger, originals func() []OriginalMetric) http.Handler {
	return withOriginals(promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: errorLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, EnableOpenMetrics: true, DisableCompression: true,
	}), originals)
}

// AggregateHandler answers scrapes with Aggregates and more metrics.
func AggregateHandler(c AggregateCollector, log *slog.Logger, more ...prometheus.Collector) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, one := range append([]prometheus.Collector{
		c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, more...) {
		if err := registry.Register(one); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return answer(registry, log, c.Originals), nil
}

// errorLog logs errors of promhttp.
type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.log.Warn("metrics incomplete", "err", fmt.Sprint(v...)) }

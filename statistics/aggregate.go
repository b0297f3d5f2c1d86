package statistics

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/serving"
)

// Observation is what another process has measured of one request.
type Observation struct {
	// Latency is in seconds. Timed: it is known.
	Latency float64
	Timed   bool
	// Count is the number of requests that this one stands for.
	Count float64
	// Variables are the logged values, as package json decodes them with UseNumber.
	Variables map[string]any
}

// Aggregate counts the observations of one endpoint. It is plain data: it can be copied, stored as
// JSON, and restored. It has no lock.
type Aggregate struct {
	created   time.Time
	requests  float64
	latencies []uint64 // by the cells of seconds
	latency   int64    // their sum in nanoseconds
	samples   uint64
	excess    uint64 // values of names beyond the limit
	collected int    // names without a definition
	variables map[string]*aggregateVariable
	retired   map[string]bool // names whose definition was removed
}

// aggregateVariable is one variable of an Aggregate.
type aggregateVariable struct {
	variable
	created time.Time
	defined bool
	source  int32 // of the last value
}

// NewAggregate returns an empty Aggregate.
func NewAggregate(now time.Time) *Aggregate {
	return &Aggregate{created: now, latencies: make([]uint64, len(seconds.bounds)+1), variables: map[string]*aggregateVariable{}, retired: map[string]bool{}}
}

// Define sets the definitions of the variables. A variable stays unless its definition has changed.
func (a *Aggregate) Define(definitions map[string]serving.Metric, now time.Time) {
	for name, v := range a.variables {
		if _, ok := definitions[name]; !ok && v.defined {
			delete(a.variables, name)
			a.retired[name] = true
		}
	}
	for name, d := range definitions {
		next := newVariable(d)
		before := a.variables[name]
		if before != nil && before.defined && before.sameDefinition(next) {
			continue
		}
		if before != nil && !before.defined {
			a.collected--
		}
		a.variables[name] = &aggregateVariable{variable: *next, created: now, defined: true}
		delete(a.retired, name)
	}
}

// sameDefinition reports whether two variables are recorded alike.
func (v *variable) sameDefinition(other *variable) bool {
	return v.Kind == other.Kind && slices.Equal(v.Bounds, other.Bounds) &&
		maps.EqualFunc(v.Words, other.Words, func(_, _ uint64) bool { return true })
}

// Knows reports whether all these variables have been seen before.
func (a *Aggregate) Knows(variables map[string]any) bool {
	for name := range variables {
		if a.variables[name] == nil && !a.retired[name] {
			return false
		}
	}
	return true
}

// Add counts an observation. source is remembered with last values: see CollectAggregates.
func (a *Aggregate) Add(o Observation, source int32, now time.Time) {
	a.requests += o.Count
	if o.Timed {
		nanoseconds := int64(math.Round(min(max(o.Latency, 0), 1e9) * 1e9))
		a.latencies[seconds.cell(nanoseconds)]++
		a.latency += nanoseconds
	}
	a.samples++
	for name, v := range a.variables {
		if _, ok := o.Variables[name]; !ok && v.defined {
			v.Skipped[skippedMissing]++
		}
	}
	weight := o.Count
	if weight == 0 {
		weight = 1
	}
	for name, value := range o.Variables {
		v := a.variables[name]
		if v == nil {
			if a.retired[name] {
				continue
			}
			if a.collected >= maxCollected || len(name) > maxName {
				a.excess++
				continue
			}
			a.collected++
			v = &aggregateVariable{variable: *newVariable(serving.Metric{Type: serving.MetricValue}), created: now}
			a.variables[name] = v
		}
		v.record(value, weight)
		v.source = source
	}
}

// isLast reports whether only the last value is exposed.
func (v *variable) isLast() bool {
	return v.Kind != serving.MetricScalar && v.Kind != serving.MetricEnum && v.Kind != serving.MetricCounter
}

// Clone returns a copy that shares nothing.
func (a *Aggregate) Clone() *Aggregate {
	c := *a
	c.latencies, c.retired = slices.Clone(a.latencies), maps.Clone(a.retired)
	c.variables = make(map[string]*aggregateVariable, len(a.variables))
	for name, v := range a.variables {
		w := *v
		w.Counts, w.Words = slices.Clone(v.Counts), maps.Clone(v.Words)
		c.variables[name] = &w
	}
	return &c
}

// storedAggregate is the JSON form of an Aggregate. Latencies are by the upper bounds of their cells
// in nanoseconds, so that another version of the program with other cells can read it.
type storedAggregate struct {
	Created   int64                     `json:"created"` // milliseconds since 1970
	Requests  storedFloat               `json:"requests"`
	Latencies map[int64]uint64          `json:"latencies,omitempty"`
	Latency   int64                     `json:"latency,omitempty"`
	Samples   uint64                    `json:"samples"`
	Excess    uint64                    `json:"excess,omitempty"`
	Variables map[string]storedVariable `json:"variables,omitempty"`
	Retired   []string                  `json:"retired,omitempty"`
}

type storedVariable struct {
	Type    string            `json:"type"`
	Created int64             `json:"created"`
	Defined bool              `json:"defined,omitempty"`
	Bounds  []float64         `json:"bounds,omitempty"`
	Counts  []uint64          `json:"counts,omitempty"`
	Words   map[string]uint64 `json:"words,omitempty"`
	Sum     storedFloat       `json:"sum"`
	Count   uint64            `json:"count,omitempty"`
	Last    float64           `json:"last,omitempty"`
	Source  int32             `json:"source,omitempty"`
	Skipped []uint64          `json:"skipped,omitempty"`
}

// storedFloat is a float that may have become infinite or NaN.
type storedFloat float64

// MarshalText implements encoding.TextMarshaler.
func (f storedFloat) MarshalText() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(f), 'g', -1, 64), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *storedFloat) UnmarshalText(text []byte) error {
	parsed, err := strconv.ParseFloat(string(text), 64)
	*f = storedFloat(parsed)
	return err
}

// MarshalJSON implements json.Marshaler.
func (a *Aggregate) MarshalJSON() ([]byte, error) {
	s := storedAggregate{
		Created: a.created.UnixMilli(), Requests: storedFloat(a.requests), Latency: a.latency, Samples: a.samples, Excess: a.excess,
		Latencies: map[int64]uint64{}, Variables: map[string]storedVariable{}, Retired: slices.Sorted(maps.Keys(a.retired)),
	}
	for i, n := range a.latencies {
		if n > 0 {
			bound := int64(math.MaxInt64)
			if i < len(seconds.bounds) {
				bound = seconds.bounds[i]
			}
			s.Latencies[bound] = n
		}
	}
	for name, v := range a.variables {
		s.Variables[name] = storedVariable{
			Type: v.Kind, Created: v.created.UnixMilli(), Defined: v.defined, Bounds: v.Bounds, Counts: v.Counts, Words: v.Words,
			Sum: storedFloat(v.Sum), Count: v.Count, Last: v.Last, Source: v.source, Skipped: v.Skipped[:],
		}
	}
	return json.Marshal(s)
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *Aggregate) UnmarshalJSON(text []byte) error {
	var s storedAggregate
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	*a = *NewAggregate(time.UnixMilli(s.Created))
	a.requests, a.latency, a.samples, a.excess = float64(s.Requests), s.Latency, s.Samples, s.Excess
	for bound, n := range s.Latencies {
		a.latencies[seconds.cell(bound)] += n
	}
	for _, name := range s.Retired {
		a.retired[name] = true
	}
	for name, v := range s.Variables {
		if v.Type == serving.MetricScalar && len(v.Counts) != len(v.Bounds)+1 {
			return fmt.Errorf("variable %q: %d counts of %d buckets", name, len(v.Counts), len(v.Bounds))
		}
		if v.Type == serving.MetricEnum && v.Words == nil {
			v.Words = map[string]uint64{otherWord: 0}
		}
		w := &aggregateVariable{created: time.UnixMilli(v.Created), defined: v.Defined, source: v.Source}
		w.variable = variable{Kind: v.Type, Bounds: v.Bounds, Counts: v.Counts, Words: v.Words, Sum: float64(v.Sum), Count: v.Count, Last: v.Last}
		copy(w.Skipped[:], v.Skipped)
		a.variables[name] = w
		if !v.Defined {
			a.collected++
		}
	}
	return nil
}

// Names are the labels of an endpoint.
type Names struct{ Endpoint, Version string }

// NamesOf are the labels of an endpoint whose configuration is not known.
func NamesOf(url serving.EndpointURL) Names {
	endpoint, version := split(url)
	return Names{endpoint, version}
}

// AggregateCollector exposes Aggregates, with the names and labels that an inference instance gives
// the same.
type AggregateCollector struct {
	// All returns the Aggregates of now. They must not change.
	All func() map[serving.EndpointURL]*Aggregate
	// Names returns the labels of an endpoint.
	Names func(serving.EndpointURL) Names
	// Current reports whether last values of this source are exposed: those of others are old.
	Current func(source int32) bool
	// Report describes the reader of the observations, nil for none.
	Report func() ReaderReport
}

// ReaderReport describes a reader of observations.
type ReaderReport struct {
	Connected         bool
	Messages, Records uint64
	Skipped           map[string]uint64 // by the reason
	Lag               map[int32]int64   // messages that are not read, by partition
	Aborted           uint64            // transactions
}

func aggregateFamilies() []*family {
	return []*family{
		requestsTotal, requestDuration, variableSamples, variableValue, variableSum, variableScalar, variableWords, variablesSkipped,
		readerConnected, readerMessages, readerRecords, readerSkipped, readerLag, readerAborted,
	}
}

// Describe implements prometheus.Collector.
func (c AggregateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range aggregateFamilies() {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c AggregateCollector) Collect(out chan<- prometheus.Metric) {
	s := scrape{out: out, meters: map[serving.EndpointURL]*meter{}}
	if c.Report != nil {
		s.reader(c.Report())
	}
	for url, a := range c.All() {
		names := c.Names(url)
		t := &meter{}
		t.endpoint, t.version = labelsOf(names.Endpoint, names.Version)
		s.meters[url] = t
		s.of(requestsTotal, url, a.requests, "answered")
		s.histogram(requestDuration, seconds.encode(slices.Clone(a.latencies), float64(a.latency)/math.Round(1/seconds.unit)), t.endpoint, t.version)
		all := &variables{Samples: a.samples, Excess: a.excess, All: make(map[string]*variable, len(a.variables))}
		for name, v := range a.variables {
			shown := v.variable
			if shown.isLast() && !c.Current(v.source) {
				shown.Count = 0
			}
			all.All[name] = &shown
		}
		s.variables(url, all)
	}
}

// reader exposes the state of the reader.
func (s scrape) reader(r ReaderReport) {
	s.add(readerConnected, oneIf(r.Connected))
	s.add(readerMessages, float64(r.Messages))
	s.add(readerRecords, float64(r.Records))
	s.add(readerAborted, float64(r.Aborted))
	for reason, n := range r.Skipped {
		s.add(readerSkipped, float64(n), reason)
	}
	for partition, n := range r.Lag {
		s.add(readerLag, float64(n), strconv.Itoa(int(partition)))
	}
}

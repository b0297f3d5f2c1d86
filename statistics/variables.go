package statistics

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"

	"clearmlserving/serving"
)

const (
	maxCollected = 100     // names without a definition, of one endpoint
	maxElements  = 10_000  // of a list, in one sample
	maxName      = 200     // bytes of a name or a word that becomes a label
	otherWord    = "other" // replaces unlisted words

	// retireTime is how long a name whose definition was removed is not treated as collected by user
	// code, because workers may still send it.
	retireTime = time.Minute
)

// sample is the variables of one request.
type sample struct {
	meter  uint64
	weight float64
	at     int64  // nanoseconds since 1970
	text   []byte // a JSON object, or empty
}

// samples are what Run and scrapes read from the lanes.
type samples struct {
	began   time.Time
	full    chan struct{} // has one signal: a lane is half full
	dropped atomic.Uint64
	unsaved atomic.Bool // the last checkpoint could not be written

	mu     sync.Mutex // guards the fields below, and the records of variables
	broken uint64
	of     map[uint64]*variables // by the numbers of meters
	dirty  bool                  // there is something that is not in a checkpoint
	saved  time.Time             // the last checkpoint
}

func newSamples() *samples {
	return &samples{began: time.Now(), full: make(chan struct{}, 1), of: map[uint64]*variables{}}
}

// now is a time that does not jump within a process.
func (s *samples) now() int64 { return s.began.UnixNano() + int64(time.Since(s.began)) }

func (s *samples) wake() {
	select {
	case s.full <- struct{}{}:
	default:
	}
}

// read records all unread samples in their order. samples.mu is held.
func (m *Metrics) read() {
	s := m.samples
	var all []sample
	fullest := uint64(0)
	for i := range m.lanes.all {
		l := &m.lanes.all[i]
		m.with(l, func() {
			if l.ring.memory == nil {
				return
			}
			var broken bool
			if all, broken = l.take(all); broken {
				s.broken++
			}
			if l.ring.offset == 0 {
				l.ring.tail = l.ring.read
			}
			fullest = max(fullest, l.ring.read-l.ring.tail)
		})
	}
	slices.SortStableFunc(all, func(a, b sample) int { return cmp.Compare(a.at, b.at) })
	for _, one := range all {
		v := s.of[one.meter]
		if v == nil {
			continue // its endpoint was removed
		}
		if !v.record(one) {
			s.broken++
		}
	}
	s.dirty = s.dirty || len(all) > 0
	if s.dirty && (fullest >= ringSize/4 || time.Since(s.saved) >= checkpointEvery) {
		m.checkpoint()
	}
}

// checkpoint stores what has been read. samples.mu is held.
func (m *Metrics) checkpoint() {
	s := m.samples
	if m.file == nil || m.file.broken.Load() {
		return
	}
	c := &checkpoint{ID: m.file.id, Dropped: s.dropped.Load(), Broken: s.broken, Meters: s.of}
	for i := range m.lanes.all {
		l := &m.lanes.all[i]
		m.with(l, func() {
			if c.Read[i] = l.ring.read; l.ring.offset == 0 {
				c.Read[i] = l.journal.head // the ring in the file is not used
			}
		})
	}
	err := c.save(checkpointPath(m.file.path))
	if err != nil && !s.unsaved.Swap(true) {
		m.file.log.Error("logged variables are kept in memory only until they can be written", "file", checkpointPath(m.file.path), "err", err)
	}
	if err == nil && s.unsaved.Swap(false) {
		m.file.log.Info("logged variables written again", "file", checkpointPath(m.file.path))
	}
	for i := range m.lanes.all {
		l := &m.lanes.all[i]
		l.mu.Lock()
		if l.ring.offset != 0 {
			l.ring.tail = max(l.ring.tail, c.Read[i])
		}
		l.mu.Unlock()
	}
	s.dirty, s.saved = false, time.Now()
}

// define sets the definitions of an endpoint's variables. The record of a
// variable stays unless its definition has changed. samples.mu is held.
func (m *Metrics) define(v *variables, metrics map[string]serving.Metric) {
	definitions := make(map[string]string, len(metrics))
	for name, d := range metrics {
		text, err := json.Marshal(d.Buckets)
		if err != nil {
			text = []byte(fmt.Sprint(d.Buckets))
		}
		definitions[name] = d.Type + " " + string(text)
	}
	if maps.Equal(v.Definitions, definitions) {
		return
	}
	m.read() // by the old definitions
	for name := range v.Definitions {
		if _, ok := definitions[name]; !ok {
			delete(v.All, name)
			v.Retired[name] = time.Now().Add(retireTime)
		}
	}
	for name, d := range definitions {
		if before, ok := v.Definitions[name]; !ok || before != d {
			if v.All[name] != nil && !ok {
				v.Collected--
			}
			v.All[name] = newVariable(metrics[name])
		}
		delete(v.Retired, name)
	}
	v.Definitions = definitions
	v.defined.Store(len(definitions) > 0)
	m.samples.dirty = true
	m.checkpoint() // later samples must not be read by the old definitions
}

// variables are the variables of one endpoint. samples.mu guards all fields except defined. The exported
// ones are in checkpoints.
type variables struct {
	defined     atomic.Bool       // there are definitions
	Definitions map[string]string // their types and buckets
	All         map[string]*variable
	Retired     map[string]time.Time
	Collected   int    // names without a definition
	Excess      uint64 // values of names beyond the limit
	Samples     uint64
	Watched     watched
}

func newVariables() *variables {
	return &variables{Definitions: map[string]string{}, All: map[string]*variable{}, Retired: map[string]time.Time{}}
}

// restored completes what a checkpoint has. A clock that was set back must not prolong anything.
func (v *variables) restored() *variables {
	now := newVariables()
	now.Collected, now.Excess, now.Samples = v.Collected, v.Excess, v.Samples
	maps.Copy(now.Definitions, v.Definitions)
	maps.Copy(now.All, v.All)
	latest := time.Now().Add(retireTime)
	for name, until := range v.Retired {
		if until.After(latest) {
			until = latest
		}
		now.Retired[name] = until
	}
	now.Watched = v.Watched.restored()
	now.defined.Store(len(now.Definitions) > 0 || len(now.Watched.all) > 0)
	return now
}

// record adds a sample. It reports whether the sample could be read.
func (v *variables) record(s sample) bool {
	values := map[string]any{}
	if len(s.text) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(s.text))
		decoder.UseNumber()
		if err := decoder.Decode(&values); err != nil {
			return false
		}
		if _, err := decoder.Token(); err != io.EOF {
			return false
		}
	}
	v.Samples++
	v.Watched.record(values)
	for name := range v.Definitions {
		if _, ok := values[name]; !ok {
			v.All[name].Skipped[skippedMissing]++
		}
	}
	for name, value := range values {
		one := v.All[name]
		if one == nil {
			if v.Watched.all[name] != nil {
				continue // the worker selects it for the reference
			}
			if one = v.collect(name); one == nil {
				continue
			}
		}
		one.record(value, s.weight)
	}
	return true
}

// collect returns the variable of a name without a definition, nil if it is not recorded.
func (v *variables) collect(name string) *variable {
	if until, ok := v.Retired[name]; ok {
		if time.Now().Before(until) {
			return nil
		}
		delete(v.Retired, name)
	}
	if v.Collected >= maxCollected || len(name) > maxName {
		v.Excess++
		return nil
	}
	v.Collected++
	one := newVariable(serving.Metric{Type: serving.MetricValue})
	v.All[name] = one
	return one
}

// variable is the record of one variable.
type variable struct {
	Kind    string
	Bounds  []float64         // of a scalar
	Counts  []uint64          // of a scalar, one more than Bounds
	Words   map[string]uint64 // of an enum: the listed ones and otherWord
	Sum     float64
	Count   uint64
	Last    float64
	Skipped [skipReasons]uint64
}

type skipReason int

// The reasons why a value is not recorded.
const (
	skippedMissing skipReason = iota
	skippedNull
	skippedType
	skippedNegative
	skippedLimit
	skipReasons
)

func (r skipReason) String() string {
	return [skipReasons]string{"missing", "null", "type", "negative", "limit"}[r]
}

func newVariable(d serving.Metric) *variable {
	v := &variable{Kind: d.Type}
	switch d.Type {
	case serving.MetricScalar:
		for _, b := range d.Buckets {
			if f, ok := number(b); ok && !slices.Contains(v.Bounds, f) {
				v.Bounds = append(v.Bounds, f)
			}
		}
		slices.Sort(v.Bounds)
		v.Counts = make([]uint64, len(v.Bounds)+1)
	case serving.MetricEnum:
		v.Words = map[string]uint64{otherWord: 0}
		for _, b := range d.Buckets {
			if w, ok := word(b); ok && len(w) <= maxName {
				v.Words[w] = 0
			}
		}
	}
	return v
}

// record adds a value, or all elements of a list.
func (v *variable) record(value any, weight float64) {
	left := maxElements
	v.add(value, weight, &left)
}

func (v *variable) add(value any, weight float64, left *int) {
	if list, ok := value.([]any); ok {
		for _, element := range list {
			v.add(element, weight, left)
		}
		return
	}
	if *left == 0 {
		v.Skipped[skippedLimit]++
		return
	}
	*left--
	if value == nil {
		v.Skipped[skippedNull]++
		return
	}
	if v.Kind == serving.MetricEnum {
		v.addWord(value)
		return
	}
	f, ok := number(value)
	switch {
	case !ok:
		v.Skipped[skippedType]++
	case v.Kind == serving.MetricCounter && f < 0:
		v.Skipped[skippedNegative]++
	case v.Kind == serving.MetricCounter:
		v.Sum += f * weight
		v.Count++
	default:
		v.Sum += f
		v.Count++
		v.Last = f
		if v.Counts != nil {
			i, _ := slices.BinarySearch(v.Bounds, f)
			v.Counts[i]++
		}
	}
}

func (v *variable) addWord(value any) {
	w, ok := word(value)
	if !ok {
		v.Skipped[skippedType]++
		return
	}
	if _, listed := v.Words[w]; !listed {
		w = otherWord
	}
	v.Words[w]++
}

// encode returns the histogram of a scalar.
func (v *variable) encode() *dto.Histogram {
	count, sum := v.Count, v.Sum
	h := &dto.Histogram{SampleCount: &count, SampleSum: &sum}
	upTo := uint64(0)
	for i, bound := range v.Bounds {
		upTo += v.Counts[i]
		cumulated := upTo
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: &cumulated})
	}
	return h
}

// number converts a JSON value to a finite number. Python's bool is one.
func number(value any) (float64, bool) {
	switch value := value.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(value.String(), 64)
		return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
	case float64:
		return value, !math.IsInf(value, 0) && !math.IsNaN(value)
	case bool:
		return oneIf(value), true
	}
	return 0, false
}

// word converts a JSON value to a word of an enum. Numbers are words in their JSON form, and bools
// in Python's form.
func word(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return value, true
	case json.Number:
		return value.String(), true
	case float64:
		return fmt.Sprint(value), true
	case bool:
		if value {
			return "True", true
		}
		return "False", true
	}
	return "", false
}

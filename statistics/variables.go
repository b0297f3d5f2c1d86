package statistics

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"

	"clearmlserving/serving"
)

const (
	maxWaiting      = 4096    // unread samples of one lane
	maxWaitingBytes = 4 << 20 // of their variables
	maxCollected    = 100     // names without a definition, of one endpoint
	maxElements     = 10_000  // of a list, in one sample
	maxName         = 200     // bytes of a name or a word that becomes a label
	otherWord       = "other" // replaces unlisted words

	// retireTime is how long a name whose definition was removed is not treated as collected by user
	// code, because workers may still send it.
	retireTime = time.Minute
)

// sample is the variables of one request.
type sample struct {
	of     *variables
	weight float64
	text   []byte // a JSON object, or empty
	at     time.Duration
}

// samples are the unread samples.
type samples struct {
	began   time.Time
	lanes   []sampleLane
	full    chan struct{} // has one signal: a lane is half full
	dropped atomic.Uint64

	mu     sync.Mutex // guards the fields below, and the records of variables
	broken uint64
}

// sampleLane is mostly used by one core.
type sampleLane struct {
	mu    sync.Mutex
	list  []sample
	bytes int
	_     [64]byte // the next lane is in another cache line
}

func newSamples(lanes int) *samples {
	return &samples{began: time.Now(), lanes: make([]sampleLane, lanes), full: make(chan struct{}, 1)}
}

// put stores a sample until it is read, if there is space.
func (s *samples) put(lane int, one sample) {
	l := &s.lanes[lane]
	one.at = time.Since(s.began)
	l.mu.Lock()
	if len(l.list) >= maxWaiting || l.bytes+len(one.text) > maxWaitingBytes {
		l.mu.Unlock()
		s.dropped.Add(1)
		return
	}
	l.list = append(l.list, one)
	l.bytes += len(one.text)
	half := len(l.list) >= maxWaiting/2 || l.bytes >= maxWaitingBytes/2
	l.mu.Unlock()
	if half {
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

// read records all unread samples in their order.
func (s *samples) read() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []sample
	for i := range s.lanes {
		l := &s.lanes[i]
		l.mu.Lock()
		all = append(all, l.list...)
		clear(l.list)
		l.list, l.bytes = l.list[:0], 0
		l.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b sample) int { return cmp.Compare(a.at, b.at) })
	for _, one := range all {
		if !one.of.record(one) {
			s.broken++
		}
	}
}

// define sets the definitions of an endpoint's variables. The record of a
// variable stays unless its definition has changed.
func (s *samples) define(v *variables, definitions map[string]serving.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.defined.Store(len(definitions) > 0)
	if reflect.DeepEqual(v.definitions, definitions) {
		return
	}
	for name := range v.definitions {
		if _, ok := definitions[name]; !ok {
			delete(v.all, name)
			v.retired[name] = time.Now().Add(retireTime)
		}
	}
	for name, d := range definitions {
		if before, ok := v.definitions[name]; !ok || !reflect.DeepEqual(before, d) {
			if v.all[name] != nil && !ok {
				v.collected--
			}
			v.all[name] = newVariable(d)
		}
		delete(v.retired, name)
	}
	v.definitions = definitions
}

// variables are the variables of one endpoint. samples.mu guards all fields except defined.
type variables struct {
	defined     atomic.Bool // there are definitions
	definitions map[string]serving.Metric
	all         map[string]*variable
	retired     map[string]time.Time
	collected   int    // names without a definition
	excess      uint64 // values of names beyond the limit
	samples     uint64
	watched     watched
}

func newVariables() *variables {
	return &variables{all: map[string]*variable{}, retired: map[string]time.Time{}}
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
	v.samples++
	v.watched.record(values)
	for name := range v.definitions {
		if _, ok := values[name]; !ok {
			v.all[name].skipped[skippedMissing]++
		}
	}
	for name, value := range values {
		one := v.all[name]
		if one == nil {
			if v.watched.all[name] != nil {
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
	if until, ok := v.retired[name]; ok {
		if time.Now().Before(until) {
			return nil
		}
		delete(v.retired, name)
	}
	if v.collected >= maxCollected || len(name) > maxName {
		v.excess++
		return nil
	}
	v.collected++
	one := newVariable(serving.Metric{Type: serving.MetricValue})
	v.all[name] = one
	return one
}

// variable is the record of one variable.
type variable struct {
	kind    string
	bounds  []float64         // of a scalar
	counts  []uint64          // of a scalar, one more than bounds
	words   map[string]uint64 // of an enum: the listed ones and otherWord
	sum     float64
	count   uint64
	last    float64
	skipped [skipReasons]uint64
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
	v := &variable{kind: d.Type}
	switch d.Type {
	case serving.MetricScalar:
		for _, b := range d.Buckets {
			if f, ok := number(b); ok && !slices.Contains(v.bounds, f) {
				v.bounds = append(v.bounds, f)
			}
		}
		slices.Sort(v.bounds)
		v.counts = make([]uint64, len(v.bounds)+1)
	case serving.MetricEnum:
		v.words = map[string]uint64{otherWord: 0}
		for _, b := range d.Buckets {
			if w, ok := word(b); ok && len(w) <= maxName {
				v.words[w] = 0
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
		v.skipped[skippedLimit]++
		return
	}
	*left--
	if value == nil {
		v.skipped[skippedNull]++
		return
	}
	if v.kind == serving.MetricEnum {
		v.addWord(value)
		return
	}
	f, ok := number(value)
	switch {
	case !ok:
		v.skipped[skippedType]++
	case v.kind == serving.MetricCounter && f < 0:
		v.skipped[skippedNegative]++
	case v.kind == serving.MetricCounter:
		v.sum += f * weight
		v.count++
	default:
		v.sum += f
		v.count++
		v.last = f
		if v.counts != nil {
			i, _ := slices.BinarySearch(v.bounds, f)
			v.counts[i]++
		}
	}
}

func (v *variable) addWord(value any) {
	w, ok := word(value)
	if !ok {
		v.skipped[skippedType]++
		return
	}
	if _, listed := v.words[w]; !listed {
		w = otherWord
	}
	v.words[w]++
}

// encode returns the histogram of a scalar.
func (v *variable) encode() *dto.Histogram {
	count, sum := v.count, v.sum
	h := &dto.Histogram{SampleCount: &count, SampleSum: &sum}
	upTo := uint64(0)
	for i, bound := range v.bounds {
		upTo += v.counts[i]
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

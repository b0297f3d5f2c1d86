package embedded

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"clearmlserving/timeseries"
)

// encode writes a value of the engine as Prometheus' HTTP API does. A range has up to a million
// samples, so that they are appended to one buffer.
func encode(value parser.Value) ([]byte, error) {
	e := encoder{}
	switch v := value.(type) {
	case promql.Vector:
		e.list(len(v), func(i int) { e.sample(&v[i]) })
	case promql.Matrix:
		e.list(len(v), func(i int) { e.series(&v[i]) })
	case promql.Scalar:
		e.point(v.T, func() { e.float(v.V) })
	case promql.String:
		e.point(v.T, func() { e.json(v.V) })
	default:
		return nil, timeseries.Errorf(timeseries.Internal, "a value of type %T cannot be written", value)
	}
	return e.out, e.err
}

type encoder struct {
	out []byte
	err error
}

func (e *encoder) text(s string) { e.out = append(e.out, s...) }

func (e *encoder) json(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		e.err = fmt.Errorf("write the answer: %w", err)
	}
	e.out = append(e.out, body...)
}

func (e *encoder) list(n int, each func(i int)) {
	e.text("[")
	for i := range n {
		if i > 0 {
			e.text(",")
		}
		each(i)
	}
	e.text("]")
}

// point writes [time, value].
func (e *encoder) point(t int64, value func()) {
	e.text("[")
	e.out = appendStamp(e.out, t)
	e.text(",")
	value()
	e.text("]")
}

func (e *encoder) float(f float64) {
	e.text(`"`)
	e.out = appendNumber(e.out, f)
	e.text(`"`)
}

func (e *encoder) labels(l labels.Labels) {
	e.text(`{"metric":{`)
	i := 0
	l.Range(func(one labels.Label) {
		if i > 0 {
			e.text(",")
		}
		i++
		e.json(one.Name)
		e.text(":")
		e.json(one.Value)
	})
	e.text("}")
}

func (e *encoder) sample(s *promql.Sample) {
	e.labels(s.Metric)
	if s.H != nil {
		e.text(`,"histogram":`)
		e.point(s.T, func() { e.histogram(s.H) })
	} else {
		e.text(`,"value":`)
		e.point(s.T, func() { e.float(s.F) })
	}
	e.text("}")
}

func (e *encoder) series(s *promql.Series) {
	e.labels(s.Metric)
	if len(s.Floats) > 0 {
		e.text(`,"values":`)
		e.list(len(s.Floats), func(i int) { e.point(s.Floats[i].T, func() { e.float(s.Floats[i].F) }) })
	}
	if len(s.Histograms) > 0 {
		e.text(`,"histograms":`)
		e.list(len(s.Histograms), func(i int) { e.point(s.Histograms[i].T, func() { e.histogram(s.Histograms[i].H) }) })
	}
	e.text("}")
}

func (e *encoder) histogram(h *histogram.FloatHistogram) {
	e.text(`{"count":`)
	e.float(h.Count)
	e.text(`,"sum":`)
	e.float(h.Sum)
	n := 0
	eachBucket(h, func(bounds int, b histogram.Bucket[float64]) {
		if n == 0 {
			e.text(`,"buckets":[`)
		} else {
			e.text(",")
		}
		n++
		e.text("[" + strconv.Itoa(bounds) + ",")
		e.float(b.Lower)
		e.text(",")
		e.float(b.Upper)
		e.text(",")
		e.float(b.Count)
		e.text("]")
	})
	if n > 0 {
		e.text("]")
	}
	e.text("}")
}

// appendNumber writes a value as Prometheus does.
func appendNumber(to []byte, f float64) []byte {
	form := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(to, f, form, -1, 64)
}

func number(f float64) string { return string(appendNumber(nil, f)) }

// appendStamp writes milliseconds as seconds.
func appendStamp(to []byte, ms int64) []byte {
	if ms < 0 {
		to, ms = append(to, '-'), -ms
	}
	to = strconv.AppendInt(to, ms/1000, 10)
	if part := ms % 1000; part != 0 {
		to = fmt.Appendf(to, ".%03d", part)
	}
	return to
}

func stamp(ms int64) string { return string(appendStamp(nil, ms)) }

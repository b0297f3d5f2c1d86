// Package gather turns metrics that a program gathers into samples of time series, as a scrape by
// Prometheus does: at the same time, with labels of their origin, and with stale markers for series
// that are gone. It knows no storage: samples go to Sinks.
package gather

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// Sample is one sample of one series. It is a native histogram if Histogram or FloatHistogram is set.
type Sample struct {
	Labels         labels.Labels
	At             int64 // milliseconds since 1970
	Value          float64
	Histogram      *histogram.Histogram
	FloatHistogram *histogram.FloatHistogram
	Exemplars      []exemplar.Exemplar
}

// Meta describes the metrics of one name.
type Meta struct {
	Name, Type, Help, Unit string
}

// Batch is what one scrape gives.
type Batch struct {
	Samples []Sample
	Metas   []Meta
}

// Sink stores batches. Write must not keep a batch that it has changed; the samples are not changed
// by others. It is called from one goroutine.
type Sink interface {
	Write(ctx context.Context, b Batch) error
}

// Source makes batches of a Gatherer. It belongs to one goroutine.
type Source struct {
	// Gatherer has the metrics. Required.
	Gatherer prometheus.Gatherer
	// Labels returns the labels of the origin, which win over those of the metrics. Nil: none.
	// Series of earlier labels become stale after a change.
	Labels func() map[string]string

	// Part says that another source has up of the same origin.
	Part bool

	last    map[uint64]labels.Labels // the series of the last batch
	builder labels.ScratchBuilder
	size    int
}

// Names of the labels that scrapes add, and of a metric that says whether the scrape succeeded.
const (
	Service     = "service"      // id of the serving service
	ServiceName = "service_name" // its name
	Instance    = "instance"     // name of the instance, host:port
	up          = "up"
)

// Collect gathers once. On error the batch has what could be gathered, and up is 0.
func (s *Source) Collect(now time.Time) (Batch, error) {
	families, err := s.Gatherer.Gather()
	t := now.UnixMilli()
	add := adder{s: s, at: t, seen: make(map[uint64]labels.Labels, len(s.last)), batch: Batch{Samples: make([]Sample, 0, s.size)}}
	if s.Labels != nil {
		for name, text := range s.Labels() {
			if text != "" {
				add.origin = append(add.origin, labels.Label{Name: name, Value: text})
			}
		}
	}
	for _, f := range families {
		add.family(f)
	}
	alive := 1.0
	if err != nil {
		alive = 0
	}
	if !s.Part {
		add.sample(nil, up, "", "", Sample{Value: alive})
	}
	for key, gone := range s.last {
		if _, still := add.seen[key]; !still {
			add.batch.Samples = append(add.batch.Samples, stale(gone, t))
		}
	}
	s.last, s.size = add.seen, len(add.batch.Samples)
	if err != nil {
		err = fmt.Errorf("gather metrics: %w", err)
	}
	return add.batch, err
}

// End returns stale markers for all series, so that they end now instead of minutes later.
func (s *Source) End(now time.Time) Batch {
	var b Batch
	for _, gone := range s.last {
		b.Samples = append(b.Samples, stale(gone, now.UnixMilli()))
	}
	s.last = nil
	return b
}

func stale(series labels.Labels, at int64) Sample {
	return Sample{Labels: series, At: at, Value: math.Float64frombits(value.StaleNaN)}
}

// adder makes the samples of one scrape.
type adder struct {
	s      *Source
	at     int64
	origin []labels.Label
	seen   map[uint64]labels.Labels
	batch  Batch
}

// sample adds a sample of a series. extra is a label that the form of the metric adds, such as le.
func (a *adder) sample(m *dto.Metric, name, extra, text string, sample Sample) {
	b := &a.s.builder
	b.Reset()
	b.Add(model.MetricNameLabel, name)
	for _, pair := range m.GetLabel() {
		if pair.GetValue() != "" && !a.fromOrigin(pair.GetName()) {
			b.Add(pair.GetName(), pair.GetValue())
		}
	}
	for _, l := range a.origin {
		b.Add(l.Name, l.Value)
	}
	if extra != "" {
		b.Add(extra, text)
	}
	b.Sort()
	sample.Labels = b.Labels()
	key := sample.Labels.Hash()
	if _, twice := a.seen[key]; twice {
		return // a gatherer checks that; a native histogram has the name of no other series
	}
	a.seen[key] = sample.Labels
	if sample.At = a.at; m.GetTimestampMs() != 0 {
		sample.At = m.GetTimestampMs()
	}
	a.batch.Samples = append(a.batch.Samples, sample)
}

func (a *adder) fromOrigin(name string) bool {
	for _, l := range a.origin {
		if l.Name == name {
			return true
		}
	}
	return false
}

func (a *adder) family(f *dto.MetricFamily) {
	name := f.GetName()
	kind, known := map[dto.MetricType]string{
		dto.MetricType_COUNTER: "counter", dto.MetricType_GAUGE: "gauge", dto.MetricType_SUMMARY: "summary",
		dto.MetricType_HISTOGRAM: "histogram", dto.MetricType_GAUGE_HISTOGRAM: "gaugehistogram",
	}[f.GetType()]
	if !known {
		kind = "unknown"
	}
	a.batch.Metas = append(a.batch.Metas, Meta{Name: name, Type: kind, Help: f.GetHelp(), Unit: f.GetUnit()})
	for _, m := range f.GetMetric() {
		switch {
		case m.GetCounter() != nil:
			a.sample(m, name, "", "", Sample{Value: m.GetCounter().GetValue(), Exemplars: a.exemplars(m.GetCounter().GetExemplar())})
		case m.GetGauge() != nil:
			a.sample(m, name, "", "", Sample{Value: m.GetGauge().GetValue()})
		case m.GetUntyped() != nil:
			a.sample(m, name, "", "", Sample{Value: m.GetUntyped().GetValue()})
		case m.GetSummary() != nil:
			a.summary(m, name)
		case m.GetHistogram() != nil:
			a.histogram(m, name, f.GetType() == dto.MetricType_GAUGE_HISTOGRAM)
		}
	}
}

func (a *adder) summary(m *dto.Metric, name string) {
	for _, q := range m.GetSummary().GetQuantile() {
		a.sample(m, name, model.QuantileLabel, labels.FormatOpenMetricsFloat(q.GetQuantile()), Sample{Value: q.GetValue()})
	}
	a.sample(m, name+"_sum", "", "", Sample{Value: m.GetSummary().GetSampleSum()})
	a.sample(m, name+"_count", "", "", Sample{Value: float64(m.GetSummary().GetSampleCount())})
}

// histogram adds a histogram as native and as classic one, as Prometheus does with
// always_scrape_classic_histograms.
func (a *adder) histogram(m *dto.Metric, name string, gauge bool) {
	h := m.GetHistogram()
	if native := nativeHistogram(h, gauge); native != nil {
		a.sample(m, name, "", "", Sample{Histogram: native, Exemplars: a.exemplars(h.GetExemplars()...)})
	}
	if len(h.GetBucket()) == 0 && len(h.GetPositiveSpan())+len(h.GetNegativeSpan()) > 0 {
		return // a native histogram only
	}
	count := max(float64(h.GetSampleCount()), h.GetSampleCountFloat())
	infinite := false
	for _, bucket := range h.GetBucket() {
		infinite = infinite || math.IsInf(bucket.GetUpperBound(), 1)
		a.sample(m, name+"_bucket", labels.BucketLabel, labels.FormatOpenMetricsFloat(bucket.GetUpperBound()), Sample{
			Value: max(float64(bucket.GetCumulativeCount()), bucket.GetCumulativeCountFloat()), Exemplars: a.exemplars(bucket.GetExemplar()),
		})
	}
	if !infinite {
		a.sample(m, name+"_bucket", labels.BucketLabel, "+Inf", Sample{Value: count})
	}
	a.sample(m, name+"_sum", "", "", Sample{Value: h.GetSampleSum()})
	a.sample(m, name+"_count", "", "", Sample{Value: count})
}

// nativeHistogram returns the native form, nil if there is none. Histograms with counts of
// floats are not made by Go programs.
func nativeHistogram(h *dto.Histogram, gauge bool) *histogram.Histogram {
	if len(h.GetPositiveSpan())+len(h.GetNegativeSpan()) == 0 && h.GetZeroThreshold() == 0 && h.GetZeroCount() == 0 {
		return nil
	}
	native := &histogram.Histogram{
		Count: h.GetSampleCount(), Sum: h.GetSampleSum(), Schema: h.GetSchema(),
		ZeroThreshold: h.GetZeroThreshold(), ZeroCount: h.GetZeroCount(),
		PositiveSpans: spans(h.GetPositiveSpan()), PositiveBuckets: append([]int64(nil), h.GetPositiveDelta()...),
		NegativeSpans: spans(h.GetNegativeSpan()), NegativeBuckets: append([]int64(nil), h.GetNegativeDelta()...),
	}
	if gauge {
		native.CounterResetHint = histogram.GaugeType
	}
	return native
}

func spans(all []*dto.BucketSpan) []histogram.Span {
	out := make([]histogram.Span, 0, len(all))
	for _, s := range all {
		out = append(out, histogram.Span{Offset: s.GetOffset(), Length: s.GetLength()})
	}
	return out
}

func (a *adder) exemplars(all ...*dto.Exemplar) (out []exemplar.Exemplar) {
	for _, e := range all {
		if e == nil {
			continue
		}
		b := labels.NewScratchBuilder(len(e.GetLabel()))
		for _, pair := range e.GetLabel() {
			b.Add(pair.GetName(), pair.GetValue())
		}
		b.Sort()
		one := exemplar.Exemplar{Labels: b.Labels(), Value: e.GetValue(), Ts: a.at}
		if e.GetTimestamp() != nil {
			one.Ts, one.HasTs = e.GetTimestamp().AsTime().UnixMilli(), true
		}
		out = append(out, one)
	}
	return out
}

// Run collects every interval and writes to the sinks until ctx ends, and then writes stale markers.
// Errors are logged.
func (s *Source) Run(ctx context.Context, every time.Duration, log *slog.Logger, sinks ...Sink) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	write := func(ctx context.Context, b Batch) {
		for _, sink := range sinks {
			if err := sink.Write(ctx, b); err != nil && ctx.Err() == nil {
				log.Warn("samples of metrics not stored", "err", err)
			}
		}
	}
	for {
		b, err := s.Collect(time.Now())
		if err != nil {
			log.Warn("metrics incomplete", "err", err)
		}
		write(ctx, b)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			write(last, s.End(time.Now()))
			cancel()
			return
		case <-tick.C:
		}
	}
}

// Package remotewrite sends samples with Prometheus' remote write protocol, version 1, and reads its
// requests. Sending has a bounded queue, and counts what is lost.
package remotewrite

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"clearmlserving/timeseries/gather"
)

// The headers of a request.
const (
	ContentType = "application/x-protobuf"
	Encoding    = "snappy"
	Version     = "0.1.0"
	// InstanceHeader has the id of the task of the instance whose samples the request has. The embedded
	// server takes the labels of the origin from that record.
	InstanceHeader = "X-ClearML-Serving-Instance"
)

// The bounds of a request that is read.
const (
	MaxBody    = 8 << 20  // compressed
	maxDecoded = 32 << 20 // and decompressed
	maxSamples = 200_000
	maxLabels  = 64 // of one series
	maxName    = 1 << 10
	maxValue   = 8 << 10
)

// Encode makes the body of a request.
func Encode(b gather.Batch) ([]byte, error) {
	var r prompb.WriteRequest
	r.Timeseries = make([]prompb.TimeSeries, 0, len(b.Samples))
	for _, s := range b.Samples {
		one := prompb.TimeSeries{Labels: prompb.FromLabels(s.Labels, nil)}
		switch {
		case s.Histogram != nil:
			one.Histograms = []prompb.Histogram{prompb.FromIntHistogram(s.At, s.Histogram)}
		case s.FloatHistogram != nil:
			one.Histograms = []prompb.Histogram{prompb.FromFloatHistogram(s.At, s.FloatHistogram)}
		default:
			one.Samples = []prompb.Sample{{Timestamp: s.At, Value: s.Value}}
		}
		for _, e := range s.Exemplars {
			one.Exemplars = append(one.Exemplars, prompb.Exemplar{Labels: prompb.FromLabels(e.Labels, nil), Value: e.Value, Timestamp: e.Ts})
		}
		r.Timeseries = append(r.Timeseries, one)
	}
	for _, m := range b.Metas {
		r.Metadata = append(r.Metadata, prompb.MetricMetadata{
			MetricFamilyName: m.Name, Type: prompb.FromMetadataType(model.MetricType(m.Type)), Help: m.Help, Unit: m.Unit,
		})
	}
	body, err := r.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write a request of samples: %w", err)
	}
	return snappy.Encode(nil, body), nil
}

// Decode reads the body of a request. origin are labels that replace those of the series.
func Decode(body []byte, origin map[string]string) (b gather.Batch, err error) {
	n, err := snappy.DecodedLen(body)
	if err != nil {
		return b, fmt.Errorf("the samples are not compressed with snappy: %w", err)
	}
	if n > maxDecoded {
		return b, fmt.Errorf("the samples have %d bytes decompressed, and at most %d are taken", n, maxDecoded)
	}
	text, err := snappy.Decode(nil, body)
	if err != nil {
		return b, fmt.Errorf("the samples are not compressed with snappy: %w", err)
	}
	var r prompb.WriteRequest
	if err := r.Unmarshal(text); err != nil {
		return b, fmt.Errorf("the samples are no request of remote write version 1: %w", err)
	}
	builder := labels.NewScratchBuilder(16)
	for i := range r.Timeseries {
		series := &r.Timeseries[i]
		l, err := labelsOf(&builder, series.Labels, origin)
		if err != nil {
			return b, err
		}
		if len(b.Samples)+len(series.Samples)+len(series.Histograms) > maxSamples {
			return b, fmt.Errorf("more than %d samples in one request: send them in several", maxSamples)
		}
		for _, s := range series.Samples {
			b.Samples = append(b.Samples, gather.Sample{Labels: l, At: s.Timestamp, Value: s.Value})
		}
		for _, h := range series.Histograms {
			s := gather.Sample{Labels: l, At: h.Timestamp}
			if h.IsFloatHistogram() {
				s.FloatHistogram = h.ToFloatHistogram()
			} else {
				s.Histogram = h.ToIntHistogram()
			}
			if err := valid(s.Histogram, s.FloatHistogram); err != nil {
				return b, fmt.Errorf("histogram of %s: %w", l, err)
			}
			b.Samples = append(b.Samples, s)
		}
		if len(b.Samples) == 0 || len(series.Samples)+len(series.Histograms) == 0 {
			continue
		}
		last := &b.Samples[len(b.Samples)-1]
		for _, e := range series.Exemplars {
			el, err := exemplarLabels(&builder, e.Labels)
			if err != nil {
				return b, err
			}
			last.Exemplars = append(last.Exemplars, exemplar.Exemplar{Labels: el, Value: e.Value, Ts: e.Timestamp, HasTs: true})
		}
	}
	for _, m := range r.Metadata {
		if len(m.MetricFamilyName) > maxName || len(m.Help) > maxValue || len(m.Unit) > maxName {
			continue // they are kept in memory
		}
		b.Metas = append(b.Metas, gather.Meta{Name: m.MetricFamilyName, Type: typeOf(m.Type), Help: m.Help, Unit: m.Unit})
	}
	return b, nil
}

func typeOf(t prompb.MetricMetadata_MetricType) string {
	for _, known := range []model.MetricType{
		model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram, model.MetricTypeGaugeHistogram, model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset,
	} {
		if prompb.FromMetadataType(known) == t {
			return string(known)
		}
	}
	return string(model.MetricTypeUnknown)
}

// valid checks what the database takes for granted.
func valid(h *histogram.Histogram, f *histogram.FloatHistogram) error {
	if h != nil {
		return h.Validate()
	}
	return f.Validate()
}

// labelsOf makes the labels of a series.
func labelsOf(b *labels.ScratchBuilder, pairs []prompb.Label, origin map[string]string) (labels.Labels, error) {
	b.Reset()
	if len(pairs) > maxLabels {
		return labels.EmptyLabels(), fmt.Errorf("a series has more than %d labels", maxLabels)
	}
	for _, pair := range pairs {
		if _, replaced := origin[pair.Name]; replaced || pair.Value == "" {
			continue
		}
		if err := addLabel(b, pair); err != nil {
			return labels.EmptyLabels(), err
		}
	}
	for name, value := range origin {
		if value != "" {
			b.Add(name, value)
		}
	}
	b.Sort()
	l := b.Labels()
	if twice, has := l.HasDuplicateLabelNames(); has {
		return l, fmt.Errorf("a series has the label %q twice", twice)
	}
	if name := l.Get(model.MetricNameLabel); name == "" || !model.UTF8Validation.IsValidMetricName(name) {
		return l, fmt.Errorf("the series %s has no name", l)
	}
	return l, nil
}

func exemplarLabels(b *labels.ScratchBuilder, pairs []prompb.Label) (labels.Labels, error) {
	b.Reset()
	for _, pair := range pairs[:min(len(pairs), maxLabels)] {
		if err := addLabel(b, pair); err != nil {
			return labels.EmptyLabels(), err
		}
	}
	b.Sort()
	return b.Labels(), nil
}

var errLabel = errors.New("a label has no valid name, or is too long")

func addLabel(b *labels.ScratchBuilder, pair prompb.Label) error {
	if !model.UTF8Validation.IsValidLabelName(pair.Name) || !model.LabelValue(pair.Value).IsValid() || len(pair.Name) > maxName || len(pair.Value) > maxValue {
		return fmt.Errorf("%w: %.50q", errLabel, pair.Name)
	}
	b.Add(pair.Name, pair.Value)
	return nil
}

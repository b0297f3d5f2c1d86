// Package timeseriestest has a Querier for tests.
package timeseriestest

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/timeseries"
)

// Fake is a Querier with given answers. The zero value answers every expression with no data.
type Fake struct {
	mu      sync.Mutex
	vectors map[string]timeseries.Vector
	errs    map[string]error
	// Answer, if set, is asked first: for answers that depend on the time. found is false for
	// expressions that it does not know.
	Answer func(expr string, at time.Time) (v timeseries.Vector, found bool, err error)
}

// Set makes an expression have this value at all times, as one series with these labels, which are
// pairs of name and value. Further calls with other labels add series.
func (f *Fake) Set(expr string, value float64, labels ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.vectors == nil {
		f.vectors = map[string]timeseries.Vector{}
	}
	metric := model.Metric{}
	for i := 0; i+1 < len(labels); i += 2 {
		metric[model.LabelName(labels[i])] = model.LabelValue(labels[i+1])
	}
	for _, s := range f.vectors[expr] {
		if s.Metric.Equal(metric) {
			s.Value = model.SampleValue(value)
			return
		}
	}
	f.vectors[expr] = append(f.vectors[expr], &model.Sample{Metric: metric, Value: model.SampleValue(value)})
}

// Fail makes an expression fail; "" is every expression. A nil error ends it.
func (f *Fake) Fail(expr string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.errs == nil {
		f.errs = map[string]error{}
	}
	f.errs[expr] = err
}

// Query implements timeseries.Querier.
func (f *Fake) Query(ctx context.Context, expr string, at time.Time) (timeseries.Vector, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.err(ctx, expr); err != nil {
		return nil, err
	}
	return f.at(expr, at)
}

// QueryRange implements timeseries.Querier.
func (f *Fake) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (timeseries.Matrix, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := timeseries.CheckRange(start, end, step); err != nil {
		return nil, err
	}
	if err := f.err(ctx, expr); err != nil {
		return nil, err
	}
	all := timeseries.Matrix{}
	series := map[model.Fingerprint]*model.SampleStream{}
	for at := start; !at.After(end); at = at.Add(step) {
		v, err := f.at(expr, at)
		if err != nil {
			return nil, err
		}
		for _, s := range v {
			key := s.Metric.Fingerprint()
			if series[key] == nil {
				series[key] = &model.SampleStream{Metric: s.Metric}
				all = append(all, series[key])
			}
			series[key].Values = append(series[key].Values, model.SamplePair{Timestamp: s.Timestamp, Value: s.Value})
		}
	}
	return all, nil
}

func (f *Fake) err(ctx context.Context, expr string) error {
	if err := ctx.Err(); err != nil {
		return timeseries.Errorf(timeseries.Canceled, "%w", err)
	}
	if err := f.errs[expr]; err != nil {
		return err
	}
	return f.errs[""]
}

// at is the answer at one time. f.mu is held.
func (f *Fake) at(expr string, at time.Time) (timeseries.Vector, error) {
	if f.Answer != nil {
		if v, found, err := f.Answer(expr, at); found || err != nil {
			return v, err
		}
	}
	all := timeseries.Vector{}
	for _, s := range f.vectors[expr] {
		all = append(all, &model.Sample{Metric: s.Metric.Clone(), Value: s.Value, Timestamp: model.TimeFromUnixNano(at.UnixNano())})
	}
	return all, nil
}

package controlplane_test

import (
	"context"
	"time"

	"github.com/prometheus/common/model"
)

// ramp is a Series in which every expression has one series of rising values, which fits any grouping.
type ramp struct{}

func (ramp) Query(_ context.Context, _ string, at time.Time) (model.Vector, error) {
	return model.Vector{{Metric: model.Metric{"outcome": "answered", "state": "busy", "le": "1", "value": "a", "variable": "x", "reason": "type"}, Value: model.SampleValue(at.Unix() % 100), Timestamp: model.TimeFromUnix(at.Unix())}}, nil
}

func (s ramp) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (model.Matrix, error) {
	var stream *model.SampleStream
	for at := start; !at.After(end); at = at.Add(step) {
		v, err := s.Query(ctx, expr, at)
		if err != nil {
			return nil, err
		}
		if stream == nil {
			stream = &model.SampleStream{Metric: v[0].Metric}
		}
		stream.Values = append(stream.Values, model.SamplePair{Timestamp: v[0].Timestamp, Value: v[0].Value})
	}
	return model.Matrix{stream}, nil
}

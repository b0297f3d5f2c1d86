package embedded

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"clearmlserving/timeseries/gather"
)

const (
	// silence is the time without samples after which an instance is taken to be gone.
	silence = 30 * time.Second
	// lookEvery is the time between two looks for such instances.
	lookEvery = 5 * time.Second
)

// origins are the series of instances that write samples. An instance that is killed ends no series
// itself.
type origins struct {
	mu  sync.Mutex
	all map[string]*origin // by name
}

type origin struct {
	seen   time.Time
	series map[uint64]labels.Labels // that have not ended
}

// WriteFrom is Write for the samples of an instance. When no more come, its series end.
func (s *Store) WriteFrom(ctx context.Context, instance string, b gather.Batch) error {
	err := s.Write(ctx, b)
	if refused := (*Refused)(nil); err == nil || errors.As(err, &refused) {
		s.origins.note(instance, b, s.o.Now())
	}
	return err
}

func (o *origins) note(name string, b gather.Batch, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[string]*origin{}
	}
	one := o.all[name]
	if one == nil {
		one = &origin{series: map[uint64]labels.Labels{}}
		o.all[name] = one
	}
	one.seen = now
	for i := range b.Samples {
		sample := &b.Samples[i]
		key := sample.Labels.Hash()
		if value.IsStaleNaN(sample.Value) {
			delete(one.series, key)
		} else if _, known := one.series[key]; !known && len(one.series) < maxSeries {
			one.series[key] = sample.Labels
		}
	}
	if len(one.series) == 0 {
		delete(o.all, name) // it has ended in order
	}
}

// gone removes the instances that were silent, and returns the ends of their series.
func (o *origins) gone(now time.Time) (b gather.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, one := range o.all {
		if now.Sub(one.seen) < silence {
			continue
		}
		for _, series := range one.series {
			b.Samples = append(b.Samples, gather.Sample{Labels: series, At: now.UnixMilli(), Value: math.Float64frombits(value.StaleNaN)})
		}
		delete(o.all, name)
	}
	return b
}

// endGone ends the series of instances that were silent.
func (s *Store) endGone(ctx context.Context) {
	if b := s.origins.gone(s.o.Now()); len(b.Samples) > 0 {
		if err := s.Write(ctx, b); err != nil {
			s.log.Warn("series of a silent instance not ended", "err", err)
		}
	}
}

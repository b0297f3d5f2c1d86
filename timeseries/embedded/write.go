package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"clearmlserving/timeseries"
	"clearmlserving/timeseries/gather"
)

// counts are what became of samples.
type counts struct {
	stored, refused atomic.Uint64
}

// Refused are samples that were not stored, while others of the same batch were.
type Refused struct {
	Samples int
	Err     error // of the first
}

// Error implements error.
func (r *Refused) Error() string { return fmt.Sprintf("%d samples not stored: %v", r.Samples, r.Err) }

// Unwrap returns the reason.
func (r *Refused) Unwrap() error { return r.Err }

// The reasons for which samples are refused.
var (
	ErrTooManySeries = errors.New("too many series: others of the last hours are in memory")
	ErrFuture        = errors.New("the time of the sample is in the future")
)

// errBroken: what is written behind the damage is not read by the next start.
var errBroken = errors.New("a write to the log of the time series has failed: is the disk full? Samples are stored again once it has room")

// Write implements gather.Sink. It is safe for use by many goroutines. The error is *Refused for
// samples that will be refused again; otherwise nothing was stored.
func (s *Store) Write(ctx context.Context, b gather.Batch) error {
	if s.o.Forward != nil {
		if err := s.o.Forward.Write(ctx, b); err != nil {
			s.log.Warn("samples not forwarded", "err", err)
		}
	}
	db, release, err := s.opened()
	if err != nil {
		return err
	}
	defer release()
	if s.broken.Load() {
		s.counts.refused.Add(uint64(len(b.Samples)))
		return timeseries.Errorf(timeseries.Unavailable, "%w", errBroken)
	}
	s.metas.add(b.Metas)
	app := db.AppenderV2(ctx)
	refused := &Refused{}
	latest := s.o.Now().Add(early).UnixMilli()
	for i := range b.Samples {
		full := int64(db.Head().NumSeries()) >= s.series.Load() //nolint:gosec // far below
		err := s.append(app, &b.Samples[i], latest, full)
		if err != nil && !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
			refused.Samples++
			refused.Err = cmp.Or(refused.Err, err)
		}
	}
	if err := app.Commit(); err != nil {
		s.counts.refused.Add(uint64(len(b.Samples)))
		s.broken.Store(true)
		return timeseries.Errorf(timeseries.Internal, "store samples: %w", err)
	}
	s.writeChunks(db)
	s.counts.stored.Add(uint64(len(b.Samples) - refused.Samples)) //nolint:gosec // not negative
	s.counts.refused.Add(uint64(refused.Samples))                 //nolint:gosec // not negative
	if refused.Samples > 0 {
		return refused
	}
	return nil
}

func (s *Store) append(app storage.AppenderV2, one *gather.Sample, latest int64, full bool) error {
	if one.At > latest {
		return ErrFuture
	}
	ref := storage.SeriesRef(0)
	if known, ok := app.(storage.GetRef); ok && full {
		if ref, _ = known.GetRef(one.Labels, one.Labels.Hash()); ref == 0 {
			return ErrTooManySeries
		}
	}
	_, err := app.Append(ref, one.Labels, 0, one.At, one.Value, one.Histogram, one.FloatHistogram, storage.AOptions{Exemplars: one.Exemplars})
	if _, stored := errors.AsType[*storage.AppendPartialError](err); stored {
		return nil // the sample is stored; old exemplars come again with each scrape
	}
	return err
}

// maxMetas bounds the descriptions of metrics.
const maxMetas = 5000

// metas are the descriptions of metrics, by name. They are in memory only: each scrape has them.
type metas struct {
	mu  sync.Mutex
	all map[string][]metadata.Metadata // by name; several if instances differ
}

func (m *metas) add(all []gather.Meta) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string][]metadata.Metadata{}
	}
	for _, one := range all {
		meta := metadata.Metadata{Type: model.MetricType(one.Type), Help: one.Help, Unit: one.Unit}
		have := m.all[one.Name]
		if slices.Contains(have, meta) || len(have) >= 4 || have == nil && len(m.all) >= maxMetas {
			continue
		}
		m.all[one.Name] = append(slices.Clip(have), meta)
	}
}

// list returns the descriptions of a name, or of all with "".
func (m *metas) list(name string) map[string][]metadata.Metadata {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == "" {
		return maps.Clone(m.all)
	}
	if have, ok := m.all[name]; ok {
		return map[string][]metadata.Metadata{name: have}
	}
	return nil
}

// sampleOf converts a sample of the engine.
func sampleOf(s *promql.Sample) *model.Sample {
	out := &model.Sample{Metric: metricOf(s.Metric.Map()), Timestamp: model.Time(s.T), Value: model.SampleValue(s.F)}
	if s.H != nil {
		out.Histogram = histogramOf(s.H)
	}
	return out
}

// streamOf converts a series of the engine.
func streamOf(s promql.Series) *model.SampleStream {
	out := &model.SampleStream{Metric: metricOf(s.Metric.Map()), Values: make([]model.SamplePair, 0, len(s.Floats))}
	for _, p := range s.Floats {
		out.Values = append(out.Values, model.SamplePair{Timestamp: model.Time(p.T), Value: model.SampleValue(p.F)})
	}
	for _, p := range s.Histograms {
		out.Histograms = append(out.Histograms, model.SampleHistogramPair{Timestamp: model.Time(p.T), Histogram: histogramOf(p.H)})
	}
	return out
}

func metricOf(pairs map[string]string) model.Metric {
	out := make(model.Metric, len(pairs))
	for name, text := range pairs {
		out[model.LabelName(name)] = model.LabelValue(text)
	}
	return out
}

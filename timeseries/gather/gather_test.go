package gather

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func names(b Batch) (all []string) {
	for _, s := range b.Samples {
		name := s.Labels.Get(model.MetricNameLabel)
		if value.IsStaleNaN(s.Value) {
			name += " ends"
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestOneOriginHasOneUp(t *testing.T) {
	whole, part := Source{Gatherer: prometheus.NewRegistry()}, Source{Gatherer: prometheus.NewRegistry(), Part: true}
	for want, s := range map[int]*Source{1: &whole, 0: &part} {
		if b, err := s.Collect(noon); err != nil || len(b.Samples) != want {
			t.Errorf("got %v, %v; want %d samples", names(b), err, want)
		}
	}
}

func TestASummaryAndAnUntypedMetricAreGathered(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := prometheus.NewSummary(prometheus.SummaryOpts{Name: "seconds", Objectives: map[float64]float64{.5: .05}})
	registry.MustRegister(s, prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "other"}, func() float64 { return 1 }))
	s.Observe(1)
	from := Source{Gatherer: registry}
	b, err := from.Collect(noon)
	if want := []string{"other", "seconds", "seconds_count", "seconds_sum", "up"}; err != nil || !slices.Equal(names(b), want) {
		t.Errorf("got %v, %v; want %v", names(b), err, want)
	}
	registry.Unregister(s)
	b, _ = from.Collect(noon.Add(time.Second))
	if want := []string{"other", "seconds ends", "seconds_count ends", "seconds_sum ends", "up"}; !slices.Equal(names(b), want) {
		t.Errorf("got %v, want %v", names(b), want)
	}
}

func TestWhatCouldBeGatheredIsKept(t *testing.T) {
	name, kind, one := "x", dto.MetricType_GAUGE, 1.0
	from := Source{Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return []*dto.MetricFamily{{Name: &name, Type: &kind, Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &one}}}}}, errors.New("another collector failed")
	})}
	b, err := from.Collect(noon)
	if err == nil || !slices.Equal(names(b), []string{"up", "x"}) {
		t.Errorf("got %v, %v", names(b), err)
	}
	for _, s := range b.Samples {
		if s.Labels.Get(model.MetricNameLabel) == "up" && s.Value != 0 {
			t.Error("up is 1 although the metrics are incomplete")
		}
	}
}

package embedded

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/timeseries/gather"
)

// registryOf has as many series as an instance with this number of endpoints, about 150 each.
func registryOf(endpoints int) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	for i := range 6 {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: fmt.Sprintf("seconds_%d", i), Buckets: prometheus.ExponentialBuckets(.001, 2, 16), NativeHistogramBucketFactor: 1.1,
		}, []string{"endpoint", "version"})
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: fmt.Sprintf("count_%d_total", i)}, []string{"endpoint", "version", "outcome"})
		registry.MustRegister(h, c)
		for e := range endpoints {
			for k := range 100 {
				h.WithLabelValues(fmt.Sprintf("endpoint_%d", e), "1").Observe(float64(k) / 100)
			}
			for _, outcome := range []string{"answered", "error", "refused", "timed_out", "client_error", "bad_request"} {
				c.WithLabelValues(fmt.Sprintf("endpoint_%d", e), "1", outcome).Add(5)
			}
		}
	}
	return registry
}

// BenchmarkCollectAndStore is what happens every 5 seconds for an instance.
func BenchmarkCollectAndStore(b *testing.B) {
	for _, endpoints := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(endpoints), func(b *testing.B) {
			at := noon
			s := New(Options{Dir: b.TempDir(), Now: func() time.Time { return at }})
			s.keep(b.Context())
			from := gather.Source{Gatherer: registryOf(endpoints), Labels: func() map[string]string { return map[string]string{"instance": "a:1", "service": "s"} }}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				at = at.Add(5 * time.Second)
				batch, err := from.Collect(at)
				if err != nil {
					b.Fatal(err)
				}
				n = len(batch.Samples)
				if err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n), "series")
			if err := s.replace(nil, errClosed); err != nil {
				b.Fatal(err)
			}
		})
	}
}

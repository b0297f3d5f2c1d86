package embedded

import "github.com/prometheus/client_golang/prometheus"

//nolint:gochecknoglobals // constant descriptions
var (
	descSamples = prometheus.NewDesc("clearml_serving_timeseries_samples_total",
		"Samples for the embedded time series by result: stored, refused (too old, in the future, too many series, a full disk).", []string{"result"}, nil)
	descSeries = prometheus.NewDesc("clearml_serving_timeseries_series", "Series of the embedded time series in memory: those of the last hours.", nil, nil)
	descBytes  = prometheus.NewDesc("clearml_serving_timeseries_bytes", "Disk that the embedded time series use.", nil, nil)
	descOpen   = prometheus.NewDesc("clearml_serving_timeseries_open", "1 if the embedded time series can be read and written, 0 otherwise.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Store) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSamples, descSeries, descBytes, descOpen} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(out chan<- prometheus.Metric) {
	counter := func(n uint64, result string) {
		out <- prometheus.MustNewConstMetric(descSamples, prometheus.CounterValue, float64(n), result)
	}
	counter(s.counts.stored.Load(), "stored")
	counter(s.counts.refused.Load(), "refused")
	u, open := s.Usage(), 1.0
	if u.Problem != "" {
		open = 0
	}
	for desc, value := range map[*prometheus.Desc]float64{descSeries: float64(u.Series), descBytes: float64(u.Bytes), descOpen: open} {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
}

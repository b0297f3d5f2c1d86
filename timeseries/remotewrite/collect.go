package remotewrite

import "github.com/prometheus/client_golang/prometheus"

//nolint:gochecknoglobals // constant descriptions
var (
	descSamples = prometheus.NewDesc("clearml_serving_remote_write_samples_total",
		"Samples for --remote-write-url by result: sent, refused (by the receiver), dropped (the oldest, when too many waited).", []string{"result"}, nil)
	descWaiting = prometheus.NewDesc("clearml_serving_remote_write_waiting_samples", "Samples that wait for the receiver of --remote-write-url.", nil, nil)
)

// Describe implements prometheus.Collector.
func (q *Queue) Describe(out chan<- *prometheus.Desc) {
	out <- descSamples
	out <- descWaiting
}

// Collect implements prometheus.Collector.
func (q *Queue) Collect(out chan<- prometheus.Metric) {
	c := q.Counts()
	for result, n := range map[string]uint64{"sent": c.Sent, "refused": c.Refused, "dropped": c.Dropped} {
		out <- prometheus.MustNewConstMetric(descSamples, prometheus.CounterValue, float64(n), result)
	}
	out <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(c.Waiting))
}

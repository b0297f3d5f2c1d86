package requestlog

import "github.com/prometheus/client_golang/prometheus"

//nolint:gochecknoglobals // constant tables
var (
	rowsDesc = prometheus.NewDesc("clearml_serving_request_log_rows_total",
		"Requests to log by result: logged, skipped (cannot be redacted, or larger than 8 MiB), dropped (the queue was full, or the disk could not be written), removed (before their delivery, to stay within the bound of the files).",
		[]string{"endpoint", "version", "result"}, nil)
	waitingDesc = prometheus.NewDesc("clearml_serving_request_log_waiting_bytes", "Size of the rows and files of the request log that have not been delivered.", nil, nil)
	failingDesc = prometheus.NewDesc("clearml_serving_request_log_failing", "1 if the request log cannot be written or delivered now.", nil, nil)
)

// Describe implements prometheus.Collector.
func (l *Log) Describe(out chan<- *prometheus.Desc) {
	out <- rowsDesc
	out <- waitingDesc
	out <- failingDesc
}

// Collect implements prometheus.Collector.
func (l *Log) Collect(out chan<- prometheus.Metric) {
	t := l.table.Load()
	counts := l.counted()
	for u := range t.options {
		for _, result := range []string{resultLogged, resultSkipped, resultDropped, resultRemoved} {
			counts[countKey{u, result}] += 0
		}
	}
	for key, n := range counts {
		name := t.names.Of(key.url)
		out <- prometheus.MustNewConstMetric(rowsDesc, prometheus.CounterValue, float64(n), name.Endpoint, name.Version, key.result)
	}
	if len(counts) == 0 {
		return // nothing is logged
	}
	failing := 0.0
	if l.problem.Load() != nil {
		failing = 1
	}
	out <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(l.waitingBytes()))
	out <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, failing)
}

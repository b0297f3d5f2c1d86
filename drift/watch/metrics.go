package watch

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/drift"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("clearml_serving_drift_"+name, help, append([]string{"service", "endpoint", "version", "variable"}, labels...), nil)
}

//nolint:gochecknoglobals // a constant table
var (
	distanceDesc  = desc("distance", "Distance of the live values from the reference by measure: psi (without its expected noise), jensen_shannon, wasserstein (numbers only, in standard deviations).", "measure")
	noiseDesc     = desc("noise", "A PSI up to this is noise, at 95 %.")
	pDesc         = desc("p_value", "p value of Kolmogorov-Smirnov for numbers, of chi-squared for categories. It decides nothing.")
	evidenceDesc  = desc("evidence", "Logarithm of the evidence for drift. There is drift from clearml_serving_drift_threshold on.")
	thresholdDesc = desc("threshold", "Logarithm of the evidence at which drift is reported.")
	driftingDesc  = desc("drifting", "1 while the variable drifts, 0 otherwise.")
	alarmsDesc    = desc("alarms_total", "How often drift has begun since the reference was set.")
	rowsDesc      = desc("rows_total", "Rows that were compared with the reference since it was set.")
)

// Describe implements prometheus.Collector.
func (w *Watcher) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{distanceDesc, noiseDesc, pDesc, evidenceDesc, thresholdDesc, driftingDesc, alarmsDesc, rowsDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (w *Watcher) Collect(out chan<- prometheus.Metric) {
	for service, report := range w.Reports() {
		for _, r := range report.Variables {
			names := []string{service, valid(r.Endpoint), valid(r.Version), valid(r.Variable)}
			add := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
				out <- prometheus.MustNewConstMetric(d, kind, value, append(names[:4:4], labels...)...)
			}
			add(distanceDesc, prometheus.GaugeValue, r.PSI, "psi")
			add(distanceDesc, prometheus.GaugeValue, r.JensenShannon, "jensen_shannon")
			if r.Kind == drift.Number {
				add(distanceDesc, prometheus.GaugeValue, r.Wasserstein, "wasserstein")
			}
			add(noiseDesc, prometheus.GaugeValue, r.Noise)
			add(pDesc, prometheus.GaugeValue, r.P)
			add(evidenceDesc, prometheus.GaugeValue, r.Evidence)
			add(thresholdDesc, prometheus.GaugeValue, r.Threshold)
			drifting := 0.0
			if r.Verdict == drift.Drifting {
				drifting = 1
			}
			add(driftingDesc, prometheus.GaugeValue, drifting)
			add(alarmsDesc, prometheus.CounterValue, float64(r.Alarms))
			add(rowsDesc, prometheus.CounterValue, float64(r.Rows))
		}
	}
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

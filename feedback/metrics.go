package feedback

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/serving"
)

// family is a metric family, with the text of its documentation.
type family struct {
	Name, Type, Help string
	Labels           []string
	desc             *prometheus.Desc
}

const prefix = "clearml_serving_"

var families []*family //nolint:gochecknoglobals // a constant table

func newFamily(name, kind, help string, labels ...string) *family {
	f := &family{Name: prefix + name, Type: kind, Help: help, Labels: append([]string{"endpoint", "version"}, labels...)}
	f.desc = prometheus.NewDesc(f.Name, help, f.Labels, nil)
	families = append(families, f)
	return f
}

//nolint:gochecknoglobals // constant tables
var (
	qualityRows    = newFamily("quality_rows_total", "counter", "Rows whose prediction was joined with what was true.")
	qualityCorrect = newFamily("quality_correct_total", "counter", "Rows whose predicted class was true.")
	classPredicted = newFamily("quality_predicted_total", "counter", "Joined rows by predicted class. Beyond 200 classes they are counted as other.", "class")
	classActual    = newFamily("quality_actual_total", "counter", "Joined rows by true class.", "class")
	classBoth      = newFamily("quality_true_positives_total", "counter", "Joined rows whose predicted class was true, by class.", "class")
	logLoss        = newFamily("quality_log_loss", "summary", "Logarithmic loss of the probabilities: its sum and number of rows.")
	absolute       = newFamily("quality_absolute_error", "summary", "Absolute errors of predicted numbers: their sum and number.")
	squared        = newFamily("quality_squared_error", "summary", "Squared errors of predicted numbers: their sum and number.")
	binRows        = newFamily("quality_calibration_rows_total", "counter", "Rows by their probability: bin is its upper bound.", "bin")
	binScore       = newFamily("quality_calibration_score_total", "counter", "Sum of the probabilities of the rows of a bin.", "bin")
	binPositive    = newFamily("quality_calibration_positives_total", "counter", "Rows of a bin that were of the class that the probability is about.", "bin")
	quality        = newFamily("quality", "gauge", "Measures of the newest 1000 joined rows: accuracy, f1_macro, f1_binary, log_loss, ece (expected calibration error), mae, rmse.", "measure")
	windowSize     = newFamily("quality_window_rows", "gauge", "Joined rows that clearml_serving_quality is computed of.")
	outcomes       = newFamily("feedback_total", "counter", "Truths by outcome: joined, duplicate (ignored), unmatched (no prediction came in time), mismatch (of another type or number than the prediction), elsewhere (another instance has joined it). endpoint is that of the feedback.", "outcome")
	waitingTruths  = newFamily("feedback_pending", "gauge", "Truths that wait for their predictions.")
	keptTotal      = newFamily("feedback_predictions_total", "counter", "Predictions by result: kept, skipped (not in the answer, or unusable; see reason), dropped (the store could not be written, or not fast enough; since the start of the instance).", "result", "reason")
	keptNow        = newFamily("feedback_predictions", "gauge", "Kept predictions, by requested endpoint.")
	keptBytes      = newFamily("feedback_bytes", "gauge", "Size of the kept predictions, by requested endpoint.")
)

// Describe implements prometheus.Collector.
func (s *Store) Describe(out chan<- *prometheus.Desc) {
	for _, f := range families {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(out chan<- prometheus.Metric) {
	t := s.table.Load()
	c := scrape{out: out, table: t}
	for url, n := range s.drops() {
		c.add(keptTotal, url, float64(n), "dropped", "")
	}
	d := s.db.Load()
	if d == nil {
		return
	}
	d.state.RLock()
	defer d.state.RUnlock()
	newest := d.newestDays()
	for _, url := range d.urls() {
		if _, served := t.names[url]; !served && newest[url] < d.now().Add(-showSums).Unix()/86400 {
			continue
		}
		c.totals(url, d.totals[totalsKey{url, day0}])
		if w := d.windows[url]; w != nil {
			c.window(url, w, d.totals[totalsKey{url, day0}].Positive)
		}
	}
	for key, n := range d.counts {
		if reason, skipped := cutSkipped(key.name); skipped {
			c.add(keptTotal, key.url, float64(n), "skipped", reason)
		} else if key.name == countKept {
			c.add(keptTotal, key.url, float64(n), countKept, "")
		}
	}
	urls := map[serving.EndpointURL]bool{}
	for url := range t.options {
		urls[url] = true
	}
	for key := range d.counts {
		if _, skipped := cutSkipped(key.name); !skipped && key.name != countKept {
			urls[key.url] = true
		}
	}
	for _, m := range []map[serving.EndpointURL]int64{d.kept, d.waiting} {
		for url := range m {
			urls[url] = true
		}
	}
	for url := range urls {
		for _, outcome := range []string{countJoined, countDuplicate, countUnmatched, countMismatch, countElsewhere} {
			c.add(outcomes, url, float64(d.counts[countKey{url, outcome}]), outcome)
		}
		c.add(waitingTruths, url, float64(d.waiting[url]))
		c.add(keptNow, url, float64(d.kept[url]))
		c.add(keptBytes, url, float64(d.bytes[url]))
	}
}

func cutSkipped(name string) (reason string, skipped bool) {
	return strings.CutPrefix(name, countSkipped)
}

// scrape exposes the metrics of one scrape.
type scrape struct {
	out   chan<- prometheus.Metric
	table *table
}

func (c scrape) labels(url serving.EndpointURL, more []string) []string {
	name := c.table.names.Of(url)
	all := append([]string{name.Endpoint, name.Version}, more...)
	for i, label := range all {
		all[i] = strings.ToValidUTF8(label, "\uFFFD")
	}
	return all
}

func (c scrape) add(f *family, url serving.EndpointURL, value float64, more ...string) {
	kind := prometheus.GaugeValue
	if f.Type == "counter" {
		kind = prometheus.CounterValue
	}
	c.out <- prometheus.MustNewConstMetric(f.desc, kind, value, c.labels(url, more)...)
}

func (c scrape) mean(f *family, url serving.EndpointURL, m Mean) {
	c.out <- prometheus.MustNewConstSummary(f.desc, m.N, m.Total(), nil, c.labels(url, nil)...)
}

func (c scrape) totals(url serving.EndpointURL, t *Totals) {
	c.add(qualityRows, url, float64(t.Rows))
	if len(t.Classes) > 0 {
		c.add(qualityCorrect, url, float64(t.Correct))
	}
	for _, class := range slices.Sorted(maps.Keys(t.Classes)) {
		n := t.Classes[class]
		c.add(classPredicted, url, float64(n.Predicted), class)
		c.add(classActual, url, float64(n.Actual), class)
		c.add(classBoth, url, float64(n.Both), class)
	}
	if t.LogLoss.N > 0 {
		c.mean(logLoss, url, t.LogLoss)
		for i, b := range t.Bins {
			bin := fmt.Sprintf("%.1f", float64(i+1)/bins)
			c.add(binRows, url, float64(b.Rows), bin)
			c.add(binScore, url, b.Score.Total(), bin)
			c.add(binPositive, url, float64(b.Positive), bin)
		}
	}
	if t.Absolute.N > 0 {
		c.mean(absolute, url, t.Absolute)
		c.mean(squared, url, t.Squared)
	}
}

func (c scrape) window(url serving.EndpointURL, w *window, positive string) {
	t := w.totals(positive)
	for name, value := range t.Measures() {
		c.add(quality, url, value, name)
	}
	c.add(windowSize, url, float64(t.Rows))
}

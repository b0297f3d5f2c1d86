package ui

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/clearml"
)

// singleValue is a value that a task has reported without an iteration.
type singleValue struct {
	Variant string       `json:"variant"`
	Value   clearml.Text `json:"value"`
}

func (v *visit) singleValues(task string) ([]singleValue, error) {
	type values struct {
		Values []singleValue `json:"values"`
	}
	found, err := take[[]values](v, "events.get_task_single_value_metrics", "tasks", map[string]any{"tasks": []string{task}})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0].Values, nil
}

// Text is the value with four digits; a value that is not a number stays as it is.
func (s singleValue) Text() string {
	f, err := strconv.ParseFloat(string(s.Value), 64)
	if err != nil {
		return string(s.Value)
	}
	return formatNumber(f)
}

// scalarMetric is one chart: a metric with a summary of its lines.
type scalarMetric struct {
	Name   string
	Source string // path of the chart's figure
	Lines  []scalarLine
	More   int // lines that the table leaves out
}

// scalarLine is the summary of a line. A browser without JavaScript shows nothing else.
type scalarLine struct {
	Name                 string
	Last, Least, Largest string
	Points               int
}

// chartSamples is the most points of a line that are drawn: about one for each pixel.
const chartSamples = 1000

// histogram reads the scalars of a task: metric -> variant -> points.
func (v *visit) histogram(task, metric string) (map[string]map[string]trace, error) {
	query := map[string]any{"task": task, "key": "iter", "samples": chartSamples}
	if metric != "" {
		query["metrics"] = []any{map[string]string{"metric": metric}}
	}
	var answer map[string]map[string]trace
	err := v.api.Call(v.r.Context(), "events.scalar_metrics_iter_histogram", query, &answer)
	return answer, err
}

// shownLines is how many lines of a metric have a row in its table.
const shownLines = 20

// scalarMetrics summarises the scalars of one task, or of several for comparison.
func (v *visit) scalarMetrics(tasks []string) ([]scalarMetric, error) {
	found := map[string]*scalarMetric{}
	for i, task := range tasks {
		histogram, err := v.histogram(task, "")
		if err != nil {
			return nil, err
		}
		for _, name := range sortedKeys(histogram) {
			metric := found[name]
			if metric == nil {
				metric = &scalarMetric{Name: name, Source: withQuery("/experiments/scalars.json", "metric", name, "ids", strings.Join(tasks, ","))}
				found[name] = metric
			}
			for _, variant := range sortedKeys(histogram[name]) {
				if len(metric.Lines) == shownLines {
					metric.More++
					continue
				}
				metric.Lines = append(metric.Lines, summarise(lineName(variant, i, len(tasks)), histogram[name][variant]))
			}
		}
	}
	metrics := make([]scalarMetric, 0, len(found))
	for _, name := range sortedKeys(found) {
		metrics = append(metrics, *found[name])
	}
	return metrics, nil
}

// lineName puts the experiment's letter before the name of a line when several are compared.
func lineName(variant string, i, of int) string {
	if of == 1 {
		return variant
	}
	return string(rune('A'+i)) + " · " + variant
}

func summarise(name string, p trace) scalarLine {
	line := scalarLine{Name: name, Points: len(p.Y), Last: "–", Least: "–", Largest: "–"}
	var values []float64
	for _, y := range p.Y {
		if f, err := y.Float64(); err == nil {
			values = append(values, f)
		}
	}
	if len(values) > 0 {
		line.Last, line.Least, line.Largest = formatNumber(values[len(values)-1]), formatNumber(slices.Min(values)), formatNumber(slices.Max(values))
	}
	return line
}

// scalars sends the lines of one metric as a figure: those of one task or of several.
func (p *Pages) scalars(v *visit) error {
	q := v.r.URL.Query()
	tasks, metric := words(q.Get("ids")), q.Get("metric")
	if len(tasks) == 0 || len(tasks) > maxCompared {
		return refusal{http.StatusBadRequest, "Give the experiments: ?ids=first,second"}
	}
	f := figure{Data: []trace{}}
	f.Layout.XAxis.Title.Text = "iteration"
	for i, task := range tasks {
		histogram, err := v.histogram(task, metric)
		if err != nil {
			return err
		}
		for _, variant := range sortedKeys(histogram[metric]) {
			line := histogram[metric][variant]
			line.Name = lineName(variant, i, len(tasks))
			f.Data = append(f.Data, line)
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	_, _ = v.w.Write(text) // an error means that the browser is gone
	return nil
}

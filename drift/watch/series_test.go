package watch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/drift"
)

// counted answers queries by the name of the metric.
type counted struct {
	t    *testing.T
	by   map[string][]model.Sample
	fail error
	seen []string
}

func (c *counted) Query(_ context.Context, expr string, _ time.Time) (v model.Vector, err error) {
	c.seen = append(c.seen, expr)
	for name, samples := range c.by {
		if !strings.Contains(expr, "("+name+"{") {
			continue
		}
		for _, s := range samples {
			if n := string(s.Metric["variable"]); name != counters || strings.Contains(expr, `variable="`+n+`"`) {
				v = append(v, &s)
			}
		}
	}
	return v, c.fail
}

func of(value float64, labels ...string) model.Sample {
	m := model.Metric{}
	for i := 0; i < len(labels); i += 2 {
		m[model.LabelName(labels[i])] = model.LabelValue(labels[i+1])
	}
	return model.Sample{Metric: m, Value: model.SampleValue(value)}
}

func TestAReferenceIsMadeOfARecordedTime(t *testing.T) {
	w := newWorld(t)
	bins := w.of.Bins()
	c := &counted{t: t, by: map[string][]model.Sample{
		"clearml_serving_variable_distribution_bucket": {
			of(400.3, "variable", "age", "le", "20"), of(900, "variable", "age", "le", "30"), of(1000, "variable", "age", "le", "+Inf"), of(7, "variable", "rare", "le", "+Inf"),
			of(0, "variable", "gone", "le", "+Inf"),
		},
		"clearml_serving_variable_values_total":   {of(600, "variable", "animal", "value", "cat"), of(0, "variable", "animal", "value", "dog"), of(50, "variable", "animal", "value", "other")},
		"clearml_serving_variables_skipped_total": {of(20, "variable", "age", "reason", "missing"), of(5, "variable", "age", "reason", "null"), of(5000, "variable", "gone", "reason", "missing"), of(9, "variable", "age", "reason", "type")},
		counters: {of(300, "variable", "x", "bin", bins[0]), of(400, "variable", "x", "bin", bins[3])},
	}}
	to := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	r, notes, err := FromSeries(t.Context(), c, "s", "m", "1", &drift.Reference{Variables: map[string]*drift.Variable{"x": w.of}}, to.Add(-24*time.Hour), to)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Names(), " "); got != "age animal x" {
		t.Fatal(got)
	}
	if v := r.Variables["age"]; !slices.Equal(v.Counts, []uint64{400, 500, 100, 25}) || !slices.Equal(v.Edges, []float64{20, 30}) || !v.Right {
		t.Errorf("%+v", v)
	}
	if v := r.Variables["animal"]; !slices.Equal(v.Counts, []uint64{600, 0, 50, 0}) || !slices.Equal(v.Words, []string{"cat", "dog"}) {
		t.Errorf("%+v", v)
	}
	if v := r.Variables["x"]; v.Counts[0] != 300 || v.Counts[3] != 400 || v.Rows() != 700 {
		t.Errorf("%+v", v)
	}
	if len(notes) != 2 || !strings.Contains(notes[0], "'gone': 0 values") || !strings.Contains(notes[1], "'rare': 7 values") {
		t.Error(notes)
	}
	if want := `sum by (variable, le) (increase(clearml_serving_variable_distribution_bucket{endpoint="m",version="1",service=~"|s"}[86400s]))`; !slices.Contains(c.seen, want) {
		t.Error(c.seen)
	}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drift.Decode(text); err != nil {
		t.Error(err)
	}
	// A value on a bound is below it, as in the histogram.
	counts := drift.NewCounts(r.Variables["age"])
	counts.Add(r.Variables["age"], 20.0)
	if counts.Bins[0] != 1 {
		t.Error(counts)
	}

	c.fail = errors.New("out of reach")
	if _, _, err := FromSeries(t.Context(), c, "s", "m", "1", nil, to.Add(-time.Hour), to); err == nil || !strings.Contains(err.Error(), "out of reach") {
		t.Error(err)
	}
	if _, _, err := FromSeries(t.Context(), &counted{t: t}, "s", "m", "1", nil, to.Add(-time.Hour), to); err == nil || !strings.Contains(err.Error(), "nothing was counted") {
		t.Error(err)
	}
	if _, _, err := FromSeries(t.Context(), c, "s", "m", "1", nil, to, to.Add(-time.Hour)); err == nil || !strings.Contains(err.Error(), "too short") {
		t.Error(err)
	}
}

package statistics_test

import (
	"regexp"
	"strings"
	"testing"

	"clearmlserving/drift"
	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// referenceOf is a reference of rows.
func referenceOf(t *testing.T, names []string, rows ...[]any) []byte {
	t.Helper()
	b, err := drift.NewBuilder(names, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if err := b.Row(row); err != nil {
			t.Fatal(err)
		}
	}
	r, _, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestVariablesWithAReferenceAreCountedByItsBinsFromTheFirstRequest(t *testing.T) {
	reference := referenceOf(t, []string{"x", "animal", "ignored"}, []any{0.0, "cat", 1.0}, []any{1.0, "dog", 1.0}, []any{1.0, "cat", 2.0})
	m := statistics.New()
	planned := func(text []byte) serving.Plan {
		return serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{"m": {
			Endpoint: serving.Endpoint{ServingURL: "m"}, Reference: text, Drift: serving.DriftSettings{Ignore: []string{"ignored"}},
		}}}
	}
	m.Follow(planned(reference))
	sampled(m, "m", 1, `{"x":0,"animal":"cat"}`, `{"x":[0.5,[1,7]],"animal":"bird"}`, `{"x":"one","animal":null}`, ``, `{"x":-1,"animal":["dog","cat"],"ignored":1}`)
	text := scrape(t, m, serving.Status{})
	for _, want := range []string{
		`drift_values_total{bin="x < 0",endpoint="m",reference="REF",variable="x",version=""} 1`,
		`drift_values_total{bin="0 <= x < 1",endpoint="m",reference="REF",variable="x",version=""} 2`,
		`drift_values_total{bin="(missing)",endpoint="m",reference="REF",variable="x",version=""} 2`,
		`drift_values_total{bin="cat",endpoint="m",reference="REF",variable="animal",version=""} 2`,
		`drift_values_total{bin="dog",endpoint="m",reference="REF",variable="animal",version=""} 1`,
		`drift_values_total{bin="(other)",endpoint="m",reference="REF",variable="animal",version=""} 1`,
		`drift_unexpected_values_total{endpoint="m",kind="missing",variable="x",version=""} 1`,
		`drift_unexpected_values_total{endpoint="m",kind="type",variable="x",version=""} 1`,
		`drift_unexpected_values_total{endpoint="m",kind="below",variable="x",version=""} 1`,
		`drift_unexpected_values_total{endpoint="m",kind="above",variable="x",version=""} 1`,
		`drift_unexpected_values_total{endpoint="m",kind="new_category",variable="animal",version=""} 1`,
		`variable_value{endpoint="m",variable="ignored",version=""} 1`,
	} {
		if !strings.Contains(withoutReference(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(withoutReference(text), `reference="REF",variable="ignored"`) || strings.Contains(text, "variables_skipped_total{") {
		t.Error(text)
	}

	// The same bins keep their counts; other bins begin at 0.
	m.Follow(planned(reference))
	if again := scrape(t, m, serving.Status{}); withoutReference(again) != withoutReference(text) {
		t.Error("the counts were lost")
	}
	m.Follow(planned(referenceOf(t, []string{"x"}, []any{5.0})))
	text = scrape(t, m, serving.Status{})
	if strings.Contains(text, `variable="animal"`) || !strings.Contains(withoutReference(text), `drift_values_total{bin="x < 5",endpoint="m",reference="REF",variable="x",version=""} 0`) {
		t.Error(text)
	}
	m.Follow(planned(nil))
	if text := scrape(t, m, serving.Status{}); strings.Contains(text, "drift_values_total{") {
		t.Error(text)
	}
}

var referenceLabel = regexp.MustCompile(`reference="[0-9a-f]{8}"`)

// withoutReference replaces the hashes of bins.
func withoutReference(text string) string {
	var kept []string
	for line := range strings.Lines(referenceLabel.ReplaceAllString(text, `reference="REF"`)) {
		if strings.Contains(line, "drift_") || strings.Contains(line, "variable_value") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

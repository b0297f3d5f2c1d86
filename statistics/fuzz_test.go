package statistics_test

import (
	"testing"

	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// FuzzVariables: whatever a worker sends, the scrape can be parsed.
func FuzzVariables(f *testing.F) {
	for _, seed := range []string{`{"x":1,"e":"a","c":2,"v":[1,[2]]}`, `{"x":1e999}`, `[]`, `null`, `{"\ud800":1,"":2}`, "{\"\xff\":1}", `{"x":1}{}`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := statistics.New()
		m.Follow(plan(map[string]serving.Metric{
			"x": {Type: "scalar", Buckets: []any{1.0}}, "e": {Type: "enum", Buckets: []any{"a"}}, "c": {Type: "counter"}, "v": {Type: "value"},
		}, "m"))
		sampled(m, "m", 1, string(text), `{"x":1}`)
		exposed := scrape(t, m, serving.Status{})
		lint(t, exposed)
		if grep(exposed, `clearml_serving_sampled_requests_total{endpoint="m"`) == "" {
			t.Error("no sample was recorded")
		}
	})
}

package statistics_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// sampled records answers with these variables.
func sampled(m *statistics.Metrics, url serving.EndpointURL, share float64, variables ...string) {
	for _, v := range variables {
		m.Record(serving.Sample{URL: url, Answered: true, RequestBytes: -1, AnswerBytes: -1, Sampled: true, Weight: 1 / share, Variables: []byte(v)})
	}
}

func TestEachTypeOfVariableIsRecorded(t *testing.T) {
	number := func(kind string, buckets ...any) serving.Metric { return serving.Metric{Type: kind, Buckets: buckets} }
	for name, tc := range map[string]struct {
		metric  serving.Metric
		share   float64
		samples []string
		want    []string
		absent  []string
	}{
		"scalar": {number("scalar", 10.0, 0.0, 1.0, 1.0), 1, []string{`{"x":-1}`, `{"x":0}`, `{"x":0.5}`, `{"x":11}`, `{"x":true}`, `{"x":1e0}`}, []string{
			`variable_distribution_bucket{endpoint="m",variable="x",version="1",le="0"} 2`,
			`variable_distribution_bucket{endpoint="m",variable="x",version="1",le="1"} 5`,
			`variable_distribution_bucket{endpoint="m",variable="x",version="1",le="10"} 5`,
			`variable_distribution_bucket{endpoint="m",variable="x",version="1",le="+Inf"} 6`,
			`variable_distribution_sum{endpoint="m",variable="x",version="1"} 12.5`,
			`variable_distribution_count{endpoint="m",variable="x",version="1"} 6`,
			`sampled_requests_total{endpoint="m",version="1"} 6`,
		}, []string{"variables_skipped"}},
		"a list is its elements": {number("scalar", 1.0), 1, []string{`{"x":[0,1,2]}`, `{"x":[[0],[[3]]]}`, `{"x":[]}`}, []string{
			`variable_distribution_bucket{endpoint="m",variable="x",version="1",le="1"} 3`,
			`variable_distribution_count{endpoint="m",variable="x",version="1"} 5`,
		}, []string{"variables_skipped"}},
		"wrong values": {number("scalar", 1.0), 1, []string{`{"x":"1"}`, `{"x":{"a":1}}`, `{"x":null}`, `{}`, ``, `{"x":1e999}`, `{"x":[1,"a",null]}`}, []string{
			`variable_distribution_count{endpoint="m",variable="x",version="1"} 1`,
			`variables_skipped_total{endpoint="m",reason="type",variable="x",version="1"} 4`,
			`variables_skipped_total{endpoint="m",reason="null",variable="x",version="1"} 2`,
			`variables_skipped_total{endpoint="m",reason="missing",variable="x",version="1"} 2`,
			`sampled_requests_total{endpoint="m",version="1"} 7`,
			`samples_unreadable_total 0`,
		}, nil},
		"what is no object": {number("scalar", 1.0), 1, []string{`[1]`, `{"x":1`, `{"x":1}}`, `nonsense`, `{"x":1}`}, []string{
			`variable_distribution_count{endpoint="m",variable="x",version="1"} 1`,
			`samples_unreadable_total 4`,
		}, nil},
		"bounds that are no numbers": {number("scalar", "a", 1.0, nil), 1, []string{`{"x":1}`}, []string{
			`variable_distribution_bucket{endpoint="m",variable="x",version="1",le="1"} 1`,
		}, nil},
		"enum": {number("enum", "dog", "cat", 1.0), 1, []string{`{"x":"cat"}`, `{"x":"cat"}`, `{"x":"bird"}`, `{"x":["dog","fish"]}`, `{"x":1}`, `{"x":{}}`}, []string{
			`variable_values_total{endpoint="m",value="cat",variable="x",version="1"} 2`,
			`variable_values_total{endpoint="m",value="dog",variable="x",version="1"} 1`,
			`variable_values_total{endpoint="m",value="1",variable="x",version="1"} 1`,
			`variable_values_total{endpoint="m",value="other",variable="x",version="1"} 2`,
			`variables_skipped_total{endpoint="m",reason="type",variable="x",version="1"} 1`,
		}, nil},
		"value": {number("value"), 1, []string{`{"x":5}`, `{"x":-2.5}`}, []string{
			`variable_value{endpoint="m",variable="x",version="1"} -2.5`,
		}, nil},
		"a value that never came": {number("value"), 1, []string{`{}`}, nil, []string{"clearml_serving_variable_value{"}},
		"counter of a share": {number("counter"), 0.25, []string{`{"x":1}`, `{"x":2}`, `{"x":-1}`}, []string{
			`variable_total{endpoint="m",variable="x",version="1"} 12`,
			`variables_skipped_total{endpoint="m",reason="negative",variable="x",version="1"} 1`,
			`sampled_requests_total{endpoint="m",version="1"} 3`,
		}, nil},
		"a type of later versions": {number("sketch"), 1, []string{`{"x":1}`}, []string{
			`variable_value{endpoint="m",variable="x",version="1"} 1`,
		}, nil},
		"a list without end": {number("scalar", 1.0), 1, []string{`{"x":[` + strings.Repeat("0,", 10_001) + `0]}`}, []string{
			`variable_distribution_count{endpoint="m",variable="x",version="1"} 10000`,
			`variables_skipped_total{endpoint="m",reason="limit",variable="x",version="1"} 2`,
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := statistics.New()
			m.Follow(plan(map[string]serving.Metric{"x": tc.metric}, "m/1"))
			sampled(m, "m/1", tc.share, tc.samples...)
			text := scrape(t, m, serving.Status{})
			lint(t, text)
			for i := range tc.want {
				tc.want[i] = "clearml_serving_" + tc.want[i]
			}
			expect(t, text, tc.want, tc.absent...)
		})
	}
}

func TestWhatUserCodeCollectsIsExposedUpToABound(t *testing.T) {
	m := statistics.New()
	m.Follow(plan(nil, "m"))
	sampled(m, "m", 1, `{"loss":0.5,"text":"a","n\"\n\ud800ame":2}`)
	for i := range 200 {
		sampled(m, "m", 1, fmt.Sprintf(`{"name%d":%d}`, i, i), `{"loss":0.25}`)
	}
	sampled(m, "m", 1, `{"`+strings.Repeat("n", 300)+`":1}`)
	text := scrape(t, m, serving.Status{})
	lint(t, text)
	expect(t, text, []string{
		`clearml_serving_variable_value{endpoint="m",variable="loss",version=""} 0.25`,
		`clearml_serving_variable_value{endpoint="m",variable="n\"\n` + "\uFFFD" + `ame",version=""} 2`,
		`clearml_serving_variable_value{endpoint="m",variable="name96",version=""} 96`,
		`clearml_serving_variables_skipped_total{endpoint="m",reason="type",variable="text",version=""} 1`,
		`clearml_serving_variables_skipped_total{endpoint="m",reason="limit",variable="",version=""} 104`,
	}, `clearml_serving_variable_value{endpoint="m",variable="name97"`)
}

func TestAChangeOfDefinitionsKeepsWhatHasNotChanged(t *testing.T) {
	m := statistics.New()
	scalar := func(bound float64) serving.Metric { return serving.Metric{Type: "scalar", Buckets: []any{bound}} }
	m.Follow(plan(map[string]serving.Metric{"same": scalar(1), "other": scalar(1), "gone": {Type: "value"}}, "m"))
	sampled(m, "m", 1, `{"same":1,"other":1,"gone":1,"own":1}`)
	scrape(t, m, serving.Status{})
	m.Follow(plan(map[string]serving.Metric{"same": scalar(1), "other": scalar(2), "own": {Type: "counter"}}, "m"))
	sampled(m, "m", 1, `{"same":1,"other":1,"gone":1,"own":1}`) // of a worker without the new definitions
	text := scrape(t, m, serving.Status{})
	expect(t, text, []string{
		`clearml_serving_variable_distribution_count{endpoint="m",variable="same",version=""} 2`,
		`clearml_serving_variable_distribution_count{endpoint="m",variable="other",version=""} 1`,
		`clearml_serving_variable_total{endpoint="m",variable="own",version=""} 1`,
	}, "clearml_serving_variable_value{")
}

func TestTheLastValueIsThatOfTheLastRequest(t *testing.T) {
	m := statistics.New()
	m.Follow(plan(map[string]serving.Metric{"x": {Type: "value"}}, "m"))
	for i := range 500 {
		var one sync.WaitGroup
		one.Go(func() { sampled(m, "m", 1, fmt.Sprintf(`{"x":%d}`, i)) }) // on any core
		one.Wait()
	}
	expect(t, scrape(t, m, serving.Status{}), []string{`clearml_serving_variable_value{endpoint="m",variable="x",version=""} 499`})
}

func TestSamplesThatNobodyReadsAreBoundedAndCounted(t *testing.T) {
	m := statistics.New()
	m.Follow(plan(map[string]serving.Metric{"x": {Type: "counter"}}, "m"))
	const n = 200_000 // more than the capacity of all lanes
	for range n {
		sampled(m, "m", 1, `{"x":1}`)
	}
	text := scrape(t, m, serving.Status{})
	var recorded, dropped float64
	for name, to := range map[string]*float64{"clearml_serving_sampled_requests_total{": &recorded, "clearml_serving_samples_dropped_total ": &dropped} {
		line := strings.TrimSpace(grep(text, name))
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], to); err != nil {
			t.Fatal(err)
		}
	}
	if recorded+dropped != n || recorded == 0 || dropped == 0 {
		t.Errorf("%v recorded, %v dropped, want %d together", recorded, dropped, n)
	}
}

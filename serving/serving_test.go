package serving_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/serving"
)

func decode(t *testing.T, sections map[serving.Section]string) serving.Service {
	t.Helper()
	raw := map[serving.Section]json.RawMessage{}
	for name, text := range sections {
		raw[name] = json.RawMessage(text)
	}
	return serving.Decode(raw, nil)
}

func TestEndpointsRoundTripKeepsEverything(t *testing.T) {
	const text = `{"a.b/1":{"auxiliary_cfg":{"dynamic_batching":{"preferred_batch_size":[1,2]},"platform":"\"x\""},"engine_type":"triton","from_the_future":{"x":1e400},"input_name":["i"],"input_size":[[1,28,28]],"input_type":["float32"],"model_id":"5c","output_name":["o"],"output_size":[[-1,10]],"output_type":["float32"],"preprocess_artifact":"py_code_a.b_1","serving_url":"a.b","version":"1"},"ü<&>":{"engine_type":"custom","serving_url":"ü<&>","version":""}}`
	s := decode(t, map[serving.Section]string{serving.SectionEndpoints: text})
	if len(s.Broken) > 0 {
		t.Fatal(s.Broken)
	}
	got, err := s.Encode(serving.SectionEndpoints)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, got); d != "" {
		t.Error(d)
	}
}

func TestReadingForgivesWhatTheOriginalForgives(t *testing.T) {
	s := decode(t, map[serving.Section]string{serving.SectionEndpoints: `{"m/1":{"engine_type":"triton","serving_url":"m","version":1,"input_size":[1,28,28],"input_type":"float32","model_id":null}}`})
	e := s.Endpoints["m/1"]
	if e.Version != "1" || e.ModelID != "" || !slices.Equal(e.InputType, []string{"float32"}) {
		t.Errorf("got %+v", e)
	}
	if got, want := e.InputSize, []any{[]any{json.Number("1"), json.Number("28"), json.Number("28")}}; cmp.Diff(want, got) != "" {
		t.Errorf("flat size: %v", got)
	}
}

func TestOneBrokenRecordLeavesTheOthers(t *testing.T) {
	for name, record := range map[string]string{
		"missing required field": `{"serving_url":"x"}`,
		"unknown engine":         `{"engine_type":"cobol","serving_url":"x"}`,
		"not a record":           `[1,2]`,
		"null":                   `null`,
		"wrong type":             `{"engine_type":"custom","serving_url":["x"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := decode(t, map[serving.Section]string{serving.SectionEndpoints: `{"bad":` + record + `,"good":{"engine_type":"custom","serving_url":"good","version":""}}`})
			if len(s.Endpoints) != 1 || len(s.Broken) != 1 || s.Broken[0].Key != "bad" || s.Broken[0].Err == nil {
				t.Fatalf("endpoints %v, broken %v", s.Endpoints, s.Broken)
			}
			text, err := s.Encode(serving.SectionEndpoints)
			if err != nil || !strings.Contains(text, `"bad":`+record) {
				t.Fatalf("a broken record is not kept: %s %v", text, err)
			}
			if _, _, err := s.Remove("bad"); err != nil {
				t.Fatalf("a broken record cannot be removed: %v", err)
			}
			if text, _ := s.Encode(serving.SectionEndpoints); strings.Contains(text, "bad") {
				t.Errorf("still there: %s", text)
			}
		})
	}
}

func TestUnreadableSectionIsNeverOverwritten(t *testing.T) {
	s := decode(t, map[serving.Section]string{serving.SectionCanary: `["not a map"]`})
	if _, err := s.Encode(serving.SectionCanary); err == nil {
		t.Fatal("encoded over an unreadable section")
	}
	if _, err := s.Encode(serving.SectionEndpoints); err != nil {
		t.Fatalf("other sections: %v", err)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	endpoint := func(change func(*serving.Endpoint)) error {
		e := serving.Endpoint{EngineType: "custom", ServingURL: "name"}
		change(&e)
		return e.Validate()
	}
	canary := func(change func(*serving.Canary)) error {
		c := serving.Canary{Endpoint: "c", Weights: []float64{1, 2}, LoadEndpoints: []string{"a", "b"}}
		change(&c)
		return c.Validate()
	}
	for _, tc := range []struct {
		name string
		err  error
		want string // "" for no error
	}{
		{"plain endpoint", endpoint(func(*serving.Endpoint) {}), ""},
		{"slashes, unicode and percent are allowed", endpoint(func(e *serving.Endpoint) { e.ServingURL = "/a/ü/100%/" }), ""},
		{"unknown engine", endpoint(func(e *serving.Endpoint) { e.EngineType = "cobol" }), "cobol not supported engine type"},
		{"empty url", endpoint(func(e *serving.Endpoint) { e.ServingURL = "//" }), "endpoint"},
		{"dot dot", endpoint(func(e *serving.Endpoint) { e.ServingURL = "a/../b" }), "endpoint"},
		{"empty part", endpoint(func(e *serving.Endpoint) { e.ServingURL = "a//b" }), "empty part"},
		{"question mark", endpoint(func(e *serving.Endpoint) { e.ServingURL = "a?b" }), "character"},
		{"version with dots", endpoint(func(e *serving.Endpoint) { e.Version = ".." }), "version"},
		{"version v1", endpoint(func(e *serving.Endpoint) { e.Version = "v1" }), ""},
		{"unknown dtype", endpoint(func(e *serving.Endpoint) { e.InputType = []string{"floaty"} }), "data type 'floaty' not understood"},
		{"triton needs its tensors", endpoint(func(e *serving.Endpoint) { e.EngineType = "triton"; e.InputSize = []any{1} }), "['input_type', 'input_name', 'output_type', 'output_size', 'output_name']"},
		{"plain canary", canary(func(*serving.Canary) {}), ""},
		{"no weights", canary(func(c *serving.Canary) { c.Weights = nil }), "--weights"},
		{"negative weight", canary(func(c *serving.Canary) { c.Weights[0] = -1 }), "weights"},
		{"weight not a number", canary(func(c *serving.Canary) { c.Weights[0] = math.NaN() }), "weights"},
		{"weights sum to 0", canary(func(c *serving.Canary) { c.Weights = []float64{0, 0} }), "sum to 0"},
		{"more weights than endpoints", canary(func(c *serving.Canary) { c.Weights = []float64{1, 2, 3} }), "3 weights for 2 endpoints"},
		{"both sources", canary(func(c *serving.Canary) { c.LoadEndpointPrefix = "x" }), "both prefix"},
		{"no source", canary(func(c *serving.Canary) { c.LoadEndpoints = nil }), "--input-endpoints"},
		{"names itself", canary(func(c *serving.Canary) { c.LoadEndpoints[0] = "/c/" }), "itself"},
		{"monitoring without a query", serving.Monitoring{BaseServingURL: "m", EngineType: "custom"}.Validate(), "at least a project / name / tag"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if (tc.err == nil) != (tc.want == "") || (tc.err != nil && !strings.Contains(tc.err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", tc.err, tc.want)
			}
		})
	}
}

func custom(urls ...string) map[string]serving.Endpoint {
	endpoints := map[string]serving.Endpoint{}
	for _, u := range urls {
		name, version, _ := strings.Cut(u, "/")
		endpoints[u] = serving.Endpoint{EngineType: "custom", ServingURL: name, Version: version}
	}
	return endpoints
}

func TestCanaryRules(t *testing.T) {
	exists := custom("m/1", "m/2", "m/10", "mb/1", "other")
	for _, tc := range []struct {
		name    string
		canary  serving.Canary
		targets []serving.EndpointURL
		shares  []float64
		problem string
	}{
		{"a list pairs by position", serving.Canary{LoadEndpoints: []string{"m/2", "m/1"}, Weights: []float64{0.1, 0.9}}, []serving.EndpointURL{"m/2", "m/1"}, []float64{0.1, 0.9}, ""},
		{"weights need not sum to 1", serving.Canary{LoadEndpoints: []string{"m/2", "m/1"}, Weights: []float64{1, 3}}, []serving.EndpointURL{"m/2", "m/1"}, []float64{0.25, 0.75}, ""},
		{"an unknown one goes with its weight", serving.Canary{LoadEndpoints: []string{"m/7", "m/1", "m/2"}, Weights: []float64{8, 1, 1}}, []serving.EndpointURL{"m/1", "m/2"}, []float64{0.5, 0.5}, "m/7"},
		{"a canary is no target, so there are no circles", serving.Canary{LoadEndpoints: []string{"second", "m/1"}, Weights: []float64{1, 1}}, []serving.EndpointURL{"m/1"}, []float64{1}, `"second" is a canary`},
		{"a weight of 0 takes no traffic", serving.Canary{LoadEndpoints: []string{"m/1", "m/2"}, Weights: []float64{0, 1}}, []serving.EndpointURL{"m/2"}, []float64{1}, ""},
		{"a prefix takes the newest first, as numbers", serving.Canary{LoadEndpointPrefix: "m/", Weights: []float64{0.1, 0.2, 0.7}}, []serving.EndpointURL{"m/10", "m/2", "m/1"}, []float64{0.1, 0.2, 0.7}, ""},
		{"a prefix is text", serving.Canary{LoadEndpointPrefix: "m", Weights: []float64{1, 1, 1, 1}}, []serving.EndpointURL{"mb/1", "m/10", "m/2", "m/1"}, []float64{0.25, 0.25, 0.25, 0.25}, ""},
		{"surplus endpoints are cut", serving.Canary{LoadEndpointPrefix: "m/", Weights: []float64{1}}, []serving.EndpointURL{"m/10"}, []float64{1}, ""},
		{"surplus weights are cut", serving.Canary{LoadEndpointPrefix: "other", Weights: []float64{1, 9}}, []serving.EndpointURL{"other"}, []float64{1}, ""},
		{"nothing matches", serving.Canary{LoadEndpointPrefix: "zzz", Weights: []float64{1}}, nil, nil, `no endpoint starts with "zzz"`},
		{"only weights of 0 are left", serving.Canary{LoadEndpoints: []string{"m/7", "m/1"}, Weights: []float64{1, 0}}, nil, nil, "sum to 0"},
		{"a record of others without weights", serving.Canary{LoadEndpoints: []string{"m/1"}}, nil, nil, "weights"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.canary.Endpoint = "c"
			plan := serving.Resolve(serving.Service{Endpoints: exists, Canaries: map[string]serving.Canary{"c": tc.canary, "second": {Endpoint: "second", Weights: []float64{1}, LoadEndpoints: []string{"c"}}}}, nil, nil)
			got := plan.Canaries["c"]
			if d := cmp.Diff(tc.targets, got.Targets); d != "" {
				t.Error(d)
			}
			for i, share := range tc.shares {
				if math.Abs(got.Shares[i]-share) > 1e-12 {
					t.Errorf("share %d: %v, want %v", i, got.Shares[i], share)
				}
			}
			if (tc.problem == "") != (got.Problem == "") || !strings.Contains(got.Problem, tc.problem) {
				t.Errorf("problem %q, want %q", got.Problem, tc.problem)
			}
		})
	}
}

func TestVersionsNeverChangeOrRepeat(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	a, b, c := serving.MonitoredModel{ID: "A", Created: day(1)}, serving.MonitoredModel{ID: "B", Created: day(2)}, serving.MonitoredModel{ID: "C", Created: day(3)}
	v, changed := serving.Versions(nil).Assign("m", []serving.MonitoredModel{b, a})
	if !changed || v["m"]["A"] != 1 || v["m"]["B"] != 2 {
		t.Fatalf("by creation: %v", v)
	}
	v2, changed := v.Assign("m", []serving.MonitoredModel{c, b})
	if !changed || v2["m"]["C"] != 3 || v2["m"]["B"] != 2 || v["m"]["C"] != 0 {
		t.Fatalf("a new one comes, the receiver stays: %v %v", v2, v)
	}
	if v3, changed := v2.Assign("m", nil); changed || len(v3["m"]) != 3 {
		t.Fatalf("all gone: %v", v3)
	}
	if v4, _ := v2.Assign("m", []serving.MonitoredModel{{ID: "D", Created: day(4)}}); v4["m"]["D"] != 4 {
		t.Fatalf("a number is used again: %v", v4)
	}
	if v5, changed := v2.Assign("m", []serving.MonitoredModel{a}); changed || v5["m"]["A"] != 1 {
		t.Fatalf("one that returns: %v", v5)
	}
	if v6, _ := v2.Assign("other/base", []serving.MonitoredModel{a}); v6["other/base"]["A"] != 1 {
		t.Fatalf("bases are apart: %v", v6)
	}
}

func TestNumbersOfTheOriginalAreContinued(t *testing.T) {
	s := decode(t, map[serving.Section]string{
		serving.SectionMonitoringEndpoints: `{"m/3":{"engine_type":"custom","serving_url":"m","version":"3","model_id":"X"},"m/4":{"engine_type":"custom","serving_url":"m","version":"4","model_id":"Y"}}`,
		serving.SectionVersions:            `{"m":{"X":3,"W":2}}`,
	})
	want := serving.Versions{"m": {"X": 3, "Y": 4, "W": 2}}
	if d := cmp.Diff(want, s.Known()); d != "" {
		t.Error(d)
	}
}

func TestMonitoredEndpointsFollowTheirMonitoring(t *testing.T) {
	s := serving.Service{
		Endpoints:  custom("m/1"),
		Monitoring: map[string]serving.Monitoring{"m": {BaseServingURL: "m", EngineType: "sklearn", Project: "p", PreprocessArtifact: "py_code_m"}},
	}
	found := map[string][]serving.MonitoredModel{"m": {{ID: "B"}, {ID: "A", Code: &serving.ModelCode{URI: "own"}}, {ID: "new"}}}
	plan := serving.Resolve(s, found, serving.Versions{"m": {"A": 1, "B": 2}})
	if got := plan.Endpoints["m/2"]; got.PreprocessArtifact != "py_code_m" || got.EngineType != "sklearn" || got.ModelID != "B" || got.Version != "2" {
		t.Errorf("m/2: %+v", got)
	}
	if plan.Endpoints["m/2"].Code != nil {
		t.Error("a model without code of its own got some")
	}
	if plan.Endpoints["m/1"].Monitoring != "" {
		t.Error("a static endpoint lost its url to a monitored one")
	}
	if len(plan.Problems) != 2 {
		t.Errorf("problems: %v", plan.Problems)
	}
	if got := plan.MonitoringRecords(); len(got) != 1 || got["m/2"].ModelID != "B" {
		t.Errorf("written back: %v", got)
	}
}

func TestMetricsChooseTheNearestDefinition(t *testing.T) {
	s := serving.Service{Metrics: map[string]serving.MetricLogging{"m/*": {Endpoint: "m/*"}, "*": {Endpoint: "*"}, "m/1": {Endpoint: "m/1"}, "m/x/*": {Endpoint: "m/x/*"}}}
	for url, want := range map[serving.EndpointURL]string{"m/1": "m/1", "m/2": "m/*", "m/x/1": "m/x/*", "other": "*"} {
		if got := s.MetricsFor(url).Endpoint; got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

func TestAChangedCanaryKeepsTheFieldsOfOtherProducts(t *testing.T) {
	s := decode(t, map[serving.Section]string{serving.SectionCanary: `{"c":{"endpoint":"c","weights":[1],"load_endpoints":["a"],"from_the_future":1}}`})
	if replaced, err := s.AddCanary(serving.Canary{Endpoint: "/c", Weights: []float64{1, 2}, LoadEndpoints: []string{"a", "b"}}); err != nil || !replaced {
		t.Fatal(replaced, err)
	}
	if text, err := s.Encode(serving.SectionCanary); err != nil || !strings.Contains(text, `"from_the_future":1`) || !strings.Contains(text, `"b"`) {
		t.Errorf("stored: %s, %v", text, err)
	}
}

func TestAddingMetricsMergesAndKeepsTheFrequency(t *testing.T) {
	half := 0.5
	s := serving.Service{Endpoints: custom("m/1"), Metrics: map[string]serving.MetricLogging{}}
	add := func(m serving.MetricLogging) bool {
		t.Helper()
		updated, err := s.AddMetrics(m)
		if err != nil {
			t.Fatal(err)
		}
		return updated
	}
	if add(serving.MetricLogging{Endpoint: "/m/1/", LogFrequency: &half, Metrics: map[string]serving.Metric{"x": {Type: "value"}}}) {
		t.Error("the first is no update")
	}
	if !add(serving.MetricLogging{Endpoint: "m/1", Metrics: map[string]serving.Metric{"y": {Type: "enum", Buckets: []any{"b", "a"}}}}) {
		t.Error("the second is an update")
	}
	got := s.Metrics["m/1"]
	if len(got.Metrics) != 2 || got.LogFrequency == nil || *got.LogFrequency != 0.5 {
		t.Errorf("got %+v", got)
	}
	if _, err := s.AddMetrics(serving.MetricLogging{Endpoint: "nobody"}); err == nil || !strings.Contains(err.Error(), "references a nonexistent endpoint") {
		t.Errorf("unknown endpoint: %v", err)
	}
	if err := s.RemoveMetrics("m/1", []string{"x", "nope"}); err == nil || len(s.Metrics["m/1"].Metrics) != 2 {
		t.Errorf("a failing removal changed something: %v", err)
	}
}

func TestRemoveTakesOneRecordInTheOriginalsOrder(t *testing.T) {
	s := serving.Service{
		Endpoints:  map[string]serving.Endpoint{"/m": {EngineType: "custom", ServingURL: "/m"}},
		Monitoring: map[string]serving.Monitoring{"m": {}},
		Canaries:   map[string]serving.Canary{"m": {}},
	}
	for _, want := range []serving.Removed{serving.RemovedEndpoint, serving.RemovedMonitoring, serving.RemovedCanary} {
		if got, _, err := s.Remove("m/"); err != nil || got != want {
			t.Fatalf("got %q %v, want %q", got, err, want)
		}
	}
	if _, _, err := s.Remove("m"); err == nil || !strings.HasPrefix(err.Error(), "Could not find base endpoint URL: m") {
		t.Fatalf("nothing left: %v", err)
	}
}

func TestStateHashMovesWithWhatUsersConfigure(t *testing.T) {
	s := serving.Service{Endpoints: custom("m/1"), Versions: serving.Versions{}}
	hash := s.StateHash(nil)
	if len(hash) != 32 {
		t.Fatalf("%q is not 32 hex digits", hash)
	}
	s.Versions["m"] = map[serving.ModelID]int{"A": 1}
	if s.StateHash(map[string]string{"unused": "1"}) != hash {
		t.Error("the hash moved with what instances write back")
	}
	s.Endpoints["m/2"] = serving.Endpoint{EngineType: "custom", ServingURL: "m", Version: "2", PreprocessArtifact: "code"}
	if s.StateHash(map[string]string{"code": "1"}) == s.StateHash(map[string]string{"code": "2"}) {
		t.Error("the hash does not move with code")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"m":{"engine_type":"custom","serving_url":"m","version":"","input_size":[1,[2]],"auxiliary_cfg":{"a":[null]}}}`)
	f.Add(`{"c":{"endpoint":"c","weights":["0.1",1],"load_endpoints":"x"}}`)
	f.Add(`{"m":{"endpoint":"m","metrics":{"x":{"type":"scalar","buckets":[0.5,"a"]}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		sections := map[serving.Section]json.RawMessage{}
		for _, section := range serving.Sections() {
			sections[section] = json.RawMessage(text)
		}
		s := serving.Decode(sections, nil)
		serving.Resolve(s, map[string][]serving.MonitoredModel{"m": {{ID: "A"}}}, s.Known())
		for _, section := range serving.Sections() {
			once, err := s.Encode(section)
			if err != nil {
				continue // an unreadable section is refused, by rule
			}
			again, err := serving.Decode(map[serving.Section]json.RawMessage{section: json.RawMessage(once)}, nil).Encode(section)
			if err != nil || again != once {
				t.Fatalf("%s: %q became %q (%v)", section, once, again, err)
			}
		}
	})
}

func TestCodeOfAModelSurvivesItsMetadata(t *testing.T) {
	want := serving.ModelCode{URI: "http://files/code.zip", SHA256: "ab", Folder: true}
	if got := serving.CodeOf(want.Metadata()); got == nil || *got != want {
		t.Errorf("got %+v", got)
	}
	if got := serving.CodeOf(map[string]string{"other": "x"}); got != nil {
		t.Errorf("got %+v", got)
	}
}

package ui

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/drift/watch"
	"clearmlserving/serving"
)

// answers is a Series that answers an expression with the first text that is part of it: the values of one
// series at all steps.
type answers map[string]func(at time.Time) model.Vector

func (a answers) Query(_ context.Context, expr string, at time.Time) (model.Vector, error) {
	for part, of := range a {
		if strings.Contains(expr, part) {
			return of(at), nil
		}
	}
	return nil, nil
}

func (a answers) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (model.Matrix, error) {
	var all model.Matrix
	place := map[model.Fingerprint]*model.SampleStream{}
	for at := start; !at.After(end); at = at.Add(step) {
		found, err := a.Query(ctx, expr, at)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			key := s.Metric.Fingerprint()
			if place[key] == nil {
				place[key] = &model.SampleStream{Metric: s.Metric}
				all = append(all, place[key])
			}
			place[key].Values = append(place[key].Values, model.SamplePair{Timestamp: model.TimeFromUnix(at.Unix()), Value: s.Value})
		}
	}
	return all, nil
}

// broken is a Series that cannot be read.
type broken struct{}

func (broken) Query(context.Context, string, time.Time) (model.Vector, error) {
	return nil, errors.New("no connection")
}

func (broken) QueryRange(context.Context, string, time.Time, time.Time, time.Duration) (model.Matrix, error) {
	return nil, errors.New("no connection")
}

func sample(value float64, labels ...string) *model.Sample {
	m := model.Metric{}
	for i := 0; i+1 < len(labels); i += 2 {
		m[model.LabelName(labels[i])] = model.LabelValue(labels[i+1])
	}
	return &model.Sample{Metric: m, Value: model.SampleValue(value)}
}

// shop answers like a service with two versions of an endpoint, a canary over them, and another endpoint.
func shop() scripted {
	s := guest()
	config := map[string]map[string]string{
		"endpoints": {"name": "endpoints", "value": `{"wine/1":{"engine_type":"sklearn","serving_url":"wine","version":"1"},"wine/2":{"engine_type":"sklearn","serving_url":"wine","version":"2"},"plain":{"engine_type":"custom","serving_url":"plain"}}`},
		"canary":    {"name": "canary", "value": `{"both":{"endpoint":"both","weights":[1,3],"load_endpoints":["wine/2","wine/1"]}}`},
	}
	text, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	task := `{"id":"s","name":"shop","type":"service","status":"in_progress","system_tags":["serving-control-plane"],"configuration":` + string(text) + `}`
	s["tasks.get_all_ex"], s["tasks.get_all"] = `{"tasks":[`+task+`]}`, `{"tasks":[`+task+`]}`
	s["tasks.get_by_id"] = `{"task":` + task + `}`
	s["tasks.get_configuration_history"] = `{"edits":[{"id":"e1","created":"2026-11-30T11:59:00","user":{"id":"u","name":"ann"},"sections":[{"section":"canary","action":"changed","before":"{\"both\":{\"endpoint\":\"both\",\"weights\":[1,1],\"load_endpoints\":[\"wine/2\",\"wine/1\"]}}","after":"{\"both\":{\"endpoint\":\"both\",\"weights\":[1,3],\"load_endpoints\":[\"wine/2\",\"wine/1\"]}}"}]}]}`
	return s
}

func noon() time.Time { return time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC) }

func TestARangeOfTimeIsReadFromTheAddress(t *testing.T) {
	now := noon().Add(7 * time.Second)
	for query, want := range map[string]string{
		"":                              "1h 11:00:00 12:00:00 15s",
		"range=15m":                     "15m 11:45:05 12:00:05 5s",
		"range=nonsense":                "1h 11:00:00 12:00:00 15s",
		"from=1796036400&to=1796040000": " 11:00:00 12:00:00 15s",
		"from=1796039999&to=1796040000": " 11:59:30 12:00:00 1s", // a chart of a second shows nothing
		"from=5&to=4":                   "1h 11:00:00 12:00:00 15s",
		"from=1&to=99999999999":         "1h 11:00:00 12:00:00 15s",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		s := spanOf(q, now)
		got := strings.Join([]string{s.Range, s.From.UTC().Format(time.TimeOnly), s.To.UTC().Format(time.TimeOnly), s.Step.String()}, " ")
		if got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	for _, long := range []time.Duration{leastSpan, time.Minute, time.Hour, 36 * time.Hour, longestSpan} {
		if points := int(long / stepOf(long)); points > chartPoints*2 {
			t.Errorf("%s has %d points", long, points)
		}
	}
	for _, r := range ranges() {
		if points := int(r.Long / r.step); points > chartPoints*2 || points < 100 {
			t.Errorf("%s has %d points", r.Name, points)
		}
	}
}

func TestAnEndpointIsSelectedByTheLabelsOfItsMetrics(t *testing.T) {
	config := serving.Service{Endpoints: map[string]serving.Endpoint{
		"wine/1": {EngineType: "custom", ServingURL: "wine", Version: "1"}, "a/7": {EngineType: "custom", ServingURL: "a/7"},
	}}
	for at, want := range map[string]string{
		"wine/1": `{endpoint="wine",version="1"}`, "a/7": `{endpoint="a/7",version=""}`, "gone/3": `{endpoint="gone",version="3"}`, `a"b`: `{endpoint="a\"b",version=""}`,
	} {
		if got := selector("", []target{targetOf(config, at)}); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
	two := []target{targetOf(config, "wine/1"), targetOf(config, "a.b/2")}
	if got, want := selector(`service="s"`, two, `x!="y"`), `{x!="y",service="s",endpoint=~"wine|a\\.b",version=~"1|2"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func charts(t *testing.T, series Series, query string) chartsData {
	t.Helper()
	p := newPages(t, Options{API: shop(), Series: series, Now: noon})
	got := ask(t, p, "GET", "/services/s/charts.json?"+query, "")
	var data chartsData
	if err := json.Unmarshal(got.Body.Bytes(), &data); err != nil || got.Code != http.StatusOK {
		t.Fatalf("%d %v: %s", got.Code, err, got.Body)
	}
	return data
}

// UnmarshalJSON reads what is sent to the script.
func (n *numbers) UnmarshalJSON(text []byte) error {
	var values []*float64
	if err := json.Unmarshal(text, &values); err != nil {
		return err
	}
	for _, v := range values {
		if v == nil {
			*n = append(*n, math.NaN())
		} else {
			*n = append(*n, *v)
		}
	}
	return nil
}

func TestValuesOfAChartAreSentInTheOrderOfTheirMeaning(t *testing.T) {
	data := charts(t, answers{"by (outcome)": func(at time.Time) model.Vector {
		if at.Before(noon().Add(-time.Minute)) {
			return nil
		}
		return model.Vector{sample(2.000004, "outcome", "timed_out"), sample(30, "outcome", "answered"), sample(math.NaN(), "outcome", "refused")}
	}}, "endpoint=wine/2&show=rate&show=unknown&show=errors")
	if len(data.Charts) != 2 || data.To-data.From != 3600 || data.Step != 15 {
		t.Fatalf("%+v", data)
	}
	rate := data.Charts[0]
	if rate.ID != "rate" || rate.Unit != "/s" || rate.Kind != "stack" || len(rate.Lines) != 2 || rate.Lines[0].Name != "answered" || rate.Lines[1].Name != "timed out" {
		t.Fatalf("%+v", rate)
	}
	values := rate.Lines[1].Values
	if len(values) != 241 || !math.IsNaN(values[0]) || values[240] != 2 {
		t.Errorf("%d values, from %v to %v", len(values), values[0], values[len(values)-1])
	}
}

func TestVersionsAndTheEndpointsOfACanaryAreSideBySide(t *testing.T) {
	both := answers{"endpoint, version": func(time.Time) model.Vector {
		return model.Vector{sample(3, "endpoint", "wine", "version", "1"), sample(1, "endpoint", "wine", "version", "2"), sample(9, "endpoint", "wine", "version", "3")}
	}}
	for at, want := range map[string]string{"wine/1": "wine/2 wine/1", "both": "wine/2 wine/1"} {
		data := charts(t, both, "endpoint="+at+"&show=each-rate&show=each-errors&show=each-p50&show=each-p99")
		if len(data.Charts) != 4 {
			t.Fatalf("%s: %d charts", at, len(data.Charts))
		}
		for _, c := range data.Charts {
			var names []string
			for _, l := range c.Lines {
				names = append(names, l.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s, %s: lines %s, want %s", at, c.ID, got, want)
			}
		}
	}
	if data := charts(t, both, "endpoint=both&show=shares&show=rate"); len(data.Charts) != 1 || data.Charts[0].Kind != "shares" {
		t.Errorf("a canary: %+v", data.Charts)
	}
	if data := charts(t, both, "endpoint=plain&show=each-rate&show=shares"); len(data.Charts) != 0 {
		t.Errorf("an endpoint without another version: %+v", data.Charts)
	}
}

func TestEventsOfTheHistoryAreMarksOfAChart(t *testing.T) {
	for at, want := range map[string]string{
		"wine/2": "canary both changed by ann", "both": "canary both changed by ann", "plain": "",
	} {
		data := charts(t, answers{}, "marks=1&endpoint="+at)
		var said []string
		for _, m := range data.Marks {
			said = append(said, m.Text)
			if m.Link != "/services/s/history?edit=e1" || m.At != noon().Add(-time.Minute).Unix() {
				t.Errorf("%s: %+v", at, m)
			}
		}
		if got := strings.Join(said, ", "); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
	for _, other := range []string{"from=1796039990&to=1796040000", "from=1796030000&to=1796033600"} { // after the event, and before it
		if data := charts(t, answers{}, "marks=1&endpoint=both&"+other); len(data.Marks) != 0 {
			t.Errorf("an event of another time: %+v", data.Marks)
		}
	}
}

func TestChartsThatCannotBeReadSayWhy(t *testing.T) {
	if data := charts(t, broken{}, "endpoint=plain&show=rate"); len(data.Charts) != 1 || data.Charts[0].Note != "It cannot be read: no connection" {
		t.Errorf("%+v", data.Charts)
	}
	p := newPages(t, Options{API: shop()})
	page := ask(t, p, "GET", "/services/s/endpoints/plain", "").Body.String()
	if !strings.Contains(page, noSeries) || strings.Contains(page, "data-charts") {
		t.Errorf("without time series: %s", page)
	}
	if got := ask(t, p, "GET", "/services/s/charts.json?endpoint=plain&show=rate", ""); got.Code != http.StatusNotFound {
		t.Errorf("without time series: %d", got.Code)
	}
}

func TestTheAnswerToAPageWithChartsIsBounded(t *testing.T) {
	many := answers{"": func(time.Time) model.Vector {
		var all model.Vector
		for i := range 60 {
			name := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
			all = append(all, sample(1.23456789e-7, "outcome", name, "state", name))
		}
		return all
	}}
	p := newPages(t, Options{API: shop(), Series: many, Now: noon})
	query := "/services/s/charts.json?endpoint=wine/2&marks=1"
	for _, c := range append(endpointCharts(), comparedCharts()...) {
		query += "&show=" + c.ID
	}
	got := ask(t, p, "GET", query+strings.Repeat("&show=rate", 100), "")
	if got.Code != http.StatusOK || got.Body.Len() > 2_000_000 {
		t.Errorf("%d, %d bytes", got.Code, got.Body.Len())
	}
	data := charts(t, many, "endpoint=wine/2&show=rate&show=rate")
	if len(data.Charts) != 1 || len(data.Charts[0].Lines) != mostLines || data.Charts[0].Note != "48 more lines are not shown." {
		t.Errorf("%d charts, %d lines, %q", len(data.Charts), len(data.Charts[0].Lines), data.Charts[0].Note)
	}
}

func TestADistributionIsDrawnByItsBins(t *testing.T) {
	nan := math.NaN()
	got := binned([]line{{Name: "+Inf", Values: []float64{10, nan}}, {Name: "2", Values: []float64{4, nan}}, {Name: "10", Values: []float64{9, nan}}, {Name: "x"}})
	want := map[string]float64{"≤ 2": 4, "2 – 10": 5, "> 10": 1}
	for i, name := range []string{"≤ 2", "2 – 10", "> 10"} {
		if len(got) != 3 || got[i].Name != name || got[i].Values[0] != want[name] || !math.IsNaN(got[i].Values[1]) {
			t.Fatalf("%+v", got)
		}
	}
	if got := binned(nil); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestVariablesHaveChartsOfTheirKind(t *testing.T) {
	api := shop()
	for call, text := range api {
		api[call] = strings.ReplaceAll(text, `"configuration":{`, `"configuration":{"metric_logging":{"name":"metric_logging","value":`+quoteFact(`{"wine/*":{"endpoint":"wine/*","metrics":{"x0":{"type":"scalar","buckets":[1,2]},"animal":{"type":"enum","buckets":["cat"]},"price":{"type":"value"},"sold":{"type":"counter"}}}}`)+`},`)
	}
	series := answers{"variable_distribution_bucket": func(time.Time) model.Vector {
		return model.Vector{sample(1, "le", "1"), sample(3, "le", "2"), sample(3, "le", "+Inf")}
	}, "count by (variable)": func(time.Time) model.Vector {
		return model.Vector{sample(1, "variable", "temperature"), sample(1, "variable", "price")}
	}}
	p := newPages(t, Options{API: api, Series: series, Now: noon})
	page := ask(t, p, "GET", "/services/s/endpoints/wine/1", "").Body.String()
	for name, shown := range map[string]bool{"var:x0": true, "var:animal": true, "var:price": true, "var:sold": true, "var:temperature": true, "skipped": true, "var:none": false} {
		if n := strings.Count(page, `data-chart="`+name+`"`); (n == 1) != shown || n > 1 {
			t.Errorf("%s is %d times on the page", name, n)
		}
	}
	got := ask(t, p, "GET", "/services/s/charts.json?endpoint=wine/1&show=var:x0&show=var:animal&show=var:temperature", "")
	var data chartsData
	if err := json.Unmarshal(got.Body.Bytes(), &data); err != nil || len(data.Charts) != 3 {
		t.Fatalf("%v %s", err, got.Body)
	}
	if x := data.Charts[0]; x.Kind != kindHeat || len(x.Lines) != 3 || x.Lines[1].Name != "1 – 2" || x.Lines[1].Values[0] != 2 {
		t.Errorf("%+v", x)
	}
	if data.Charts[1].Kind != kindShares || data.Charts[2].Kind != kindLines {
		t.Errorf("%+v", data.Charts[1:])
	}
}

func TestSmallChartsShowTheLastHourOfEachEndpoint(t *testing.T) {
	series := answers{"requests_total": func(at time.Time) model.Vector {
		if at.Equal(noon().Add(-30 * time.Minute)) {
			return nil
		}
		return model.Vector{sample(12.34, "endpoint", "wine", "version", "1"), sample(5, "endpoint", "gone")}
	}, "request_duration": func(time.Time) model.Vector { return model.Vector{sample(.0456, "endpoint", "wine", "version", "1")} }}
	page := ask(t, newPages(t, Options{API: shop(), Series: series, Now: noon}), "GET", "/services/s", "").Body.String()
	for _, want := range []string{"12.3/s", "45.6 ms", "Rate, last hour"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in %s", want, page)
		}
	}
	if n := strings.Count(page, "<polyline"); n != 3 { // the rate has a gap
		t.Errorf("%d lines", n)
	}
	if page := ask(t, newPages(t, Options{API: shop()}), "GET", "/services/s", "").Body.String(); strings.Contains(page, "last hour") || !strings.Contains(page, "wine/1") {
		t.Errorf("without time series: %s", page)
	}
	if page := ask(t, newPages(t, Options{API: shop(), Series: broken{}}), "GET", "/services/s", "").Body.String(); !strings.Contains(page, "cannot be read: no connection") {
		t.Errorf("with broken time series: %s", page)
	}
}

func TestTheMachineOfAnInstanceIsShownBesideIt(t *testing.T) {
	series := answers{
		"machine_cpu_seconds":   func(time.Time) model.Vector { return model.Vector{sample(.256, "instance", "host:1")} },
		"machine_memory":        func(time.Time) model.Vector { return model.Vector{sample(.954, "instance", "host:1")} },
		"machine_disk_free":     func(time.Time) model.Vector { return model.Vector{sample(math.NaN(), "instance", "host:1")} },
		"machine_network_bytes": func(time.Time) model.Vector { return nil },
	}
	v := &visit{p: newPages(t, Options{API: shop(), Series: series, Now: noon}), r: httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)}
	if got, want := v.healthOf("s")["host:1"], (health{CPU: "25.6 %", Memory: "95.4 %", MemoryFull: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	v.p = newPages(t, Options{API: shop(), Series: broken{}})
	if got := v.healthOf("s"); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestLinesWithoutErrorsAreNotDrawn(t *testing.T) {
	zero := answers{"by (outcome)": func(time.Time) model.Vector {
		return model.Vector{sample(0, "outcome", "error"), sample(0, "outcome", "refused"), sample(0, "outcome", "answered")}
	}}
	data := charts(t, zero, "endpoint=plain&show=errors&show=rate")
	if len(data.Charts) != 2 || len(data.Charts[0].Lines) != 0 || data.Charts[0].Note != "None in this time." || len(data.Charts[1].Lines) != 1 {
		t.Errorf("%+v", data.Charts)
	}
}

func TestChartsOfAMachineAreThoseOfItsInstance(t *testing.T) {
	for _, g := range machineGroups("host:1") {
		for _, c := range g.Charts {
			for _, q := range c.lines(asked{within: g.Within, span: spanOf(nil, noon())}) {
				if !strings.Contains(q.expr, `instance="host:1"`) || strings.Contains(q.expr, "endpoint=") {
					t.Errorf("%s: %s", c.ID, q.expr)
				}
			}
		}
	}
}

func TestAVariableWithAReferenceIsDrawnBesideIt(t *testing.T) {
	api := shop()
	report := `{"at":"2026-11-30T11:59:00Z","variables":[{"endpoint":"wine","version":"1","variable":"x0","kind":"number","verdict":"steady","psi":0.0123,"reference":"r1","bins":[
		{"name":"x < 1","reference":0.5,"live":0.4},{"name":"1 <= x < 2.5","reference":0.3,"live":0.6},{"name":"x >= 2.5","reference":0.2,"live":0}]}]}`
	task := `{"id":"w","name":"watch","type":"` + watch.TaskType + `","configuration":{"` + "serving_instance" + `":{"name":"serving_instance","value":` + quoteFact(report) + `}}}`
	for _, call := range []string{"tasks.get_all_ex", "tasks.get_all"} {
		api[call] = strings.Replace(api[call], `{"tasks":[`, `{"tasks":[`+task+`,`, 1)
	}
	series := answers{"drift_values_total": func(time.Time) model.Vector {
		return model.Vector{sample(6, "bin", "1 <= x < 2.5"), sample(4, "bin", "x < 1")}
	}}
	p := newPages(t, Options{API: api, Series: series, Now: noon})
	got := ask(t, p, "GET", "/services/s/charts.json?endpoint=wine/1&show=drift:x0&show=drift-evidence", "")
	var data chartsData
	if err := json.Unmarshal(got.Body.Bytes(), &data); err != nil || len(data.Charts) != 2 {
		t.Fatalf("%v %s", err, got.Body)
	}
	x := data.Charts[0]
	if x.Kind != kindHeat || len(x.Lines) != 3 {
		t.Fatalf("%+v", x)
	}
	for i, want := range []chartLine{{Name: "< 1", Values: numbers{4}}, {Name: "1 – 2.5", Values: numbers{6}}, {Name: "≥ 2.5"}} {
		l := x.Lines[i]
		if l.Name != want.Name || l.Reference == nil || (len(want.Values) > 0 && l.Values[0] != want.Values[0]) || (len(want.Values) == 0) != (len(l.Values) == 0) {
			t.Errorf("%+v, want %+v", l, want)
		}
	}
	if page := ask(t, p, "GET", "/services/s/endpoints/wine/1", "").Body.String(); !strings.Contains(page, `data-chart="drift:x0"`) || !strings.Contains(page, "no drift") {
		t.Errorf("%s", page)
	}
}

func TestTheStepsOfACanaryAreOnItsPageAndOnItsCharts(t *testing.T) {
	api := shop()
	rollout := `{"both":{"id":"r1","alpha":0.01,"endpoint":"both","candidate":"wine/2","baseline":"wine/1","steps":[0.05,0.5],"phase":"rolled back","events":[
		{"time":"2026-11-30T11:50:00Z","by":"ann","what":"5 %","share":0.05},{"time":"2026-11-30T11:55:00Z","by":"canary analysis","what":"rolled back","share":0,"note":"errors"}]}}`
	for call, text := range api {
		api[call] = strings.ReplaceAll(text, `"configuration":{`, `"configuration":{"canary_rollouts":{"name":"canary_rollouts","value":`+quoteFact(rollout)+`},`)
	}
	p := newPages(t, Options{API: api, Series: answers{}, Now: noon})
	page := ask(t, p, "GET", "/services/s/endpoints/both", "").Body.String()
	for _, want := range []string{`id="rollout"`, "Decisions", "canary analysis"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in %s", want, page)
		}
	}
	var data chartsData
	if err := json.Unmarshal(ask(t, p, "GET", "/services/s/charts.json?endpoint=both&marks=1", "").Body.Bytes(), &data); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, m := range data.Marks {
		said = append(said, m.Kind+" "+m.Text)
	}
	want := "plain 5 %, share 5 % by ann|bad rolled back, share 0 % by canary analysis: errors|plain canary both changed by ann"
	if got := strings.Join(said, "|"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

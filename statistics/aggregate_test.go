package statistics_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/message"
)

// definitions has a variable of each type.
func definitions() map[string]serving.Metric {
	return map[string]serving.Metric{
		"x": {Type: "scalar", Buckets: []any{0.0, 2.0, 4.5}}, "animal": {Type: "enum", Buckets: []any{"dog", "cat"}},
		"v": {Type: "value"}, "c": {Type: "counter"},
	}
}

// add counts the records of a message.
func add(t *testing.T, a *statistics.Aggregate, text string) {
	t.Helper()
	records, broken, err := message.Decode([]byte(text))
	if err != nil || broken != (message.Broken{}) {
		t.Fatalf("%s: %+v %v", text, broken, err)
	}
	for _, r := range records {
		a.Add(statistics.Observation{Latency: r.Latency, Timed: r.Timed, Count: r.Count, Variables: r.Variables}, 3, time.Unix(2000, 0))
	}
}

const someRecords = `[{"_url":"m/1","_latency":0.005,"_count":2,"x":1,"animal":"cat","v":7,"c":2},
	{"_url":"m/1","_latency":0.0751,"_count":2,"x":[0,2,5],"animal":["dog","cow"],"c":1.5,"own":4},
	{"_url":"m/1","_latency":9,"_count":1,"x":"text","animal":null,"v":8,"c":-1}]`

// page returns the scrape of one aggregate, whose last values have source 3.
func page(t *testing.T, all map[serving.EndpointURL]*statistics.Aggregate, current bool) *http.Response {
	t.Helper()
	h, err := statistics.AggregateHandler(statistics.AggregateCollector{
		All:     func() map[serving.EndpointURL]*statistics.Aggregate { return all },
		Names:   statistics.NamesOf,
		Current: func(source int32) bool { return source == 3 && current },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return w.Result()
}

func textOf(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", r.StatusCode, err)
	}
	return string(text)
}

// wanted are the lines of someRecords.
var wanted = []string{
	`clearml_serving_requests_total{endpoint="m",outcome="answered",version="1"} 5`,
	`clearml_serving_request_duration_seconds_count{endpoint="m",version="1"} 3`,
	`clearml_serving_request_duration_seconds_sum{endpoint="m",version="1"} 9.0801`,
	`clearml_serving_sampled_requests_total{endpoint="m",version="1"} 3`,
	`clearml_serving_variable_distribution_bucket{endpoint="m",variable="x",version="1",le="2"} 3`,
	`clearml_serving_variable_distribution_sum{endpoint="m",variable="x",version="1"} 8`,
	`clearml_serving_variable_values_total{endpoint="m",value="other",variable="animal",version="1"} 1`,
	`clearml_serving_variable_total{endpoint="m",variable="c",version="1"} 7`,
	`clearml_serving_variable_value{endpoint="m",variable="own",version="1"} 4`,
	`clearml_serving_variables_skipped_total{endpoint="m",reason="missing",variable="v",version="1"} 1`,
	`clearml_serving_variables_skipped_total{endpoint="m",reason="negative",variable="c",version="1"} 1`,
	`clearml_serving_variables_skipped_total{endpoint="m",reason="type",variable="x",version="1"} 1`,

	`# TYPE m_1:_latency histogram`,
	`m_1:_latency_bucket{le="0.005"} 1.0`,
	`m_1:_latency_sum{le="0.005"} 3.0`,
	`m_1:_latency_bucket{le="0.075"} 1.0`,
	`m_1:_latency_bucket{le="0.1"} 2.0`,
	`m_1:_latency_bucket{le="5.0"} 2.0`,
	`m_1:_latency_bucket{le="+Inf"} 3.0`,
	`m_1:_latency_count 3.0`,
	`# TYPE m_1:_count_total counter`,
	`m_1:_count_total 5.0`,
	`# TYPE m_1:_count_created gauge`,
	`m_1:_count_created 1000.0`,
	`# HELP m_1:x User defined metric scalar`,
	`m_1:x_bucket{le="0.0"} 1.0`,
	`m_1:x_bucket{le="4.5"} 3.0`,
	`m_1:x_bucket{le="+Inf"} 4.0`,
	`m_1:x_sum{le="2.0"} 4.0`,
	`m_1:animal_bucket{enum="dog"} 1.0`,
	`m_1:animal_bucket{enum="other"} 1.0`,
	`m_1:animal_sum{enum="cat"} 3.0`,
	`# TYPE m_1:v gauge`,
	`m_1:v 8.0`,
	`# TYPE m_1:c_total counter`,
}

func TestRecordsAreCountedUnderTheOriginalsNamesAndWithLabels(t *testing.T) {
	a := statistics.NewAggregate(time.Unix(1000, 0))
	a.Define(definitions(), time.Unix(1000, 0))
	add(t, a, someRecords)
	all := map[serving.EndpointURL]*statistics.Aggregate{"m/1": a}
	text := textOf(t, page(t, all, true))
	lint(t, text)
	expect(t, text, wanted, "m_1:own")

	// The value of a partition that another replica reads now is not shown.
	text = textOf(t, page(t, all, false))
	expect(t, text, []string{`m_1:_count_total 5.0`}, "m_1:v ", "clearml_serving_variable_value{")
}

func TestCountsAreTheSameAfterStoringAndRestoring(t *testing.T) {
	a := statistics.NewAggregate(time.Unix(1000, 0))
	a.Define(definitions(), time.Unix(1000, 0))
	records := strings.Split(strings.Trim(someRecords, "[]"), "},")
	for i, one := range records {
		if i < len(records)-1 {
			one += "}"
		}
		add(t, a, "["+one+"]")
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		a = &statistics.Aggregate{}
		if err := json.Unmarshal(text, a); err != nil {
			t.Fatal(err)
		}
		a.Define(definitions(), time.Unix(5000, 0)) // the same: nothing is lost
		before := a.Clone()
		add(t, before, someRecords) // a copy shares nothing
	}
	expect(t, textOf(t, page(t, map[serving.EndpointURL]*statistics.Aggregate{"m/1": a}, true)), wanted)
}

func TestSumsThatOverflowCanBeStored(t *testing.T) {
	a := statistics.NewAggregate(time.Unix(1000, 0))
	a.Define(definitions(), time.Unix(1000, 0))
	add(t, a, `[{"_url":"m","x":1e308,"c":1e308,"_count":1e308},{"_url":"m","x":1e308,"c":1e308,"_count":1e308}]`)
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, a); err != nil {
		t.Fatal(err)
	}
	expect(t, textOf(t, page(t, map[serving.EndpointURL]*statistics.Aggregate{"m": a}, true)), []string{`m:_count_total +Inf`})
}

func TestAVariableWithoutItsDefinitionIsNotShownAnyMore(t *testing.T) {
	a := statistics.NewAggregate(time.Unix(1000, 0))
	a.Define(definitions(), time.Unix(1000, 0))
	add(t, a, someRecords)
	left := definitions()
	delete(left, "v")
	left["x"] = serving.Metric{Type: "scalar", Buckets: []any{1.0}}
	a.Define(left, time.Unix(2000, 0))
	add(t, a, `[{"_url":"m/1","v":1,"x":1,"animal":"cat","c":1}]`)
	text := textOf(t, page(t, map[serving.EndpointURL]*statistics.Aggregate{"m/1": a}, true))
	expect(t, text, []string{`m_1:x_count 1.0`, `m_1:animal_count 4.0`}, "m_1:v", `clearml_serving_variable_value{endpoint="m",variable="v"`)
}

func TestNamesThatCollideAreUniqueAndValid(t *testing.T) {
	all := map[serving.EndpointURL]*statistics.Aggregate{}
	for i, url := range []serving.EndpointURL{"m/1", "m_1", "1(x)", "é", "m\n\"{"} {
		a := statistics.NewAggregate(time.Unix(int64(1000-i), 0))
		a.Define(map[string]serving.Metric{"a b": {Type: "counter"}, "a_b": {Type: "counter"}, "a_b_total": {Type: "value"}}, time.Unix(1000, 0))
		add(t, a, `[{"_url":"x","_count":1,"_latency":1,"a b":1,"a_b":2,"a_b_total":3}]`)
		all[url] = a
	}
	text := textOf(t, page(t, all, true))
	lint(t, text)
	seen := map[string]bool{}
	counts := 0
	for line := range strings.Lines(text) {
		name := line[:strings.LastIndexByte(line, ' ')+1]
		if strings.HasPrefix(line, "#") {
			continue
		}
		if seen[name] {
			t.Errorf("twice: %s", line)
		}
		seen[name] = true
		if strings.Contains(line, ":_count") && strings.Contains(line, "_total") {
			counts++
		}
	}
	if counts != len(all) {
		t.Errorf("%d counts of %d endpoints", counts, len(all))
	}
	expect(t, text, []string{"m_1:_count_total 1.0", "_1_x_:_count_total 1.0", "_:_count_total 1.0"}) // m_1 was there before m/1
}

func TestAScraperThatTakesProtobufOrGzipGetsTheSameSeries(t *testing.T) {
	a := statistics.NewAggregate(time.Unix(1000, 0))
	a.Define(definitions(), time.Unix(1000, 0))
	add(t, a, someRecords)
	all := map[serving.EndpointURL]*statistics.Aggregate{"m/1": a}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, err := statistics.AggregateHandler(statistics.AggregateCollector{
			All: func() map[serving.EndpointURL]*statistics.Aggregate { return all }, Names: statistics.NamesOf, Current: func(int32) bool { return true },
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Error(err)
			return
		}
		h.ServeHTTP(w, r)
	}))
	defer server.Close()
	get := func(accept string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		answer, err := http.DefaultClient.Do(r) // it asks for gzip by itself
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	answer := get("text/plain")
	defer answer.Body.Close()
	if !answer.Uncompressed {
		t.Error("the answer was not compressed")
	}
	expect(t, textOf(t, answer), wanted)

	answer = get("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	defer answer.Body.Close()
	families := decode(t, answer.Header, answer.Body)
	if f := families["m_1:_latency_bucket"]; f == nil || len(f.GetMetric()) != 13 || f.GetMetric()[12].GetCounter().GetValue() != 3 {
		t.Errorf("%v", f)
	}
	if f := families["m_1:v"]; f == nil || f.GetMetric()[0].GetGauge().GetValue() != 8 {
		t.Errorf("%v", f)
	}
	if f := families["clearml_serving_request_duration_seconds"]; f == nil || len(f.GetMetric()[0].GetHistogram().GetPositiveSpan()) == 0 {
		t.Errorf("no native histogram: %v", f)
	}
}

// series parses a page as Prometheus does.
func series(t *testing.T, text, contentType string) map[string]float64 {
	t.Helper()
	parser, err := textparse.New([]byte(text), contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", contentType, err)
		}
		if entry == textparse.EntrySeries {
			name, _, value := parser.Series()
			all[string(name)] = value
		}
	}
}

func TestPrometheusReadsThePageInEachTextFormat(t *testing.T) {
	m := statistics.New()
	all := definitions()
	all["later"] = serving.Metric{Type: "ske\"tch\n"}
	m.Follow(plan(all, "m/1"))
	sampled(m, "m/1", 1, `{"x":1,"animal":"cat","v":2,"later":3}`, `{"x":3,"animal":"d\"o\\g","v":4}`)
	h, err := m.Handler(func() serving.Status { return serving.Status{} }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, accept := range []string{"text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=0.0.1"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		h.ServeHTTP(w, r)
		kind, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
		if want, _, _ := strings.Cut(accept, ";"); kind != want {
			t.Errorf("%s was answered with %s", accept, kind)
		}
		got := series(t, w.Body.String(), w.Header().Get("Content-Type"))
		for name, want := range map[string]float64{`m_1:x_bucket{le="2.0"}`: 1, `m_1:x_sum{le="+Inf"}`: 2, "m_1:v": 4, "m_1:_count_total": 2, `m_1:animal_bucket{enum="other"}`: 1, "m_1:later": 3} {
			if got[name] != want {
				t.Errorf("%s: %s is %v, want %v", accept, name, got[name], want)
			}
		}
	}
}

func TestAnInstanceWithoutKafkaExposesTheOriginalsNames(t *testing.T) {
	m := statistics.New()
	m.Follow(plan(definitions(), "m/1"))
	sampled(m, "m/1", 1, `{"x":1,"animal":"cat","v":2}`, `{"x":3,"animal":"dog","v":4}`)
	m.Count("m/1", "", serving.ClientErrors)
	status := serving.Status{Started: time.Unix(1000, 0)}
	text := scrape(t, m, status)
	lint(t, text)
	lines := []string{
		`m_1:_count_total 2.0`, `m_1:x_bucket{le="2.0"} 1.0`, `m_1:x_count 2.0`, `m_1:animal_bucket{enum="dog"} 1.0`, `m_1:v 4.0`, `# TYPE m_1:_latency histogram`,
	}
	expect(t, text, lines)

	m.SetForwarder(forwarder{active: true})
	text = scrape(t, m, status)
	lint(t, text)
	expect(t, text, []string{
		"clearml_serving_statistics_sent_total 7", `clearml_serving_statistics_lost_total{reason="disk"} 2`,
		"clearml_serving_statistics_waiting_requests 3", "clearml_serving_statistics_queue_bytes 100",
	}, "m_1:")
}

// forwarder is a Forwarder that does nothing.
type forwarder struct{ active bool }

func (forwarder) Forward(int, serving.Sample) {}

func (f forwarder) Forwarding() statistics.Forwarding {
	return statistics.Forwarding{Active: f.active, Sent: 7, Lost: map[string]uint64{"disk": 2}, Waiting: 3, Stored: 100}
}

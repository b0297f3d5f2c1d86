package statistics_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// scrape returns the answer to a scraper that accepts text.
func scrape(t *testing.T, m *statistics.Metrics, status serving.Status) string {
	t.Helper()
	h, err := m.Handler(func() serving.Status { return status }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// expect checks that each line is in the text, and that no line has a prefix in absent.
func expect(t *testing.T, text string, lines []string, absent ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			t.Errorf("missing: %s\nthere is:\n%s", line, grep(text, name))
		}
	}
	for _, line := range absent {
		if found := grep(text, line); found != "" {
			t.Errorf("not expected:\n%s", found)
		}
	}
}

func grep(text, begin string) (found string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, begin) {
			found += line
		}
	}
	return found
}

// lint fails for problems that promtool would report.
func lint(t *testing.T, text string) {
	t.Helper()
	found, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Errorf("the text cannot be parsed: %v", err)
	}
	for _, p := range found {
		if strings.HasPrefix(p.Metric, "clearml_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// full is a status with a value for everything.
func full() serving.Status {
	return serving.Status{
		Started: time.Unix(1000, 500_000_000), Synced: true, Problems: []serving.Problem{{}, {}},
		Access:  serving.AccessReport{Refused: 3},
		Workers: &serving.MemoryReport{Budget: 1000, Taken: 700, EndedEarly: 2, Exceeded: true},
		Endpoints: []serving.EndpointReport{{
			URL: "m/1", State: serving.StateReady, Engine: "custom", ModelID: "abc", Revision: 4, InUse: 2,
			Model: serving.ModelReport{
				Queued: 5, MaxQueue: 100, MaxWorkers: 4, Restarts: 2,
				Workers:   []serving.WorkerReport{{State: "busy"}, {State: "busy"}, {State: "idle"}},
				Batching:  &serving.BatchingReport{Batches: 3, Rows: 8, Sizes: [serving.BatchSizes]uint64{1, 0, 2}, Limit: 16},
				Addresses: []serving.AddressReport{{Pool: 1, Address: "gpu1:8001", State: serving.AddressHealthy, Outstanding: 2, Answered: 9}, {Pool: 1, Address: "gpu2:8001", State: serving.AddressEjected, Failed: 4}},
			},
		}, {URL: "loads", State: serving.StateLoading}, {
			URL: "same", Engine: "custom", Model: serving.ModelReport{Addresses: []serving.AddressReport{{Pool: 1, Address: "gpu1:8001", State: serving.AddressHealthy, Outstanding: 2, Answered: 9}}},
		}},
		Shadows:    []serving.ShadowReport{{From: "m/1", To: "loads", Shadowed: 9, Dropped: 1, Errors: 2, Equal: 3, Different: 1}},
		Recordings: []serving.RecordingReport{{URL: "m/1", Recorded: 7, Dropped: 1, Skipped: 2}},
	}
}

func TestEachPoolOfAnAddressCountsOnce(t *testing.T) {
	since := time.Unix(1000, 0)
	endpoint := func(url serving.EndpointURL, pool uint64, since time.Time, state serving.AddressState, answered uint64) serving.EndpointReport {
		a := serving.AddressReport{Pool: pool, Address: "gpu:8001", State: state, Since: since, Answered: answered}
		return serving.EndpointReport{URL: url, Engine: "custom", Model: serving.ModelReport{Addresses: []serving.AddressReport{a}}}
	}
	expect(t, scrape(t, statistics.New(), serving.Status{Endpoints: []serving.EndpointReport{
		endpoint("a", 1, since, serving.AddressHealthy, 1),
		endpoint("b", 2, since.Add(1), serving.AddressEjected, 10),
		endpoint("c", 1, since, serving.AddressHealthy, 1),
		endpoint("d", 1, since.Add(2), serving.AddressHealthy, 2), // its report was made later than the others
		endpoint("e", 3, since, serving.AddressHealthy, 100),      // opened at the same moment
	}}), []string{
		`clearml_serving_engine_address_healthy{address="gpu:8001",engine="custom"} 0`,
		`clearml_serving_engine_address_answered_total{address="gpu:8001",engine="custom"} 111`,
	})
}

func TestTheStateOfAnInstanceIsExposed(t *testing.T) {
	text := scrape(t, statistics.New(), full())
	lint(t, text)
	expect(t, text, []string{
		`clearml_serving_requests_in_progress{endpoint="m",version="1"} 2`,
		`clearml_serving_endpoint_ready{endpoint="m",version="1"} 1`,
		`clearml_serving_endpoint_ready{endpoint="loads",version=""} 0`,
		`clearml_serving_endpoint_info{endpoint="m",engine="custom",model_id="abc",revision="4",version="1"} 1`,
		`clearml_serving_queued_requests{endpoint="m",version="1"} 5`,
		`clearml_serving_queue_limit_requests{endpoint="m",version="1"} 100`,
		`clearml_serving_workers{endpoint="m",state="busy",version="1"} 2`,
		`clearml_serving_workers{endpoint="m",state="calling",version="1"} 0`,
		`clearml_serving_workers_limit{endpoint="m",version="1"} 4`,
		`clearml_serving_worker_restarts_total{endpoint="m",version="1"} 2`,
		`clearml_serving_batch_limit_rows{endpoint="m",version="1"} 16`,
		`clearml_serving_batch_rows_bucket{endpoint="m",version="1",le="1"} 1`,
		`clearml_serving_batch_rows_bucket{endpoint="m",version="1",le="4"} 3`,
		`clearml_serving_batch_rows_bucket{endpoint="m",version="1",le="+Inf"} 3`,
		`clearml_serving_batch_rows_sum{endpoint="m",version="1"} 8`,
		`clearml_serving_engine_address_healthy{address="gpu1:8001",engine="custom"} 1`,
		`clearml_serving_engine_address_healthy{address="gpu2:8001",engine="custom"} 0`,
		`clearml_serving_engine_address_outstanding_requests{address="gpu1:8001",engine="custom"} 2`,
		`clearml_serving_engine_address_answered_total{address="gpu1:8001",engine="custom"} 9`,
		`clearml_serving_engine_address_failed_total{address="gpu2:8001",engine="custom"} 4`,
		`clearml_serving_shadow_requests_total{endpoint="m",result="not_compared",target="loads",version="1"} 3`,
		`clearml_serving_shadow_requests_total{endpoint="m",result="dropped",target="loads",version="1"} 1`,
		`clearml_serving_recorded_requests_total{endpoint="m",result="skipped",version="1"} 2`,
		`clearml_serving_unauthorized_requests_total 3`,
		`clearml_serving_configuration_synced 1`,
		`clearml_serving_configuration_problems 2`,
		`clearml_serving_workers_memory_bytes 700`,
		`clearml_serving_workers_memory_budget_bytes 1000`,
		`clearml_serving_workers_memory_short 1`,
		`clearml_serving_workers_ended_early_total 2`,
		`clearml_serving_start_time_seconds 1000.5`,
	}, `clearml_serving_batch_rows_count{endpoint="loads"`)
	if !strings.Contains(text, "\ngo_goroutines ") {
		t.Error("nothing of the Go process")
	}
}

// plan is a plan of endpoints, each with these variables.
func plan(variables map[string]serving.Metric, urls ...serving.EndpointURL) serving.Plan {
	p := serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{}}
	for _, url := range urls {
		name, version, _ := strings.Cut(string(url), "/")
		p.Endpoints[url] = serving.PlannedEndpoint{Endpoint: serving.Endpoint{ServingURL: name, Version: version}, Metrics: serving.MetricLogging{Metrics: variables}}
	}
	return p
}

func TestTimesAndSizesOfRequestsAreExposed(t *testing.T) {
	m := statistics.New()
	m.Record(serving.Sample{URL: "unplanned/3", Latency: time.Second}) // before the first plan
	m.Follow(plan(nil, "m/v2", "gone", "unplanned/3"))
	for range 2 {
		m.Record(serving.Sample{URL: "m/v2", Latency: 30 * time.Millisecond, Queued: 10 * time.Millisecond, Answered: true, RequestBytes: 100, AnswerBytes: 0})
	}
	m.Record(serving.Sample{URL: "m/v2", Latency: time.Second, RequestBytes: -1, AnswerBytes: -1}) // a failed request
	m.Record(serving.Sample{URL: "gone", Latency: time.Second})
	m.RecordStream("m/v2", 5000, 3*time.Second)
	m.Follow(plan(nil, "m/v2", "unplanned/3"))
	m.RecordStream("gone", 1, time.Second)
	m.Record(serving.Sample{URL: "gone", Latency: time.Second}) // the last answer of a removed endpoint
	text := scrape(t, m, serving.Status{})
	lint(t, text)
	expect(t, text, []string{
		`clearml_serving_request_duration_seconds_bucket{endpoint="m",version="v2",le="0.025"} 0`,
		`clearml_serving_request_duration_seconds_bucket{endpoint="m",version="v2",le="0.05"} 2`,
		`clearml_serving_request_duration_seconds_bucket{endpoint="m",version="v2",le="1"} 3`,
		`clearml_serving_request_duration_seconds_sum{endpoint="m",version="v2"} 1.06`,
		`clearml_serving_request_duration_seconds_count{endpoint="m",version="v2"} 3`,
		`clearml_serving_request_queue_duration_seconds_bucket{endpoint="m",version="v2",le="0.01"} 2`,
		`clearml_serving_request_queue_duration_seconds_count{endpoint="m",version="v2"} 2`,
		`clearml_serving_request_worker_duration_seconds_sum{endpoint="m",version="v2"} 0.04`,
		`clearml_serving_request_size_bytes_sum{endpoint="m",version="v2"} 200`,
		`clearml_serving_request_size_bytes_bucket{endpoint="m",version="v2",le="64"} 0`,
		`clearml_serving_response_size_bytes_bucket{endpoint="m",version="v2",le="64"} 2`,
		`clearml_serving_response_size_bytes_sum{endpoint="m",version="v2"} 5000`,
		`clearml_serving_response_size_bytes_count{endpoint="m",version="v2"} 3`,
		`clearml_serving_stream_duration_seconds_bucket{endpoint="m",version="v2",le="2.5"} 0`,
		`clearml_serving_stream_duration_seconds_bucket{endpoint="m",version="v2",le="5"} 1`,
		`clearml_serving_request_duration_seconds_count{endpoint="unplanned",version="3"} 1`,
	}, `clearml_serving_request_duration_seconds_count{endpoint="gone"`)
}

func TestRequestsAreCountedByOutcomeAtTheirEndpointAndTheirCanary(t *testing.T) {
	m := statistics.New()
	p := plan(nil, "m/1", "m/2")
	p.Canaries = map[serving.EndpointURL]serving.CanaryTable{
		"split": {URL: "split", Targets: []serving.EndpointURL{"m/1", "m/2"}},
		"m/2":   {URL: "m/2", Targets: []serving.EndpointURL{"m/1"}}, // the url of an endpoint
	}
	m.Follow(p)
	for outcome := range serving.Outcomes {
		for range int(outcome) + 1 {
			m.Record(serving.Sample{URL: "m/1", Outcome: outcome, RequestBytes: -1, AnswerBytes: -1})
			m.Count("m/1", "", outcome) // it came to no model
		}
	}
	m.Record(serving.Sample{URL: "m/1", Canary: "split", Latency: time.Second, RequestBytes: -1, AnswerBytes: -1})
	m.Record(serving.Sample{URL: "m/1", Canary: "split", Streamed: true, RequestBytes: -1, AnswerBytes: -1})
	m.Count("m/1", "split", serving.Errors) // the end of the stream
	m.Count("split", "", serving.Errors)    // it came to none of its endpoints
	text := scrape(t, m, serving.Status{})
	lint(t, text)
	expect(t, text, []string{
		`clearml_serving_requests_total{endpoint="m",outcome="answered",version="1"} 3`,
		`clearml_serving_requests_total{endpoint="m",outcome="error",version="1"} 5`,
		`clearml_serving_requests_total{endpoint="m",outcome="timed_out",version="1"} 6`,
		`clearml_serving_requests_total{endpoint="m",outcome="refused",version="1"} 8`,
		`clearml_serving_requests_total{endpoint="m",outcome="client_error",version="1"} 10`,
		`clearml_serving_requests_total{endpoint="m",outcome="bad_request",version="1"} 12`,
		`clearml_serving_requests_total{endpoint="m",outcome="answered",version="2"} 0`,
		`clearml_serving_requests_total{endpoint="split",outcome="error",version=""} 1`,
		`clearml_serving_canary_requests_total{canary="split",endpoint="m",outcome="answered",version="1"} 1`,
		`clearml_serving_canary_requests_total{canary="split",endpoint="m",outcome="error",version="1"} 1`,
		`clearml_serving_canary_requests_total{canary="split",endpoint="m",outcome="error",version="2"} 0`,
		`clearml_serving_canary_requests_total{canary="m/2",endpoint="m",outcome="answered",version="1"} 0`,
		`clearml_serving_canary_request_duration_seconds_count{canary="split",endpoint="m",version="1"} 2`,
		`clearml_serving_canary_request_duration_seconds_sum{canary="split",endpoint="m",version="1"} 1`,
	}, `clearml_serving_request_duration_seconds_count{endpoint="split"`)
}

func TestAScraperThatTakesProtobufGetsNativeHistograms(t *testing.T) {
	m := statistics.New()
	m.Record(serving.Sample{URL: "m", Latency: time.Second})
	h, err := m.Handler(func() serving.Status { return serving.Status{} }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	found := decode(t, w.Header(), w.Body)["clearml_serving_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if found.GetSchema() != 3 || len(found.GetPositiveSpan()) != 1 || found.GetPositiveSpan()[0].GetOffset() != 0 || len(found.GetBucket()) == 0 {
		t.Errorf("%v", found)
	}
}

func TestHistogramsHaveTheTracesOfRequestsAsExemplars(t *testing.T) {
	m := statistics.New()
	for i, took := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 21 * time.Millisecond, time.Hour} {
		m.Record(serving.Sample{URL: "m", Latency: took, Trace: fmt.Sprintf("%032x", i+1)})
	}
	h, err := m.Handler(func() serving.Status { return serving.Status{} }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for accept, wants := range map[string][]string{
		"text/plain": nil,
		"application/openmetrics-text; version=1.0.0": {
			`clearml_serving_request_duration_seconds_bucket{endpoint="m",version="",le="0.001"} 1 # {trace_id="00000000000000000000000000000001"} 0.001 `,
			`clearml_serving_request_duration_seconds_bucket{endpoint="m",version="",le="0.025"} 3 # {trace_id="00000000000000000000000000000003"} 0.021 `,
			`clearml_serving_request_duration_seconds_bucket{endpoint="m",version="",le="+Inf"} 4 # {trace_id="00000000000000000000000000000004"} 3600`,
		},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		for _, want := range wants {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("missing: %s\n%s", want, grep(w.Body.String(), "clearml_serving_request_duration_seconds_bucket"))
			}
		}
		if wants == nil && strings.Contains(w.Body.String(), "trace_id") {
			t.Error("the classic text has exemplars")
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := decode(t, w.Header(), w.Body)["clearml_serving_request_duration_seconds"].GetMetric()[0].GetHistogram(); len(got.GetExemplars()) != 3 {
		t.Errorf("%d exemplars of the native histogram", len(got.GetExemplars()))
	}
}

func TestScrapesWhileRequestsAreRecordedLoseNone(t *testing.T) {
	m := statistics.New()
	scalar := map[string]serving.Metric{"x": {Type: serving.MetricScalar, Buckets: []any{1.0}}}
	m.Follow(plan(scalar, "a", "b", "c"))
	const each = 500
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range each {
				m.Record(serving.Sample{URL: []serving.EndpointURL{"a", "b", "c"}[(i+n)%3], Answered: true, Sampled: true, Weight: 1, Variables: []byte(`{"x":1}`)})
				if n%100 == 0 {
					m.Follow(plan(scalar, "a", "b", "c"))
					scrape(t, m, serving.Status{})
				}
			}
		})
	}
	all.Wait()
	text := scrape(t, m, serving.Status{})
	total := 0
	for _, url := range []string{"a", "b"} {
		var n int
		line := grep(text, fmt.Sprintf(`clearml_serving_variable_distribution_count{endpoint="%s"`, url))
		if _, err := fmt.Sscan(line[strings.LastIndexByte(strings.TrimSpace(line), ' '):], &n); err != nil && err != io.EOF { //nolint:errorlint // of Sscan
			t.Fatal(err)
		}
		total += n
	}
	if want := 4 * each * 2 / 3; total < want-4 || total > want+4 {
		t.Errorf("%d samples of a and b, want %d", total, want)
	}
}

package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"clearmlserving/timeseries/gather"
	"clearmlserving/timeseries/remotewrite"
)

// The real Prometheus is the judge of the HTTP API: the same samples are written to both, and each
// question of the table is answered alike. testdata/answers.json has the answers of a Prometheus of the
// same version as our libraries; make e2e-prometheus asks a real one, and lists the differences of other
// versions.

// judgedAt is the time of the newest samples.
var judgedAt = time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)

// judgedSamples are an hour of series, every 15 s: counters with resets, gauges with NaN and infinities,
// series that come and go, histograms in both forms, labels that need escapes.
func judgedSamples() (all []gather.Batch) {
	const step = 15
	for i := 0; i <= 3600/step; i++ {
		at := judgedAt.Add(time.Duration(i*step-3600) * time.Second).UnixMilli()
		var b gather.Batch
		add := func(v float64, pairs ...string) {
			b.Samples = append(b.Samples, gather.Sample{Labels: labels.FromStrings(pairs...), At: at, Value: v})
		}
		for j, endpoint := range []string{"a", "b", "c"} {
			n := float64(i * (j + 1) * 3)
			if endpoint == "b" && i > 100 {
				n = float64((i - 100) * 5) // the instance was started anew
			}
			add(n, "__name__", "requests_total", "endpoint", endpoint, "version", "1", "outcome", "answered")
			add(math.Floor(n/10), "__name__", "requests_total", "endpoint", endpoint, "version", "1", "outcome", "error")
			add(float64(i%7)+float64(j)*.5, "__name__", "queued", "endpoint", endpoint, "version", "1")
			add(1, "__name__", "endpoint_info", "endpoint", endpoint, "engine", []string{"sklearn", "custom", "custom"}[j])
		}
		odd := 20 + 5*math.Sin(float64(i)/10)
		switch i % 40 {
		case 10:
			odd = math.NaN()
		case 20:
			odd = math.Inf(1)
		case 30:
			odd = math.Inf(-1)
		}
		add(odd, "__name__", "odd", "room", "1")
		add(1e-9*float64(i), "__name__", "tiny", "path", "/a\"b\\c\nü<>&")
		add(1e22*float64(i), "__name__", "huge")
		if i%28 == 0 {
			add(float64(i), "__name__", "sparse")
		}
		switch { // it ends, and comes again
		case i < 80, i > 180:
			add(float64(i), "__name__", "flapping", "endpoint", "a")
		case i == 80:
			add(math.Float64frombits(value.StaleNaN), "__name__", "flapping", "endpoint", "a")
		}
		if i == 238 {
			add(math.Float64frombits(value.StaleNaN), "__name__", "ended")
		} else if i < 238 {
			add(float64(i), "__name__", "ended")
		}
		for j, endpoint := range []string{"a", "b"} {
			total := uint64(i * (j + 1) * 4) //nolint:gosec // small
			for k, le := range []string{"0.1", "0.5", "1.0", "+Inf"} {
				add(float64(total)*float64(k+1)/4, "__name__", "seconds_bucket", "endpoint", endpoint, "le", le)
			}
			add(float64(total)*.4, "__name__", "seconds_sum", "endpoint", endpoint)
			add(float64(total), "__name__", "seconds_count", "endpoint", endpoint)
			b.Samples = append(b.Samples, gather.Sample{Labels: labels.FromStrings("__name__", "native", "endpoint", endpoint), At: at, Histogram: &histogram.Histogram{
				Schema: 1, ZeroThreshold: 1e-9, ZeroCount: total / 4, Count: total, Sum: float64(total) * .4,
				PositiveSpans: []histogram.Span{{Offset: -2, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{int64(total / 4), 0, 0}, //nolint:gosec // small
			}})
			last := &b.Samples[len(b.Samples)-3]
			if i%60 == 0 && strings.HasSuffix(last.Labels.Get("__name__"), "_sum") {
				b.Samples[len(b.Samples)-4].Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", fmt.Sprint(endpoint, i)), Value: 2.5, Ts: at, HasTs: true}}
			}
		}
		all = append(all, b)
	}
	return all
}

// judgedQuestion is one request. Parameters are name=value pairs; at and range are added to expressions.
type judgedQuestion struct {
	path string
	form url.Values
	post bool
}

func (q judgedQuestion) String() string {
	method := "GET"
	if q.post {
		method = "POST"
	}
	text, _ := url.QueryUnescape(q.form.Encode())
	return method + " " + q.path + "?" + text
}

// questions is the table.
func questions() (all []judgedQuestion) {
	unix := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	now := unix(judgedAt)
	for i, expr := range judgedExpressions {
		all = append(all, judgedQuestion{"/api/v1/query", url.Values{"query": {expr}, "time": {now}}, i%3 == 0})
	}
	for i, expr := range judgedRanges {
		all = append(all, judgedQuestion{"/api/v1/query_range", url.Values{
			"query": {expr}, "start": {unix(judgedAt.Add(-50 * time.Minute))}, "end": {now}, "step": {[]string{"60", "5m", "47"}[i%3]},
		}, i%3 == 0})
	}
	for _, line := range judgedCalls {
		path, query, _ := strings.Cut(line, "?")
		form, err := url.ParseQuery(strings.ReplaceAll(query, "NOW", now))
		if err != nil {
			panic(err)
		}
		method, path, _ := strings.Cut(path, " ")
		all = append(all, judgedQuestion{path, form, method == "POST"})
	}
	return all
}

var judgedExpressions = []string{
	// selectors
	"requests_total", `requests_total{endpoint="a"}`, `requests_total{endpoint=~"a|b",outcome!="error"}`, `{__name__=~"requests.*",endpoint!~"[ab]"}`,
	`requests_total{nothing=""}`, "nothing", "requests_total offset 10m", "requests_total @ 1796026000", "requests_total @ end()", "sparse", "ended", "flapping", "flapping offset 30m", "odd", "odd offset 12m30s", "tiny", "huge", "native",
	"requests_total offset -5m", `requests_total[1m]`, `odd[3m] offset 5m`, `native[30s]`, "flapping[1m] offset 39m",
	// rates and counters
	"rate(requests_total[5m])", "irate(requests_total[1m])", "increase(requests_total[1h])", "increase(requests_total[37s])", "rate(requests_total[10s])", "resets(requests_total[1h])", "changes(queued[10m])", "delta(queued[5m])", "idelta(queued[5m])", "deriv(queued[10m])", "predict_linear(queued[10m], 600)",
	"rate(native[5m])", "rate(ended[5m])", "increase(sparse[1h])", "rate(seconds_bucket[5m])",
	// over time
	"avg_over_time(queued[5m])", "min_over_time(odd[1h])", "max_over_time(odd[1h])", "sum_over_time(queued[5m])", "count_over_time(odd[1h])", "quantile_over_time(0.9, queued[10m])", "stddev_over_time(queued[10m])", "stdvar_over_time(queued[10m])", "last_over_time(sparse[30m])", "present_over_time(flapping[30m])", "absent_over_time(nothing[5m])", "absent_over_time(queued[5m])",
	"max_over_time(rate(requests_total[5m])[30m:1m])", "avg_over_time((queued > 2)[20m:])", "sum_over_time(queued[5m:30s] offset 1m)",
	// operators
	"queued + 1", "2 * queued ^ 2", "queued % 3", "-queued", "queued / 0", "0 / 0", "queued > 2", "queued > bool 2", "queued == queued", "1 == bool 1", `requests_total{outcome="error"} / ignoring(outcome) requests_total{outcome="answered"}`, `sum by (endpoint) (requests_total{outcome="error"}) / on(endpoint) sum by (endpoint) (requests_total)`,
	`queued * on(endpoint) group_left(engine) endpoint_info`, `endpoint_info * on(endpoint) group_right(engine) queued`, `queued and on(endpoint) (queued > 2)`, `queued or vector(1)`, `queued unless on(endpoint) requests_total{endpoint="a"}`, "1 atan2 2", `tiny + on() huge`,
	// aggregations
	"sum(queued)", "avg by (endpoint) (requests_total)", "count without (outcome) (requests_total)", "min(queued)", "max(queued)", "stddev(queued)", "stdvar(queued)", "group(queued)", "topk(2, queued)", "bottomk(1, queued)", "quantile(0.5, queued)", `count_values("v", queued)`, "sum(nothing)", "count(native)", "sum(native)", "avg(native)", "topk(0, queued)", "quantile(2, queued)",
	// histograms
	"histogram_quantile(0.9, seconds_bucket)", "histogram_quantile(0.95, sum by (le) (rate(seconds_bucket[5m])))", "histogram_quantile(0.9, native)", "histogram_quantile(0.5, sum(rate(native[5m])))", "histogram_count(native)", "histogram_sum(native)", "histogram_fraction(0, 0.5, native)", "histogram_quantile(1.5, native)", "histogram_quantile(-1, seconds_bucket)", "histogram_quantile(NaN, native)",
	"native + native", "native * 2", "native > 1", "-native", "sum(queued) + sum(native)",
	// functions of values
	"abs(-queued)", "ceil(queued / 3)", "floor(queued / 3)", "round(queued / 3, 0.1)", "clamp(queued, 1, 3)", "clamp_min(queued, 2)", "clamp_max(queued, 2)", "exp(queued)", "ln(queued)", "log2(queued)", "log10(queued)", "sqrt(queued)", "sgn(queued - 3)", "sin(queued)", "rad(queued)", "pi()", "deg(pi())",
	"sort(queued)", "sort_desc(queued)", "scalar(sum(queued))", "scalar(queued)", "vector(7)", "time()", "timestamp(queued)", "timestamp(sparse)", "absent(nothing)", `absent(nothing{a="b"})`, "absent(queued)",
	"minute()", "hour(vector(1796029200))", "day_of_week()", "day_of_month()", "day_of_year()", "month()", "year()", "days_in_month()",
	`label_replace(queued, "short", "$1", "endpoint", "(.).*")`, `label_join(queued, "both", "-", "endpoint", "version")`,
	// literals
	"1", "1e3", "0x1f", "Inf", "-Inf", "NaN", `"text"`, "'it''s'", "`raw\\n`", `"\u00fc\n"`, "1 + 2 * 3 ^ 2", "# comment\n1",
	// errors
	"", "sum(", "queued[5m", "queued[5m] + 1", "rate(queued)", "rate(requests_total[5m]", "unknown_function(queued)", `queued{a="b"`, `queued{a~"b"}`, `queued{a=~"("}`, "queued offset", "sum by (a) queued", "queued + on(a) group_left", "{}", `{a=""}`, `{__name__=~".*"}`, "queued and 1", `"a" + 1`, "topk(queued)", "queued * queued[5m]", "clamp(queued, 1)", "queued queued", "1 and 2",
	`label_replace(queued, "a b c", "x", "endpoint", "(")`, `label_replace(queued, "x", "$1", "endpoint", "(")`, "requests_total / queued", "queued * on(version) requests_total", "queued * on(version) group_left requests_total", `count_values("a-b", queued)`, "avg_over_time(queued[5m:0s])",
}

var judgedRanges = []string{
	"requests_total", `sum by (endpoint) (rate(requests_total[5m]))`, "rate(requests_total[1m])", "queued", "flapping", "sparse", "ended", "odd", "huge", "tiny", "nothing", "native", "rate(native[5m])", "histogram_quantile(0.9, sum by (le) (rate(seconds_bucket[5m])))", "histogram_quantile(0.9, rate(native[5m]))", "histogram_count(native)",
	"1", "time()", "vector(time())", "scalar(sum(queued))", "queued > 3", "topk(1, queued)", "count(flapping) or vector(0)", "absent(flapping)", "max_over_time(queued[10m:1m])", "increase(requests_total[10m]) @ end()", "requests_total @ start()", "sum(queued) by (endpoint) offset 10m", "changes(flapping[10m])", "sort(queued)",
	`"text"`, "queued[5m]", "sum(", "queued * on(version) requests_total",
}

var judgedCalls = []string{
	"GET /api/v1/query", "GET /api/v1/query?query=queued&time=x", "GET /api/v1/query?query=queued&time=2026-11-30T09:00:00Z", "GET /api/v1/query?query=queued&time=NOW.5", "GET /api/v1/query?query=queued&time=2026-11-30T08:30:00.123%2B01:00", "GET /api/v1/query?query=queued&time=NOW&timeout=x", "GET /api/v1/query?query=queued&time=NOW&timeout=30s", "GET /api/v1/query?query=sparse&time=NOW&lookback_delta=30s", "GET /api/v1/query?query=sparse&time=NOW&lookback_delta=x", "GET /api/v1/query?query=queued&time=NOW&limit=2", "GET /api/v1/query?query=queued&time=NOW&limit=-1", "GET /api/v1/query?query=queued&time=NOW&limit=x", "GET /api/v1/query?query=queued&time=1",
	"GET /api/v1/query_range?query=queued", "GET /api/v1/query_range?query=queued&start=NOW", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW&step=x", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW&step=0", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW&step=-5", "GET /api/v1/query_range?query=queued&start=NOW&end=1&step=5", "GET /api/v1/query_range?query=queued&start=1&end=NOW&step=1", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW&step=15", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW&step=1m&limit=1", "GET /api/v1/query_range?query=queued&start=NOW&end=NOW&step=NaN",
	"GET /api/v1/labels", "POST /api/v1/labels?match[]=queued", "GET /api/v1/labels?match[]=queued&match[]=odd", "GET /api/v1/labels?match[]={", "GET /api/v1/labels?start=1&end=2", "GET /api/v1/labels?start=x", "GET /api/v1/labels?limit=2", "GET /api/v1/labels?match[]={a=\"\"}",
	"GET /api/v1/label/endpoint/values", "GET /api/v1/label/__name__/values", "GET /api/v1/label/endpoint/values?match[]=seconds_bucket", "GET /api/v1/label/endpoint/values?match[]=native&match[]=flapping", "GET /api/v1/label/nothing/values", "GET /api/v1/label/endpoint/values?match[]=sum(x)", "GET /api/v1/label/path/values", "GET /api/v1/label/endpoint/values?limit=1", "GET /api/v1/label/endpoint/values?end=x",
	"GET /api/v1/series", "GET /api/v1/series?match[]=queued", "POST /api/v1/series?match[]=queued&match[]={endpoint=\"a\"}", "GET /api/v1/series?match[]=nothing", "GET /api/v1/series?match[]=queued&start=1&end=2", "GET /api/v1/series?match[]={", "GET /api/v1/series?match[]={a=~\".*\"}", "GET /api/v1/series?match[]=queued&start=x", "GET /api/v1/series?match[]=queued&limit=x",
	"GET /api/v1/query_exemplars?query=seconds_bucket", "POST /api/v1/query_exemplars?query=seconds_count&start=1&end=NOW", "GET /api/v1/query_exemplars?query=rate(seconds_sum[5m])", "GET /api/v1/query_exemplars?query=1", "GET /api/v1/query_exemplars?query=(", "GET /api/v1/query_exemplars?query=native&start=NOW&end=1", "GET /api/v1/query_exemplars?query=nothing",
	"GET /api/v1/format_query?query=sum(rate(x[5m]))by(a)/sum(y)", "POST /api/v1/format_query?query=x+%2B+y", "GET /api/v1/format_query?query=sum(", "GET /api/v1/format_query",
	"GET /api/v1/metadata?metric=judge_total", "GET /api/v1/metadata?metric=nothing", "GET /api/v1/metadata?limit=x", "GET /api/v1/metadata?limit=0", "GET /api/v1/metadata?metric=judge_total&limit_per_metric=x",
}

// reply is an answer in a form that can be compared.
type reply struct {
	Status int `json:"status"`
	Body   any `json:"body"`
}

func ask(t *testing.T, base string, q judgedQuestion) reply {
	t.Helper()
	var r *http.Response
	var err error
	if q.post {
		r, err = http.PostForm(base+q.path, q.form)
	} else {
		r, err = http.Get(base + q.path + "?" + q.form.Encode())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := reply{Status: r.StatusCode}
	if r.StatusCode == http.StatusNoContent {
		return out
	}
	if err := json.Unmarshal(text, &out.Body); err != nil {
		t.Fatalf("%s: %s answers %d %s", q, base, r.StatusCode, text)
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		t.Errorf("%s: content type %s", q, r.Header.Get("Content-Type"))
	}
	sortResult(q, out.Body)
	return out
}

// sortResult orders what has no order.
func sortResult(q judgedQuestion, body any) {
	answer, _ := body.(map[string]any)
	list, isList := answer["data"].([]any)
	if data, ok := answer["data"].(map[string]any); ok {
		list, isList = data["result"].([]any)
		if data["resultType"] == "scalar" || data["resultType"] == "string" {
			return
		}
	}
	if expr := q.form.Get("query"); !isList || strings.HasPrefix(expr, "sort") && q.path == "/api/v1/query" || strings.HasPrefix(expr, "topk") && q.path == "/api/v1/query" {
		return
	}
	slices.SortFunc(list, func(a, b any) int {
		left, _ := json.Marshal(a)
		right, _ := json.Marshal(b)
		return bytes.Compare(left, right)
	})
}

// differences lists where two answers differ. Numbers may differ by rounding.
func differences(at string, a, b any) []string {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		keys := map[string]bool{}
		for k := range x {
			keys[k] = true
		}
		for k := range y {
			keys[k] = true
		}
		var all []string
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			all = append(all, differences(at+"."+k, x[k], y[k])...)
		}
		return all
	case []any:
		y, ok := b.([]any)
		if !ok {
			break
		}
		if len(x) != len(y) {
			return []string{fmt.Sprintf("%s: %d elements and %d", at, len(x), len(y))}
		}
		var all []string
		for i := range x {
			all = append(all, differences(fmt.Sprintf("%s[%d]", at, i), x[i], y[i])...)
		}
		return all
	case string:
		y, ok := b.(string)
		if !ok {
			break
		}
		f, err := strconv.ParseFloat(x, 64)
		g, err2 := strconv.ParseFloat(y, 64)
		if x == y || err == nil && err2 == nil && math.Abs(f-g) <= 1e-12*max(math.Abs(f), math.Abs(g)) {
			return nil
		}
		return []string{fmt.Sprintf("%s: %q and %q", at, x, y)}
	default:
		if a == b {
			return nil
		}
	}
	left, _ := json.Marshal(a)
	right, _ := json.Marshal(b)
	return []string{fmt.Sprintf("%s: %.200s and %.200s", at, left, right)}
}

// judgedMetrics are metrics to be scraped, for the descriptions of metrics.
func judgedMetrics() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "judge_total", Help: "A counter with\na long \"help\"."})
	registry.MustRegister(c)
	return registry
}

// ours runs a Store with the samples, and serves its API.
func ours(t *testing.T) string {
	t.Helper()
	s, _ := start(t, Options{Dir: t.TempDir(), Now: func() time.Time { return judgedAt }})
	for _, b := range judgedSamples() {
		mustWrite(t, s, b)
	}
	b, err := (&gather.Source{Gatherer: judgedMetrics()}).Collect(judgedAt)
	if err != nil {
		t.Fatal(err)
	}
	s.metas.add(b.Metas)
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return server.URL
}

// answersFile has the answers of the Prometheus whose version our libraries have.
const answersFile = "testdata/answers.json"

func TestAnswersAreThoseOfPrometheus(t *testing.T) {
	text, err := os.ReadFile(answersFile)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]reply
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	base := ours(t)
	all := questions()
	if len(all) < 200 {
		t.Fatalf("%d questions only", len(all))
	}
	for _, q := range all {
		w, ok := want[q.String()]
		if !ok {
			t.Errorf("%s: no answer is known: make e2e-prometheus UPDATE=1", q)
			continue
		}
		got := ask(t, base, q)
		for _, d := range differences("", map[string]any{"status": float64(w.Status), "body": w.Body}, map[string]any{"status": float64(got.Status), "body": got.Body}) {
			t.Errorf("%s: Prometheus and ours: %s", q, d)
		}
	}
}

// realPrometheus starts the Prometheus that the environment names. It scrapes metrics, or the samples are
// written to it.
func realPrometheus(t *testing.T, scrape bool) (base, version string) {
	t.Helper()
	binary := os.Getenv("CLEARML_SERVING_E2E_PROMETHEUS")
	if binary == "" {
		t.Skip("make e2e-prometheus runs it")
	}
	target := httptest.NewServer(promhttp.HandlerFor(judgedMetrics(), promhttp.HandlerOpts{}))
	t.Cleanup(target.Close)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	// The scraped samples have a time of their own; only the descriptions of metrics are compared.
	text := fmt.Sprintf("scrape_configs:\n- job_name: judge\n  scrape_interval: 1s\n  static_configs: [{targets: [%q]}]\n  metric_relabel_configs: [{source_labels: [__name__], regex: '.*', action: drop}]\n", strings.TrimPrefix(target.URL, "http://"))
	if !scrape {
		text = ""
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr,
		"--web.enable-remote-write-receiver", "--enable-feature=native-histograms,exemplar-storage", "--storage.tsdb.retention.time=100y")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", binary, log.String())
		}
	})
	base = "http://" + addr
	await(t, func() bool {
		r, err := http.Get(base + "/-/ready")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	info := ask(t, base, judgedQuestion{path: "/api/v1/status/buildinfo"})
	data, _ := info.Body.(map[string]any)["data"].(map[string]any)
	version, _ = data["version"].(string)
	if scrape {
		await(t, func() bool {
			r, err := http.Get(base + "/api/v1/metadata?metric=judge_total")
			if err != nil {
				return false
			}
			text, _ := io.ReadAll(r.Body)
			_ = r.Body.Close()
			return bytes.Contains(text, []byte("counter"))
		})
		return base, version
	}
	for _, b := range judgedSamples() {
		body, err := remotewrite.Encode(b)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/write", bytes.NewReader(body))
		remotewrite.Headers(r.Header)
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(w.Body)
		_ = w.Body.Close()
		if w.StatusCode/100 != 2 {
			t.Fatalf("Prometheus refuses our remote write: %d %s", w.StatusCode, text)
		}
	}
	return base, version
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for range 1200 {
		if done() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("it did not become ready within two minutes")
}

func TestARealPrometheusAnswersAlike(t *testing.T) {
	written, version := realPrometheus(t, false)
	scraped, _ := realPrometheus(t, true)
	base := ours(t)
	same := version == "" || version == compatible // built from source it does not know its version
	answers := map[string]reply{}
	alike, explained := 0, map[string]int{}
	for _, q := range questions() {
		theirs := written
		if q.path == "/api/v1/metadata" {
			theirs = scraped
		}
		want, got := ask(t, theirs, q), ask(t, base, q)
		answers[q.String()] = want
		d := differences("", map[string]any{"status": float64(want.Status), "body": want.Body}, map[string]any{"status": float64(got.Status), "body": got.Body})
		if len(d) == 0 {
			alike++
			continue
		}
		if why := explanation(q, want, got); !same && why != "" {
			explained[why]++
			continue
		}
		t.Errorf("%s: Prometheus and ours: %s", q, strings.Join(d[:min(len(d), 3)], "; "))
	}
	t.Logf("Prometheus %s: %d answers of %d are alike", version, alike, len(answers))
	for _, why := range slices.Sorted(maps.Keys(explained)) {
		t.Logf("%d differ: %s", explained[why], why)
	}
	if os.Getenv("UPDATE") != "" && same && !t.Failed() {
		var text []byte
		for _, question := range slices.Sorted(maps.Keys(answers)) { // a line each
			name, _ := json.Marshal(question)
			body, err := json.Marshal(answers[question])
			if err != nil {
				t.Fatal(err)
			}
			text = fmt.Appendf(text, ",\n%s:%s", name, body)
		}
		if err := os.WriteFile(answersFile, fmt.Appendf(nil, "{%s\n}\n", text[1:]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// explanation says why an older Prometheus answers otherwise, "" if it is not known.
func explanation(q judgedQuestion, want, got reply) string {
	theirs, _ := want.Body.(map[string]any)
	ours, _ := got.Body.(map[string]any)
	expr := q.form.Get("query")
	has := func(all ...string) bool {
		return slices.ContainsFunc(all, func(one string) bool { return strings.Contains(expr, one) })
	}
	alike := func(keys ...string) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { return len(differences("", theirs[key], ours[key])) > 0 })
	}
	switch {
	case want.Status == got.Status && theirs["status"] == "error" && alike("status", "errorType"):
		return "the text of an error, not its type or status"
	case want.Status == got.Status && alike("status", "data") && (ours["infos"] != nil || ours["warnings"] != nil) && theirs["infos"] == nil && theirs["warnings"] == nil:
		return "doubtful expressions have a note since 2.47"
	case q.form.Has("limit"), q.form.Has("limit_per_metric"), q.form.Has("lookback_delta"):
		return "the parameters limit and lookback_delta are newer"
	case has("native"):
		return "native histograms were an experiment before 3.0"
	case has("[", "offset -5m"):
		return "ranges do not include their beginning since 3.0"
	case has(`"a-b"`):
		return "names of labels may have any characters since 3.0"
	}
	return ""
}

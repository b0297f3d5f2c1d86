package timeseries_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"clearmlserving/timeseries"
	"clearmlserving/timeseries/timeseriestest"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// server answers every request with this, and keeps the last request.
func server(t *testing.T, status int, kind, body string) (*timeseries.Client, *http.Request) {
	t.Helper()
	last := &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		*last = *r
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	c, err := timeseries.NewClient(timeseries.ClientOptions{URL: s.URL + "/prom/", Transport: s.Client().Transport, Bearer: "t0ken"})
	if err != nil {
		t.Fatal(err)
	}
	return c, last
}

func TestRangesThatTheEngineCannotEvaluateAreRefused(t *testing.T) {
	whole := time.Unix(math.MaxInt64/1000-62135596801, 0) // "everything", as clients of Prometheus send it
	for _, tc := range []struct {
		start, end time.Time
		step       time.Duration
		ok         bool
	}{
		{noon, noon, time.Millisecond, true},
		{noon, noon.Add(11000 * time.Second), time.Second, true},
		{noon, noon.Add(11001*time.Second - time.Millisecond), time.Second, true},
		{noon, noon.Add(11001 * time.Second), time.Second, false},
		{noon, noon.Add(time.Nanosecond), 0, false},
		{noon, noon, 999 * time.Microsecond, false},
		{noon, noon.Add(-1), time.Second, false},
		{time.Unix(math.MinInt64/1000+62135596801, 0), whole, 200 * 365 * 24 * time.Hour, false},
	} {
		err := timeseries.CheckRange(tc.start, tc.end, tc.step)
		if (err == nil) != tc.ok || err != nil && timeseries.KindOf(err) != timeseries.BadData {
			t.Errorf("from %s to %s, step %s: %v", tc.start, tc.end, tc.step, err)
		}
	}
}

func TestClientReadsVectorsAndScalars(t *testing.T) {
	c, last := server(t, 200, "application/json", `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"endpoint":"m"},"value":[1780000000.5,"NaN"]},
		{"metric":{},"histogram":[1780000000.5,{"count":"2","sum":"3","buckets":[[0,"1","2","2"]]}]}]}}`)
	v, err := c.Query(t.Context(), "up", noon)
	if err != nil || len(v) != 2 || v[0].Metric["endpoint"] != "m" || !math.IsNaN(float64(v[0].Value)) || v[1].Histogram.Count != 2 {
		t.Errorf("got %v, %v", v, err)
	}
	if last.URL.Path != "/prom/api/v1/query" || last.Form.Get("query") != "up" || last.Form.Get("time") != "1796040000.000" || last.Header.Get("Authorization") != "Bearer t0ken" {
		t.Errorf("asked %s %v with %v", last.URL, last.Form, last.Header)
	}
	c, _ = server(t, 200, "application/json", `{"status":"success","data":{"resultType":"scalar","result":[1780000000,"7"]}}`)
	if v, err = c.Query(t.Context(), "7", noon); err != nil || len(v) != 1 || v[0].Value != 7 || len(v[0].Metric) != 0 {
		t.Errorf("got %v, %v", v, err)
	}
	c, _ = server(t, 200, "application/json", `{"status":"success","data":{"resultType":"string","result":[1780000000,"7"]}}`)
	if _, err = c.Query(t.Context(), `"7"`, noon); timeseries.KindOf(err) != timeseries.BadData {
		t.Errorf("got %v", err)
	}
}

func TestClientReadsRanges(t *testing.T) {
	c, last := server(t, 200, "application/json", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1,"1"],[2.5,"+Inf"]]}]}}`)
	m, err := c.QueryRange(t.Context(), "up", noon, noon.Add(time.Minute), 1500*time.Millisecond)
	if err != nil || len(m) != 1 || len(m[0].Values) != 2 || !math.IsInf(float64(m[0].Values[1].Value), 1) {
		t.Errorf("got %v, %v", m, err)
	}
	if last.Form.Get("step") != "1.5" || last.Form.Get("start") != "1796040000.000" || last.Form.Get("end") != "1796040060.000" {
		t.Errorf("asked %v", last.Form)
	}
}

func TestClientTellsErrorsApart(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		status           int
		want             timeseries.Kind
		text             string
	}{
		{"wrong expression", "application/json", `{"status":"error","errorType":"bad_data","error":"parse error"}`, 400, timeseries.BadData, "parse error"},
		{"too slow", "application/json", `{"status":"error","errorType":"timeout","error":"query timed out"}`, 503, timeseries.Timeout, "timed out"},
		{"not ready", "application/json", `{"status":"error","errorType":"unavailable","error":"TSDB not ready"}`, 503, timeseries.Unavailable, "not ready"},
		{"wrong credentials", "text/plain", "Unauthorized\n", 401, timeseries.Unavailable, "credentials"},
		{"not Prometheus", "text/html", "<html>", 200, timeseries.Unavailable, "is it the address"},
		{"cut off", "application/json", `{"status":"succ`, 200, timeseries.Unavailable, "is it the address"},
		{"wrong result", "application/json", `{"status":"success","data":{"resultType":"vector","result":{}}}`, 200, timeseries.Unavailable, "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, _ := server(t, c.status, c.kind, c.body)
			_, err := client.Query(t.Context(), "up", noon)
			if timeseries.KindOf(err) != c.want || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v of kind %s, want %s", err, timeseries.KindOf(err), c.want)
			}
		})
	}
	client, _ := server(t, 200, "application/json", "{}")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Query(ctx, "up", noon); timeseries.KindOf(err) != timeseries.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestClientFollowsNoRedirectToAnotherServer(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the other server was asked") }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	c, err := timeseries.NewClient(timeseries.ClientOptions{URL: s.URL, Transport: http.DefaultTransport})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Query(t.Context(), "up", noon); timeseries.KindOf(err) != timeseries.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestClientChecksTheAddress(t *testing.T) {
	for _, text := range []string{"", "localhost:9090", "ftp://host", "http://", "http://user:pass word@host:x", "http://host?x=1"} {
		if _, err := timeseries.NewClient(timeseries.ClientOptions{URL: text}); err == nil || strings.Contains(err.Error(), "pass word") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	c, err := timeseries.NewClient(timeseries.ClientOptions{URL: "https://user:secret@host/prometheus/api/v1/"})
	if err != nil || c.String() != "https://host/prometheus" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestFakeAnswersRanges(t *testing.T) {
	var f timeseriestest.Fake
	f.Set("x", 3, "endpoint", "m")
	f.Set("x", 4, "endpoint", "n")
	m, err := f.QueryRange(t.Context(), "x", noon, noon.Add(time.Minute), 30*time.Second)
	if err != nil || len(m) != 2 || len(m[0].Values) != 3 || m[1].Values[2].Value != 4 {
		t.Errorf("got %v, %v", m, err)
	}
	f.Fail("x", timeseries.Errorf(timeseries.Unavailable, "gone"))
	if _, err := f.Query(t.Context(), "x", noon); timeseries.KindOf(err) != timeseries.Unavailable {
		t.Errorf("got %v", err)
	}
	if v, err := f.Query(t.Context(), "y", noon); err != nil || len(v) != 0 {
		t.Errorf("got %v, %v", v, err)
	}
}

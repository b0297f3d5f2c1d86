package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"clearmlserving/controlplane"
	"clearmlserving/timeseries/embedded"
	"clearmlserving/timeseries/gather"
	"clearmlserving/timeseries/remotewrite"
)

// withSeries runs a control plane with time series.
func withSeries(t *testing.T) *running {
	t.Helper()
	series := embedded.New(embedded.Options{Dir: t.TempDir(), Version: "1.2.3"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); series.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := series.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	return start(t, controlplane.Options{TimeSeries: series})
}

// answered calls the API and reads the data of its answer.
func (r *running) answered(t *testing.T, name, body string, into any) {
	t.Helper()
	status, _, text := r.send(t, "POST", r.api+"/"+name, body)
	var answer struct{ Data json.RawMessage }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 {
		t.Fatalf("%s: %d %s", name, status, text)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		t.Fatalf("%s: %v in %s", name, err, text)
	}
}

// newInstance makes a service and an instance of it that has reported this name, if any.
func (r *running) newInstance(t *testing.T, report string) (service, instance string) {
	t.Helper()
	var made struct{ ID string }
	r.answered(t, "tasks.create", `{"name":"my service","type":"service"}`, &made)
	service = made.ID
	r.answered(t, "tasks.create", fmt.Sprintf(`{"name":"instance","type":"service","parent":%q}`, service), &made)
	if report != "" {
		object, _ := json.Marshal([]map[string]string{{"name": "serving_instance", "type": "json", "value": `{"instance":"` + report + `"}`}})
		r.answered(t, "tasks.edit_configuration", fmt.Sprintf(`{"task":%q,"configuration":%s}`, made.ID, object), &struct{}{})
	}
	return service, made.ID
}

// limited makes credentials with limits.
func (r *running) limited(t *testing.T, limit string) *running {
	t.Helper()
	var made struct {
		Credentials struct {
			Access string `json:"access_key"`
			Secret string `json:"secret_key"`
		}
	}
	r.answered(t, "auth.create_credentials", limit, &made)
	other := *r
	other.access, other.secret = made.Credentials.Access, made.Credentials.Secret
	return &other
}

func (r *running) query(t *testing.T, expr string) string {
	t.Helper()
	_, _, text := r.send(t, "GET", r.api+"/prometheus/api/v1/query?query="+url.QueryEscape(expr), "")
	return text
}

func samplesOf(t *testing.T, at time.Time, pairs ...string) string {
	t.Helper()
	body, err := remotewrite.Encode(gather.Batch{Samples: []gather.Sample{{Labels: labels.FromStrings(pairs...), At: at.UnixMilli(), Value: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// write sends samples as an instance.
func (r *running) write(t *testing.T, instance, body string, headers ...string) (int, string) {
	t.Helper()
	status, _, text := r.send(t, "POST", r.api+"/prometheus/api/v1/write", body, append([]string{
		"Content-Type", remotewrite.ContentType, "Content-Encoding", remotewrite.Encoding, remotewrite.InstanceHeader, instance,
	}, headers...)...)
	return status, text
}

func TestAnInstanceWritesItsOwnSeriesOnly(t *testing.T) {
	r := withSeries(t)
	service, instance := r.newInstance(t, "host:8080")
	if status, text := r.write(t, instance, samplesOf(t, time.Now(), "__name__", "x", "instance", "another", "service", "another", "endpoint", "m")); status != 204 {
		t.Fatalf("%d %s", status, text)
	}
	want := fmt.Sprintf(`"metric":{"__name__":"x","endpoint":"m","instance":"host:8080","service":"%s","service_name":"my service"}`, service)
	if text := r.query(t, "x"); !strings.Contains(text, want) || strings.Count(text, `"metric"`) != 1 {
		t.Errorf("got %s, want %s", text, want)
	}
	_, other := r.newInstance(t, "other:8080")
	account := r.limited(t, fmt.Sprintf(`{"service":%q}`, service))
	if status, text := account.write(t, instance, samplesOf(t, time.Now(), "__name__", "y")); status != 204 {
		t.Errorf("its own instance: %d %s", status, text)
	}
	body := samplesOf(t, time.Now(), "__name__", "z")
	_, silent := r.newInstance(t, "")
	for name, c := range map[string]struct {
		who        *running
		instance   string
		body       string
		headers    []string
		status     int
		wantInText string
	}{
		"an instance of another service":    {account, other, body, nil, 403, "limited to one serving service"},
		"a guest":                           {r.limited(t, `{"read_only":true}`), instance, body, nil, 403, "guests may only read"},
		"no instance":                       {r, "", body, nil, 400, remotewrite.InstanceHeader},
		"no such instance":                  {r, "nothing", body, nil, 400, "nothing"},
		"a task that is no instance":        {r, service, body, nil, 400, "no instance"},
		"an instance that has not reported": {r, silent, body, nil, 503, "not reported"},
		"a stranger":                        {r, instance, body, []string{"Authorization", "Basic eDp5"}, 401, "Unauthorized"},
		"a sample of the future":            {r, instance, samplesOf(t, time.Now().Add(time.Hour), "__name__", "z"), nil, 400, "future"},
		"a sample of last week":             {r, instance, samplesOf(t, time.Now().Add(-7*24*time.Hour), "__name__", "x"), nil, 400, "too old"},
		"another format":                    {r, instance, "x 1", []string{"Content-Type", "text/plain"}, 415, "remote write version 1"},
		"another version":                   {r, instance, body, []string{"Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"}, 415, "remote write version 1"},
		"not compressed":                    {r, instance, "x 1", nil, 400, "snappy"},
		"too large":                         {r, instance, strings.Repeat("x", remotewrite.MaxBody+1), nil, 413, "8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			status, text := c.who.write(t, c.instance, c.body, c.headers...)
			if status != c.status || !strings.Contains(text, c.wantInText) || !strings.Contains(text, `"status":"error"`) {
				t.Errorf("got %d %s, want %d with %q", status, text, c.status, c.wantInText)
			}
		})
	}
	if text := r.query(t, "z"); !strings.Contains(text, `"result":[]`) {
		t.Errorf("a refused sample was stored: %s", text)
	}
}

func TestSlowSendersKeepNoInstanceWaiting(t *testing.T) {
	r := withSeries(t)
	_, instance := r.newInstance(t, "host:8080")
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	for range 8 {
		body, feed := io.Pipe()
		defer func() { _ = feed.Close() }() // Do does not return while it reads the body
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.api+"/prometheus/api/v1/write", body)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(r.access, r.secret)
		for name, value := range map[string]string{
			"Content-Type": remotewrite.ContentType, "Content-Encoding": remotewrite.Encoding, remotewrite.InstanceHeader: instance, "Expect": "100-continue",
		} {
			req.Header.Set(name, value)
		}
		sending.Go(func() {
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
		if _, err := feed.Write([]byte{0}); err != nil { // it is taken once the server reads the body
			t.Fatal(err)
		}
	}
	if status, text := r.write(t, instance, samplesOf(t, time.Now(), "__name__", "x")); status != 204 {
		t.Errorf("%d %s", status, text)
	}
}

func TestPrometheusAPINeedsCredentials(t *testing.T) {
	r := withSeries(t)
	for _, path := range []string{"/api/v1/query?query=up", "/api/v1/write", "/api/v1/anything", "/"} {
		status, header, text := r.send(t, "GET", r.api+"/prometheus"+path, "", "Authorization", "Basic eDp5")
		if status != 401 || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic ") || !strings.Contains(text, `"status":"error"`) {
			t.Errorf("%s: %d %v %s", path, status, header, text)
		}
	}
	guest := r.limited(t, `{"read_only":true}`)
	if text := guest.query(t, "1+1"); !strings.Contains(text, `"result":[`) {
		t.Errorf("a guest is answered %s", text)
	}
	if status, _, text := r.send(t, "POST", r.api+"/prometheus/api/v1/query", "query=1%2B1", "Authorization", "Bearer "+r.token(t), "Content-Type", "application/x-www-form-urlencoded"); status != 200 {
		t.Errorf("a token: %d %s", status, text)
	}
}

func TestAServerWithoutTimeSeriesSaysWhereTheyAre(t *testing.T) {
	r := start(t, controlplane.Options{TimeSeriesElsewhere: "they are read from the Prometheus at http://p:9090"})
	if status, _, text := r.send(t, "GET", r.api+"/prometheus/api/v1/query?query=up", ""); status != 404 || !strings.Contains(text, "http://p:9090") {
		t.Errorf("got %d %s", status, text)
	}
}

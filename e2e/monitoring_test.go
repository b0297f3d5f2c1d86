//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	monitoringPage  = "docs/monitoring.md"
	monitoringBegin = "<!-- The table is of a real run: UPDATE=1 make e2e-monitoring -->\n"
	monitoringEnd   = "<!-- end of the table -->"
)

// TestMonitoringShowsRealTraffic runs the query of every panel, and every rule, in a real Prometheus
// that scrapes a service under traffic.
func TestMonitoringShowsRealTraffic(t *testing.T) {
	if os.Getenv("CLEARML_SERVING_E2E_MONITORING") == "" {
		t.Skip("needs Prometheus: make e2e-monitoring")
	}
	s := up(t)
	s.monitored(t)
	prometheus := s.prometheus(t)
	stop := s.everyKindOfTraffic(t)
	// Two scrapes within each range of a rate are needed, and a few evaluations of the rules.
	time.Sleep(30 * time.Second)

	var table strings.Builder
	table.WriteString("\n| dashboard | panel | series in the run | one of them |\n|---|---|---:|---|\n")
	for _, p := range panels(t) {
		for _, expr := range p.exprs {
			series, err := query(t, prometheus, expr)
			if err != nil || len(series) == 0 {
				t.Errorf("%s, %q has no data: %v\n%s", p.dashboard, p.title, err, expr)
				continue
			}
			fmt.Fprintf(&table, "| %s | %s | %d | `%s` |\n", p.dashboard, p.title, len(series), series[0])
		}
	}
	table.WriteString("\n")
	stop()
	s.rulesAreEvaluated(t, prometheus)
	if !t.Failed() {
		updateTable(t, table.String())
	}
}

// monitored deploys endpoints that have a value for every metric.
func (s *system) monitored(t *testing.T) {
	t.Helper()
	s.must(t, "create", "--name", "monitored")
	code := writeCode(t, s, "measured.py", measured)
	for _, version := range []string{"1", "2"} {
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", version, "--preprocess", code)
	}
	batched := writeCode(t, s, "batched.py", "class Preprocess:\n    def process_batch(self, batch, states, collect_custom_statistics_fn=None):\n        return batch\n")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", "b", "--preprocess", batched, "--aux-config", "max_batch_size=16")
	s.must(t, "model", "canary", "--endpoint", "split", "--weights", "0.7", "0.3", "--input-endpoints", "m/1", "m/2")
	s.must(t, "model", "shadow", "--endpoint", "m/1", "--to", "m/2")
	s.must(t, "metrics", "add", "--endpoint", "m/*", "--variable-scalar", "x=0,2,4", "--variable-enum", "animal=cat,dog",
		"--variable-counter", "tokens", "--variable-value", "own", "bad", "--wait")
	s.must(t, "model", "canary", "--endpoint", "stepwise", "--steps", "10", "50", "100", "--input-endpoints", "m/2", "m/1")
	s.must(t, "feedback", "set", "--endpoint", "m/1", "--prediction", "animal")
	rows := "x,animal\n"
	for i := range 600 {
		rows += fmt.Sprintf("%d,%s\n", i%6, []string{"cow", "cat"}[i%2])
	}
	file := filepath.Join(s.dir, "reference.csv")
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(t, "drift", "reference", "--endpoint", "m/*", "--file", file, "--wait")
}

// everyKindOfTraffic sends requests of every outcome until stop is called.
func (s *system) everyKindOfTraffic(t *testing.T) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		for x := 0; ; x++ {
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
			s.predictAndTell(fmt.Sprintf("monitored-%d", x))
			for _, endpoint := range []string{"split", "m/1", "m/b", "stepwise"} {
				_, _ = roundTripBody(s.urls["serve"]+"/serve/"+endpoint, fmt.Sprintf(`{"x":%d}`, x%6))
			}
			if x%10 == 0 {
				_, _ = roundTripBody(s.urls["serve"]+"/serve/m/1", `{"x":-1}`)
				_, _ = roundTripBody(s.urls["serve"]+"/serve/m/1", `no JSON`)
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// predictAndTell gets a prediction, and sends the truth about it.
func (s *system) predictAndTell(id string) {
	request, err := http.NewRequest(http.MethodPost, s.urls["serve"]+"/serve/m/1", strings.NewReader(`{"x":1}`))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Request-Id", id)
	if response, err := http.DefaultClient.Do(request); err == nil {
		_ = response.Body.Close() // the answer is not needed
	}
	_, _ = roundTripBody(s.urls["serve"]+"/feedback/m/1", fmt.Sprintf(`{"request_id":%q,"truth":"cat"}`, id))
}

func roundTripBody(url, body string) (int, string) {
	return roundTrip(http.MethodPost, url, "application/json", strings.NewReader(body))
}

// prometheus starts a real one with the shipped rules and returns its address.
func (s *system) prometheus(t *testing.T) (address string) {
	t.Helper()
	admin, err := url.Parse(s.urls["admin"])
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n  - job_name: clearml-serving\n    static_configs: [{targets: [%q]}]\n",
		filepath.Join(root, "monitoring/prometheus/rules.yml"), admin.Host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	host := "127.0.0.1:" + freePort(t)
	s.background(t, "prometheus", nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(s.dir, "prometheus"), "--web.listen-address="+host)
	address = "http://" + host
	s.eventually(t, patience, "Prometheus scrapes the service", func() error {
		if status, body := s.get(t, address+"/-/ready"); status != http.StatusOK {
			return statusError(status, body)
		}
		series, err := query(t, address, "clearml_serving_start_time_seconds")
		if err == nil && len(series) == 0 {
			err = errors.New("no sample yet")
		}
		return err
	})
	return address
}

// query returns the labels and values of an instant query.
func query(t *testing.T, prometheus, expr string) (series []string, err error) {
	t.Helper()
	status, body := roundTrip(http.MethodGet, prometheus+"/api/v1/query?query="+url.QueryEscape(expr), "", nil)
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return nil, fmt.Errorf("status %d: %s: %w", status, body, err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	for _, r := range answer.Data.Result {
		if r.Value[1] == "NaN" {
			continue
		}
		labels := []string{}
		for name, value := range r.Metric {
			labels = append(labels, fmt.Sprintf("%s=%q", name, value))
		}
		series = append(series, fmt.Sprintf("{%s} %v", strings.Join(labels, ", "), r.Value[1]))
	}
	return series, nil
}

type panelQueries struct {
	dashboard, title string
	exprs            []string
}

// panels are all panels of the dashboards, with their variables replaced as Grafana does it.
func panels(t *testing.T) (all []panelQueries) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "monitoring/grafana/dashboards/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	values := strings.NewReplacer("$__rate_interval", "15s", "$instance", ".*", "$endpoint", "m", "$version", ".*", "$variable", ".*")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		decode(t, string(text), &d)
		for _, p := range d.Panels {
			q := panelQueries{dashboard: strings.TrimPrefix(d.Title, "ClearML Serving / "), title: p.Title}
			for _, target := range p.Targets {
				q.exprs = append(q.exprs, values.Replace(target.Expr))
			}
			all = append(all, q)
		}
	}
	return all
}

// rulesAreEvaluated fails for each rule that Prometheus could not evaluate.
func (s *system) rulesAreEvaluated(t *testing.T, prometheus string) {
	t.Helper()
	_, body := s.get(t, prometheus+"/api/v1/rules")
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	decode(t, body, &answer)
	count := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if count++; r.Health != "ok" {
				t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if count == 0 {
		t.Errorf("Prometheus has no rules: %s", body)
	}
}

// updateTable writes the table into the documentation with UPDATE=1.
func updateTable(t *testing.T, table string) {
	t.Helper()
	if os.Getenv("UPDATE") == "" {
		return
	}
	path := filepath.Join(root, monitoringPage)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), monitoringBegin)
	_, after, ok2 := strings.Cut(rest, monitoringEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", monitoringPage, monitoringBegin, monitoringEnd)
	}
	if err := os.WriteFile(path, []byte(before+monitoringBegin+table+monitoringEnd+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
)

// promql asks the embedded server's Prometheus API, as Grafana does, and returns the values as
// "labels value".
func (s *system) promql(t *testing.T, expr string) (values []string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.urls["api"]+"/prometheus/api/v1/query", strings.NewReader(url.Values{"query": {expr}}.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(s.variable(t, "CLEARML_API_ACCESS_KEY"), s.variable(t, "CLEARML_API_SECRET_KEY"))
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Body.Close() }()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status string
		Data   struct {
			Result []struct {
				Metric json.RawMessage
				Value  []any
			}
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		return nil, fmt.Errorf("%s answered %d %s", expr, w.StatusCode, text)
	}
	for _, one := range answer.Data.Result {
		values = append(values, fmt.Sprintf("%s %v", one.Metric, one.Value[1]))
	}
	return values, nil
}

// wantSeries waits until an expression has exactly these values.
func (s *system) wantSeries(t *testing.T, expr string, want ...string) {
	t.Helper()
	s.eventually(t, patience, expr+" is "+strings.Join(want, ", "), func() error {
		got, err := s.promql(t, expr)
		if err == nil && strings.Join(got, "\n") != strings.Join(want, "\n") {
			err = fmt.Errorf("%s is %q, want %q", expr, got, want)
		}
		return err
	})
}

func TestUpKeepsTheSeriesOfItsInstanceOverAKill(t *testing.T) {
	s := up(t)
	id := createdID(t, s.must(t, "create", "--name", "kept"))
	code := writeCode(t, s, "measured.py", measured)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", code, "--wait")
	for x := range 7 {
		s.wants(t, "m", fmt.Sprintf(`{"x":%d}`, x), fmt.Sprintf(`{"y":[%d,%d],"animal":%q}`, x, 2*x, []string{"cow", "cat"}[x%2]))
	}
	answered := fmt.Sprintf(`{endpoint="m",outcome="answered",service=%q,service_name="kept"}`, id)
	s.wantSeries(t, "sum(clearml_serving_requests_total"+answered+")", "{} 7")
	s.wantSeries(t, `sum(histogram_count(clearml_serving_request_duration_seconds{endpoint="m"}))`, "{} 7")
	s.wantSeries(t, `sum(clearml_serving_request_duration_seconds_bucket{endpoint="m",le="+Inf"})`, "{} 7")
	s.kill(t)
	s.start(t, role{})
	s.wantSeries(t, "max(max_over_time(clearml_serving_requests_total"+answered+"[1h]))", "{} 7")
	s.wantSeries(t, "max(clearml_serving_timeseries_open)", "{} 1")
}

func TestAnInstanceOfItsOwnSendsItsSeriesToTheServer(t *testing.T) {
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create", "--name", "remote"))
	code := writeCode(t, plane, "measured.py", measured)
	plane.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", code)
	s := instance(t, plane, id)
	s.answersAny(t, "m", `{"x":1}`)
	plane.wantSeries(t, fmt.Sprintf(`count by (service, service_name) (clearml_serving_endpoint_ready{endpoint="m"} == 1)`),
		fmt.Sprintf(`{"service":%q,"service_name":"remote"} 1`, id))
	// A server that is away loses nothing of what it would have had.
	if err := plane.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	plane.end(t, patience)
	s.answersAny(t, "m", `{"x":1}`)
	plane.start(t, role{args: []string{"server", "--api-addr", strings.TrimPrefix(plane.urls["api"], "http://"), "--files-addr", strings.TrimPrefix(plane.urls["files"], "http://")}})
	plane.wantSeries(t, `sum(clearml_serving_requests_total{endpoint="m",outcome="answered"})`, "{} 2")
	// Its series end with it.
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.end(t, patience)
	plane.wantSeries(t, `count({endpoint="m"})`)
}

// answersAny waits until an endpoint answers a request with 200, and so has counted one.
func (s *system) answersAny(t *testing.T, endpoint, request string) {
	t.Helper()
	s.eventually(t, patience, endpoint+" answers", func() error {
		if status, got := s.ask(t, endpoint, request); status != http.StatusOK {
			return errors.New(got)
		}
		return nil
	})
}

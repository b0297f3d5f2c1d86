//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"clearmlserving/timeseries"
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
	plane.wantSeries(t, `count by (service, service_name) (clearml_serving_endpoint_ready{endpoint="m"} == 1)`,
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

// A real Prometheus takes what up sends, and up reads it instead of time series of its own.
func TestAPrometheusOfOnesOwnIsWrittenAndRead(t *testing.T) {
	program := os.Getenv("CLEARML_SERVING_E2E_PROMETHEUS")
	if program == "" {
		t.Skip("make e2e-prometheus runs it")
	}
	s := install(t)
	address := listeningPrometheus(t, s, program)
	s.env = append(s.env, "CLEARML_SERVING_PROMETHEUS_URL="+address, "CLEARML_SERVING_REMOTE_WRITE_URL="+address+"/api/v1/write")
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create", "--name", "kept"))
	code := writeCode(t, s, "measured.py", measured)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", code, "--wait")
	s.answersAny(t, "m", `{"x":1}`)
	direct := timeseriesOf(t, address)
	for expr, want := range map[string]string{
		fmt.Sprintf(`sum(clearml_serving_requests_total{endpoint="m",service=%q,outcome="answered"})`, id): "{} => 1 @[",
		`sum(histogram_count(clearml_serving_request_duration_seconds{endpoint="m"}))`:                     "{} => 1 @[",
		`sum(clearml_serving_remote_write_samples_total{result=~"refused|dropped"})`:                       "{} => 0 @[",
	} {
		s.eventually(t, patience, expr+" is there", func() error {
			v, err := direct.Query(t.Context(), expr, time.Now())
			if err == nil && !strings.HasPrefix(v.String(), want) {
				err = fmt.Errorf("%s is %s, want %s", expr, v, want)
			}
			return err
		})
	}
	if _, err := s.promql(t, "up"); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("the server answers %v; want where the time series are", err)
	}
	if out := s.must(t, "doctor"); !strings.Contains(out, "read from the Prometheus at "+address+", which has series of 1 instance") {
		t.Errorf("the doctor says:\n%s", out)
	}
}

func timeseriesOf(t *testing.T, address string) timeseries.Querier {
	t.Helper()
	c, err := timeseries.NewClient(timeseries.ClientOptions{URL: address, Transport: http.DefaultTransport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// listeningPrometheus starts a Prometheus that takes samples by remote write.
func listeningPrometheus(t *testing.T, s *system, program string) (address string) {
	t.Helper()
	dir := t.TempDir() // a process in the installation's folder is taken for a left one
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = "http://" + l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+strings.TrimPrefix(address, "http://"),
		"--web.enable-remote-write-receiver", "--enable-feature=native-histograms")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for range 600 {
		if status, _ := s.get(t, address+"/-/ready"); status == http.StatusOK {
			return address
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("Prometheus did not become ready within a minute")
	return ""
}

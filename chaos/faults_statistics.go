package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// statisticsFaults are faults of what records requests: counters, time series, feedback, request log,
// traces, the connection to Kafka. No request may be affected, and after the fault everything is recorded
// again.
func statisticsFaults() []fault {
	away := []int{0, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
	return []fault{
		{name: "statistics-file-replaced", about: "a folder takes the place of the file of the counters", inject: statisticsReplaced},
		{name: "statistics-file-cut", about: "the file of the counters is truncated while it is used", slow: true, inject: statisticsCut},
		{name: "statistics-file-damaged", about: "an instance is killed, and starts with its counters damaged, truncated, or replaced by a folder", slow: true, inject: statisticsDamaged},
		{name: "timeseries-removed", about: "the folder of the time series is removed while it is used", inject: seriesRemoved},
		{name: "timeseries-killed", about: "SIGKILL to the control plane, and garbage at the end of the log of its time series", slow: true, inject: seriesKilled},
		{name: "timeseries-disk-full", about: "the disk of the time series is full, then has space again, then SIGKILL: what was stored since is there", slow: true, inject: seriesDiskFull},
		{name: "timeseries-read-only", about: "a control plane starts while the folder of its time series cannot be written", slow: true, inject: seriesReadOnly},
		{name: "feedback-and-log-removed", about: "the folders of feedback and request log are removed while they are used", inject: recordsRemoved},
		{name: "feedback-and-log-disk-full", about: "the disk of feedback and request log is full: feedback is refused, then taken again", slow: true, inject: recordsDiskFull},
		{name: "traces-receiver", about: "the receiver of traces hangs, refuses, answers garbage", slow: true, inject: tracesNowhere},
		{name: "kafka-away", about: "statistics go to a Kafka broker that refuses, hangs, or speaks another protocol", slow: true, inject: kafkaAway},
		{name: "variables-hostile", about: "10,000 values of an enum, names that collide, NaN, infinities, nested and missing variables, under load", inject: hostileVariables},
		{name: "parts-killed", about: "SIGKILL to control plane, service, zygote and workers at random moments", slow: true, hit: everything, statuses: away, inject: partsKilled},
	}
}

// until polls until check returns nil.
func until(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("not within %v: %s: %w", patience, what, err)
		}
	}
}

// metric is the sum of an instance's metric over the series with these parts in their names.
func (s *server) metric(ctx context.Context, name string, parts ...string) (sum float64, err error) {
	body, err := fetch(ctx, s.urls["admin"]+"/metrics")
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(string(body)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series != name && !strings.HasPrefix(series, name+"{") || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(series, p) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		sum, found = sum+n, true
	}
	if !found {
		err = fmt.Errorf("/metrics has no %s %v", name, parts)
	}
	return sum, err
}

// keeps waits until an instance says that its counters are kept.
func (s *server) keeps(ctx context.Context) error {
	const kept = "clearml_serving_counters_kept"
	return until(ctx, kept, func() error {
		got, err := s.metric(ctx, kept)
		if err == nil && got != 1 {
			err = fmt.Errorf("%s is %v, want 1", kept, got)
		}
		return err
	})
}

const (
	requests = "clearml_serving_requests_total"
	// logged is the endpoint whose requests are logged and whose predictions are kept.
	logged = "steady_2"
)

// dataOf is the data folder of an instance.
func (w *world) dataOf(s *server) string { return filepath.Join(w.dir, s.name) }

// counters is the file with the counters of an instance.
func (w *world) counters(s *server) (string, error) {
	found, err := filepath.Glob(filepath.Join(w.dataOf(s), "inference", "statistics-*.variables"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no file of counters in %s (%w)", w.dataOf(s), err)
	}
	return strings.TrimSuffix(found[0], ".variables"), nil
}

// statisticsReplaced puts a folder in the place of the counters. None may be lost.
func statisticsReplaced(ctx context.Context, w *world) error {
	s := w.serving()
	path, err := w.counters(s)
	if err != nil {
		return err
	}
	before, err := s.metric(ctx, requests, `endpoint="steady_1"`, "answered")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		return err
	}
	err = until(ctx, "the counters are in a file again", func() error {
		info, err := os.Lstat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("there is still a folder")
		}
		return err
	})
	if err := errors.Join(err, s.keeps(ctx)); err != nil {
		return err
	}
	after, err := s.metric(ctx, requests, `endpoint="steady_1"`, "answered")
	if err == nil && after < before {
		err = fmt.Errorf("%v requests were counted before, %v after", before, after)
	}
	return err
}

// statisticsCut truncates the file. Its counters begin again, and are kept.
func statisticsCut(ctx context.Context, w *world) error {
	s := w.serving()
	path, err := w.counters(s)
	if err != nil {
		return err
	}
	for _, size := range []int64{4096, 0} {
		if err := os.Truncate(path, size); err != nil {
			return err
		}
		err := until(ctx, "the counters are in a file again", func() error {
			info, err := os.Lstat(path)
			if err == nil && info.Size() <= 4096 {
				err = errors.New("the file is still cut off")
			}
			return err
		})
		if err := errors.Join(err, s.keeps(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// statisticsDamaged restarts an instance on damaged counters.
func statisticsDamaged(ctx context.Context, w *world) (err error) {
	s, err := w.startInference(ctx, "second")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for name, damage := range map[string]func(path string) error{
		"damaged":   func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("garbage "), 1<<17), 0o600) },
		"truncated": func(path string) error { return os.Truncate(path, 5000) },
		"a folder":  func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"its variables damaged": func(path string) error {
			return os.WriteFile(path+".variables", []byte("garbage"), 0o600)
		},
	} {
		path, err := w.counters(s)
		if err != nil {
			return err
		}
		s.kill()
		if err := damage(path); err != nil {
			return err
		}
		if s, err = w.startInference(ctx, "second"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := errors.Join(w.askAt(ctx, s, victim), s.keeps(ctx)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// series asks a control plane for a PromQL expression, and returns the number of series.
func (w *world) series(ctx context.Context, api, expr string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/prometheus/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return 0, err
	}
	r.SetBasicAuth(w.variable("CLEARML_API_ACCESS_KEY"), w.variable("CLEARML_API_SECRET_KEY"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var answer struct {
		Status string
		Data   struct{ Result []json.RawMessage }
	}
	if err := errors.Join(err, json.Unmarshal(body, &answer)); err != nil || answer.Status != "success" {
		return 0, fmt.Errorf("%s was answered %d %.300s (%w)", expr, resp.StatusCode, body, err)
	}
	return len(answer.Data.Result), nil
}

func (w *world) variable(name string) string {
	for _, one := range w.env {
		if value, ok := strings.CutPrefix(one, name+"="); ok {
			return value
		}
	}
	return ""
}

// hasSeries waits until an expression has a result.
func (w *world) hasSeries(ctx context.Context, api, expr string) error {
	return until(ctx, expr, func() error {
		n, err := w.series(ctx, api, expr)
		if err == nil && n == 0 {
			err = errors.New("no series")
		}
		return err
	})
}

// recent has a result if requests were recorded in the last seconds.
const recent = `count_over_time(clearml_serving_requests_total{endpoint="steady_1",outcome="answered"}[12s])`

func seriesRemoved(ctx context.Context, w *world) error {
	dir := filepath.Join(w.dir, "control", "timeseries")
	if err := errors.Join(w.hasSeries(ctx, w.control.urls["api"], recent), os.RemoveAll(dir)); err != nil {
		return err
	}
	err := until(ctx, "the folder is there again", func() error {
		_, err := os.Stat(filepath.Join(dir, "wal"))
		return err
	})
	return errors.Join(err, w.hasSeries(ctx, w.control.urls["api"], recent))
}

func seriesKilled(ctx context.Context, w *world) error {
	dir := filepath.Join(w.dir, "control", "timeseries")
	for range 3 {
		if err := errors.Join(w.hasSeries(ctx, w.control.urls["api"], recent), pause(ctx, time.Duration(rand.IntN(2000))*time.Millisecond)); err != nil { //nolint:gosec // a random moment
			return err
		}
		before := time.Now().Unix() // the newest samples may be the only ones
		w.control.kill()
		segments, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
		if err != nil || len(segments) == 0 {
			return fmt.Errorf("no log of the time series in %s (%w)", dir, err)
		}
		f, err := os.OpenFile(slices.Max(segments), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(bytes.Repeat([]byte("garbage "), 1000))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := w.startControl(ctx, "127.0.0.1:0", "127.0.0.1:0"); err != nil {
			return err
		}
		api := w.control.urls["api"]
		old := fmt.Sprintf(`count_over_time(clearml_serving_requests_total{endpoint="steady_1"}[1m] @ %d)`, before)
		if err := errors.Join(w.hasSeries(ctx, api, recent), w.hasSeries(ctx, api, old)); err != nil {
			return err
		}
	}
	return nil
}

// mounted calls do with a folder on a small disk of its own.
func (w *world) mounted(name, size string, do func(dir string) error) error {
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		say("skipped: cannot mount a file system (%v)", err)
		return os.Remove(dir)
	}
	err := do(dir)
	return errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH), os.RemoveAll(dir))
}

// fillUp leaves no room on a disk.
func fillUp(dir string) (file string, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "fill"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	for size := 64 << 10; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return f.Name(), errors.Join(err, f.Close())
	}
	return f.Name(), f.Close()
}

// startOther starts a control plane beside that of the installation.
func (w *world) startOther(ctx context.Context, data string) (*server, error) {
	s, err := w.launch("other", nil, "server", "--data-dir", data, "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	err = s.wait(ctx, func() error {
		if err := s.readAddresses(data); err != nil {
			return err
		}
		return get(ctx, s.urls["api"]+"/livez")
	})
	if err != nil {
		err = errors.Join(err, s.stop())
	}
	return s, err
}

// asOther is the world with the credentials of another control plane.
func (w *world) asOther(ctx context.Context, data string) (*world, error) {
	text, err := w.output(ctx, nil, "env", "--data-dir", data, "--format", "json")
	if err != nil {
		return nil, err
	}
	var told map[string]string
	if err := json.Unmarshal(text, &told); err != nil {
		return nil, err
	}
	other := &world{}
	for name, value := range told {
		other.env = append(other.env, name+"="+value)
	}
	return other, nil
}

// own has a result if a control plane has stored its own metrics in the last seconds.
const own = `count_over_time(clearml_serving_timeseries_open[12s])`

func seriesDiskFull(ctx context.Context, w *world) error {
	return w.mounted("small", "60m", func(dir string) (err error) {
		s, err := w.startOther(ctx, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.stop()) }()
		other, err := w.asOther(ctx, dir)
		if err != nil {
			return err
		}
		if err := other.hasSeries(ctx, s.urls["api"], own); err != nil {
			return err
		}
		fill := ""
		for range 15 { // the log grows into what room other files leave
			if fill, err = fillUp(dir); err != nil {
				return err
			}
			if err := errors.Join(get(ctx, s.urls["api"]+"/livez"), pause(ctx, time.Second)); err != nil {
				return fmt.Errorf("with a full disk: %w", err)
			}
		}
		if _, err := other.series(ctx, s.urls["api"], "clearml_serving_timeseries_open"); err != nil {
			return fmt.Errorf("with a full disk: %w", err)
		}
		if err := os.Remove(fill); err != nil {
			return err
		}
		if err := errors.Join(pause(ctx, 15*time.Second), other.hasSeries(ctx, s.urls["api"], own)); err != nil {
			return err
		}
		since := time.Now().Unix()
		s.kill()
		if s, err = w.startOther(ctx, dir); err != nil {
			return err
		}
		return other.hasSeries(ctx, s.urls["api"], fmt.Sprintf("%s @ %d", strings.TrimSuffix(own, ")"), since)+")")
	})
}

func seriesReadOnly(ctx context.Context, w *world) (err error) {
	data := filepath.Join(w.dir, "readonly")
	dir := filepath.Join(data, "timeseries")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "size=20m"); err != nil {
		say("timeseries-read-only: skipped: cannot mount a file system (%v)", err)
		return nil
	}
	unmount := func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
	s, err := w.startOther(ctx, data)
	if err != nil {
		return errors.Join(err, unmount())
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	other, err := w.asOther(ctx, data)
	if err != nil {
		return errors.Join(err, unmount())
	}
	if _, err := other.series(ctx, s.urls["api"], "up"); err == nil || !strings.Contains(err.Error(), "503") {
		return errors.Join(fmt.Errorf("a query without a folder that can be written: %w, want 503", err), unmount())
	}
	if err := unmount(); err != nil {
		return err
	}
	return other.hasSeries(ctx, s.urls["api"], own) // it is tried again every minute
}

// recorded makes an endpoint keep feedback and log its requests while do runs.
func (w *world) recorded(ctx context.Context, do func() error) (err error) {
	for _, c := range [][]string{
		{"feedback", "set", "--endpoint", logged, "--task", "regression", "--prediction", "y", "--no-wait"},
		{"model", "log", "--endpoint", logged, "--no-wait"},
	} {
		if err := w.cli(ctx, c...); err != nil {
			return err
		}
	}
	defer func() {
		for _, c := range [][]string{{"feedback", "set", "--endpoint", logged, "--off", "--no-wait"}, {"model", "log", "--endpoint", logged, "--off", "--no-wait"}} {
			err = errors.Join(err, w.cli(ctx, c...))
		}
	}()
	return do()
}

// joins sends a request and its truth to an instance, and waits until they are joined.
func (w *world) joins(ctx context.Context, s *server, id string) error {
	return until(ctx, "a truth is joined with its prediction", func() error {
		status, body, err := post(ctx, http.DefaultClient, s.endpoint(logged), []byte(`{"x": 3}`), "X-Request-Id", id)
		if err != nil || !right(logged, 3, body) {
			return fmt.Errorf("answered %d %.300s (%w)", status, body, err)
		}
		status, body, err = post(ctx, http.DefaultClient, s.urls["serve"]+"/feedback/"+logged, fmt.Appendf(nil, `{"request_id": %q, "truth": 3}`, id))
		var taken struct{ Joined, Duplicate int }
		if err == nil {
			err = json.Unmarshal(body, &taken)
		}
		if err != nil || taken.Joined+taken.Duplicate == 0 {
			err = fmt.Errorf("feedback was answered %d %.300s (%w)", status, body, err)
		}
		return err
	})
}

// logs waits until an instance logs more requests of an endpoint.
func (w *world) logs(ctx context.Context, s *server) error {
	const rows = "clearml_serving_request_log_rows_total"
	before, _ := s.metric(ctx, rows, fmt.Sprintf("endpoint=%q", logged), `"logged"`) // there may be none yet
	return until(ctx, "requests are logged", func() error {
		if err := w.askAt(ctx, s, logged); err != nil {
			return err
		}
		now, err := s.metric(ctx, rows, fmt.Sprintf("endpoint=%q", logged), `"logged"`)
		if err == nil && now <= before {
			err = fmt.Errorf("%v rows", now)
		}
		return err
	})
}

func recordsRemoved(ctx context.Context, w *world) error {
	s := w.serving()
	return w.recorded(ctx, func() error {
		if err := errors.Join(w.joins(ctx, s, "before"), w.logs(ctx, s)); err != nil {
			return err
		}
		for _, name := range []string{"feedback", "request-log-spool"} {
			if err := os.RemoveAll(filepath.Join(w.dataOf(s), name)); err != nil {
				return err
			}
		}
		if err := errors.Join(w.joins(ctx, s, "after"), w.logs(ctx, s)); err != nil {
			return err
		}
		for _, pattern := range []string{"feedback/*.db", "request-log-spool/*/*"} {
			if found, err := filepath.Glob(filepath.Join(w.dataOf(s), pattern)); err != nil || len(found) == 0 {
				return fmt.Errorf("there is no %s (%w)", pattern, err)
			}
		}
		return nil
	})
}

func recordsDiskFull(ctx context.Context, w *world) error {
	return w.recorded(ctx, func() error {
		return w.mounted("small", "80m", func(dir string) (err error) {
			s, err := w.startInference(ctx, "small")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.stop()) }()
			if err := errors.Join(w.joins(ctx, s, "small-before"), w.logs(ctx, s)); err != nil {
				return err
			}
			fill, refused := "", false
			for i := 0; i < 200 && !refused; i++ {
				if fill, err = fillUp(dir); err != nil {
					return err
				}
				if err := w.askAt(ctx, s, logged); err != nil {
					return fmt.Errorf("with a full disk: %w", err)
				}
				status, body, err := post(ctx, http.DefaultClient, s.urls["serve"]+"/feedback/"+logged, fmt.Appendf(nil, `{"request_id": "full-%d-%s", "truth": 3}`, i, strings.Repeat("x", 200)))
				if err != nil || status != http.StatusOK && status != http.StatusServiceUnavailable {
					return fmt.Errorf("feedback with a full disk was answered %d %.300s (%w)", status, body, err)
				}
				refused = status == http.StatusServiceUnavailable
			}
			if !refused {
				return errors.New("feedback is taken with a full disk")
			}
			if err := os.Remove(fill); err != nil {
				return err
			}
			return errors.Join(w.joins(ctx, s, "small-after"), w.logs(ctx, s), s.keeps(ctx))
		})
	})
}

// tracesNowhere runs an instance whose traces nothing takes. Its end must not wait for them.
func tracesNowhere(ctx context.Context, w *world) error {
	for _, m := range []mood{silent, refuse, garbage, lies} {
		p, err := newProxy("http://127.0.0.1:1")
		if err != nil {
			return err
		}
		p.be(m)
		before := w.env
		w.env = append(slices.Clone(w.env), "OTEL_EXPORTER_OTLP_ENDPOINT="+p.url(), "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BSP_MAX_QUEUE_SIZE=512")
		s, err := w.startInference(ctx, "second")
		w.env = before
		if err == nil {
			for range 300 {
				if err = w.askAt(ctx, s, "steady_1"); err != nil {
					break
				}
			}
			begun := time.Now()
			err = errors.Join(err, s.stop())
			if took := time.Since(begun); err == nil && took > 30*time.Second {
				err = fmt.Errorf("the instance took %v to end", took)
			}
		}
		if err := errors.Join(err, p.close()); err != nil {
			return fmt.Errorf("receiver %d: %w", m, err)
		}
	}
	return nil
}

// kafkaAway configures brokers that are none.
func kafkaAway(ctx context.Context, w *world) (err error) {
	p, err := newProxy("http://127.0.0.1:1")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.cli(ctx, "config", "--kafka-metric-server", ""), p.close()) }()
	if err := w.cli(ctx, "config", "--kafka-metric-server", host(p.url())); err != nil {
		return err
	}
	for _, m := range []mood{refuse, silent, garbage} {
		p.be(m)
		if err := pause(ctx, 4*time.Second); err != nil {
			return err
		}
	}
	_, err = w.serving().metric(ctx, requests, `endpoint="steady_1"`, "answered")
	return err
}

const hostileCode = `
import random


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        n = data["n"]
        if collect_custom_statistics_fn:
            collect_custom_statistics_fn({
                "animal": "animal %d" % n, "x": [float("nan"), float("inf"), -float("inf"), "text", None, {"a": [n]}, [1, [2]], 1e308][n % 8],
                "a-b": n, "a_b": 1, "a.b": 2, "\u00e4 b": 3, "": 4, "new %d" % n: n, 7: n,
            })
        return {"y": n, "answer": [float(n)] * 3}
`

// hostileVariables logs variables of user code that keeps to no rule. What a scrape gets is bounded.
func hostileVariables(ctx context.Context, w *world) (err error) {
	const endpoint, asked = "hostile", 10_000
	file := filepath.Join(w.dir, "hostile.py")
	if err := os.WriteFile(file, []byte(hostileCode), 0o600); err != nil {
		return err
	}
	for _, c := range [][]string{
		{"model", "add", "--endpoint", endpoint, "--engine", "custom", "--preprocess", file},
		{"metrics", "add", "--endpoint", endpoint, "--log-freq", "1", "--variable-enum", "animal=cat,dog", "--variable-scalar", "x=0,1,2", "a-b=0/10/5", "a_b=0,1", "--variable-value", "a.b", "gone", "--variable-counter", "n"},
	} {
		if err := w.cli(ctx, c...); err != nil {
			return err
		}
	}
	defer func() {
		err = errors.Join(err, w.cli(ctx, "metrics", "remove", "--endpoint", endpoint), w.cli(ctx, "model", "remove", "--endpoint", endpoint))
	}()
	s := w.serving()
	if err := w.waitReady(ctx, endpoint); err != nil {
		return err
	}
	if err := until(ctx, "the variables are known", func() error {
		_, err := s.metric(ctx, "clearml_serving_variable_total", fmt.Sprintf("endpoint=%q", endpoint), `variable="n"`)
		if err != nil {
			_, _, err2 := post(ctx, http.DefaultClient, s.endpoint(endpoint), []byte(`{"n": 0}`))
			err = errors.Join(err, err2)
		}
		return err
	}); err != nil {
		return err
	}
	numbers := make(chan int)
	failed := make(chan error, 8)
	for range cap(failed) {
		go func() { // ends with numbers
			var first error
			for n := range numbers {
				status, body, err := post(ctx, http.DefaultClient, s.endpoint(endpoint), fmt.Appendf(nil, `{"n": %d}`, n))
				if (err != nil || status != http.StatusOK || !bytes.Contains(body, fmt.Appendf(nil, `"y":%d,`, n))) && first == nil {
					first = fmt.Errorf("n=%d was answered %d %.300s (%w)", n, status, body, err)
				}
			}
			failed <- first
		}()
	}
	for n := range asked {
		numbers <- n
	}
	close(numbers)
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		return err
	}
	body, err := fetch(ctx, s.urls["admin"]+"/metrics")
	if err != nil {
		return err
	}
	if len(body) > 4<<20 {
		return fmt.Errorf("/metrics has %d bytes", len(body))
	}
	sampled, err := s.metric(ctx, "clearml_serving_sampled_requests_total", fmt.Sprintf("endpoint=%q", endpoint))
	if err == nil && sampled < asked {
		err = fmt.Errorf("%v of %d requests were recorded", sampled, asked)
	}
	return err
}

// partsKilled kills parts at random moments, and starts them again.
func partsKilled(ctx context.Context, w *world) error {
	for range 12 {
		if err := pause(ctx, time.Duration(rand.IntN(1500))*time.Millisecond); err != nil { //nolint:gosec // a random moment
			return err
		}
		var err error
		switch rand.IntN(4) { //nolint:gosec // a random part
		case 0:
			w.control.kill()
			err = w.startControl(ctx, "127.0.0.1:0", "127.0.0.1:0")
		case 1:
			old := w.serving()
			old.kill()
			var s *server
			if s, err = w.startInference(ctx, old.name); err == nil {
				w.replaceServing(s)
			}
		case 2:
			var pid int
			if pid, err = w.zygote(ctx); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
			}
		default:
			var pid int
			if pid, err = w.workerOf(ctx, victim); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
			}
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(w.serving().keeps(ctx), w.hasSeries(ctx, w.control.urls["api"], recent))
}

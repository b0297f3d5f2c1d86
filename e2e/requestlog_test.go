//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// logged is code with an answer of several types; it answers 422 to a negative x.
const logged = `class Preprocess:
    def load(self, path):
        return None

    def process(self, data, state, collect_custom_statistics_fn=None):
        if data["x"] < 0:
            raise ValueError("x is negative")
        return {"y": data["x"] * 2, "name": data["name"], "list": [1, 2]}
`

type readLog struct {
	Files int
	Types map[string]string
	Rows  []map[string]string
}

func TestTheRequestLogIsReadByPandas(t *testing.T) {
	python := filepath.Join(root, ".venv-parquet/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatal("no .venv-parquet: make venv-parquet")
	}
	s := install(t)
	environment := []string{"CLEARML_SERVING_REQUEST_LOG_FILE_TIME=1"}
	s.start(t, role{env: environment})
	t.Cleanup(func() { s.stop(t) })
	s.must(t, "create", "--name", "logged")
	code := writeCode(t, s, "logged.py", logged)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", "1", "--preprocess", code, "--wait")
	s.must(t, "model", "log", "--endpoint", "*", "--redact", "password", "--wait")

	ask := func(i int) {
		t.Helper()
		body := fmt.Sprintf(`{"x": %d.5, "name": "Ann", "password": "secret-%d"}`, i, i)
		if status, answer := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/m/1", "application/json", strings.NewReader(body), "X-Request-Id", fmt.Sprintf("r-%d", i)); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	read := func() (log readLog) {
		decode(t, s.python(t, python, "read_log.py", filepath.Join(s.data, "request-log")), &log)
		return log
	}
	for i := range 20 {
		ask(i)
	}
	if status, answer := s.ask(t, "m/1", `{"x": -1, "name": "Bob"}`); status != http.StatusUnprocessableEntity {
		t.Fatalf("%d %s", status, answer)
	}
	s.wantMetrics(t, `request_log_rows_total{endpoint="m",result="logged",version="1"} 21`)
	s.kill(t) // what was in the spool outlives it
	s.start(t, role{env: environment})
	s.eventually(t, patience, "m/1 is ready", func() error {
		if status, answer := s.ask(t, "m/1", `{"x": -1, "name": "Bob"}`); status != http.StatusUnprocessableEntity {
			return statusError(status, answer)
		}
		return nil
	})
	for i := 20; i < 30; i++ {
		ask(i)
	}
	s.eventually(t, patience, "all requests are in files", func() error {
		if log := read(); len(log.Rows) < 32 {
			return fmt.Errorf("%d rows in %d files", len(log.Rows), log.Files)
		}
		return nil
	})
	log := read()
	want := map[string]string{"input_x": "float64", "output_y": "float64", "latency_seconds": "float64", "status": "int32"}
	for column, kind := range want {
		if log.Types[column] != kind {
			t.Errorf("column %s is %s, want %s", column, log.Types[column], kind)
		}
	}
	seen := map[string]bool{}
	for _, row := range log.Rows {
		id := row["request_id"]
		if row["status"] == "422" {
			continue
		}
		if seen[id] {
			t.Errorf("request %s is logged twice", id)
		}
		seen[id] = true
		if row["endpoint"] != "m" || row["version"] != "1" || row["input_name"] != "Ann" || row["input_password"] != "[redacted]" || row["output_list"] != "[1,2]" {
			t.Errorf("row %v", row)
		}
		if !strings.HasPrefix(row["time"], "20") || !strings.HasSuffix(row["time"], "+00:00") {
			t.Errorf("time %s", row["time"])
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d of 30 requests are logged", len(seen))
	}
	err := filepath.WalkDir(s.data, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "secret-") {
			t.Errorf("%s has a redacted value", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheRequestLogStandsOnABucket(t *testing.T) {
	for name, place := range clouds(t) {
		t.Run(name, func(t *testing.T) {
			s := knowingClouds(t)
			s.env = append(s.env, "CLEARML_SERVING_REQUEST_LOG="+place+"/request log/", "CLEARML_SERVING_REQUEST_LOG_FILE_TIME=1")
			s.start(t, role{})
			t.Cleanup(func() { s.stop(t) })
			s.must(t, "create")
			s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", "1", "--preprocess", writeCode(t, s, "logged.py", logged), "--wait")
			s.must(t, "model", "log", "--endpoint", "m/1", "--wait")
			for range 10 {
				s.wants(t, "m/1", `{"x":1.5,"name":"Ann"}`, `{"y":3.0,"name":"Ann","list":[1,2]}`)
			}
			s.eventually(t, patience, "the files are in the bucket", func() error {
				rows := 0
				for _, key := range held(t, place) {
					var n int
					i := strings.LastIndexByte(key, '-')
					if _, err := fmt.Sscanf(key[i+1:], "%d.parquet", &n); err != nil || !strings.Contains(key, "request log/m_1/date=20") {
						return fmt.Errorf("there is %q (%w)", key, err)
					}
					rows += n
				}
				if rows != 10 {
					return fmt.Errorf("%d rows", rows)
				}
				return nil
			})
			if _, err := os.Stat(filepath.Join(s.data, "request-log")); err == nil {
				t.Error("files are in the data folder too")
			}
		})
	}
}

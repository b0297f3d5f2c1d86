//go:build linux

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// measured is code with variables in the request, in the answer and collected. It answers 422 to
// a negative x.
const measured = `class Preprocess:
    loads = 0

    def load(self, path):
        Preprocess.loads += 1
        return None

    def process(self, data, state, collect_custom_statistics_fn=None):
        if data["x"] < 0:
            raise ValueError("x is negative")
        if collect_custom_statistics_fn:
            collect_custom_statistics_fn({"tokens": 3, "own": data["x"] / 2, "bad": float("nan")})
        return {"y": [data["x"], 2 * data["x"]], "animal": "cat" if data["x"] % 2 else "cow"}
`

// wantMetrics waits until a scrape has these lines, and returns it.
func (s *system) wantMetrics(t *testing.T, lines ...string) (text string) {
	t.Helper()
	s.eventually(t, patience, "the metrics are there", func() error {
		var status int
		status, text = s.get(t, s.urls["admin"]+"/metrics")
		if status != 200 {
			return statusError(status, text)
		}
		for _, line := range lines {
			if !strings.Contains(text, "\nclearml_serving_"+line+"\n") {
				name, _, _ := strings.Cut(line, "{")
				found := ""
				for have := range strings.Lines(text) {
					if strings.HasPrefix(have, "clearml_serving_"+name) {
						found += have
					}
				}
				return fmt.Errorf("missing: %s\nthere is:\n%s", line, found)
			}
		}
		return nil
	})
	return text
}

func TestAScrapeCountsEachRequestAndItsVariables(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "measured")
	code := writeCode(t, s, "measured.py", measured)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", "1", "--preprocess", code, "--wait")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "plain", "--preprocess", code, "--wait")
	s.must(t, "metrics", "add", "--endpoint", "m/*", "--variable-scalar", "x=0,2,4", "y=1,5", "--variable-enum", "animal=cat,dog",
		"--variable-counter", "tokens", "--variable-value", "bad", "absent", "--wait")
	of := `{endpoint="m",version="1"} `
	s.wantMetrics(t, "endpoint_ready"+of+"1", "requests_total"+`{endpoint="m",outcome="answered",version="1"} 0`)
	for x := range 5 {
		s.wants(t, "m/1", fmt.Sprintf(`{"x":%d}`, x), fmt.Sprintf(`{"y":[%d,%d],"animal":%q}`, x, 2*x, []string{"cow", "cat"}[x%2]))
	}
	for _, wrong := range []string{`{"x":-1}`, `{"x":-2}`, `no JSON`} {
		if status, body := s.ask(t, "m/1", wrong); status != 422 {
			t.Fatalf("%s: %d %s", wrong, status, body)
		}
	}
	s.wants(t, "plain", `{"x":1}`, `{"y":[1,2],"animal":"cat"}`)

	labels := func(more string) string { return `{endpoint="m",` + more + `,version="1"} ` }
	bucket := func(variable, le string) string {
		return fmt.Sprintf(`{endpoint="m",variable=%q,version="1",le=%q} `, variable, le)
	}
	s.wantMetrics(t,
		"requests_total"+labels(`outcome="answered"`)+"5",
		"requests_total"+labels(`outcome="client_error"`)+"2",
		"requests_total"+labels(`outcome="bad_request"`)+"1",
		"requests_total"+labels(`outcome="error"`)+"0",
		"requests_in_progress"+of+"0",
		"request_duration_seconds_count"+of+"8",
		"request_queue_duration_seconds_count"+of+"8",
		"request_worker_duration_seconds_count"+of+"8",
		"request_size_bytes_count"+of+"8",
		fmt.Sprintf("request_size_bytes_sum%s%d", of, 5*len(`{"x":1}`)+2*len(`{"x":-1}`)+len(`no JSON`)),
		"response_size_bytes_count"+of+"8",
		"sampled_requests_total"+of+"5",
		"variable_distribution_bucket"+bucket("x", "0")+"1",
		"variable_distribution_bucket"+bucket("x", "2")+"3",
		"variable_distribution_bucket"+bucket("x", "+Inf")+"5",
		"variable_distribution_sum"+labels(`variable="x"`)+"10",
		"variable_distribution_bucket"+bucket("y", "1")+"3",
		"variable_distribution_bucket"+bucket("y", "+Inf")+"10",
		"variable_values_total"+labels(`value="cat",variable="animal"`)+"2",
		"variable_values_total"+labels(`value="other",variable="animal"`)+"3",
		"variable_total"+labels(`variable="tokens"`)+"15",
		"variable_value"+labels(`variable="own"`)+"2",
		"variables_skipped_total"+labels(`reason="null",variable="bad"`)+"5",
		"variables_skipped_total"+labels(`reason="missing",variable="absent"`)+"5",
		`sampled_requests_total{endpoint="plain",version=""} 1`,
		`request_duration_seconds_count{endpoint="plain",version=""} 1`,
		`workers{endpoint="plain",state="idle",version=""} 1`,
		"samples_dropped_total 0",
	)

	var status struct {
		Endpoints []struct {
			Endpoint  string
			PerSecond float64 `json:"per_second"`
			P95MS     float64 `json:"p95_ms"`
		}
	}
	_, text := s.get(t, s.urls["serve"]+"/status")
	decode(t, text, &status)
	for _, e := range status.Endpoints {
		if e.PerSecond <= 0 || e.P95MS <= 0 {
			t.Errorf("%s: %v a second, 95 of 100 within %v ms", e.Endpoint, e.PerSecond, e.P95MS)
		}
	}

	// Other variables: those that are still defined continue, and the model is not loaded again.
	_, before := s.get(t, s.urls["serve"]+"/status")
	s.must(t, "metrics", "remove", "--endpoint", "m/*", "--variable", "y")
	s.must(t, "metrics", "add", "--endpoint", "m/*", "--variable-value", "y", "--wait")
	s.wants(t, "m/1", `{"x":1}`, `{"y":[1,2],"animal":"cat"}`)
	s.wantMetrics(t,
		"variable_distribution_sum"+labels(`variable="x"`)+"11",
		"variable_value"+labels(`variable="y"`)+"2",
	)
	if _, after := s.get(t, s.urls["serve"]+"/status"); pidsIn(before) != pidsIn(after) {
		t.Errorf("a change of the variables made other workers:\n%s\n%s", before, after)
	}

	// Nothing is sampled, but everything is still counted.
	s.must(t, "metrics", "add", "--endpoint", "m/*", "--variable-value", "y", "--log-freq", "0", "--wait")
	s.wants(t, "m/1", `{"x":4}`, `{"y":[4,8],"animal":"cow"}`)
	s.wantMetrics(t,
		"request_duration_seconds_count"+of+"10",
		"sampled_requests_total"+of+"6",
		"variable_value"+labels(`variable="y"`)+"2",
	)
}

// pidsIn lists the workers in a status.
func pidsIn(status string) (pids string) {
	for line := range strings.Lines(status) {
		if strings.Contains(line, `"pid"`) {
			pids += strings.TrimSpace(line)
		}
	}
	return pids
}

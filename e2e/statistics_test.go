//go:build linux

package e2e_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// killsVariable sets the number of kills of TestCountersSurviveKills.
const killsVariable = "CLEARML_SERVING_E2E_KILLS"

// counting is code whose answers to a request n are known.
const counting = `class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if data["n"] % 7 == 0:
            raise ValueError("a multiple of 7")
        if collect_custom_statistics_fn:
            collect_custom_statistics_fn({"tokens": data["n"] % 11})
        return {"y": 2 * data["n"], "animal": "cat" if data["n"] % 2 else "dog"}
`

// tally is what the counters of some requests are together, by metric and labels.
type tally map[string]float64

func (c tally) add(other tally) {
	for name, n := range other {
		c[name] += n
	}
}

// countedOf is what request n adds to the counters, if its body has this size.
func countedOf(n, bytes int) tally {
	of := `{endpoint="m",version="1"}`
	labels := func(more string) string { return `{endpoint="m",` + more + `,version="1"}` }
	c := tally{
		"request_duration_seconds_count" + of: 1, "request_queue_duration_seconds_count" + of: 1, "request_worker_duration_seconds_count" + of: 1,
		"request_size_bytes_count" + of: 1, "request_size_bytes_sum" + of: float64(bytes), "response_size_bytes_count" + of: 1,
	}
	if n%7 == 0 {
		c["requests_total"+labels(`outcome="client_error"`)] = 1
		return c
	}
	animal := []string{"dog", "cat"}[n%2]
	c.add(tally{
		"requests_total" + labels(`outcome="answered"`): 1, "sampled_requests_total" + of: 1,
		"variable_distribution_count" + labels(`variable="n"`): 1, "variable_distribution_sum" + labels(`variable="n"`): float64(n),
		"variable_total" + labels(`variable="tokens"`):                           float64(n % 11),
		"variable_values_total" + labels(`value="`+animal+`",variable="animal"`): 1,
	})
	return c
}

// scraped are the values of these counters in a scrape, 0 for those that are not there.
func scraped(text string, names tally) tally {
	c := tally{}
	for line := range strings.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "clearml_serving_")), " ")
		if _, wanted := names[series]; ok && wanted {
			c[series], _ = strconv.ParseFloat(value, 64)
		}
	}
	return c
}

// explains returns a choice of the uncertain requests with which the counters have exactly these values.
func explains(known tally, uncertain map[int]tally, got tally) (tally, bool) {
	numbers := slices.Sorted(maps.Keys(uncertain))
	for choice := range 1 << len(numbers) {
		all := maps.Clone(known)
		for i, n := range numbers {
			if choice>>i&1 == 1 {
				all.add(uncertain[n])
			}
		}
		equal := true
		for name, value := range all {
			equal = equal && got[name] == value
		}
		if equal {
			return all, true
		}
	}
	return nil, false
}

// Each request that was answered is counted once, whenever the service is killed. One in progress at the kill is
// counted once, in all metrics together, or not at all.
func TestCountersSurviveKills(t *testing.T) {
	kills := 10
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", killsVariable, err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CLEARML_SERVING_E2E_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CLEARML_SERVING_E2E_SEED: %v", err)
		}
	}
	t.Logf("CLEARML_SERVING_E2E_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same walk for the same seed

	s := up(t)
	s.must(t, "create", "--name", "counting")
	file := writeCode(t, s, "counting.py", counting)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", "1", "--preprocess", file, "--wait")
	s.must(t, "metrics", "add", "--endpoint", "m/1", "--variable-scalar", "n=0,100,10000", "--variable-enum", "animal=cat,dog", "--variable-counter", "tokens", "--wait")

	known, uncertain := tally{}, map[int]tally{}
	for _, n := range []int{1, 2, 7} { // the names of all counters
		known.add(countedOf(n, 0))
	}
	for name := range known {
		known[name] = 0
	}
	var next atomic.Int64
	ready := func() {
		s.eventually(t, patience, "the endpoint answers", func() error {
			if err := s.readRegistry(); err != nil {
				return err
			}
			status, body := s.get(t, s.urls["serve"]+"/readyz?endpoint=m/1")
			return statusError(status, body)
		})
	}
	check := func(when string) {
		t.Helper()
		status, text := s.get(t, s.urls["admin"]+"/metrics")
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", when, status, text)
		}
		got := scraped(text, known)
		all, ok := explains(known, uncertain, got)
		if !ok {
			for _, name := range slices.Sorted(maps.Keys(known)) {
				t.Logf("%s: %v, want %v", name, got[name], known[name])
			}
			t.Fatalf("%s: the counters are not those of the answered requests, with any choice of %d requests in progress: %v", when, len(uncertain), uncertain)
		}
		known, uncertain = all, map[int]tally{}
	}

	for kill := range kills {
		var stopping atomic.Bool
		var mu sync.Mutex // guards known and uncertain
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for !stopping.Load() {
					n := int(next.Add(1))
					body := fmt.Sprintf(`{"n": %d, "pad": "%s"}`, n, strings.Repeat("x", n%50))
					status, answer := s.ask(t, "m/1", body)
					mu.Lock()
					switch {
					case status == http.StatusOK || (status == http.StatusUnprocessableEntity && n%7 == 0):
						known.add(countedOf(n, len(body)))
					case status == 0 && !strings.Contains(answer, "connection refused"):
						uncertain[n] = countedOf(n, len(body))
					case status != 0:
						t.Errorf("request %d: %d %s", n, status, answer)
					}
					mu.Unlock()
					if status == 0 {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		s.kill(t)
		stopping.Store(true)
		clients.Wait()
		if random.IntN(4) == 0 { // one more during the start
			s.launch(t, role{})
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
			s.kill(t)
		}
		if err := os.Remove(s.data + "/endpoints.json"); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		s.launch(t, role{})
		ready()
		check(fmt.Sprintf("after kill %d", kill+1))
	}
	t.Logf("%d requests, %d kills: all counters are those of the answered requests", next.Load(), kills)
}

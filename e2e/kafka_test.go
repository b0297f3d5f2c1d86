//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// daemon is a program that a test kills and starts again.
type daemon struct {
	s    *system
	name string
	env  []string
	args []string
	cmd  *exec.Cmd
}

// daemon starts a program in the installation's environment; it is killed at the end of the test.
func (s *system) daemon(t *testing.T, name string, env []string, args ...string) *daemon {
	t.Helper()
	d := &daemon{s: s, name: name, env: env, args: args}
	d.start(t)
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the log of %s ends:\n%s", name, lastLines(d.log()))
		}
	})
	return d
}

func (d *daemon) log() string { return filepath.Join(d.s.dir, d.name+".log") }

func (d *daemon) start(t *testing.T) {
	t.Helper()
	out, err := os.OpenFile(d.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the child has its own
	d.cmd = exec.Command(d.args[0], d.args[1:]...)
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = filepath.Join(d.s.dir, "work"), out, out
	d.cmd.Env = slices.Concat(d.s.env, d.s.sdk, d.env)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill kills the program and its children with SIGKILL.
func (d *daemon) kill() {
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	_ = d.cmd.Wait()                                      // killed on purpose
}

// kafka is a real broker.
type kafka struct {
	*daemon
	address string
}

func (s *system) kafka(t *testing.T) *kafka {
	t.Helper()
	return s.broker(t, freePort(t), freePort(t))
}

// broker starts a broker, with other settings than those of the tests if a file of properties is given.
func (s *system) broker(t *testing.T, port, controller string, properties ...string) *kafka {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_E2E_KAFKA") == "" {
		t.Skip("needs a Kafka broker and Prometheus: make e2e-kafka")
	}
	k := &kafka{address: "127.0.0.1:" + port}
	args := []string{filepath.Join(root, "scripts/kafka-broker.sh"), "run", t.TempDir(), port, controller}
	k.daemon = s.daemon(t, "kafka", nil, append(args, properties...)...)
	k.answers(t)
	return k
}

// answers waits until the broker takes connections.
func (k *kafka) answers(t *testing.T) {
	t.Helper()
	k.s.eventually(t, patience, "the broker answers", func() error {
		c, err := net.Dial("tcp", k.address)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// replica is a process of the role statistics.
type replica struct {
	*daemon
	url string
}

func (s *system) counting(t *testing.T, k *kafka, name string) *replica {
	t.Helper()
	port := freePort(t)
	c := &replica{url: "http://127.0.0.1:" + port}
	c.daemon = s.daemon(t, "statistics-"+name, []string{"CLEARML_DEFAULT_KAFKA_SERVE_URL=" + k.address, "CLEARML_SERVING_POLL_FREQ=0.02"},
		binary, "statistics", "--statistics-addr", "127.0.0.1:"+port, "--replica", name, "--data-dir", filepath.Join(s.dir, "statistics-"+name))
	c.reads(t)
	return c
}

// reads waits until the replica counts messages.
func (c *replica) reads(t *testing.T) {
	t.Helper()
	c.s.eventually(t, patience, c.name+" counts", func() error {
		if status, text := c.s.get(t, c.url+"/readyz"); status != http.StatusOK {
			return statusError(status, text)
		}
		return nil
	})
}

// samples adds up the series of several pages.
func samples(t *testing.T, s *system, urls ...string) (map[string]float64, error) {
	t.Helper()
	all := map[string]float64{}
	for _, url := range urls {
		status, text := s.get(t, url)
		if status != http.StatusOK {
			return nil, statusError(status, text)
		}
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			i := strings.LastIndexByte(line, ' ')
			if i < 0 || line[0] == '#' {
				continue
			}
			f, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			all[line[:i]] += f
		}
	}
	return all, nil
}

// known is the content of a series of requests, and what is to be counted of it.
type known struct {
	mu   sync.Mutex // guards sums
	sums map[string]map[string]float64
}

// knownCode has known answers, and collects one value.
const knownCode = `class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if collect_custom_statistics_fn:
            collect_custom_statistics_fn({"tokens": data["i"] % 7})
        return {"y": [data["x"], 2 * data["x"]]}
`

// endpoints of the requests: their messages are in different partitions.
var knownEndpoints = []string{"known/1", "known/2", "other", "third/1"}

// animals are sorted, because the original requires it.
var animals = []string{"cat", "cow", "dog"}

// defineKnown deploys the endpoints and their variables.
func (s *system) defineKnown(t *testing.T) (id string) {
	t.Helper()
	_, id, _ = strings.Cut(s.must(t, "create", "--name", "counted"), "id=")
	id = strings.TrimSpace(strings.SplitN(id, "\n", 2)[0])
	path := writeCode(t, s, "known.py", knownCode)
	for _, url := range knownEndpoints {
		endpoint, version, versioned := strings.Cut(url, "/")
		args := []string{"model", "add", "--engine", "custom", "--endpoint", endpoint, "--preprocess", path}
		if versioned {
			args = append(args, "--version", version)
		}
		s.must(t, append(args, "--wait")...)
		s.must(t, "metrics", "add", "--endpoint", url, "--variable-scalar", "x=0,2,5", "y=1,4,100", "--variable-enum", "animal="+strings.Join(animals, ","),
			"--variable-value", "last", "--variable-counter", "tokens", "--wait")
	}
	return id
}

// send sends requests with the numbers from to to on several connections.
func (k *known) send(t *testing.T, base string, from, to int) {
	t.Helper()
	var next atomic.Int64
	next.Store(int64(from))
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				endpoint := knownEndpoints[i%len(knownEndpoints)]
				status, text := roundTripBody(base+"/serve/"+endpoint, fmt.Sprintf(`{"i": %d, "x": %d, "animal": %q, "last": %d}`, i, i%10, animals[i%3], i))
				if status != http.StatusOK {
					t.Errorf("request %d: %d %s", i, status, text)
					return
				}
			}
		})
	}
	senders.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sums == nil {
		k.sums = map[string]map[string]float64{}
	}
	for i := from; i < to; i++ {
		endpoint := knownEndpoints[i%len(knownEndpoints)]
		sums := k.sums[endpoint]
		if sums == nil {
			sums = map[string]float64{}
			k.sums[endpoint] = sums
		}
		x := i % 10
		sums["n"]++
		sums["x"] += float64(x)
		sums["y"] += float64(3 * x)
		sums["tokens"] += float64(i % 7)
		sums[animals[i%3]]++
		for _, le := range []int{0, 2, 5} {
			if x <= le {
				sums["x<="+strconv.Itoa(le)]++
			}
		}
	}
}

// wanted are the series of a page of ours.
func (k *known) wanted() map[string]float64 {
	want := map[string]float64{}
	for _, url := range knownEndpoints {
		sums := k.sums[url]
		name := strings.ReplaceAll(url, "/", "_")
		endpoint, version, _ := strings.Cut(url, "/")
		of := func(family, labels string) string {
			return fmt.Sprintf("clearml_serving_%s{endpoint=%q,%sversion=%q}", family, endpoint, labels, version)
		}
		want[name+":_count_total"] = sums["n"]
		want[name+`:_latency_bucket{le="+Inf"}`] = sums["n"]
		want[name+`:_latency_sum{le="0.1"}`] = sums["n"]
		want[name+`:x_bucket{le="2.0"}`] = sums["x<=2"]
		want[name+`:x_bucket{le="+Inf"}`] = sums["n"]
		want[name+`:x_sum{le="5.0"}`] = sums["n"]
		want[name+`:y_sum{le="4.0"}`] = 2 * sums["n"]
		want[name+`:animal_bucket{enum="cow"}`] = sums["cow"]
		want[name+`:animal_sum{enum="dog"}`] = sums["n"]
		want[name+":tokens_total"] = sums["tokens"]
		want[of("requests_total", `outcome="answered",`)] = sums["n"]
		want[of("request_duration_seconds_count", "")] = sums["n"]
		want[of("sampled_requests_total", "")] = sums["n"]
		want[of("variable_distribution_sum", `variable="x",`)] = sums["x"]
		want[of("variable_distribution_sum", `variable="y",`)] = sums["y"]
		want[of("variable_total", `variable="tokens",`)] = sums["tokens"]
		want[of("variable_values_total", `value="cat",variable="animal",`)] = sums["cat"]
		want[of("variable_values_total", `value="other",variable="animal",`)] = 0
	}
	return want
}

// differs returns the first series that is not as wanted.
func differs(got, want map[string]float64) error {
	for _, name := range slices.Sorted(mapKeys(want)) {
		if got[name] != want[name] {
			return fmt.Errorf("%s is %v, want %v", name, got[name], want[name])
		}
	}
	return nil
}

func mapKeys(of map[string]float64) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range of {
			if !yield(name) {
				return
			}
		}
	}
}

// requestsOfATest is the number of requests of known content.
func requestsOfATest(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CLEARML_SERVING_E2E_KAFKA_REQUESTS")
	if text == "" {
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// installBeforeKafka installs a system that ends after the broker that a test starts, because no process may be left.
func installBeforeKafka(t *testing.T) *system {
	t.Helper()
	s := install(t)
	s.done = make(chan struct{})
	t.Cleanup(func() {
		if s.cmd != nil {
			s.stop(t)
		}
	})
	return s
}

// upWithKafka starts everything with the broker's address.
func upWithKafka(t *testing.T) (*system, *kafka) {
	t.Helper()
	s := installBeforeKafka(t)
	k := s.kafka(t)
	s.start(t, role{env: []string{"CLEARML_DEFAULT_KAFKA_SERVE_URL=" + k.address}})
	return s, k
}

func TestKafkaCountsAreExactWhileBrokerAndStatisticsAreKilled(t *testing.T) {
	s, k := upWithKafka(t)
	s.defineKnown(t)
	c := s.counting(t, k, "one")
	prometheus := s.scraping(t, c.url)
	total := requestsOfATest(t)
	var sent known
	begun := time.Now()
	sent.send(t, s.urls["serve"], 0, total/5)

	// Each fault hits while requests are sent.
	faults := []func(){
		func() { c.kill(); c.start(t); c.reads(t) },
		func() { k.kill(); time.Sleep(2 * time.Second); k.start(t); k.answers(t) },
		func() { k.kill(); c.kill(); k.start(t); c.start(t); c.reads(t) },
		func() {
			for range 3 { // also in the middle of the start
				c.kill()
				c.start(t)
				time.Sleep(1500 * time.Millisecond)
			}
			c.reads(t)
		},
	}
	for i, fault := range faults {
		var sending sync.WaitGroup
		sending.Go(func() { sent.send(t, s.urls["serve"], total*(i+1)/5, total*(i+2)/5) })
		time.Sleep(500 * time.Millisecond)
		fault()
		sending.Wait()
	}
	took := time.Since(begun)
	s.eventually(t, 2*patience, "all requests are counted, each once", func() error {
		got, err := samples(t, s, c.url+"/metrics")
		if err != nil {
			return err
		}
		return differs(got, sent.wanted())
	})
	t.Logf("%d requests in %s, counted %s after the last one", total, took.Round(time.Second), (time.Since(begun) - took).Round(time.Second))

	// Prometheus has the same numbers, and its own functions read them.
	s.eventually(t, patience, "Prometheus has the numbers", func() error {
		for name, want := range sent.wanted() {
			got, err := number(t, prometheus, name)
			if err != nil || got != want {
				return fmt.Errorf("%s is %v in Prometheus, want %v: %w", name, got, want, err)
			}
		}
		return nil
	})
	for expr, check := range map[string]func(float64) bool{
		`100 * (known_1:_latency_bucket{le="+Inf"}) / (known_1:_latency_sum{le="+Inf"})`: func(f float64) bool { return f == 100 },
		`histogram_quantile(0.5, known_1:x_bucket)`:                                      func(f float64) bool { return f > 2 && f <= 5 },
	} {
		if got, err := number(t, prometheus, expr); err != nil || !check(got) {
			t.Errorf("%s is %v, %v", expr, got, err)
		}
	}
	if got, err := samples(t, s, s.urls["admin"]+"/metrics"); err != nil || got["clearml_serving_statistics_sent_total"] != float64(total) ||
		got[`clearml_serving_statistics_lost_total{reason="queue_full"}`] != 0 || got["clearml_serving_statistics_waiting_requests"] != 0 {
		t.Errorf("sent %v, waiting %v, %v", got["clearml_serving_statistics_sent_total"], got["clearml_serving_statistics_waiting_requests"], err)
	}
}

// scraping starts Prometheus with these targets.
func (s *system) scraping(t *testing.T, targets ...string) (address string) {
	t.Helper()
	for i, one := range targets {
		targets[i] = strconv.Quote(strings.TrimPrefix(one, "http://"))
	}
	config := filepath.Join(s.dir, "scraping.yml")
	text := "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: statistics\n    static_configs: [{targets: [" + strings.Join(targets, ", ") + "]}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	host := "127.0.0.1:" + freePort(t)
	s.background(t, "prometheus", nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(s.dir, "prometheus"), "--web.listen-address="+host)
	return "http://" + host
}

// number is the value of a query with one result.
func number(t *testing.T, prometheus, expr string) (float64, error) {
	t.Helper()
	status, body := roundTrip(http.MethodGet, prometheus+"/api/v1/query?query="+url.QueryEscape(expr), "", nil)
	var answer struct {
		Data struct {
			Result []struct {
				Value []any
			}
		}
	}
	if status != http.StatusOK {
		return 0, statusError(status, body)
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return 0, err
	}
	if len(answer.Data.Result) != 1 || len(answer.Data.Result[0].Value) != 2 {
		return 0, fmt.Errorf("%d results: %s", len(answer.Data.Result), body)
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

func TestKafkaReplicasAreExactWhileOneIsKilledAndOneIsAdded(t *testing.T) {
	s, k := upWithKafka(t)
	s.defineKnown(t)
	a, b := s.counting(t, k, "a"), s.counting(t, k, "b")
	total := requestsOfATest(t) / 2
	var sent known
	sent.send(t, s.urls["serve"], 0, total/4)
	var sending sync.WaitGroup
	sending.Go(func() { sent.send(t, s.urls["serve"], total/4, total/2) })
	time.Sleep(time.Second)
	b.kill()
	sending.Wait()
	sending.Go(func() { sent.send(t, s.urls["serve"], total/2, total) })
	added := s.counting(t, k, "c")
	sending.Wait()
	b.start(t) // its counters continue, so that the sum is complete
	b.reads(t)
	s.eventually(t, 2*patience, "the sum over all replicas is exact", func() error {
		got, err := samples(t, s, a.url, b.url+"/metrics", added.url)
		if err != nil {
			return err
		}
		return differs(got, sent.wanted())
	})
	for _, c := range []*replica{a, added} {
		got, err := samples(t, s, c.url)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has counted %v of %d records, %v transactions were repeated", c.name, got["clearml_serving_statistics_records_total"], total, got["clearml_serving_statistics_aborted_transactions_total"])
	}
}

// originalServices is the interpreter with the original and its services.
func originalServices(t *testing.T) string {
	t.Helper()
	python := filepath.Join(root, ".venv-bench-original/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Skipf("%v; the original's services exist for Python 3.11 only", err)
	}
	return python
}

func TestKafkaTheOriginalsStatisticsCountWhatOurInferenceSends(t *testing.T) {
	s, k := upWithKafka(t)
	python := originalServices(t)
	id := s.defineKnown(t)
	port := freePort(t)
	theirs := "http://127.0.0.1:" + port + "/metrics"
	s.daemon(t, "original-statistics", []string{
		"CLEARML_SERVING_TASK_ID=" + id, "CLEARML_SERVING_POLL_FREQ=0.02", "CLEARML_SERVING_PORT=" + port, "CLEARML_DEFAULT_KAFKA_SERVE_URL=" + k.address,
	}, python, "-m", "clearml_serving.statistics.main")
	ours := s.counting(t, k, "ours")
	// It reads what comes after its start, and variables after their definitions.
	var warm known
	at := 0
	s.eventually(t, 2*patience, "the original counts", func() error {
		warm.send(t, s.urls["serve"], at, at+12)
		at += 12
		time.Sleep(time.Second)
		got, err := samples(t, s, theirs)
		if err != nil {
			return err
		}
		for _, url := range knownEndpoints {
			if name := strings.ReplaceAll(url, "/", "_"); got[name+":tokens_total"] == 0 || got[name+`:animal_bucket{enum="cat"}`] == 0 {
				return errors.New(url + " is not counted yet")
			}
		}
		return nil
	})
	time.Sleep(3 * time.Second) // what is on its way
	before, err := samples(t, s, theirs)
	if err != nil {
		t.Fatal(err)
	}
	const n = 4200
	var sent known
	sent.send(t, s.urls["serve"], 0, n)
	want := map[string]float64{}
	for _, url := range knownEndpoints {
		name, sums := strings.ReplaceAll(url, "/", "_"), sent.sums[url]
		want[name+":_count_total"] = sums["n"]
		want[name+`:_latency_sum{le="+Inf"}`] = sums["n"]
		want[name+`:x_bucket{le="0.0"}`] = sums["x<=0"]
		want[name+`:x_bucket{le="2.0"}`] = sums["x<=2"] - sums["x<=0"] // the original's are not cumulative
		want[name+`:x_bucket{le="+Inf"}`] = sums["n"] - sums["x<=5"]
		want[name+`:y_sum{le="4.0"}`] = 2 * sums["n"]
		want[name+`:animal_bucket{enum="cow"}`] = sums["cow"]
		want[name+":tokens_total"] = sums["tokens"]
	}
	s.eventually(t, patience, "the original has counted all", func() error {
		got, err := samples(t, s, theirs)
		if err != nil {
			return err
		}
		for name := range want {
			got[name] -= before[name]
		}
		return differs(got, want)
	})

	// Ours has every series of theirs, of the same type.
	s.eventually(t, patience, "ours has counted all", func() error {
		got, err := samples(t, s, ours.url)
		if err == nil && got["known_1:_count_total"] != warm.sums["known/1"]["n"]+sent.sums["known/1"]["n"] {
			err = fmt.Errorf("%v", got["known_1:_count_total"])
		}
		return err
	})
	got, types := seriesOf(t, s, ours.url)
	for name := range first(seriesOf(t, s, theirs)) {
		if strings.Contains(name, ":") && !got[name] {
			t.Errorf("ours has no %s", name)
		}
	}
	_, theirTypes := seriesOf(t, s, theirs)
	for name, kind := range theirTypes {
		if strings.Contains(name, ":") && types[name] != kind {
			t.Errorf("%s is a %q, the original's is a %s", name, types[name], kind)
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

// seriesOf are the series of a page, and the types of its metrics.
func seriesOf(t *testing.T, s *system, url string) (series map[string]bool, types map[string]string) {
	t.Helper()
	status, text := s.get(t, url)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", url, status, text)
	}
	series, types = map[string]bool{}, map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			types[name] = kind
		} else if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			series[line[:i]] = true
		}
	}
	return series, types
}

func TestKafkaOurStatisticsCountWhatTheOriginalsInferenceSends(t *testing.T) {
	s, k := upWithKafka(t)
	python := originalServices(t)
	id := s.defineKnown(t)
	c := s.counting(t, k, "ours")
	port := freePort(t)
	base := "http://127.0.0.1:" + port
	s.daemon(t, "original-inference", []string{"CLEARML_SERVING_TASK_ID=" + id, "CLEARML_SERVING_POLL_FREQ=0.02", "CLEARML_DEFAULT_KAFKA_SERVE_URL=" + k.address},
		python, "-m", "uvicorn", "clearml_serving.serving.main:app", "--host", "127.0.0.1", "--port", port)
	s.eventually(t, 2*patience, "the original answers", func() error {
		if status, text := roundTripBody(base+"/serve/none", `{}`); status != http.StatusNotFound {
			return statusError(status, text)
		}
		return nil
	})
	var sent known
	sent.send(t, base, 0, 2000)
	s.eventually(t, 2*patience, "all requests of the original are counted", func() error {
		got, err := samples(t, s, c.url)
		if err != nil {
			return err
		}
		return differs(got, sent.wanted())
	})
}

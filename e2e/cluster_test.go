//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"clearmlserving/bench/load"
	"clearmlserving/bench/proc"
	"clearmlserving/e2e/crowd"
)

// sumsCode answers with a sum, and with the number of the code.
const sumsCode = `class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"sum": data["x"] + 1, "code": %d}
`

// wordsCode answers with the text of its model, and with what it was asked.
const wordsCode = `class Preprocess:
    def load(self, local_file_name):
        with open(local_file_name) as f:
            self.text = f.read()

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"model": self.text, "x": data["x"]}
`

var (
	sumsAnswer  = regexp.MustCompile(`^\{"sum":(\d+),"code":(\d+)\}$`)
	wordsAnswer = regexp.MustCompile(`^\{"model":"(word\d+)","x":(\d+)\}$`)
)

// clusterRequests is how many requests to endpoints the suite sends.
func clusterRequests(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("CLEARML_SERVING_E2E_REQUESTS")
	if text == "" {
		return 1_000_000
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// row is what became of the requests during one change.
type row struct {
	part, change string
	requests     crowd.Counts
	calls        crowd.Counts
	took         time.Duration
}

// suite is a cluster with clients of both kinds.
type suite struct {
	*parts
	t        *testing.T
	id       string // of the service
	old      string // program of the version before
	requests *crowd.Clients
	calls    []*crowd.Clients
	at       [2]crowd.Counts
	share    uint64 // of the requests, for each change
	rows     []row
	codes    int // of sums, until now
	words    int // models of words, until now
}

// TestCluster restarts, upgrades and changes every part of a cluster while clients send requests. None may fail.
func TestCluster(t *testing.T) {
	old := before(t)
	what, err := os.ReadFile(old + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	total := clusterRequests(t)
	t.Logf("the version before: %s", strings.TrimSpace(string(what)))
	s := &suite{t: t, old: old, parts: startParts(t, old)}
	t.Logf("HAProxy, PostgreSQL, S3, Kafka and %d ClearML servers answer", serverParts)
	s.deploy()
	s.startClients()
	const changes = 13
	s.share = total / changes

	s.during("none", "nothing changes", 0, func() {})
	// The version before ends without a delay.
	s.during("ClearML servers", "upgrade, one after the other", anyNumber, func() { s.each(s.servers, binary) })
	s.during("instances", "upgrade, with a deployment while both versions serve", 0, func() {
		s.replace(t, s.instances[0], binary)
		s.newCode()
		s.newWord()
		s.replace(t, s.instances[1], binary)
		s.agree()
		s.replace(t, s.instances[2], binary)
	})
	s.during("statistics", "upgrade, one after the other", 0, func() { s.each(s.statistics, binary) })
	s.during("ClearML servers", "rolling restart", 0, func() { s.each(s.servers, binary) })
	s.during("instances", "rolling restart", 0, func() { s.each(s.instances, binary) })
	s.during("statistics", "rolling restart", 0, func() { s.each(s.statistics, binary) })
	s.during("instances", "downgrade, with a deployment, and upgrade", 0, func() {
		s.replace(t, s.instances[0], old)
		s.newWord()
		s.newCode()
		s.replace(t, s.instances[0], binary)
	})
	// The ClearML servers answer 503 meanwhile, which the SDK and instances repeat.
	s.during("PostgreSQL", "restart", anyNumber, func() { s.restart(s.postgres, syscall.SIGINT, s.postgresPort()) })
	s.during("S3", "restart, then a deployment", 0, func() {
		host, _, _ := strings.Cut(s.bucket, "/")
		s.restart(s.s3, syscall.SIGTERM, host[strings.LastIndexByte(host, ':')+1:])
		s.newWord()
	})
	s.during("Kafka", "restart", 0, func() { s.restart(s.broker, syscall.SIGTERM, s.kafka[strings.LastIndexByte(s.kafka, ':')+1:]) })
	s.during("HAProxy", "reload", 0, func() {
		if err := s.haproxy.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
	})
	s.during("none", "canary, rollback, and what is left of the requests", 0, func() {
		s.must(t, "--id", s.id, "model", "canary", "--endpoint", "words", "--weights", "0.5", "0.5", "--input-endpoint-prefix", "words/")
		s.newWord()
		s.must(t, "--id", s.id, "model", "rollback", "sums", "--wait")
		s.codes++ // the code of before, as a new revision
		s.agree()
		s.sends(total)
	})
	s.ends(total)
	s.measure()
}

// anyNumber of calls may be sent again.
const anyNumber = ^uint64(0)

// deploy makes the service with the version before, and starts instances and statistics.
func (s *suite) deploy() {
	t := s.t
	t.Helper()
	cli := func(args ...string) string {
		t.Helper()
		r := s.command(t, append([]string{"CLEARML_SERVING_HOME=" + filepath.Join(s.dir, "cli")}, s.sdk...), s.old, args...)
		if r.code != 0 {
			t.Fatalf("%s: %v", strings.Join(args, " "), r)
		}
		return r.out
	}
	s.id = createdID(t, cli("create", "--name", "cluster"))
	for _, m := range slices.Concat(s.instances, s.statistics) {
		m.env = append(m.env, "CLEARML_SERVING_TASK_ID="+s.id)
	}
	s.codes, s.words = 1, 1
	cli("--id", s.id, "model", "add", "--engine", "custom", "--endpoint", "sums", "--preprocess", writeCode(t, s.system, "sums.py", fmt.Sprintf(sumsCode, 1)), "--no-wait")
	cli("--id", s.id, "model", "auto-update", "--engine", "custom", "--endpoint", "words", "--max-versions", "2", "--project", "cluster", "--name", "words",
		"--preprocess", writeCode(t, s.system, "words.py", wordsCode), "--no-wait")
	cli("--id", s.id, "model", "canary", "--endpoint", "words", "--weights", "1.0", "0.0", "--input-endpoint-prefix", "words/", "--no-wait")
	s.register(t, s.id, "word1", "--name", "words", "--project", "cluster")
	for _, m := range slices.Concat(s.instances, s.statistics) {
		s.parts.start(t, m, s.old)
	}
	s.agree()
	t.Logf("%d instances and %d replicas of statistics are ready", inferenceParts, statisticsParts)
}

// startClients begins with requests to endpoints and with calls of the API, both through HAProxy.
func (s *suite) startClients() {
	t := s.t
	t.Helper()
	s.requests = crowd.Start(crowd.Options{Ask: s.question, Clients: 6, Fresh: 3, Repeats: 20 * time.Second})
	token := s.token()
	for range callers {
		s.calls = append(s.calls, s.caller(token))
	}
	t.Cleanup(func() {
		s.requests.End()
		s.callsEnd()
	})
}

// callers is how many clients the ClearML servers have, beside the instances.
const callers = 4

// caller is a client of the API that writes, and reads what it wrote from whichever server answers.
func (s *suite) caller(token string) *crowd.Clients {
	t := s.t
	t.Helper()
	var made struct{ Data struct{ ID string } }
	status, text := roundTrip(http.MethodPost, s.api+"/tasks.create", "application/json", strings.NewReader(`{"name": "of a client", "type": "testing"}`), "Authorization", token)
	if status != http.StatusOK {
		t.Fatalf("tasks.create: %d %s", status, text)
	}
	decode(t, text, &made)
	return crowd.Start(crowd.Options{
		Ask: func(n int64) crowd.Question {
			if n%2 == 1 {
				return crowd.Question{URL: s.api + "/tasks.edit", Body: fmt.Appendf(nil, `{"task": %q, "comment": "number %d"}`, made.Data.ID, n), Check: func(string) error { return nil }}
			}
			want := fmt.Sprintf(`"comment":"number %d"`, n-1)
			return crowd.Question{URL: s.api + "/tasks.get_by_id", Body: fmt.Appendf(nil, `{"task": %q}`, made.Data.ID), Check: func(answer string) error {
				if !strings.Contains(answer, want) {
					return fmt.Errorf("%.300s lacks %s", answer, want)
				}
				return nil
			}}
		},
		Header: map[string]string{"Authorization": token}, Clients: 1, Pause: 5 * time.Millisecond,
		// As the SDK does.
		Repeats: 2 * time.Minute, Again: func(status int) bool {
			return status == http.StatusServiceUnavailable || status == http.StatusBadGateway
		},
	})
}

// callCounts are those of all callers.
func (s *suite) callCounts() (sum crowd.Counts) {
	for _, c := range s.calls {
		n := c.Counts()
		sum.Sent, sum.Wrong, sum.Failed, sum.Again = sum.Sent+n.Sent, sum.Wrong+n.Wrong, sum.Failed+n.Failed, sum.Again+n.Again
		sum.Faults = append(sum.Faults, n.Faults...)
	}
	return sum
}

func (s *suite) callsEnd() crowd.Counts {
	for _, c := range s.calls {
		c.End()
	}
	return s.callCounts()
}

// token is an Authorization header for the API.
func (s *suite) token() string {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.api+"/auth.login", http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth(clusterAccess, clusterSecret)
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Data struct{ Token string } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Data.Token == "" {
		s.t.Fatalf("auth.login: %s %v", resp.Status, err)
	}
	return "Bearer " + answer.Data.Token
}

// question asks both endpoints in turn.
func (s *suite) question(n int64) crowd.Question {
	pattern, url, want := sumsAnswer, s.serve+"/serve/sums", strconv.FormatInt(n+1, 10)
	place := 1
	if n%4 == 0 {
		pattern, url, want, place = wordsAnswer, s.serve+"/serve/words", strconv.FormatInt(n, 10), 2
	}
	return crowd.Question{URL: url, Body: fmt.Appendf(nil, `{"x": %d}`, n), Check: func(answer string) error {
		if found := pattern.FindStringSubmatch(answer); found == nil || found[place] != want {
			return fmt.Errorf("%.300s to the number %d", answer, n)
		}
		return nil
	}}
}

// during makes a change under load, and notes what became of the requests meanwhile. again is how many calls of the API
// may have to be sent again.
func (s *suite) during(part, change string, again uint64, do func()) {
	t := s.t
	t.Helper()
	begun := time.Now()
	do()
	s.agree()
	s.callersAnswered()
	s.sends(s.at[0].Sent + s.share)
	was := s.at
	s.at = [2]crowd.Counts{s.requests.Counts(), s.callCounts()}
	r := row{part, change, minus(s.at[0], was[0]), minus(s.at[1], was[1]), time.Since(begun)}
	s.rows = append(s.rows, r)
	t.Logf("%-16s %-52s %7d requests, %d failed, %d wrong, %d again; %5d calls, %d failed, %d wrong, %d again; %s",
		part, change, r.requests.Sent, r.requests.Failed, r.requests.Wrong, r.requests.Again, r.calls.Sent, r.calls.Failed, r.calls.Wrong, r.calls.Again, r.took.Round(time.Second))
	if r.requests.Failed+r.requests.Wrong+r.requests.Again > 0 {
		t.Errorf("%s, %s: requests: %s", part, change, strings.Join(r.requests.Faults, "\n"))
	}
	if r.calls.Failed+r.calls.Wrong > 0 || r.calls.Again > again {
		t.Errorf("%s, %s: calls of the API: %s", part, change, strings.Join(r.calls.Faults, "\n"))
	}
	if r.requests.Sent == 0 || r.calls.Sent == 0 {
		t.Errorf("%s, %s: there were no requests", part, change)
	}
}

// callersAnswered waits until each client of the API has got an answer to a call that it began now or later.
func (s *suite) callersAnswered() {
	s.t.Helper()
	var before []uint64
	for _, c := range s.calls {
		before = append(before, c.Counts().Sent)
	}
	for i, c := range s.calls {
		s.eventually(s.t, 2*patience, "a client of the API gets answers", func() error {
			if now := c.Counts(); now.Sent < before[i]+2 { // the first one may have begun before
				return fmt.Errorf("%+v", now)
			}
			return nil
		})
	}
}

// minus are the counts since before.
func minus(now, before crowd.Counts) crowd.Counts {
	return crowd.Counts{
		Sent: now.Sent - before.Sent, Wrong: now.Wrong - before.Wrong, Failed: now.Failed - before.Failed, Again: now.Again - before.Again,
		Faults: now.Faults,
	}
}

// sends waits until the clients have sent n requests.
func (s *suite) sends(n uint64) {
	s.t.Helper()
	for last, since := uint64(0), time.Now(); ; time.Sleep(100 * time.Millisecond) {
		switch sent := s.requests.Counts().Sent; {
		case sent >= n:
			return
		case sent > last:
			last, since = sent, time.Now()
		case time.Since(since) > patience:
			s.t.Fatalf("the clients send no more requests: %v", s.requests.Counts())
		}
	}
}

// each replaces members one after the other.
func (s *suite) each(members []*member, program string) {
	s.t.Helper()
	for _, m := range members {
		s.replace(s.t, m, program)
	}
}

// restart ends a part that is there once, and starts it again after some seconds.
func (s *suite) restart(d *daemon, signal syscall.Signal, port string) {
	s.t.Helper()
	d.stop(s.t, signal)
	time.Sleep(5 * time.Second)
	d.start(s.t)
	s.listens(s.t, d, port)
}

// newCode deploys another code of sums.
func (s *suite) newCode() {
	s.t.Helper()
	s.codes++
	s.must(s.t, "--id", s.id, "model", "add", "--engine", "custom", "--endpoint", "sums", "--preprocess",
		writeCode(s.t, s.system, "sums.py", fmt.Sprintf(sumsCode, s.codes)), "--wait")
	s.agree()
}

// newWord registers another model of words, straight in the bucket.
func (s *suite) newWord() {
	s.t.Helper()
	s.words++
	s.register(s.t, s.id, "word"+strconv.Itoa(s.words), "--name", "words", "--project", "cluster", "--destination", "s3://"+s.bucket)
	s.agree()
}

// served is what an instance says of what it serves.
type served struct {
	Endpoints []struct {
		URL      string `json:"endpoint"`
		Model    string `json:"model_id"`
		State    string `json:"state"`
		Revision int    `json:"revision"`
	} `json:"endpoints"`
	Canaries []struct {
		URL    string             `json:"endpoint"`
		Shares map[string]float64 `json:"shares"`
	} `json:"canaries"`
	Problems []any `json:"problems"`
}

// agree waits until all instances serve the same: the newest code of sums, the newest versions of words, one canary.
func (s *suite) agree() {
	s.t.Helper()
	s.eventually(s.t, 2*patience, "the instances agree", func() error {
		var first string
		for i, m := range s.instances {
			_, text := s.get(s.t, m.url("serve")+"/status")
			var is served
			if err := json.Unmarshal([]byte(text), &is); err != nil {
				return fmt.Errorf("%s: %w in %.300s", m.name, err, text)
			}
			all, err := s.wanted(is)
			if err != nil {
				return fmt.Errorf("%s: %w in %.3000s", m.name, err, text)
			}
			if i == 0 {
				first = all
			} else if all != first {
				return fmt.Errorf("%s serves %s, but %s serves %s", s.instances[0].name, first, m.name, all)
			}
		}
		return nil
	})
}

// wanted puts what an instance serves into one text, or says what is missing.
func (s *suite) wanted(is served) (string, error) {
	var all []string
	urls := map[string]bool{}
	for _, e := range is.Endpoints {
		if e.State != "ready" {
			return "", fmt.Errorf("%s is %s", e.URL, e.State)
		}
		urls[e.URL] = true
		all = append(all, fmt.Sprintf("%s revision %d model %s", e.URL, e.Revision, e.Model))
		if e.URL == "sums" && e.Revision != s.codes {
			return "", fmt.Errorf("revision %d of sums is served, want %d", e.Revision, s.codes)
		}
	}
	for version := max(1, s.words-1); version <= s.words; version++ {
		if !urls["words/"+strconv.Itoa(version)] {
			return "", fmt.Errorf("words/%d is missing", version)
		}
	}
	if want := 1 + min(2, s.words); len(is.Endpoints) != want {
		return "", fmt.Errorf("%d endpoints are served, want %d", len(is.Endpoints), want)
	}
	if newest := "words/" + strconv.Itoa(s.words); len(is.Canaries) != 1 || is.Canaries[0].Shares[newest] == 0 {
		return "", fmt.Errorf("no canary gives a share to %s: %v", newest, is.Canaries)
	}
	if len(is.Problems) > 0 {
		return "", fmt.Errorf("there are problems: %v", is.Problems)
	}
	for _, url := range slices.Sorted(maps.Keys(is.Canaries[0].Shares)) {
		all = append(all, fmt.Sprintf("%s gets %g", url, is.Canaries[0].Shares[url]))
	}
	slices.Sort(all)
	return strings.Join(all, ", "), nil
}

// ends stops the clients, compares the statistics with what they have sent, and prints the table.
func (s *suite) ends(total uint64) {
	t := s.t
	t.Helper()
	requests, calls := s.requests.End(), s.callsEnd()
	counted := func() (n float64, err error) {
		for _, m := range s.statistics {
			all, err := samples(t, s.system, m.url("metrics")+"/metrics")
			if err != nil {
				return 0, err
			}
			for series, value := range all {
				if strings.HasPrefix(series, "clearml_serving_requests_total{") && strings.Contains(series, `outcome="answered"`) {
					n += value
				}
			}
		}
		return n, nil
	}
	s.eventually(t, 2*patience, "the statistics have counted every request once", func() error {
		n, err := counted()
		if err == nil && uint64(n) != requests.Sent-requests.Failed {
			err = fmt.Errorf("%.0f are counted, %d were answered", n, requests.Sent-requests.Failed)
		}
		return err
	})
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "part\tchange\trequests\tfailed\twrong\tagain\tcalls of the API\tfailed\twrong\tagain\ttime")
	line := func(part, change string, r, c crowd.Counts, took time.Duration) {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", part, change, r.Sent, r.Failed, r.Wrong, r.Again, c.Sent, c.Failed, c.Wrong, c.Again, took.Round(time.Second))
	}
	var took time.Duration
	for _, r := range s.rows {
		took += r.took
		line(r.part, r.change, r.requests, r.calls, r.took)
	}
	line("all", "", requests, calls, took)
	_ = w.Flush()
	t.Logf("\n%s%d requests are in the statistics, each once\n", text.String(), requests.Sent)
	if requests.Sent < total {
		t.Errorf("%d requests were sent, want %d", requests.Sent, total)
	}
}

// measure sends requests through HAProxy to 1, 2 and 3 instances, and calls to the ClearML servers, and prints what one of them
// costs each part.
func (s *suite) measure() {
	t := s.t
	t.Helper()
	took := 10 * time.Second
	if clusterRequests(t) < 1_000_000 {
		took = 3 * time.Second
	}
	sums := load.Options{URL: s.serve + "/serve/sums", Body: []byte(`{"x": 1}`), Connections: 64, Warmup: 3 * time.Second, Duration: took}
	var err error
	if sums.Expect, err = load.Once(t.Context(), sums); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	line := func(what string, o load.Options, parts ...[]*daemon) {
		t.Helper()
		var meter proc.Meter
		r, err := load.Run(t.Context(), o, meter.Begin)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(w, "%s\t%.0f\t%s\t%s", what, r.PerSecond(), r.Latency.Percentile(50), r.Latency.Percentile(99))
		for _, daemons := range parts {
			var cpu time.Duration
			for _, d := range daemons {
				cpu += meter.End(d.cmd.Process.Pid).Server
			}
			_, _ = fmt.Fprintf(w, "\t%s", (cpu / time.Duration(max(1, r.Requests))).Round(100*time.Nanosecond))
		}
		_, _ = fmt.Fprintf(w, "\t%d\n", r.Failed)
		if r.Failed > 0 {
			t.Errorf("%s: %d failed, the first: %v", what, r.Failed, r.FirstFailure)
		}
	}
	_, _ = fmt.Fprintln(w, "instances\trequests a second\tp50\tp99\tCPU of a request: instances\tHAProxy\tstatistics\tKafka\tfailed")
	for n := 1; n <= inferenceParts; n++ {
		for i, m := range s.instances {
			state := "maint"
			if i < n {
				state = "ready"
			}
			if answer, err := s.tell("set server serve/" + m.name + " state " + state); err != nil || strings.TrimSpace(answer) != "" {
				t.Fatalf("HAProxy: %s %v", answer, err)
			}
			s.eventually(t, patience, m.name+" is "+state, func() error { return s.isUp(m, i < n) })
		}
		line(strconv.Itoa(n), sums, daemonsOf(s.instances), []*daemon{s.haproxy}, daemonsOf(s.statistics), []*daemon{s.broker})
	}
	_, _ = fmt.Fprintln(w, "call of the API\tcalls a second\tp50\tp99\tCPU of a call: ClearML servers\tHAProxy\tPostgreSQL\t\tfailed")
	line("tasks.get_by_id", load.Options{
		URL: s.api + "/tasks.get_by_id", Body: fmt.Appendf(nil, `{"task": %q}`, s.id), Header: "Authorization: " + s.token() + "\r\n", Connections: 8, Warmup: time.Second, Duration: took,
	}, daemonsOf(s.servers), []*daemon{s.haproxy}, []*daemon{s.postgres})
	_, _ = fmt.Fprintln(w, "memory of\tMB (PSS)")
	for _, d := range slices.Concat(daemonsOf(s.instances[:1]), daemonsOf(s.servers[:1]), daemonsOf(s.statistics[:1]), []*daemon{s.haproxy, s.broker, s.postgres}) {
		bytes, err := proc.PSS(d.cmd.Process.Pid)
		if err != nil {
			t.Error(err)
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\n", d.name, bytes>>20)
	}
	_ = w.Flush()
	t.Logf("\n%s", text.String())
}

func daemonsOf(members []*member) (all []*daemon) {
	for _, m := range members {
		all = append(all, m.daemon)
	}
	return all
}

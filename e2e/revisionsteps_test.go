//go:build linux

package e2e_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// steady is a fixed address in front of a server that is restarted on other ports.
func steady(t *testing.T) (address string, stand func(target string)) {
	t.Helper()
	var target atomic.Pointer[url.URL]
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target.Load()) },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	})
	t.Cleanup(server.Close)
	return server.URL, func(text string) {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		target.Store(u)
	}
}

// steps is a random walk through the events of an endpoint, with the expected results.
type steps struct {
	t      *testing.T
	random *rand.Rand
	plane  *system
	a, b   *system // b is nil while it is stopped
	stand  []func(string)
	fixed  []string
	id     string
	models map[string]string // good and bad -> id
	python string            // of the original's command line, "" for a stand-in

	now     rules
	codes   []deployed
	makes   []expected // of the present step
	told    []string   // the steps
	slowest time.Duration

	asked    atomic.Int64
	mu       sync.RWMutex // held by each request; guards the fields below
	targets  []string
	allowed  []string
	failures []string
}

// TestTheRightRevisionServesAfterRandomSteps deploys, breaks, rolls back and restarts at random. After
// each step every instance serves the expected revision, and no request fails
// while an instance is up. CLEARML_SERVING_E2E_REVISIONS is the number of steps, 20 by default;
// CLEARML_SERVING_E2E_SEED repeats a walk. With an odd seed the server has no
// conditional writes. The original's command line takes part where it is installed
// (make e2e-original).
func TestTheRightRevisionServesAfterRandomSteps(t *testing.T) {
	number := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	seed := number("CLEARML_SERVING_E2E_SEED", rand.Uint64N(1_000_000))
	count := number("CLEARML_SERVING_E2E_REVISIONS", 20)
	t.Logf("CLEARML_SERVING_E2E_SEED=%d CLEARML_SERVING_E2E_REVISIONS=%d", seed, count)
	w := newSteps(t, rand.New(rand.NewPCG(seed, seed)), seed%2 == 1) //nolint:gosec // a repeatable walk
	defer func() {
		if t.Failed() {
			t.Logf("the steps:\n%s", strings.Join(w.told, "\n"))
		}
	}()
	stop := w.load()
	defer stop()
	for range count {
		w.step()
	}
	stop()
	w.noFailure()
	t.Logf("%d requests; the slowest step was settled after %v; %d revisions", w.asked.Load(), w.slowest.Round(time.Millisecond), w.now.newest().number)
	if w.asked.Load() == 0 {
		t.Error("nothing was asked")
	}
}

func newSteps(t *testing.T, random *rand.Rand, plain bool) *steps {
	t.Helper()
	w := &steps{t: t, random: random, plane: controlPlane(t), models: map[string]string{}}
	for range 2 {
		address, stand := steady(t)
		w.fixed, w.stand = append(w.fixed, address), append(w.stand, stand)
	}
	if plain {
		w.fixed[0] = plainServer(t, w.fixed[0])
	}
	w.planeIsUp()
	w.id = createdID(t, w.plane.must(t, "create", "--name", "steps"))
	if os.Getenv("CLEARML_SERVING_E2E_ORIGINAL") != "" {
		w.python = originalPython(t)
	}
	for _, name := range []string{"good", "bad"} {
		w.models[name] = w.plane.register(t, w.id, name, "--name", name, "--project", "steps")
	}
	writeCode(t, w.plane, "samples.jsonl", `{"body": {"golden": 1}, "answer": {"golden": true}}`+"\n")
	w.a = instance(t, w.plane, w.id)
	first := w.newCode("")
	w.tell("deploy %s", first.word)
	if r := w.add(first); r.code != 0 {
		t.Fatal(r)
	}
	w.now = rules{{deployed: first, number: 1, state: "good"}}
	w.allow(first.word)
	w.makes = nil
	w.settle()
	w.target()
	return w
}

// planeIsUp puts the fixed addresses in front of the control plane.
func (w *steps) planeIsUp() {
	w.stand[0](w.plane.urls["api"])
	w.stand[1](w.plane.urls["files"])
	for i, pair := range w.plane.sdk {
		switch name, _, _ := strings.Cut(pair, "="); name {
		case "CLEARML_API_HOST":
			w.plane.sdk[i] = name + "=" + w.fixed[0]
		case "CLEARML_FILES_HOST":
			w.plane.sdk[i] = name + "=" + w.fixed[1]
		}
	}
}

func (w *steps) tell(format string, values ...any) {
	w.told = append(w.told, fmt.Sprintf("%s %d: ", time.Now().Format("15:04:05"), len(w.told))+fmt.Sprintf(format, values...))
}

// load sends requests to the running instances until stop is called.
func (w *steps) load() (stop func()) {
	var stopping atomic.Bool
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for n := 0; !stopping.Load(); n++ {
				w.askOnce(n)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() {
		stopping.Store(true)
		all.Wait()
	}
}

func (w *steps) askOnce(n int) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if len(w.targets) == 0 {
		return
	}
	target := w.targets[n%len(w.targets)]
	status, answer := roundTrip(http.MethodPost, target+"/serve/m", "application/json", strings.NewReader(`{"x":1}`))
	w.asked.Add(1)
	if status != http.StatusOK || !slices.ContainsFunc(w.allowed, func(word string) bool { return answer == fmt.Sprintf(`{"code":%q}`, word) }) {
		failure := fmt.Sprintf("%s %s answered %d %s, allowed is %v", time.Now().Format("15:04:05.000"), target, status, answer, w.allowed)
		w.mu.RUnlock()
		w.mu.Lock()
		w.failures = append(w.failures, failure)
		w.mu.Unlock()
		w.mu.RLock()
	}
}

// allow sets the valid answers from now on.
func (w *steps) allow(words ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed = words
}

// target directs requests to the running instances, except these.
func (w *steps) target(except ...*system) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = nil
	for _, s := range w.up() {
		if !slices.Contains(except, s) {
			w.targets = append(w.targets, s.urls["serve"])
		}
	}
}

func (w *steps) up() []*system {
	if w.b == nil {
		return []*system{w.a}
	}
	return []*system{w.a, w.b}
}

func (w *steps) noFailure() {
	w.t.Helper()
	w.mu.RLock()
	defer w.mu.RUnlock()
	if len(w.failures) > 0 {
		w.t.Fatalf("%d requests failed, the first: %s", len(w.failures), w.failures[0])
	}
}

// newCode returns new code, which is refused for the reason.
func (w *steps) newCode(refuses string) deployed {
	d := deployed{word: fmt.Sprintf("w%d", len(w.codes)), refuses: refuses, judged: refuses == "golden"}
	if now := w.now; len(now) > 0 {
		d.deadline, d.golden = now.newest().deadline, now.newest().golden
	}
	d.needs = refuses == "model" || w.random.IntN(4) == 0
	switch {
	case refuses == "model":
		d.refuses, d.model = "", "bad"
	case d.needs:
		d.model = "good"
	}
	body := "class Preprocess:\n"
	if d.needs {
		body += "    def load(self, local_file_name):\n        with open(local_file_name) as f:\n            if f.read() != \"good\":\n                raise ValueError(\"no model\")\n\n"
	}
	body += fmt.Sprintf("    def process(self, data, state, collect_custom_statistics_fn=None):\n        if \"golden\" in data:\n            return {\"golden\": %s}\n        return {\"code\": %q}\n",
		map[bool]string{true: "False", false: "True"}[d.judged], d.word)
	switch refuses {
	case "syntax":
		body = "class Preprocess(:  # " + d.word + "\n"
	case "package":
		body = "import package_that_does_not_exist\n\n\n" + body
	case "death":
		body = "import os\n\nos._exit(3)\n\n\n" + body
	case "raises":
		body = "raise RuntimeError(\"no\")\n\n\n" + body
	}
	d.code = body
	w.codes = append(w.codes, d)
	return d
}

var ruins = []string{"golden", "syntax", "package", "model", "death", "raises"}

func (w *steps) ruined() deployed { return w.newCode(ruins[w.random.IntN(len(ruins))]) }

// write writes code to a file, always of the same name, as users do.
func (w *steps) write(d deployed) string { return writeCode(w.t, w.plane, "preprocess.py", d.code) }

func (w *steps) cli(words ...string) result {
	return w.plane.cli(w.t, append([]string{"--id", w.id}, words...)...)
}

func (w *steps) must(words ...string) {
	w.t.Helper()
	if r := w.cli(words...); r.code != 0 {
		w.t.Fatalf("%v: %v", words, r)
	}
}

// add runs model add.
func (w *steps) add(d deployed) result {
	words := []string{"model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", w.write(d), "--message", d.word}
	if d.model != "" {
		words = append(words, "--model-id", w.models[d.model])
	}
	return w.cli(words...)
}

// present is the content of the newest revision, including those of this step.
func (w *steps) present() deployed {
	for _, e := range slices.Backward(w.makes) {
		if !e.maybe {
			return e.deployed
		}
	}
	return w.now.newest().deployed
}

// deploy deploys with our command line.
func (w *steps) deploy(d deployed) {
	w.t.Helper()
	d.deadline, d.golden = w.present().deadline, w.present().golden
	refused := len(w.makes) == 0 && w.now.newest().state == "refused"
	if d != w.present() || refused {
		if d.sha() != w.present().sha() {
			w.makes = append(w.makes, expected{deployed: d, maybe: true})
		}
		w.makes = append(w.makes, expected{deployed: d, ours: true})
	}
	w.tell("deploy %s %s model %q", d.word, w.kind(d), d.model)
	w.serving()
	if r := w.add(d); r.code != 0 {
		w.t.Fatal(r)
	}
}

func (w *steps) kind(d deployed) string {
	if w.now.verdict(d) == "refused" {
		return "bad " + d.refuses
	}
	return "good"
}

// serving allows the answers of a step's deployment, if it can be served.
func (w *steps) serving() {
	words := []string{w.now.serves().word}
	for _, e := range w.makes {
		if e.again || w.now.verdict(e.deployed) == "good" {
			words = append(words, e.word)
		}
	}
	w.allow(words...)
}

// settings changes limits or golden samples.
func (w *steps) settings() {
	w.t.Helper()
	d := w.present()
	var words []string
	switch w.random.IntN(3) {
	case 0:
		d.golden = !d.golden
		if words = []string{"model", "golden", "--endpoint", "m", "--samples", "samples.jsonl"}; !d.golden {
			words = []string{"model", "golden", "--endpoint", "m", "--off"}
		}
	default:
		d.deadline = []int{0, 50, 60}[w.random.IntN(3)]
		if words = []string{"model", "limits", "--endpoint", "m", "--deadline", strconv.Itoa(d.deadline)}; d.deadline == 0 {
			words = []string{"model", "limits", "--endpoint", "m", "--off"}
		}
	}
	if d == w.present() {
		return
	}
	w.makes = append(w.makes, expected{deployed: d, ours: true})
	w.tell("%v", words[1:])
	w.serving()
	w.must(words...)
}

// rollback deploys an earlier revision, or expects an error if there is none.
func (w *steps) rollback() {
	w.t.Helper()
	words := []string{"model", "rollback", "m"}
	to, found := w.now.back()
	if w.random.IntN(3) > 0 {
		number := 1 + w.random.IntN(w.now.newest().number+3)
		if w.random.IntN(3) > 0 { // one that is kept
			number = w.now[w.random.IntN(len(w.now))].number
		}
		words = append(words, "--to", strconv.Itoa(number))
		to, found = w.now.find(number)
	}
	newest := w.now.newest()
	if found && newest.state != "refused" && newest.loads() == to.loads() {
		found = false // already in force
	}
	w.tell("%v: %v %d", words[1:], found, to.number)
	if found {
		d := to.deployed
		d.golden = newest.golden
		if d.sha() != newest.sha() {
			w.makes = append(w.makes, expected{deployed: d, maybe: true})
		}
		w.makes = append(w.makes, expected{deployed: d, ours: true, again: to.state == "good"})
		w.serving()
	}
	if r := w.cli(words...); (r.code == 0) != found {
		w.t.Fatalf("%v: want %v: %v", words, found, r)
	}
}

// theirs deploys with the original's command line: it overwrites the code in place, and then
// writes all of its sections, without regard to edits in between.
func (w *steps) theirs(d deployed) {
	w.t.Helper()
	before := w.present()
	d.deadline, d.golden = before.deadline, before.golden
	if w.recordArtifact() == "py_code_m" && before.model != d.model {
		between := d
		between.model = before.model
		w.makes = append(w.makes, expected{deployed: between, maybe: true})
	}
	w.makes = append(w.makes, expected{deployed: d})
	w.tell("the original deploys %s %s model %q", d.word, w.kind(d), d.model)
	w.serving()
	file := w.write(d)
	if w.python != "" {
		words := []string{"-m", "clearml_serving", "--id", w.id, "model", "add", "--engine", "custom", "--endpoint", "m", "--preprocess", file}
		if d.model != "" {
			words = append(words, "--model-id", w.models[d.model])
		}
		if r := w.plane.command(w.t, w.plane.sdk, w.python, words...); r.code != 0 {
			w.t.Fatalf("the original's %v: %v", words, r)
		}
		return
	}
	sections := w.sections()
	uri := w.plane.upload(w.t, "steps/artifacts/py_code_m/preprocess.py", []byte(d.code))
	uri = w.fixed[1] + strings.TrimPrefix(uri, w.plane.urls["files"])
	w.plane.call(w.t, "tasks.add_or_update_artifacts", map[string]any{"task": w.id, "force": true, "artifacts": []any{
		map[string]any{"key": "py_code_m", "type": "custom", "uri": uri, "hash": d.sha(), "content_size": len(d.code)},
	}})
	record := map[string]any{"engine_type": "custom", "serving_url": "m", "version": "", "preprocess_artifact": "py_code_m"}
	if d.model != "" {
		record["model_id"] = w.models[d.model]
	}
	sections["endpoints"]["m"] = record
	for _, name := range []string{"endpoints", "canary", "model_monitoring", "model_monitoring_eps", "metric_logging"} {
		text, err := json.Marshal(sections[name])
		if err != nil {
			w.t.Fatal(err)
		}
		if len(sections[name]) > 0 {
			w.plane.call(w.t, "tasks.edit_configuration", map[string]any{"task": w.id, "force": true, "configuration": []map[string]any{{"name": name, "type": "dictionary", "value": string(text)}}})
		}
	}
}

// sections are the stored sections, as the original reads them.
func (w *steps) sections() map[string]map[string]any {
	w.t.Helper()
	answer := w.plane.caller(w.t)("tasks.get_by_id", map[string]any{"task": w.id})
	var task struct {
		Data struct {
			Task struct {
				Configuration map[string]struct{ Value string }
			}
		}
	}
	decode(w.t, answer, &task)
	sections := map[string]map[string]any{}
	for name, object := range task.Data.Task.Configuration {
		records := map[string]any{}
		if err := json.Unmarshal([]byte(object.Value), &records); err != nil {
			w.t.Fatalf("section %s: %v in %s", name, err, object.Value)
		}
		sections[name] = records
	}
	return sections
}

// recordArtifact is the artifact in the endpoint's record.
func (w *steps) recordArtifact() string {
	var list struct {
		Endpoints map[string]struct {
			Artifact string `json:"preprocess_artifact"`
		}
	}
	r := w.cli("--json", "model", "list")
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list.Endpoints) != 1 {
		w.t.Fatalf("%v in %v", err, r)
	}
	return list.Endpoints["m"].Artifact
}

// away ends an instance, calls a function meanwhile, and restarts it on the same data.
func (w *steps) away(end func(), meanwhile func()) {
	w.t.Helper()
	w.target(w.a)
	end()
	meanwhile()
	w.a.startInstance(w.t, w.plane, w.id)
}

// endPlane ends the control plane. It does not check for leftovers, because instances have its folder in
// their arguments.
func (w *steps) endPlane() {
	w.t.Helper()
	end := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[w.random.IntN(2)]
	w.tell("the control plane ends by %v", end)
	if err := w.plane.cmd.Process.Signal(end); err != nil {
		w.t.Fatal(err)
	}
	w.plane.end(w.t, patience)
}

// endOf ends an instance gracefully or by a kill.
func (w *steps) endOf(what string, s *system) func() {
	if w.random.IntN(2) == 0 {
		w.tell("stop %s", what)
		return func() { s.stop(w.t) }
	}
	w.tell("kill %s", what)
	return func() { s.kill(w.t) }
}

// step executes a random action and waits for the expected result.
func (w *steps) step() {
	w.t.Helper()
	w.makes = nil
	switch n := w.random.IntN(22); {
	case n < 4:
		w.deploy(w.newCode(""))
	case n < 8:
		w.deploy(w.ruined())
	case n < 10:
		w.deploy(w.codes[w.random.IntN(len(w.codes))])
	case n < 12:
		w.settings()
	case n < 15:
		w.rollback()
	case n < 17:
		if w.random.IntN(2) == 0 {
			w.theirs(w.ruined())
		} else {
			w.theirs(w.newCode(""))
		}
	case n < 19:
		w.away(w.endOf("the instance", w.a), func() {
			for range w.random.IntN(3) {
				if w.random.IntN(2) == 0 {
					w.deploy(w.newCode(""))
				} else {
					w.deploy(w.ruined())
				}
			}
		})
	case n < 20:
		w.endPlane()
		if w.random.IntN(2) == 0 {
			w.target(w.a)
			w.endOf("the instance without a control plane", w.a)()
			w.a.startInstance(w.t, w.plane, w.id)
			w.a.answers(w.t, "m", fmt.Sprintf(`{"code":%q}`, w.now.serves().word))
		}
		w.plane.start(w.t, role{args: []string{"server", "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0"}})
		w.planeIsUp()
	case w.b == nil:
		w.tell("a second instance joins")
		w.b = instance(w.t, w.plane, w.id)
	default:
		end := w.endOf("the second instance", w.b)
		w.target(w.b)
		end()
		w.b = nil
	}
	w.settle()
	w.target()
}

// settle waits until every instance serves and reports the expected revision.
func (w *steps) settle() {
	w.t.Helper()
	var now rules
	took := w.a.eventually(w.t, patience, "after "+w.told[len(w.told)-1], func() error {
		r := w.cli("--json", "model", "history", "m")
		if r.code != 0 {
			return fmt.Errorf("%v", r)
		}
		var err error
		if now, err = w.now.follow(w.makes, r.out); err != nil {
			return fmt.Errorf("%w:\n%s", err, w.cli("model", "history", "m").out)
		}
		for _, s := range w.up() {
			if err := w.serves(s, now); err != nil {
				return err
			}
		}
		return nil
	})
	w.slowest = max(w.slowest, took)
	w.now = now
	w.noFailure()
	w.allow(now.serves().word)
}

func (w *steps) serves(s *system, now rules) error {
	want := now.serves()
	for range 3 {
		status, got := s.ask(w.t, "m", `{"x":1}`)
		if err := answerError(status, got, fmt.Sprintf(`{"code":%q}`, want.word)); err != nil {
			return err
		}
	}
	_, text := s.get(w.t, s.urls["serve"]+"/status")
	var status struct {
		Endpoints []struct {
			Endpoint string
			State    string
			Revision int
			Refused  *struct{ Revision int } `json:"refused_revision"`
		}
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil || len(status.Endpoints) != 1 {
		return fmt.Errorf("%w: %s", err, text)
	}
	e, newest := status.Endpoints[0], now.newest()
	switch {
	case e.Revision != want.number:
		return fmt.Errorf("revision %d is said to serve, want %d: %s", e.Revision, want.number, text)
	case newest.state == "refused" && (e.State != "refused" || e.Refused == nil || e.Refused.Revision != newest.number):
		return fmt.Errorf("revision %d is not said to be refused: %s", newest.number, text)
	case newest.state == "good" && e.State != "ready":
		return fmt.Errorf("it is not ready: %s", text)
	}
	return nil
}

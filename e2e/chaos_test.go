//go:build linux

package e2e_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	chaosChange = 200 * time.Millisecond // between two changes
	chaosPause  = 20 * time.Millisecond  // between two requests of one client
	// chaosReach is how long after a change the previous state may still answer. The
	// product promises two seconds; busy machines need more. A change starts Python
	// processes, so it may take chaosStarts times as long as the start of one.
	chaosReach  = 8 * time.Second
	chaosStarts = 40
	// chaosPatience bounds the wait for events that must happen.
	chaosPatience = 5 * time.Minute
)

// TestChaosOfChangesCostsNoRequestAndNoWrongAnswer sends requests to ten endpoints
// while code, models, canaries, tags and versions change five times a second.
// Every answer names the code and the model that produced it. It is right only if both
// were configured at some moment of the request, or shortly before it.
// CLEARML_SERVING_CHAOS_SECONDS sets the duration (15).
func TestChaosOfChangesCostsNoRequestAndNoWrongAnswer(t *testing.T) {
	seconds, err := strconv.Atoi(cmp.Or(os.Getenv("CLEARML_SERVING_CHAOS_SECONDS"), "15"))
	if err != nil {
		t.Fatalf("CLEARML_SERVING_CHAOS_SECONDS: %v", err)
	}
	s := up(t)
	w := newChaos(t, s)
	w.settle()

	stop := make(chan struct{})
	var traffic sync.WaitGroup
	asked := []string{"s0", "s1", "s2", "s3", "v/1", "v/2", "ma/1", "list", "newest", "tagged"}
	for i, endpoint := range asked {
		traffic.Go(func() { w.traffic(endpoint, i, stop) })
	}
	var slowest time.Duration // start of a Python
	traffic.Go(func() { slowest = slowestStart(t, stop) })
	random := rand.New(rand.NewPCG(4, uint64(seconds))) //nolint:gosec // the same changes in each run
	changes, ticker := 0, time.NewTicker(chaosChange)
	defer ticker.Stop()
	// A busy machine needs longer for the same traffic.
	enough, begun, long := 10*seconds*len(asked)/2, time.Now(), time.Duration(seconds)*time.Second
	for ; time.Since(begun) < long || w.answered() < enough && time.Since(begun) < long+chaosPatience; <-ticker.C {
		w.change(random)
		changes++
	}
	took := time.Since(begun)
	w.settle()
	close(stop)
	traffic.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%d changes, %d requests, %d different answers, %d wrong; the state before answered up to %v after a change; a Python started in %v at most",
		changes, w.requests, len(w.seen), len(w.wrong), w.latest.Round(time.Millisecond), slowest.Round(time.Millisecond))
	if reach := max(chaosReach, chaosStarts*slowest); w.latest > reach {
		t.Errorf("%s, %v after it had been replaced: more than %v", w.latestWhat, w.latest, reach)
	}
	for _, wrong := range w.wrong[:min(len(w.wrong), 5)] {
		t.Error(wrong)
	}
	if w.requests < enough {
		t.Errorf("only %d requests were answered in %s: there was no steady traffic", w.requests, took)
	}
}

// chaos is the configuration as the test writes it, and the record of valid answers.
type chaos struct {
	t           *testing.T
	s           *system
	id, token   string
	endpoints   map[string]map[string]any
	canaries    map[string]map[string]any
	models      map[string]string // name -> id
	tagged      map[string]bool
	code, model map[string]string // of each url, as configured
	revision    int

	mu       sync.Mutex // guards the fields below
	allowed  map[string]*timeline
	versions map[string]string // version of ma -> model
	requests int
	seen     map[string]bool
	wrong    []string

	latest     time.Duration // longest time from a replacement to an answer of the replaced value
	latestWhat string
}

// slowestStart starts a Python periodically until stop, and returns the longest time it took.
func slowestStart(t *testing.T, stop <-chan struct{}) (slowest time.Duration) {
	t.Helper()
	for {
		begun := time.Now()
		if err := exec.CommandContext(t.Context(), pythonSDK2, "-c", "pass").Run(); err != nil {
			t.Errorf("start a Python: %v", err)
			return slowest
		}
		slowest = max(slowest, time.Since(begun))
		select {
		case <-stop:
			return slowest
		case <-time.After(time.Second):
		}
	}
}

// timeline records when each value was in force.
type timeline struct{ spans []span }

type span struct {
	value       string
	from, until time.Time // until is zero while it is in force
}

// set puts these values, and no others, in force. begun is when the change was
// requested, done when it was stored: new values are valid from begun, replaced values until
// some time after done.
func (l *timeline) set(begun, done time.Time, values ...string) {
	kept := map[string]bool{}
	for i, s := range l.spans {
		if !s.until.IsZero() {
			continue
		}
		if slices.Contains(values, s.value) {
			kept[s.value] = true
		} else {
			l.spans[i].until = done
		}
	}
	for _, v := range values {
		if !kept[v] {
			l.spans = append(l.spans, span{value: v, from: begun})
		}
	}
}

// covers reports whether a value had been in force by the end of a request, and how
// long before its begin the value had been replaced.
func (l *timeline) covers(value string, begun, ended time.Time) (late time.Duration, ok bool) {
	best := time.Duration(-1)
	for _, s := range l.spans {
		if s.value != value || s.from.After(ended) {
			continue
		}
		late := time.Duration(0)
		if !s.until.IsZero() {
			late = max(0, begun.Sub(s.until))
		}
		if best < 0 || late < best {
			best = late
		}
	}
	return best, best >= 0
}

const chaosCode = `from pathlib import Path


class Preprocess:
    def load(self, local_file_name):
        self.model = Path(local_file_name).read_text()

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"code": "%s", "model": self.model, "x": data["x"]}
`

func newChaos(t *testing.T, s *system) *chaos {
	t.Helper()
	w := &chaos{
		t: t, s: s, id: createdID(t, s.must(t, "create", "--name", "chaos")), token: s.authorization(t),
		endpoints: map[string]map[string]any{}, canaries: map[string]map[string]any{}, models: map[string]string{},
		tagged: map[string]bool{}, code: map[string]string{}, model: map[string]string{},
		allowed: map[string]*timeline{}, versions: map[string]string{}, seen: map[string]bool{},
	}
	for i := range 8 {
		w.addModel(fmt.Sprintf("m%d", i))
	}
	for i, url := range []string{"s0", "s1", "s2", "s3", "v/1", "v/2"} {
		w.newCode(url)
		w.serve(url, fmt.Sprintf("m%d", i%4))
	}
	w.newCode("ma")
	w.tag("m4", true)
	w.store("model_monitoring", map[string]any{"ma": map[string]any{
		"base_serving_url": "ma", "engine_type": "custom", "monitor_tags": []string{"prod"}, "max_versions": 8, "preprocess_artifact": "code_ma",
	}})
	w.canary("list", []float64{0.5, 0.5}, map[string]any{"load_endpoints": []string{"s0", "s1"}}, "s0", "s1")
	w.canary("newest", []float64{1}, map[string]any{"load_endpoint_prefix": "v/"}, "v/2")
	w.canary("tagged", []float64{0.4, 0.2, 0.2, 0.1, 0.1}, map[string]any{"load_endpoint_prefix": "ma/"})
	return w
}

// change makes one change of a random kind.
func (w *chaos) change(random *rand.Rand) {
	static := []string{"s0", "s1", "s2", "s3", "v/1", "v/2"}[random.IntN(6)]
	switch random.IntN(6) {
	case 0:
		w.newCode(static)
	case 1:
		w.serve(static, fmt.Sprintf("m%d", random.IntN(4)))
	case 2:
		w.newCode("ma")
	case 3:
		name := fmt.Sprintf("m%d", 5+random.IntN(3))
		w.tag(name, !w.tagged[name])
	case 4:
		if weight := float64(random.IntN(3)) / 2; weight == 0 {
			w.canary("list", []float64{0, 2}, map[string]any{"load_endpoints": []string{"s0", "s1"}}, "s1")
		} else {
			w.canary("list", []float64{weight, 1 - weight}, map[string]any{"load_endpoints": []string{"s0", "s1"}}, []string{"s0", "s1"}[:2-int(weight)]...)
		}
	case 5: // a newer version is added or removed
		if w.endpoints["v/3"] == nil {
			w.newCode("v/3")
			w.serve("v/3", "m3")
		} else {
			w.remove("v/3")
		}
	}
}

// newCode stores another revision of an endpoint's code.
func (w *chaos) newCode(url string) {
	w.revision++
	revision := strconv.Itoa(w.revision)
	artifact := "code_" + strings.ReplaceAll(url, "/", "_")
	text := fmt.Appendf(nil, chaosCode, revision)
	uri := w.s.upload(w.t, fmt.Sprintf("chaos/%s/%s.py", artifact, revision), text)
	begun := time.Now()
	w.call("tasks.add_or_update_artifacts", map[string]any{"task": w.id, "force": true, "artifacts": []map[string]any{
		{"key": artifact, "type": "custom", "mode": "output", "uri": uri, "hash": fmt.Sprintf("%x", sha256.Sum256(text))},
	}})
	w.code[url] = revision
	w.nowAnswers(url, begun)
}

// serve sets the model of a static endpoint.
func (w *chaos) serve(url, model string) {
	name, version, _ := strings.Cut(url, "/")
	w.endpoints[url] = map[string]any{
		"engine_type": "custom", "serving_url": name, "version": version, "model_id": w.models[model],
		"preprocess_artifact": "code_" + strings.ReplaceAll(url, "/", "_"),
	}
	begun := time.Now()
	w.store("endpoints", w.endpoints)
	w.model[url] = model
	w.nowAnswers(url, begun)
	w.newestIs(begun)
}

func (w *chaos) remove(url string) {
	delete(w.endpoints, url)
	begun := time.Now()
	w.store("endpoints", w.endpoints)
	w.newestIs(begun)
}

// newestIs records which version the canary on v/ chooses: while a version is being
// loaded, the previous one keeps the traffic, and its span goes on.
func (w *chaos) newestIs(begun time.Time) {
	newest := "v/2"
	if w.endpoints["v/3"] != nil {
		newest = "v/3"
	}
	w.note("targets of newest", begun, newest)
}

func (w *chaos) canary(url string, weights []float64, targets map[string]any, chosen ...string) {
	record := map[string]any{"endpoint": url, "weights": weights}
	maps.Copy(record, targets)
	w.canaries[url] = record
	begun := time.Now()
	w.store("canary", w.canaries)
	w.note("targets of "+url, begun, chosen...)
}

func (w *chaos) addModel(name string) {
	uri := w.s.upload(w.t, "chaos/models/"+name+".txt", []byte(name))
	var made struct {
		Data struct{ ID string }
	}
	answer := w.call("models.create", map[string]any{"name": "chaos " + name, "uri": uri, "ready": true})
	if err := json.Unmarshal(answer, &made); err != nil || made.Data.ID == "" {
		w.t.Fatalf("models.create: %v %s", err, answer)
	}
	w.models[name] = made.Data.ID
}

func (w *chaos) tag(name string, on bool) {
	tags := []string{}
	if on {
		tags = append(tags, "prod")
	}
	begun := time.Now()
	w.call("models.edit", map[string]any{"model": w.models[name], "tags": tags})
	w.tagged[name] = on
	var all []string
	for name, on := range w.tagged {
		if on {
			all = append(all, name)
		}
	}
	w.note("models of ma", begun, all...)
}

// nowAnswers records the answer of a url from now on.
func (w *chaos) nowAnswers(url string, begun time.Time) {
	value := w.code[url]
	if url != "ma" {
		value += " " + w.model[url]
	}
	w.note("answers of "+url, begun, value)
}

func (w *chaos) note(what string, begun time.Time, values ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.allowed[what] == nil {
		w.allowed[what] = &timeline{}
	}
	w.allowed[what].set(begun, time.Now(), values...)
}

func (w *chaos) store(section string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		w.t.Fatal(err)
	}
	w.call("tasks.edit_configuration", map[string]any{"task": w.id, "force": true, "configuration": []map[string]any{{"name": section, "value": string(text)}}})
}

func (w *chaos) call(name string, request any) []byte {
	w.t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		w.t.Fatal(err)
	}
	status, answer := roundTrip(http.MethodPost, w.s.urls["api"]+"/"+name, "application/json", bytes.NewReader(body), "Authorization", w.token)
	if status != http.StatusOK {
		w.t.Fatalf("%s: %d %s", name, status, answer)
	}
	return []byte(answer)
}

// settle waits until every endpoint answers as configured last.
func (w *chaos) settle() {
	w.t.Helper()
	for _, url := range slices.Sorted(maps.Keys(w.endpoints)) {
		w.s.eventually(w.t, chaosPatience, url+" answers as configured", func() error {
			status, got := w.s.ask(w.t, url, `{"x":0}`)
			return answerError(status, got, fmt.Sprintf(`{"code":%q,"model":%q,"x":0}`, w.code[url], w.model[url]))
		})
	}
	w.s.eventually(w.t, chaosPatience, "the first monitored version answers", func() error {
		status, got := w.s.ask(w.t, "ma/1", `{"x":0}`)
		return answerError(status, got, fmt.Sprintf(`{"code":%q,"model":"m4","x":0}`, w.code["ma"]))
	})
}

// traffic sends requests to one endpoint until stop.
func (w *chaos) traffic(endpoint string, client int, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(chaosPause):
		}
		x := client*1_000_000 + n
		begun := time.Now()
		problem := w.askOnce(endpoint, x, begun)
		w.mu.Lock()
		w.requests++
		if problem != "" {
			w.wrong = append(w.wrong, fmt.Sprintf("%s at %s: %s", endpoint, begun.Format("15:04:05.000"), problem))
		}
		w.mu.Unlock()
	}
}

// answered is the number of requests so far.
func (w *chaos) answered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// askOnce sends one request and returns what is wrong with its answer.
func (w *chaos) askOnce(endpoint string, x int, begun time.Time) string {
	resp, err := client.Post(w.s.urls["serve"]+"/serve/"+endpoint, "application/json", strings.NewReader(fmt.Sprintf(`{"x":%d}`, x)))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	ended := time.Now()
	var answer struct {
		Code, Model string
		X           int
	}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil {
		return fmt.Sprintf("answered %d %s", resp.StatusCode, body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	target := resp.Header.Get("X-Clearml-Endpoint")
	w.seen[target+" "+answer.Code+" "+answer.Model] = true
	if answer.X != x {
		return fmt.Sprintf("the answer is another request's: %s", body)
	}
	if got, want := resp.Header.Get("X-Clearml-Model-Id"), w.models[answer.Model]; got != want {
		return fmt.Sprintf("model %s answered, the header says %s", want, got)
	}
	was := func(what, value string) string {
		late, ok := w.allowed[what].covers(value, begun, ended)
		if !ok {
			return fmt.Sprintf("%q has never been among the %s", value, what)
		}
		if late > w.latest {
			w.latest, w.latestWhat = late, fmt.Sprintf("%q was among the %s", value, what)
		}
		return ""
	}
	version, monitored := strings.CutPrefix(target, "ma/")
	if monitored {
		if model := cmp.Or(w.versions[version], answer.Model); model != answer.Model {
			return fmt.Sprintf("version %s was model %s and is now %s", version, model, answer.Model)
		}
		w.versions[version] = answer.Model
		return cmp.Or(was("models of ma", answer.Model), was("answers of ma", answer.Code))
	}
	if target != endpoint {
		if problem := was("targets of "+endpoint, target); problem != "" {
			return problem
		}
	}
	return was("answers of "+target, answer.Code+" "+answer.Model)
}

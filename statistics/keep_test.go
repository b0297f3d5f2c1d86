package statistics

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clearmlserving/drift"
	"clearmlserving/serving"
)

func open(t *testing.T, path string) *Metrics {
	t.Helper()
	return Open(path, slog.New(slog.DiscardHandler))
}

// kill leaves the file as a killed process does.
func kill(t *testing.T, m *Metrics) {
	t.Helper()
	if err := m.file.close(); err != nil { // releases the lock
		t.Fatal(err)
	}
}

// exposed returns the answer to a scraper.
func exposed(t *testing.T, m *Metrics) string {
	t.Helper()
	h, err := m.Handler(func() serving.Status { return serving.Status{} }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func has(t *testing.T, m *Metrics, lines ...string) {
	t.Helper()
	text := exposed(t, m)
	for _, line := range lines {
		line = "clearml_serving_" + line
		if !strings.Contains(text, line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			var found string
			for l := range strings.Lines(text) {
				if strings.HasPrefix(l, name) {
					found += l
				}
			}
			t.Errorf("missing: %s\nthere is:\n%s", line, found)
		}
	}
}

func planOf(metrics map[string]serving.Metric, urls ...serving.EndpointURL) serving.Plan {
	p := serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{}}
	for _, url := range urls {
		p.Endpoints[url] = serving.PlannedEndpoint{Endpoint: serving.Endpoint{ServingURL: string(url)}, Metrics: serving.MetricLogging{Metrics: metrics}}
	}
	return p
}

var variablesOfTest = map[string]serving.Metric{ //nolint:gochecknoglobals // a constant table
	"x": {Type: serving.MetricScalar, Buckets: []any{1.0, 2.0}},
	"c": {Type: serving.MetricCounter},
	"e": {Type: serving.MetricEnum, Buckets: []any{"cat"}},
}

func record(m *Metrics, url serving.EndpointURL, n int) {
	for i := range n {
		m.Record(serving.Sample{
			URL: url, Latency: time.Millisecond, Queued: time.Microsecond, Answered: true, RequestBytes: 10, AnswerBytes: 100,
			Sampled: true, Weight: 1, Variables: fmt.Appendf(nil, `{"x":%d,"c":2,"e":"cat","own":%d}`, i%3, i),
		})
	}
}

// recorded are the lines after n requests of record.
func recorded(url string, n int) []string {
	of := fmt.Sprintf(`{endpoint=%q,version=""}`, url)
	return []string{
		fmt.Sprintf(`requests_total{endpoint=%q,outcome="answered",version=""} %d`, url, n),
		fmt.Sprintf(`request_duration_seconds_count%s %d`, of, n),
		fmt.Sprintf(`request_duration_seconds_sum%s %v`, of, float64(n)/1000),
		fmt.Sprintf(`request_size_bytes_sum%s %d`, of, n*10),
		fmt.Sprintf(`response_size_bytes_sum%s %d`, of, n*100),
		fmt.Sprintf(`sampled_requests_total%s %d`, of, n),
		fmt.Sprintf(`variable_total{endpoint=%q,variable="c",version=""} %d`, url, 2*n),
		fmt.Sprintf(`variable_distribution_count{endpoint=%q,variable="x",version=""} %d`, url, n),
		fmt.Sprintf(`variable_values_total{endpoint=%q,value="cat",variable="e",version=""} %d`, url, n),
	}
}

func TestCountersGoOnAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inference", "statistics")
	for i := range 6 {
		m := open(t, path)
		if i > 0 {
			has(t, m, recorded("m", i*30)...) // before the endpoints are known
		}
		m.Follow(planOf(variablesOfTest, "m"))
		record(m, "m", 10)
		if i%2 == 0 {
			exposed(t, m) // reads samples
		}
		record(m, "m", 10)
		if i%3 == 0 {
			m.samples.mu.Lock()
			m.read()
			m.checkpoint()
			m.samples.mu.Unlock()
		}
		record(m, "m", 10)
		if i == 4 {
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			kill(t, m)
		}
	}
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	has(t, m, append(recorded("m", 180), "counters_kept 1", `variable_value{endpoint="m",variable="own",version=""} 9`)...)
	if rate, _ := m.Recent("m"); rate != 0 {
		t.Errorf("%v requests a second at the start", rate)
	}
}

func TestAKillWithinARecordCountsItOnceOrNotAtAll(t *testing.T) {
	for stores := -1; stores <= maxChanges; stores++ { // how many stores of the change are made before the kill
		path := filepath.Join(t.TempDir(), "statistics")
		m := open(t, path)
		m.Follow(planOf(variablesOfTest, "m"))
		record(m, "m", 3)
		l := m.lanes.lock()
		if l.ring.memory == nil { // another lane than that of record
			m.newRing(l)
		}
		c, b := change{journal: l.journal}, m.block(l, m.tables.Load().meters["m"])
		c.add(b, 0, 1)
		places.duration.observe(&c, b, int64(time.Millisecond))
		places.requestBytes.observe(&c, b, 10)
		places.answerBytes.observe(&c, b, 100)
		if ok, _ := l.put(&c, m.tables.Load().meters["m"].number, 1, m.samples.now(), []byte(`{"x":1,"c":2,"e":"cat"}`)); !ok {
			t.Fatal("no room")
		}
		want := 3
		if stores >= 0 {
			c.journal.n = uint32(c.n)
			for i := range min(stores, c.n) {
				*c.cells[i] = c.journal.entries[i].value
			}
			want = 4
		}
		m.lanes.unlock(l)
		kill(t, m)
		m = open(t, path)
		has(t, m, recorded("m", want)...)
		kill(t, m)
		m = open(t, path)
		has(t, m, recorded("m", want)...)
	}
}

func TestTwoProcessesOnOneFolderCountApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	a, b := open(t, path), open(t, path)
	a.Follow(planOf(variablesOfTest, "m"))
	b.Follow(planOf(variablesOfTest, "m"))
	record(a, "m", 5)
	record(b, "m", 7)
	has(t, a, append(recorded("m", 5), "counters_kept 1")...)
	has(t, b, append(recorded("m", 7), "counters_kept 1")...)
	kill(t, a)
	kill(t, b)
	has(t, open(t, path), recorded("m", 5)...)
	has(t, open(t, path), recorded("m", 7)...)
}

func TestFewerCoresKeepWhatMoreCoresHaveCounted(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	for i := range 4 { // each lane
		for j := range 4 {
			if j != i {
				m.lanes.all[j].mu.Lock()
			}
		}
		record(m, "m", 5)
		for j := range 4 {
			if j != i {
				m.lanes.all[j].mu.Unlock()
			}
		}
	}
	kill(t, m)
	runtime.GOMAXPROCS(1)
	m = open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 5)
	has(t, m, recorded("m", 25)...)
	kill(t, m)
	runtime.GOMAXPROCS(3)
	has(t, open(t, path), recorded("m", 25)...)
}

func TestAChangedDefinitionBeginsAtZeroAlsoAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 3)
	kill(t, m)
	changed := map[string]serving.Metric{"x": {Type: serving.MetricScalar, Buckets: []any{5.0}}, "c": variablesOfTest["c"]}
	m = open(t, path)
	m.Follow(planOf(changed, "m"))
	has(t, m,
		`variable_total{endpoint="m",variable="c",version=""} 6`,
		`variable_distribution_count{endpoint="m",variable="x",version=""} 0`,
		`sampled_requests_total{endpoint="m",version=""} 3`)
	record(m, "m", 2)
	kill(t, m)
	m = open(t, path)
	has(t, m,
		`variable_total{endpoint="m",variable="c",version=""} 10`,
		`variable_distribution_bucket{endpoint="m",variable="x",version="",le="5"} 2`)
	if text := exposed(t, m); strings.Contains(text, `variable="e"`) {
		t.Error("a variable without a definition is there again")
	}
}

func TestCountsByTheBinsOfAReferenceGoOnAfterAKill(t *testing.T) {
	b, err := drift.NewBuilder([]string{"x"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []any{0.0, 1.0, 1.0} {
		if err := b.Row([]any{x}); err != nil {
			t.Fatal(err)
		}
	}
	r, _, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	reference, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	plan := planOf(nil, "m")
	e := plan.Endpoints["m"]
	e.Reference = reference
	plan.Endpoints["m"] = e
	path := filepath.Join(t.TempDir(), "statistics")
	for i := range 4 {
		m := open(t, path)
		if i%2 == 0 {
			m.Follow(plan)
		}
		record(m, "m", 3) // x is 0, 1 and 2
		if text := exposed(t, m); strings.Count(text, "clearml_serving_drift_unexpected_values_total") < 5 ||
			!strings.Contains(text, fmt.Sprintf(`clearml_serving_drift_unexpected_values_total{endpoint="m",kind="above",variable="x",version=""} %d`, 2*i+1)) {
			t.Errorf("%d: %s", i, text[strings.Index(text, "# HELP clearml_serving_drift"):][:2000])
		}
		record(m, "m", 3) // not read before the kill
		kill(t, m)
	}
}

func TestARemovedEndpointIsForgottenAfterAnHour(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "stays", "goes", "back"))
	for _, url := range []serving.EndpointURL{"stays", "goes", "back"} {
		record(m, url, 3)
	}
	m.Follow(planOf(variablesOfTest, "stays"))
	record(m, "back", 1) // its last answer
	if text := exposed(t, m); strings.Contains(text, `endpoint="goes"`) || strings.Contains(text, `endpoint="back"`) {
		t.Error("a removed endpoint is exposed")
	}
	m.forget()
	m.Follow(planOf(variablesOfTest, "stays", "back"))
	has(t, m, recorded("back", 4)...)
	m.tables.Load().meters["goes"].gone = time.Now().Add(-2 * goneTime)
	free := len(m.file.free)
	m.forget()
	if len(m.file.free) <= free || m.tables.Load().meters["goes"] != nil {
		t.Error("it is still there")
	}
	kill(t, m)
	m = open(t, path)
	if text := exposed(t, m); strings.Contains(text, `endpoint="goes"`) {
		t.Error("it came back")
	}
	m.Follow(planOf(variablesOfTest, "stays", "goes"))
	record(m, "goes", 2)
	has(t, m, append(recorded("stays", 3), recorded("goes", 2)...)...)
}

func TestWithoutRoomOnTheDiskCountersAreInMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	full := true
	m.file.reserve = func(f *os.File, offset, size int64) error {
		if full {
			return syscall.ENOSPC
		}
		return reserve(f, offset, size)
	}
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 3)
	has(t, m, append(recorded("m", 3), "counters_kept 0")...)
	full = false
	m.settle()
	record(m, "m", 3)
	has(t, m, append(recorded("m", 6), "counters_kept 1")...)
	kill(t, m)
	has(t, open(t, path), recorded("m", 6)...)
}

func TestACheckpointThatCannotBeWrittenIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	obstacle := filepath.Join(filepath.Dir(path), ".writing-statistics.variables")
	if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	m.Follow(planOf(variablesOfTest, "m"))
	text := strings.Repeat("y", 1000)
	for range 10 * ringSize / 1000 { // the ring is written several times
		m.Record(serving.Sample{URL: "m", Sampled: true, Weight: 1, Variables: []byte(`{"c":1,"y":"` + text + `"}`), RequestBytes: -1, AnswerBytes: -1})
		m.samples.mu.Lock()
		m.read()
		m.samples.mu.Unlock()
	}
	has(t, m, fmt.Sprintf(`variable_total{endpoint="m",variable="c",version=""} %d`, 10*ringSize/1000), "counters_kept 0", "samples_dropped_total 0")
	kill(t, m)
	if m = open(t, path); m.file == nil { // what was overwritten is not read
		t.Fatal("it was not opened")
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 1)
	m.samples.saved = time.Time{}
	has(t, m, "counters_kept 1")
}

func TestAClosedFileIsStillGatheredAndNoLongerWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 3)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	has(t, m, recorded("m", 3)...)
	record(m, "m", 3)
	m.samples.saved = time.Time{}
	has(t, m, recorded("m", 6)...)
	next := open(t, path)
	has(t, next, recorded("m", 3)...)
	m.samples.saved = time.Time{}
	record(m, "m", 3)
	has(t, m, recorded("m", 9)...)
	kill(t, next)
	has(t, open(t, path), recorded("m", 3)...)
}

// faulty makes the next use of a lane's memory fail, as without room on the disk.
func faulty(t *testing.T, m *Metrics) {
	t.Helper()
	for i := range m.lanes.all {
		m.with(&m.lanes.all[i], func() { m.abandon(&m.lanes.all[i], "a test") })
	}
}

func TestAfterAFaultTheFileIsAsAtTheFault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 3)
	has(t, m, recorded("m", 3)...) // read, but in no checkpoint
	faulty(t, m)
	record(m, "m", 3)
	m.samples.saved = time.Time{}
	has(t, m, append(recorded("m", 6), "counters_kept 0")...)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	has(t, open(t, path), recorded("m", 3)...)
}

func TestATruncatedFileDoesNotEndTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 3)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	record(m, "m", 5)
	m.Follow(planOf(variablesOfTest, "m", "new"))
	record(m, "new", 5)
	has(t, m, append(recorded("new", 5), "counters_kept 0")...)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = open(t, path)
	record(m, "new", 5)
	has(t, m, "counters_kept 1")
}

func TestADamagedFileIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"text":      func(path string) error { return os.WriteFile(path, []byte("hello"), 0o600) },
		"short":     func(path string) error { return os.Truncate(path, 4096) },
		"folder":    func(path string) error { return os.Mkdir(path, 0o700) },
		"beginning": func(path string) error { return overwrite(path, 3, []byte{1}) },
		"version":   func(path string) error { return overwrite(path, 8, []byte{1, 2, 3, 4}) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "statistics")
			if name != "folder" {
				m := open(t, path)
				record(m, "m", 3)
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			m := open(t, path)
			m.Follow(planOf(variablesOfTest, "m"))
			record(m, "m", 2)
			has(t, m, append(recorded("m", 2), "counters_kept 1")...)
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Error(err)
			}
		})
	}
}

// writeSparse writes a file without its pages of zeros.
func writeSparse(path string, content []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // WriteAt has told
	for at := 0; at < len(content); at += page {
		part := content[at:min(at+page, len(content))]
		if bytes.Trim(part, "\x00") == nil {
			continue
		}
		if _, err := f.WriteAt(part, int64(at)); err != nil {
			return err
		}
	}
	return f.Truncate(int64(len(content)))
}

func overwrite(path string, at int64, with []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // WriteAt has told
	_, err = f.WriteAt(with, at)
	return err
}

func TestNoDamageOfTheFilesEndsTheProcess(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same values at each run
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m", "n"))
	record(m, "m", 50)
	record(m, "n", 50)
	m.samples.mu.Lock()
	m.checkpoint()
	m.samples.mu.Unlock()
	kill(t, m)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	variables, err := os.ReadFile(checkpointPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		dir := t.TempDir()
		path := filepath.Join(dir, "statistics")
		content := append([]byte(nil), whole...)
		for range 1 + random.IntN(50) {
			// mostly where there is something
			at := []int{random.IntN(ringsAt), ringsAt + random.IntN(4096), blocksAt + random.IntN(len(content)-blocksAt), random.IntN(len(content))}[random.IntN(4)]
			content[at] = byte(random.IntN(256))
		}
		if i%5 == 0 {
			content = content[:random.IntN(len(content))]
		}
		if err := writeSparse(path, content); err != nil {
			t.Fatal(err)
		}
		content = append([]byte(nil), variables...)
		if i%3 == 0 {
			content[random.IntN(len(content))]++
		}
		if err := os.WriteFile(checkpointPath(path), content, 0o600); err != nil {
			t.Fatal(err)
		}
		m := open(t, path)
		m.Follow(planOf(variablesOfTest, "m", "n", "new"))
		record(m, "new", 2)
		has(t, m, recorded("new", 2)...)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// No counter is lost, also by the next start, and what can be read of a file that was cut off is kept.
func TestAFileThatIsRemovedOrReplacedWhileItIsUsedIsBegunAgain(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"removed":        os.Remove,
		"folder removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"a folder in its place": func(path string) error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
		},
		"text in its place": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("hello"), 0o600))
		},
		"an older one in its place": func(path string) error {
			other := Open(path+".other", slog.New(slog.DiscardHandler))
			record(other, "m", 7)
			return errors.Join(other.Close(), os.Rename(path+".other", path))
		},
		"cut off": func(path string) error { return os.Truncate(path, 0) },
		"nothing": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "inference", "statistics")
			m := open(t, path)
			m.Follow(planOf(variablesOfTest, "m"))
			m.renew()
			record(m, "m", 30)
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			m.renew()
			want := 60
			if name == "cut off" {
				m.Follow(planOf(variablesOfTest, "m", "n")) // counters of m begin again
				record(m, "n", 60)
				has(t, m, recorded("n", 60)...)
			} else {
				record(m, "m", 30)
				has(t, m, recorded("m", 60)...)
			}
			m.settle()
			has(t, m, "counters_kept 1")
			record(m, "n", 3)
			kill(t, m)
			m = open(t, path)
			m.Follow(planOf(variablesOfTest, "m", "n"))
			url := map[bool]string{true: "n", false: "m"}[name == "cut off"]
			if name == "cut off" {
				want = 63
			}
			has(t, m, append(recorded(url, want), "counters_kept 1")...)
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A start without a folder for the file goes on in memory until there is one.
func TestAFileThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "parent")
	if err := os.WriteFile(parent, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(parent, "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 3)
	has(t, m, append(recorded("m", 3), "counters_kept 0")...)
	if err := os.Remove(parent); err != nil {
		t.Fatal(err)
	}
	m.renew()
	m.settle()
	record(m, "m", 3)
	has(t, m, append(recorded("m", 6), "counters_kept 1")...)
	kill(t, m)
	has(t, open(t, path), recorded("m", 6)...)
}

func TestAFileIsBegunAgainUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statistics")
	m := open(t, path)
	m.Follow(planOf(variablesOfTest, "m"))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var n atomic.Int64
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					record(m, "m", 1)
					n.Add(1)
					time.Sleep(100 * time.Microsecond)
				}
			}
		})
	}
	for i := range 20 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		m.renew()
		if i%2 == 0 {
			exposed(t, m)
		}
		m.settle()
	}
	close(stop)
	clients.Wait()
	exposed(t, m)
	m.settle()
	requests := fmt.Sprintf(`requests_total{endpoint="m",outcome="answered",version=""} %v`, float64(n.Load()))
	has(t, m, requests, "counters_kept 1")
	kill(t, m)
	has(t, open(t, path), requests)
}

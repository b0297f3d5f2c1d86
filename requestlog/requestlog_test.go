package requestlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/serving"
)

// patience bounds the wait for events that must happen, on a slow machine.
const patience = 2 * time.Minute

// folder is a destination in memory.
type folder struct {
	mu    sync.Mutex
	files map[string][]byte
	away  atomic.Bool // it cannot be reached
}

func (f *folder) Put(_ context.Context, url string, r io.Reader, _ int64) error {
	if f.away.Load() {
		return errors.New("bucket cannot be reached")
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files == nil {
		f.files = map[string][]byte{}
	}
	f.files[url] = data
	return nil
}

// rows reads the rows of all files as maps.
func (f *folder) rows(t *testing.T) (rows []map[string]any) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for url, data := range f.files {
		file, err := parquet.OpenFile(strings.NewReader(string(data)), int64(len(data)))
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		names := file.Schema().Columns()
		for _, group := range file.RowGroups() {
			all := make([]parquet.Row, group.NumRows())
			reader := group.Rows()
			if n, err := reader.ReadRows(all); n != len(all) || (err != nil && !errors.Is(err, io.EOF)) {
				t.Fatalf("%s: %d rows of %d: %v", url, n, len(all), err)
			}
			for _, row := range all {
				values := map[string]any{}
				for _, v := range row {
					if v.IsNull() {
						continue
					}
					var value any = v.String()
					switch v.Kind() {
					case parquet.Boolean:
						value = v.Boolean()
					case parquet.Int64:
						value = v.Int64()
					case parquet.Int32:
						value = int(v.Int32())
					case parquet.Double:
						value = v.Double()
					}
					values[names[v.Column()][0]] = value
				}
				rows = append(rows, values)
			}
			if err := reader.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rows
}

// start runs a log; end stops it.
func start(t *testing.T, o Options, options serving.RequestLog) (l *Log, end func()) {
	t.Helper()
	o.Destination, o.Logger = "s3://bucket/log", slog.New(slog.NewTextHandler(t.Output(), nil))
	l = New(o)
	l.Follow(serving.Plan{
		Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{"m/1": {Endpoint: serving.Endpoint{ServingURL: "m", Version: "1"}}},
		Options:   map[serving.EndpointURL]serving.EndpointOptions{"m/1": {Log: &options}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		l.Run(ctx)
		close(done)
	}()
	end = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(end)
	return l, end
}

var at = time.Date(2026, 11, 1, 12, 0, 0, 123456000, time.UTC)

func observed(id, body, answer string) serving.Observed {
	return serving.Observed{ID: id, Latency: 250 * time.Millisecond, Exchange: serving.Exchange{
		Time: at, Endpoint: "canary", AnsweredBy: "m/1", ModelID: "M", Status: 200, Body: []byte(body), Answer: []byte(answer),
	}}
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for begun := time.Now(); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func TestFieldsOfObjectsAreColumns(t *testing.T) {
	place := &folder{}
	l, end := start(t, Options{Dir: t.TempDir(), Place: place}, serving.RequestLog{Share: 1})
	for _, o := range []serving.Observed{
		observed("a", `{"x": 1, "name": "Ann", "flag": true, "list": [1, 2], "mixed": 1, "none": null, "whole": 1}`, `{"y": 0.5}`),
		observed("b", `{"x": 2.5, "name": "Bob", "flag": false, "list": {"k": 1}, "mixed": "one", "whole": 9007199254740993}`, `{"y": 1}`),
		observed("c", `[[1, 2], [3, 4]]`, `[0]`),
		observed("d", "plain text", ""),
		observed("e", "\xff\xfe", "{"),
		observed("f", `{}`, `null`),
	} {
		l.Observe(o)
	}
	failed := observed("g", `{"x": 7}`, `{"detail": "no"}`)
	failed.Status = 500
	l.Observe(failed)
	streamed := observed("h", `{"x": 8}`, "")
	streamed.Streamed = true
	l.Observe(streamed)
	end()
	if len(place.files) != 1 {
		t.Fatalf("%d files", len(place.files))
	}
	for url := range place.files {
		if !strings.HasPrefix(url, "s3://bucket/log/m_1/date=2026-11-01/20261101T120000Z-") || !strings.HasSuffix(url, "-8.parquet") {
			t.Errorf("file at %s", url)
		}
	}
	rows := place.rows(t)
	if len(rows) != 8 {
		t.Fatalf("%d rows", len(rows))
	}
	common := map[string]any{"time": at.UnixMicro(), "url": "canary", "endpoint": "m", "version": "1", "model_id": "M", "latency_seconds": 0.25, "status": 200}
	for i, want := range []map[string]any{
		{"request_id": "a", "input_x": 1.0, "input_name": "Ann", "input_flag": true, "input_list": "[1, 2]", "input_mixed": "1", "input_whole": int64(1), "output_y": 0.5, "request_encoding": "object", "answer_encoding": "object"},
		{"request_id": "b", "input_x": 2.5, "input_name": "Bob", "input_flag": false, "input_list": `{"k": 1}`, "input_mixed": `"one"`, "input_whole": int64(9007199254740993), "output_y": 1.0, "request_encoding": "object", "answer_encoding": "object"},
		{"request_id": "c", "input": "[[1, 2], [3, 4]]", "output": "[0]", "request_encoding": "json", "answer_encoding": "json"},
		{"request_id": "d", "input": "plain text", "output": "", "request_encoding": "text", "answer_encoding": "text"},
		{"request_id": "e", "input": "//4=", "output": "{", "request_encoding": "base64", "answer_encoding": "text"},
		{"request_id": "f", "output": "null", "request_encoding": "object", "answer_encoding": "json"},
		{"request_id": "g", "status": 500, "input_x": 7.0, "output_detail": "no", "request_encoding": "object", "answer_encoding": "object"},
		{"request_id": "h", "input_x": 8.0, "request_encoding": "object", "answer_encoding": "stream"},
	} {
		for name, value := range common {
			if _, own := want[name]; !own {
				want[name] = value
			}
		}
		if fmt.Sprint(rows[i]) != fmt.Sprint(want) {
			t.Errorf("row %d:\n%v, want\n%v", i, rows[i], want)
		}
	}
}

func TestKeysBeyondTheLimitAreKeptTogether(t *testing.T) {
	place := &folder{}
	l, end := start(t, Options{Dir: t.TempDir(), Place: place}, serving.RequestLog{Share: 1})
	many := map[string]int{}
	for i := range maxColumns + 10 {
		many[fmt.Sprintf("k%04d", i)] = i
	}
	body, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	l.Observe(observed("a", string(body), `{}`))
	end()
	row := place.rows(t)[0]
	if row["input_k0499"] != int64(499) || row["input_k0500"] != nil || !strings.Contains(fmt.Sprint(row["input"]), `"k0509":509`) {
		t.Errorf("%v", row["input"])
	}
}

func TestRedactedFieldsReachNoFile(t *testing.T) {
	place, dir := &folder{}, t.TempDir()
	place.away.Store(true)
	l, end := start(t, Options{Dir: dir, Place: place}, serving.RequestLog{Share: 1, Redact: []string{"password", "user.address"}})
	l.Observe(observed("a", `{"password": "secret1", "user": {"address": "secret2", "name": "Ann"}}`, `{"echo": {"password": "secret3"}}`))
	l.Observe(observed("b", `no JSON with secret4`, `{}`))
	end()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "secret") {
			t.Errorf("%s has a redacted value", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := l.counted(); n[countKey{"m/1", resultLogged}] != 1 || n[countKey{"m/1", resultSkipped}] != 1 {
		t.Errorf("%v", n)
	}
}

func TestANewFolderIsReadableOnlyByItsOwner(t *testing.T) {
	local := filepath.Join(t.TempDir(), "log")
	l, end := start(t, Options{Dir: filepath.Join(t.TempDir(), "spool"), Local: local, Place: &folder{}}, serving.RequestLog{Share: 1})
	l.Observe(observed("a", `{}`, `{}`))
	end()
	for _, path := range []string{local, *l.slot.Load()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
}

func TestFilesEndByTheirSizeAndTime(t *testing.T) {
	place := &folder{}
	l, end := start(t, Options{Dir: t.TempDir(), Place: place, FileBytes: 1, FileTime: time.Hour}, serving.RequestLog{Share: 1})
	l.Observe(observed("a", `{}`, `{}`))
	eventually(t, "the first file is delivered", func() bool { return len(place.rows(t)) == 1 })
	l.Observe(observed("b", `{}`, `{}`))
	eventually(t, "the second file is delivered", func() bool { return len(place.rows(t)) == 2 })
	end()
	place2 := &folder{}
	l, end = start(t, Options{Dir: t.TempDir(), Place: place2, FileTime: 20 * time.Millisecond}, serving.RequestLog{Share: 1})
	l.Observe(observed("a", `{}`, `{}`))
	eventually(t, "an old file is delivered", func() bool { return len(place2.rows(t)) == 1 })
	end()
}

func TestWhatAKilledProcessHasLeftIsDelivered(t *testing.T) {
	dir, place := t.TempDir(), &folder{}
	// As after a kill: a spool file whose last line is cut, a half Parquet file, and a finished file.
	l := New(Options{Dir: dir, Place: place})
	l.Follow(serving.Plan{Options: map[serving.EndpointURL]serving.EndpointOptions{"m/1": {Log: &serving.RequestLog{Share: 1}}}})
	l.write([]serving.Observed{observed("a", `{"x": 1}`, `{}`), observed("b", `{"x": 2}`, `{}`)})
	spool := l.files["m/1"].file
	if _, err := spool.WriteString(`{"time": "2026-11`); err != nil {
		t.Fatal(err)
	}
	l.files["m/1"] = nil
	delete(l.files, "m/1")
	l.write([]serving.Observed{observed("c", `{"x": 3}`, `{}`)})
	l.rotate(true)
	for _, path := range []string{"x.part", "y." + strings.Repeat("A", 26) + ".jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, "1", path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(spool.Close(), l.lock.Close()); err != nil {
		t.Fatal(err)
	}
	_, end := start(t, Options{Dir: dir, Place: place}, serving.RequestLog{Share: 1})
	eventually(t, "everything is delivered", func() bool { return len(place.rows(t)) == 3 })
	end()
	left, err := filepath.Glob(filepath.Join(dir, "*", "*.*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestAnEndDoesNotWaitForAllFilesToBeConverted(t *testing.T) {
	l := New(Options{Dir: t.TempDir(), Place: &folder{}})
	l.Follow(serving.Plan{Options: map[serving.EndpointURL]serving.EndpointOptions{"m/1": {Log: &serving.RequestLog{Share: 1}}}})
	for range 3 {
		l.write([]serving.Observed{observed("a", `{}`, `{}`)})
		l.rotate(true)
	}
	t.Cleanup(func() { _ = l.lock.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.deliverAll(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	full, err := filepath.Glob(filepath.Join(l.folder(), "*"+fullEnd))
	if err != nil || len(full) != 3 {
		t.Errorf("left for the next start: %v %v", full, err)
	}
}

func TestInstancesThatShareAFolderKeepTheirFilesApart(t *testing.T) {
	dir, place := t.TempDir(), &folder{}
	place.away.Store(true)
	one, end1 := start(t, Options{Dir: dir, Place: place}, serving.RequestLog{Share: 1})
	one.Observe(observed("a", `{}`, `{}`))
	eventually(t, "the first one has its folder", func() bool { return one.counted()[countKey{"m/1", resultLogged}] == 1 })
	two, end2 := start(t, Options{Dir: dir, Place: place}, serving.RequestLog{Share: 1})
	two.Observe(observed("b", `{}`, `{}`))
	eventually(t, "the second one has its folder", func() bool { return two.counted()[countKey{"m/1", resultLogged}] == 1 })
	end1()
	end2()
	if one.folder() == two.folder() {
		t.Errorf("both use %s", one.folder())
	}
	// A third process delivers what both have left.
	place.away.Store(false)
	_, end3 := start(t, Options{Dir: dir, Place: place}, serving.RequestLog{Share: 1})
	eventually(t, "the rows of both are delivered", func() bool { return len(place.rows(t)) == 2 })
	end3()
}

func TestABucketThatIsAwayHurtsNothing(t *testing.T) {
	place := &folder{}
	place.away.Store(true)
	l, end := start(t, Options{Dir: t.TempDir(), Place: place, FileBytes: 1}, serving.RequestLog{Share: 1})
	for i := range 5 {
		l.Observe(observed(fmt.Sprint(i), `{}`, `{}`))
	}
	eventually(t, "the problem is shown", func() bool {
		return l.problem.Load() != nil && strings.Contains(*l.problem.Load(), "cannot be reached")
	})
	if text := gather(t, l); !failing.MatchString(text) {
		t.Error(text)
	}
	place.away.Store(false)
	eventually(t, "the rows are delivered", func() bool { return len(place.rows(t)) == 5 })
	eventually(t, "the problem is gone", func() bool { return l.problem.Load() == nil })
	end()
}

var failing = regexp.MustCompile(`name:"clearml_serving_request_log_failing".*?gauge:\{value:1\}`)

func gather(t *testing.T, l *Log) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(l); err != nil {
		t.Fatal(err)
	}
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(all)
}

func TestFilesOnThisMachineAreBounded(t *testing.T) {
	place := &folder{}
	place.away.Store(true)
	l, end := start(t, Options{Dir: t.TempDir(), Place: place, FileBytes: 1, FileTime: 40 * time.Millisecond, MaxBytes: 20_000}, serving.RequestLog{Share: 1})
	body := fmt.Sprintf(`{"x": "%s"}`, strings.Repeat("ab", 100))
	for i := range 20 {
		l.Observe(observed(fmt.Sprint(i), body, `{}`))
		before := uint64(i)
		eventually(t, "a row is written or dropped", func() bool {
			n := l.counted()
			return n[countKey{"m/1", resultLogged}]+n[countKey{"m/1", resultDropped}] > before
		})
	}
	eventually(t, "the oldest files are removed", func() bool { return l.counted()[countKey{"m/1", resultRemoved}] > 0 && l.waitingBytes() <= 20_000 })
	end()
}

func TestAFullDiskHurtsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no folder can be made there
		t.Fatal(err)
	}
	l, end := start(t, Options{Dir: dir, Place: &folder{}}, serving.RequestLog{Share: 1})
	l.Observe(observed("a", `{}`, `{}`))
	eventually(t, "the row is counted as dropped", func() bool { return l.counted()[countKey{"m/1", resultDropped}] == 1 })
	if l.problem.Load() == nil {
		t.Error("no problem is shown")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	l.Observe(observed("b", `{}`, `{}`))
	eventually(t, "rows are written again", func() bool { return l.counted()[countKey{"m/1", resultLogged}] == 1 })
	end()
}

func TestObserveNeverBlocks(t *testing.T) {
	l := New(Options{Dir: t.TempDir(), Place: &folder{}}) // it does not run
	for range queueLength + 5 {
		if o := observed("a", "{}", "{}"); l.Admits("m/1", sizeOf(o)) {
			l.Observe(o)
		}
	}
	if l.Admits("m/1", maxObserved+1) {
		t.Error("a huge request is admitted")
	}
	if n := l.counted(); n[countKey{"m/1", resultDropped}] != 5 || n[countKey{"m/1", resultSkipped}] != 1 {
		t.Errorf("%v", n)
	}
}

func TestThePageDescribesEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../docs/request-log.md")
	if err != nil {
		t.Fatal(err)
	}
	described := make(chan *prometheus.Desc, 10)
	New(Options{}).Describe(described)
	close(described)
	for d := range described {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("docs/request-log.md does not describe %s", name)
		}
	}
}

// Rows that are lost are counted, and the next ones are kept.
func TestAFolderThatIsRemovedIsMadeAgain(t *testing.T) {
	dir, place := filepath.Join(t.TempDir(), "log"), &folder{}
	l, end := start(t, Options{Dir: dir, Place: place}, serving.RequestLog{Share: 1})
	logged := func(n uint64) func() bool {
		return func() bool { return l.counted()[countKey{"m/1", resultLogged}] == n }
	}
	l.Observe(observed("lost", `{"x": 1}`, `{}`))
	eventually(t, "a row is logged", logged(1))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l.Observe(observed("second", `{"x": 2}`, `{}`))
	eventually(t, "a row is logged after the folder was removed", logged(2))
	spools, err := filepath.Glob(filepath.Join(dir, "*", "*"+spoolEnd))
	if err != nil || len(spools) != 1 {
		t.Fatalf("spool files: %v, %v", spools, err)
	}
	if err := os.Remove(spools[0]); err != nil { // only the file
		t.Fatal(err)
	}
	l.Observe(observed("third", `{"x": 3}`, `{}`))
	eventually(t, "a row is logged after its file was removed", logged(3))
	if n := l.counted()[countKey{"m/1", resultRemoved}]; n != 2 {
		t.Errorf("%d rows counted as removed, want 2", n)
	}
	end()
	if rows := place.rows(t); len(rows) != 1 || rows[0][columnID] != "third" {
		t.Errorf("delivered: %v", rows)
	}
}

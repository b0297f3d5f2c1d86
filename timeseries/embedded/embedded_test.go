package embedded

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"clearmlserving/timeseries"
	"clearmlserving/timeseries/gather"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// clock is a time that tests set.
type clock struct{ ms atomic.Int64 }

func (c *clock) set(t time.Time) { c.ms.Store(t.UnixMilli()) }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms.Load()).UTC() }

// start runs a Store in dir until the test ends, or stop is called.
func start(t *testing.T, o Options) (s *Store, stop func()) {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return noon }
	}
	s = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	if err := s.Opened(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, stop
}

func floats(at time.Time, value float64, pairs ...string) gather.Batch {
	return gather.Batch{Samples: []gather.Sample{{Labels: labels.FromStrings(pairs...), At: at.UnixMilli(), Value: value}}}
}

func mustWrite(t *testing.T, s *Store, b gather.Batch) {
	t.Helper()
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func mustQuery(t *testing.T, s *Store, expr string, at time.Time) timeseries.Vector {
	t.Helper()
	v, err := s.Query(t.Context(), expr, at)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	s, _ := start(t, Options{Dir: t.TempDir()})
	for i := range 13 {
		mustWrite(t, s, floats(noon.Add(time.Duration(i-12)*5*time.Second), float64(10*i), "__name__", "requests_total", "endpoint", "m"))
	}
	v := mustQuery(t, s, "rate(requests_total[1m])", noon)
	if len(v) != 1 || v[0].Metric["endpoint"] != "m" || v[0].Value != 2 {
		t.Errorf("got %v", v)
	}
	if v := mustQuery(t, s, "1+1", noon); len(v) != 1 || v[0].Value != 2 {
		t.Errorf("got %v", v)
	}
	m, err := s.QueryRange(t.Context(), "requests_total", noon.Add(-time.Minute), noon, 30*time.Second)
	if err != nil || len(m) != 1 || len(m[0].Values) != 3 || m[0].Values[2].Value != 120 {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestErrorsHaveTheirKind(t *testing.T) {
	s, stop := start(t, Options{Dir: t.TempDir()})
	for expr, want := range map[string]timeseries.Kind{
		"sum(": timeseries.BadData, `"text"`: timeseries.BadData, "up[5m]": timeseries.BadData, `label_replace(up, "a b", "", "", ".*(")`: timeseries.Execution,
	} {
		mustWrite(t, s, floats(noon, 1, "__name__", "up"))
		if _, err := s.Query(t.Context(), expr, noon); timeseries.KindOf(err) != want {
			t.Errorf("%s: got %v of kind %s, want %s", expr, err, timeseries.KindOf(err), want)
		}
	}
	if _, err := s.QueryRange(t.Context(), "up", noon, noon.Add(-time.Second), time.Second); timeseries.KindOf(err) != timeseries.BadData {
		t.Errorf("got %v", err)
	}
	stop()
	if _, err := s.Query(t.Context(), "up", noon); timeseries.KindOf(err) != timeseries.Unavailable {
		t.Errorf("got %v", err)
	}
	if err := s.Write(t.Context(), floats(noon, 1, "__name__", "up")); timeseries.KindOf(err) != timeseries.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestSamplesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s, stop := start(t, Options{Dir: dir})
	mustWrite(t, s, floats(noon, 7, "__name__", "x"))
	stop()
	s, _ = start(t, Options{Dir: dir})
	if v := mustQuery(t, s, "x", noon); len(v) != 1 || v[0].Value != 7 {
		t.Errorf("got %v", v)
	}
	u := s.Usage()
	if u.Series != 1 || u.Bytes == 0 || u.Problem != "" || !u.Oldest.Equal(noon) {
		t.Errorf("usage is %+v", u)
	}
}

// segment returns the newest file of the write-ahead log.
func segment(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no write-ahead log: %v", err)
	}
	return slices.MaxFunc(all, func(a, b string) int { return int(size(t, a) - size(t, b)) })
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestADamagedLogDoesNotStopTheStart(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"cut off": func(t *testing.T, dir string) {
			t.Helper()
			file := segment(t, dir)
			if err := os.Truncate(file, size(t, file)-3); err != nil {
				t.Fatal(err)
			}
		},
		"overwritten": func(t *testing.T, dir string) {
			t.Helper()
			file := segment(t, dir)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i := len(text) / 2; i < len(text); i++ {
				text[i] ^= 0x55
			}
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a file in the place of the log": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "wal"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a damaged block": func(t *testing.T, dir string) {
			t.Helper()
			block := filepath.Join(dir, "01JDY8Z8Z8Z8Z8Z8Z8Z8Z8Z8Z8")
			if err := os.MkdirAll(block, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"meta.json", "index"} {
				if err := os.WriteFile(filepath.Join(block, file), []byte(`{"version":1,"ulid":"01JDY8Z8Z8Z8Z8Z8Z8Z8Z8Z8Z8","minTime":1,"maxTime":2}`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a file in the place of the folder": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "timeseries")
			s, stop := start(t, Options{Dir: dir})
			for i := range 500 {
				mustWrite(t, s, floats(noon.Add(time.Duration(i-500)*time.Second), math.Sqrt(float64(i)), "__name__", "x"))
			}
			stop()
			damage(t, dir)
			s, stop = start(t, Options{Dir: dir})
			mustWrite(t, s, floats(noon, 7, "__name__", "y"))
			if v := mustQuery(t, s, "y", noon); len(v) != 1 {
				t.Errorf("got %v", v)
			}
			stop()
			s, _ = start(t, Options{Dir: dir})
			if v := mustQuery(t, s, "y", noon); len(v) != 1 {
				t.Errorf("after another start: got %v", v)
			}
		})
	}
}

func TestAFolderThatCannotBeMadeIsTriedAgain(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "parent")
	if err := os.WriteFile(parent, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Dir: filepath.Join(parent, "timeseries")})
	s.keep(t.Context())
	if _, err := s.Query(t.Context(), "x", noon); timeseries.KindOf(err) != timeseries.Unavailable {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(parent); err != nil {
		t.Fatal(err)
	}
	s.keep(t.Context())
	if _, err := s.Query(t.Context(), "x", noon); err != nil {
		t.Error(err)
	}
	if err := s.replace(nil, errClosed); err != nil {
		t.Error(err)
	}
}

func TestAClockThatWasSetBackDoesNotHideWhatFollows(t *testing.T) {
	dir := t.TempDir()
	var c clock
	c.set(noon.Add(30 * 24 * time.Hour))
	s, stop := start(t, Options{Dir: dir, Now: c.now})
	mustWrite(t, s, floats(c.now(), 7, "__name__", "x"))
	stop()
	c.set(noon)
	s = New(Options{Dir: dir, Now: c.now})
	s.keep(t.Context()) // it opens what is there
	s.keep(t.Context())
	mustWrite(t, s, floats(noon, 8, "__name__", "x"))
	if v := mustQuery(t, s, "x", noon); len(v) != 1 || v[0].Value != 8 {
		t.Errorf("got %v", v)
	}
	if err := s.replace(nil, errClosed); err != nil {
		t.Error(err)
	}
}

func TestSamplesOfTheFutureAndTooManySeriesAreRefused(t *testing.T) {
	s, _ := start(t, Options{Dir: t.TempDir()})
	var refused *Refused
	if err := s.Write(t.Context(), floats(noon.Add(time.Hour), 1, "__name__", "x")); !errors.As(err, &refused) || !errors.Is(err, ErrFuture) {
		t.Errorf("got %v", err)
	}
	s.series.Store(1)
	mustWrite(t, s, floats(noon, 1, "__name__", "x"))
	b := floats(noon.Add(time.Second), 2, "__name__", "x")
	b.Samples = append(b.Samples, floats(noon, 1, "__name__", "y").Samples...)
	if err := s.Write(t.Context(), b); !errors.As(err, &refused) || refused.Samples != 1 || !errors.Is(err, ErrTooManySeries) {
		t.Errorf("got %v", err)
	}
	if v := mustQuery(t, s, "x", noon.Add(time.Second)); len(v) != 1 || v[0].Value != 2 {
		t.Errorf("the known series was refused too: %v", v)
	}
}

func TestTheBoundOfSeriesHoldsWithinABatch(t *testing.T) {
	s, _ := start(t, Options{Dir: t.TempDir()})
	s.series.Store(2)
	b := floats(noon, 1, "__name__", "x")
	for _, name := range []string{"y", "z", "x2"} {
		b.Samples = append(b.Samples, floats(noon, 1, "__name__", name).Samples...)
	}
	var refused *Refused
	if err := s.Write(t.Context(), b); !errors.As(err, &refused) || refused.Samples != 2 || !errors.Is(err, ErrTooManySeries) {
		t.Errorf("got %v", err)
	}
	if n := s.Usage().Series; n != 2 {
		t.Errorf("%d series are in memory", n)
	}
}

// slowClient is a client that does not take its answer.
type slowClient struct {
	*httptest.ResponseRecorder

	taking, leave chan struct{}
}

func (c *slowClient) Write(b []byte) (int, error) {
	close(c.taking)
	<-c.leave
	return c.ResponseRecorder.Write(b)
}

func TestAClientThatDoesNotTakeItsAnswerKeepsNothingOpen(t *testing.T) {
	s, stop := start(t, Options{Dir: t.TempDir()})
	mustWrite(t, s, floats(noon, 1, "__name__", "x"))
	client := &slowClient{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var answering sync.WaitGroup
	answering.Go(func() {
		s.Handler().ServeHTTP(client, httptest.NewRequest(http.MethodGet, "/api/v1/query?query=x&time="+strconv.FormatInt(noon.Unix(), 10), http.NoBody))
	})
	<-client.taking
	closed := make(chan struct{})
	go func() { defer close(closed); stop() }()
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("the database waits for the client")
	}
	close(client.leave)
	<-closed
	answering.Wait()
	if client.Code != http.StatusOK || !strings.Contains(client.Body.String(), `"value":[`) {
		t.Errorf("%d: %s", client.Code, client.Body)
	}
}

func TestGatheredMetricsBecomeSeries(t *testing.T) {
	s, _ := start(t, Options{Dir: t.TempDir()})
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"endpoint"})
	hist := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds", Help: "Times.", Buckets: []float64{1, 2}, NativeHistogramBucketFactor: 1.1})
	registry.MustRegister(counter, hist)
	instance := "a:1"
	from := gather.Source{Gatherer: registry, Labels: func() map[string]string { return map[string]string{"instance": instance, "service": ""} }}
	for i := range 13 {
		counter.WithLabelValues("m").Add(5)
		hist.(prometheus.ExemplarObserver).ObserveWithExemplar(float64(i%3)+.5, prometheus.Labels{"trace_id": "abc"})
		b, err := from.Collect(noon.Add(time.Duration(i-12) * 5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, s, b)
	}
	for expr, want := range map[string]float64{
		`rate(requests_total{endpoint="m",instance="a:1"}[1m])`: 1,
		`seconds_bucket{le="1.0"}`:                              5,
		`seconds_bucket{le="+Inf"}`:                             13,
		`histogram_count(seconds)`:                              13,
		`seconds_count`:                                         13,
		`up`:                                                    1,
		`count({service="",__name__!=""})`:                      8,
	} {
		if v := mustQuery(t, s, expr, noon); len(v) != 1 || math.Abs(float64(v[0].Value)-want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", expr, v, want)
		}
	}
	// A series that is gone ends at once, also if only its origin has changed.
	counter.DeleteLabelValues("m")
	b, _ := from.Collect(noon.Add(5 * time.Second))
	mustWrite(t, s, b)
	if v := mustQuery(t, s, "requests_total", noon.Add(5*time.Second)); len(v) != 0 {
		t.Errorf("got %v", v)
	}
	instance = "b:1"
	b, _ = from.Collect(noon.Add(10 * time.Second))
	mustWrite(t, s, b)
	if v := mustQuery(t, s, "up", noon.Add(10*time.Second)); len(v) != 1 || v[0].Metric["instance"] != "b:1" {
		t.Errorf("got %v", v)
	}
	mustWrite(t, s, from.End(noon.Add(11*time.Second)))
	if v := mustQuery(t, s, `{__name__!=""}`, noon.Add(11*time.Second)); len(v) != 0 {
		t.Errorf("after the end: got %v", v)
	}
}

func TestTheSeriesOfAnInstanceThatIsSilentEnd(t *testing.T) {
	var c clock
	c.set(noon)
	s, _ := start(t, Options{Dir: t.TempDir(), Now: c.now})
	write := func(name string) {
		t.Helper()
		if err := s.WriteFrom(t.Context(), name, floats(c.now(), 1, "__name__", "x", "instance", name)); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	write("b")
	c.set(noon.Add(20 * time.Second))
	write("b")
	s.endGone(t.Context())
	if v := mustQuery(t, s, "x", c.now()); len(v) != 2 {
		t.Errorf("after 20 s: %v", v)
	}
	c.set(noon.Add(40 * time.Second))
	s.endGone(t.Context())
	if v := mustQuery(t, s, "x", c.now()); len(v) != 1 || v[0].Metric["instance"] != "b" {
		t.Errorf("after 40 s: %v", v)
	}
	c.set(noon.Add(41 * time.Second))
	write("a")
	if v := mustQuery(t, s, "x", c.now()); len(v) != 2 {
		t.Errorf("after it came again: %v", v)
	}
}

func TestSamplesAreWrittenAgainAfterAFailure(t *testing.T) {
	for name, breaks := range map[string]func(t *testing.T, s *Store){
		"a full disk": func(_ *testing.T, s *Store) { s.broken.Store(true) },
		"a folder that was removed": func(t *testing.T, s *Store) {
			t.Helper()
			if err := os.RemoveAll(s.o.Dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Dir: filepath.Join(t.TempDir(), "timeseries"), Now: func() time.Time { return noon }})
			s.keep(t.Context())
			mustWrite(t, s, floats(noon, 1, "__name__", "before"))
			breaks(t, s)
			s.keep(t.Context())
			mustWrite(t, s, floats(noon, 1, "__name__", "after"))
			if err := s.replace(nil, errClosed); err != nil {
				t.Fatal(err)
			}
			s.keep(t.Context())
			if v := mustQuery(t, s, "after", noon); len(v) != 1 {
				t.Errorf("got %v", v)
			}
			if err := s.replace(nil, errClosed); err != nil {
				t.Error(err)
			}
		})
	}
}

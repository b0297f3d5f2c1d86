package feedback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/serving"
)

// clock is a settable time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var testTime = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// open returns a store of endpoints with these options. The test closes it.
func openStore(t *testing.T, dir string, options map[serving.EndpointURL]serving.Feedback) (*Store, *clock) {
	t.Helper()
	c := &clock{now: testTime}
	s := New(Options{Dir: dir, now: c.Now, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	plan := serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{}, Options: map[serving.EndpointURL]serving.EndpointOptions{}}
	for url, f := range options {
		plan.Options[url] = serving.EndpointOptions{Feedback: &f}
	}
	s.Follow(plan)
	s.start()
	if problem := s.problem.Load(); problem != nil {
		t.Fatal(*problem)
	}
	t.Cleanup(s.close)
	return s, c
}

func answered(c *clock, asked, by serving.EndpointURL, id, body, answer string) serving.Observed {
	o := serving.Observed{ID: id, Exchange: serving.Exchange{Time: c.Now(), Endpoint: asked, Status: 200, Body: []byte(body), Answer: []byte(answer)}}
	if by != asked {
		o.AnsweredBy = by
	}
	return o
}

func predict(s *Store, c *clock, id, answer string) {
	s.Observe(answered(c, "m", "m", id, "{}", answer))
	s.keep(nil)
}

func take(t *testing.T, s *Store, endpoint serving.EndpointURL, body string) Taken {
	t.Helper()
	status, answer := s.Take(endpoint, []byte(body))
	var taken Taken
	if err := json.Unmarshal(answer, &taken); status != http.StatusOK || err != nil {
		t.Fatalf("feedback %s: %d %s", body, status, answer)
	}
	return taken
}

func measures(s *Store, endpoint serving.EndpointURL) map[string]float64 {
	for _, v := range s.Report(endpoint).Versions {
		return v.All.Measures()
	}
	return nil
}

var classes = map[serving.EndpointURL]serving.Feedback{"m": {Task: serving.TaskClassification, Prediction: "y", Score: "p"}}

func TestTruthsAreJoinedWithPredictionsInAnyOrder(t *testing.T) {
	s, c := openStore(t, t.TempDir(), classes)
	predict(s, c, "a", `{"y": 1, "p": 0.9}`)
	if got := take(t, s, "m", `{"request_id": "a", "truth": 1}`); got != (Taken{Accepted: 1, Joined: 1}) {
		t.Errorf("truth after its prediction: %+v", got)
	}
	if got := take(t, s, "m", `[{"request_id": "b", "truth": true}, {"request_id": "a", "truth": 0}]`); got != (Taken{Accepted: 2, Pending: 1, Duplicate: 1}) {
		t.Errorf("truth before its prediction, and a second one: %+v", got)
	}
	if got := take(t, s, "m", `{"request_id": "b", "truth": true}`); got.Duplicate != 1 {
		t.Errorf("a pending truth again: %+v", got)
	}
	predict(s, c, "b", `{"y": "true", "p": 0.8}`)
	got := s.Report("m")
	if got.Outcomes[countJoined] != 2 || got.Outcomes[countDuplicate] != 2 || got.Waiting != 0 {
		t.Errorf("report: %+v", got)
	}
	if m := measures(s, "m"); m[Accuracy] != 1 {
		t.Errorf("measures: %v", m)
	}
}

func TestFeedbackThatArrivesBeforeItsPredictionIsWrittenIsJoined(t *testing.T) {
	s, c := openStore(t, t.TempDir(), classes)
	s.Observe(answered(c, "m", "m", "a", "{}", `{"y": 1, "p": 0.9}`)) // it waits in the queue
	if got := take(t, s, "m", `{"request_id": "a", "truth": 1}`); got.Joined != 1 {
		t.Errorf("%+v", got)
	}
}

func TestInvalidFeedbackIsRefusedWithItsField(t *testing.T) {
	s, c := openStore(t, t.TempDir(), map[serving.EndpointURL]serving.Feedback{
		"m": {Task: serving.TaskClassification, Prediction: "y"}, "r": {Task: serving.TaskRegression, Prediction: "y"}, "k": {Task: serving.TaskRegression, Key: "id"},
	})
	predict(s, c, "two", `{"y": [1, 0]}`)
	predict(s, c, "ok", `{"y": 1}`)
	many := "[" + strings.Repeat(`{"request_id": "a", "truth": 1},`, maxItems) + `{"request_id": "a", "truth": 1}]`
	for _, test := range []struct{ endpoint, body, want string }{
		{"m", `{`, "not JSON"},
		{"m", `{"request_id": "a", "truth": NaN}`, "not JSON"},
		{"m", `{"request_id": "a", "truth": 1} x`, "not one JSON value"},
		{"m", `7`, "The body must be an object"},
		{"m", `[{"request_id": "ok", "truth": 1}, 7]`, "[1] must be an object"},
		{"m", `{"truth": 1}`, "request_id is missing"},
		{"m", `{"request_id": "a"}`, "truth is missing"},
		{"m", `{"request_id": "", "truth": 1}`, "request_id must be a text"},
		{"m", `{"request_id": "` + strings.Repeat("x", maxKey+1) + `", "truth": 1}`, "request_id must be a text"},
		{"m", `{"request_id": {}, "truth": 1}`, "request_id must be a text"},
		{"m", `{"key": "a", "truth": 1}`, "key: this endpoint has no field with the client's key: send request_id"},
		{"k", `{"request_id": "a", "truth": 1}`, "request_id: feedback about this endpoint names the client's key: send key, the value of id"},
		{"m", `{"request_id": "a", "truth": 1, "weight": 2}`, "weight: there is no such field"},
		{"m", `[{"request_id": "ok", "truth": 1}, {"request_id": "a", "truth": null}]`, "[1].truth must be a class"},
		{"m", `{"request_id": "a", "truth": {}}`, "truth must be a class"},
		{"m", `{"request_id": "a", "truth": []}`, "truth must have 1 to"},
		{"m", `{"request_id": "a", "truth": "` + strings.Repeat("x", maxClass+1) + `"}`, "truth must be a class"},
		{"m", `{"request_id": "two", "truth": 1}`, "truth has 1 values, but 2 were predicted"},
		{"r", `{"request_id": "a", "truth": "7"}`, "truth must be a number"},
		{"r", `{"request_id": "a", "truth": [1, true]}`, "truth[1] must be a number"},
		{"r", `{"request_id": "a", "truth": 1e999}`, "truth must be a number"},
		{"m", many, "10001 items: send at most 10000"},
	} {
		status, answer := s.Take(serving.EndpointURL(test.endpoint), []byte(test.body))
		if status != http.StatusUnprocessableEntity || !strings.Contains(string(answer), test.want) {
			t.Errorf("%.80s: %d %s, want 422 with %q", test.body, status, answer, test.want)
		}
	}
	if status, answer := s.Take("other", []byte(`{}`)); status != http.StatusConflict || !strings.Contains(string(answer), "feedback set --endpoint other") {
		t.Errorf("an endpoint that keeps nothing: %d %s", status, answer)
	}
	if got := s.Report("m"); len(got.Versions) != 0 || got.Waiting != 0 {
		t.Errorf("a part of a refused list was stored: %+v", got)
	}
}

func TestFeedbackNamesRowsByTheClientsKey(t *testing.T) {
	s, c := openStore(t, t.TempDir(), map[serving.EndpointURL]serving.Feedback{"m": {Task: serving.TaskRegression, Prediction: "rows.y", Key: "rows.id"}})
	s.Observe(answered(c, "m", "m", "r", `{"rows": [{"id": 7}, {"id": "b"}]}`, `{"rows": [{"y": 1.5}, {"y": 2}]}`))
	if got := take(t, s, "m", `[{"key": "7", "truth": 2}, {"key": "b", "truth": 2}]`); got.Joined != 2 {
		t.Errorf("%+v", got)
	}
	if m := measures(s, "m"); m[MAE] != 0.25 || m[RMSE] != math.Sqrt(0.125) {
		t.Errorf("%v", m)
	}
}

func TestFeedbackOfANameReachesItsVersionsAndCanaries(t *testing.T) {
	option := serving.Feedback{Task: serving.TaskClassification, Prediction: "y"}
	s, c := openStore(t, t.TempDir(), map[serving.EndpointURL]serving.Feedback{"m/1": option, "m/2": option, "other": option})
	s.Observe(answered(c, "canary", "m/1", "a", "{}", `{"y": 1}`))
	s.Observe(answered(c, "m/2", "m/2", "b", "{}", `{"y": 1}`))
	s.Observe(answered(c, "m/2", "m/2", "c", "{}", `{"y": 1}`))
	if got := take(t, s, "m/1", `{"request_id": "a", "truth": 1}`); got.Joined != 1 {
		t.Errorf("by the endpoint that answered: %+v", got)
	}
	if got := take(t, s, "m", `{"request_id": "b", "truth": 0}`); got.Joined != 1 {
		t.Errorf("by the name: %+v", got)
	}
	if got := take(t, s, "other", `{"request_id": "c", "truth": 1}`); got.Pending != 1 {
		t.Errorf("of another endpoint: %+v", got)
	}
	if r := s.Report("m"); len(r.Versions) != 2 || r.Versions[0].All.Correct != 1 || r.Versions[1].All.Correct != 0 {
		t.Errorf("%+v", r)
	}
}

func TestAnswersWithoutAUsablePredictionAreCounted(t *testing.T) {
	s, c := openStore(t, t.TempDir(), map[serving.EndpointURL]serving.Feedback{
		"m": {Task: serving.TaskClassification, Prediction: "y", Score: "p", Classes: []string{"cat", "dog"}}, "r": {Task: serving.TaskRegression, Prediction: "y", Key: "id"},
	})
	for _, test := range []struct {
		url          serving.EndpointURL
		body, answer string
		reason       skipError // "": kept
	}{
		{"m", "{}", `not JSON`, skipJSON},
		{"m", "{}", `{"y": NaN}`, skipJSON},
		{"m", "{}", `{"z": 1}`, skipPrediction},
		{"m", "{}", `{"y": null}`, skipPrediction},
		{"m", "{}", `{"y": {}}`, skipPrediction},
		{"m", "{}", `{"y": []}`, skipPrediction},
		{"m", "{}", `{"y": [` + strings.Repeat("1,", maxRows) + `1]}`, skipSize},
		{"m", "{}", `{"y": 1}`, skipScore},
		{"m", "{}", `{"y": 1, "p": 1.5}`, skipScore},
		{"m", "{}", `{"y": 1, "p": "high"}`, skipScore},
		{"m", "{}", `{"y": [1, 2], "p": [0.5]}`, skipScore},
		{"m", "{}", `{"y": "cat", "p": [0.2, 0.3, 0.5]}`, skipScore},
		{"m", "{}", `{"y": "cat", "p": [0.8, 0.2]}`, ""},
		{"m", "{}", `{"y": ["cat", "dog"], "p": [[0.8, 0.2], [0.1, 0.9]]}`, ""},
		{"m", "{}", `{"y": "cat", "p": {"cat": 0.8, "dog": 0.2}}`, ""},
		{"r", `{"id": 1}`, `{"y": "1"}`, skipPrediction},
		{"r", `{"id": 1}`, `{"y": 1e999}`, skipPrediction},
		{"r", `{}`, `{"y": 1}`, skipKey},
		{"r", `{"id": {}}`, `{"y": 1}`, skipKey},
		{"r", `{"id": [1, 2]}`, `{"y": 1}`, skipKey},
		{"r", `raw`, `{"y": 1}`, skipJSON},
		{"r", `{"id": 1.0}`, `{"y": 1.5}`, ""},
	} {
		before := s.Report(test.url)
		s.Observe(answered(c, test.url, test.url, fmt.Sprintf("%p", &test), test.body, test.answer))
		s.keep(nil)
		after := s.Report(test.url)
		if test.reason != "" && after.Skipped[string(test.reason)] != before.Skipped[string(test.reason)]+1 {
			t.Errorf("%.60s: skipped %v, want one more for %s", test.answer, after.Skipped, test.reason)
		}
		if kept := test.reason == "" || test.reason == skipScore; kept != (after.Kept > before.Kept) {
			t.Errorf("%.60s: kept %d, before %d", test.answer, after.Kept, before.Kept)
		}
	}
	o := answered(c, "m", "m", "failed", "{}", `{"y": 1, "p": 1}`)
	o.Status = 500
	before := s.Report("m").Kept
	s.Observe(o)
	s.keep(nil)
	if after := s.Report("m").Kept; after != before {
		t.Error("a failed request was kept as a prediction")
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s, c := openStore(t, dir, classes)
	predict(s, c, "a", `{"y": 1, "p": 0.9}`)
	predict(s, c, "b", `{"y": 0, "p": 0.2}`)
	take(t, s, "m", `[{"request_id": "a", "truth": 0}, {"request_id": "c", "truth": 1}]`)
	want, text := s.Report("m"), scrapeText(t, s)
	s.close() // nothing is written at the end: this is as after a kill
	s, c = openStore(t, dir, classes)
	if got := s.Report("m"); fmt.Sprint(got.Outcomes, got.Waiting, got.Kept, got.Bytes, got.Versions[0].All.Measures()) != fmt.Sprint(want.Outcomes, want.Waiting, want.Kept, want.Bytes, want.Versions[0].All.Measures()) {
		t.Errorf("after a restart %+v, before %+v", got, want)
	}
	if after := scrapeText(t, s); after != text {
		t.Errorf("metrics after a restart:\n%s\nbefore:\n%s", after, text)
	}
	if got := take(t, s, "m", `[{"request_id": "a", "truth": 0}, {"request_id": "b", "truth": 0}]`); got != (Taken{Accepted: 2, Joined: 1, Duplicate: 1}) {
		t.Errorf("after a restart: %+v", got)
	}
	predict(s, c, "c", `{"y": 1, "p": 0.7}`)
	if got := s.Report("m"); got.Outcomes[countJoined] != 3 {
		t.Errorf("the pending truth was lost: %+v", got)
	}
}

func scrapeText(t *testing.T, s *Store) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(all)
}

func TestPredictionsAreBoundedByTimeAndSize(t *testing.T) {
	s, c := openStore(t, t.TempDir(), map[serving.EndpointURL]serving.Feedback{"m": {Task: serving.TaskClassification, Prediction: "y", Days: 2, MaxMiB: 1}})
	predict(s, c, "old", `{"y": 1}`)
	take(t, s, "m", `{"request_id": "nobody", "truth": 1}`)
	c.add(49 * time.Hour)
	predict(s, c, "new", `{"y": 1}`)
	s.tidy()
	r := s.Report("m")
	if r.Kept != 1 || r.Waiting != 0 || r.Outcomes[countUnmatched] != 1 {
		t.Errorf("after the retention: %+v", r)
	}
	if got := take(t, s, "m", `[{"request_id": "old", "truth": 1}, {"request_id": "new", "truth": 1}]`); got.Joined != 1 || got.Pending != 1 {
		t.Errorf("late feedback: %+v", got)
	}
	word := strings.Repeat("x", maxClass)
	for i := range 6000 { // 2 MB
		s.Observe(answered(c, "m", "m", fmt.Sprint(i), "{}", `{"y": "`+word+`"}`))
		if i%1000 == 999 {
			c.add(time.Second)
			s.keep(nil)
		}
	}
	s.tidy()
	if r := s.Report("m"); r.Bytes > 1<<20 || r.Kept < 1000 {
		t.Errorf("after too many: %d predictions, %d bytes", r.Kept, r.Bytes)
	}
	if got := take(t, s, "m", `[{"request_id": "5999", "truth": 1}, {"request_id": "0", "truth": 1}]`); got.Joined != 1 {
		t.Errorf("the newest are kept, the oldest not: %+v", got)
	}
}

func TestPredictionsOfAnEndpointThatKeepsNoMoreEndWithTheirTime(t *testing.T) {
	dir := t.TempDir()
	if s, _ := openStore(t, dir, nil); s.db.Load() != nil {
		t.Error("a file is made although nothing is kept")
	}
	s, c := openStore(t, dir, classes)
	predict(s, c, "a", `{"y": 1}`)
	s.close()
	s, c = openStore(t, dir, nil) // as after feedback set --off and a restart
	if r := s.Report("m"); r.Kept != 1 {
		t.Errorf("after a restart: %+v", r)
	}
	c.add((serving.DefaultFeedbackDays*24 + 1) * time.Hour)
	s.tidy()
	if r := s.Report("m"); r.Kept != 0 {
		t.Errorf("after their time: %+v", r)
	}
}

func TestSumsOfVersionsThatAreLongGoneAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s, c := openStore(t, dir, map[serving.EndpointURL]serving.Feedback{"m": {Task: serving.TaskClassification, Days: 2}})
	predict(s, c, "a", "1")
	take(t, s, "m", `{"request_id": "a", "truth": 1}`)
	c.add(40 * 24 * time.Hour)
	s.tidy()
	if text := scrapeText(t, s); strings.Contains(text, "quality_rows_total") {
		t.Error("a version that is not served is exposed after 40 days")
	}
	if r := s.Report("m"); len(r.Versions) != 1 || len(r.Versions[0].Days) != 1 {
		t.Errorf("after 40 days: %+v", r)
	}
	c.add(400 * 24 * time.Hour)
	s.tidy()
	if r := s.Report("m"); len(r.Versions) != 0 {
		t.Errorf("after 440 days: %+v", r)
	}
	s.close()
	s, _ = openStore(t, dir, classes)
	if r := s.Report("m"); len(r.Versions) != 0 {
		t.Errorf("after a restart: %+v", r)
	}
}

func TestTenThousandClassesAreBounded(t *testing.T) {
	s, c := openStore(t, t.TempDir(), map[serving.EndpointURL]serving.Feedback{"m": {Task: serving.TaskClassification}})
	for i := range 10 {
		var answer, truth []string
		for k := range 1000 {
			answer, truth = append(answer, fmt.Sprint(i*1000+k)), append(truth, fmt.Sprint(i*1000+k))
		}
		s.Observe(answered(c, "m", "m", fmt.Sprint(i), "{}", "["+strings.Join(answer, ",")+"]"))
		take(t, s, "m", fmt.Sprintf(`{"request_id": "%d", "truth": [%s]}`, i, strings.Join(truth, ",")))
	}
	all := s.Report("m").Versions[0].All
	if len(all.Classes) > maxClasses+1 || all.Rows != 10_000 || all.Measures()[Accuracy] != 1 {
		t.Errorf("%d classes, %d rows, %v", len(all.Classes), all.Rows, all.Measures())
	}
}

func TestADamagedFileIsSetAside(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "feedback-1.db")
	if err := os.WriteFile(file, bytes.Repeat([]byte("damaged "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	s, c := openStore(t, dir, classes)
	predict(s, c, "a", `{"y": 1, "p": 0.9}`)
	if got := s.Report("m").Kept; got != 1 {
		t.Errorf("%d predictions kept", got)
	}
	if _, err := os.Stat(file + ".damaged"); err != nil {
		t.Error(err)
	}
}

func TestInstancesThatShareAFolderHaveAFileEach(t *testing.T) {
	dir := t.TempDir()
	one, c := openStore(t, dir, classes)
	two, _ := openStore(t, dir, classes)
	predict(one, c, "a", `{"y": 1, "p": 0.9}`)
	if a, b := one.db.Load().path, two.db.Load().path; a == b {
		t.Errorf("both use %s", a)
	}
	if got := take(t, two, "m", `{"request_id": "a", "truth": 1}`); got.Pending != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAFullDiskRefusesFeedbackAndCountsPredictions(t *testing.T) {
	s, c := openStore(t, t.TempDir(), classes)
	predict(s, c, "a", `{"y": 1, "p": 0.9}`)
	if _, err := s.db.Load().db.ExecContext(t.Context(), "PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("x", 150)
	var all []string
	for i := range 2000 {
		all = append(all, fmt.Sprintf(`{"request_id": "%s%d", "truth": "%s"}`, huge[:50], i, huge))
		s.Observe(answered(c, "m", "m", fmt.Sprint(huge, i), "{}", `{"y": "`+huge+`", "p": 0.5}`))
	}
	status, answer := s.Take("m", []byte("["+strings.Join(all, ",")+"]"))
	if status != http.StatusServiceUnavailable || !strings.Contains(string(answer), "full") {
		t.Errorf("%d %s", status, answer)
	}
	if r := s.Report("m"); r.Dropped == 0 || r.Problem == "" || r.Waiting != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := s.db.Load().db.ExecContext(t.Context(), "PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if got := take(t, s, "m", `{"request_id": "a", "truth": 1}`); got.Joined != 1 {
		t.Errorf("with space again: %+v", got)
	}
	if r := s.Report("m"); r.Problem != "" {
		t.Errorf("%+v", r)
	}
}

func TestObserveNeverBlocks(t *testing.T) {
	s, c := openStore(t, t.TempDir(), classes)
	s.mu.Lock() // as while the disk hangs
	defer s.mu.Unlock()
	for i := range queueLength + 10 {
		o := answered(c, "m", "m", fmt.Sprint(i), "{}", `{"y": 1}`)
		if s.Admits("m", sizeOf(o)) {
			s.Observe(o)
		}
	}
	if got := s.drops()["m"]; got != 10 {
		t.Errorf("%d dropped", got)
	}
	_ = scrapeText(t, s) // neither does a scrape
}

func TestFeedbackIsTakenWhilePredictionsComeFasterThanTheyAreStored(t *testing.T) {
	s, c := openStore(t, t.TempDir(), classes)
	end := make(chan struct{})
	var asking sync.WaitGroup
	defer asking.Wait()
	defer close(end)
	full := make(chan struct{})
	asking.Go(func() {
		o := answered(c, "m", "m", "a", "{}", `{"y": 1}`)
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			s.Observe(o)
			if i == queueLength {
				close(full)
			}
		}
	})
	<-full
	status := make(chan int, 1)
	go func() {
		code, _ := s.Take("m", []byte(`{"request_id": "a", "truth": 1}`))
		status <- code
	}()
	select {
	case code := <-status:
		if code != http.StatusOK {
			t.Errorf("feedback: %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Error("feedback waits for requests that never end")
	}
}

func TestTruthsReachTheInstanceThatAnswered(t *testing.T) {
	servers := map[string]*Store{}
	transport := between(t, servers)
	var list []Peer
	c := &clock{now: testTime}
	for _, host := range []string{"one", "two", "gone"} {
		identity, err := serving.NewIdentity()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Peer{URL: "http://" + host, Key: identity.Public()})
		if host == "gone" {
			continue
		}
		s := New(Options{Dir: t.TempDir(), now: c.Now, Identity: identity, Client: transport, Peers: func(context.Context) ([]Peer, error) { return list, nil }})
		s.Follow(serving.Plan{Options: map[serving.EndpointURL]serving.EndpointOptions{"m x": {Feedback: &serving.Feedback{Task: serving.TaskClassification, Prediction: "y"}}}})
		t.Cleanup(s.close)
		servers[host] = s
	}
	one, two := servers["one"], servers["two"]
	two.Observe(answered(c, "m x", "m x", "a", "{}", `{"y": 1}`))
	two.Observe(answered(c, "m x", "m x", "b", "{}", `{"y": [1, 2]}`))
	take(t, one, "m x", `[{"request_id": "a", "truth": 1}, {"request_id": "b", "truth": 1}, {"request_id": "c", "truth": 1}]`)
	if more, err := one.offerOnce(t.Context()); !more || err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("an instance cannot be reached: %v %v", more, err)
	}
	if r := two.Report("m x"); len(r.Versions) != 1 || r.Versions[0].All.Correct != 1 || r.Outcomes[countJoined] != 1 {
		t.Errorf("the instance that answered: %+v", r)
	}
	r := one.Report("m x")
	if r.Waiting != 1 || r.Outcomes[countElsewhere] != 1 || r.Outcomes[countMismatch] != 1 {
		t.Errorf("the instance that got the truths: %+v", r)
	}
	if more, err := one.offerOnce(t.Context()); more || err != nil {
		t.Errorf("the next offer is not due: %v %v", more, err)
	}
	two.Observe(answered(c, "m x", "m x", "c", "{}", `{"y": 1}`))
	c.add(firstRetry * 2)
	if _, err := one.offerOnce(t.Context()); err != nil {
		t.Errorf("nothing is left for the instance that is away: %v", err)
	}
	if r := one.Report("m x"); r.Waiting != 0 || r.Outcomes[countElsewhere] != 2 {
		t.Errorf("after the second offer: %+v", r)
	}

	stranger, err := serving.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`[]`)
	good := one.sign(body)
	forged := New(Options{Identity: stranger, now: c.Now}).sign(body)
	for header, want := range map[string]string{
		"": "form", "x y z w": "time", good[:len(good)-4] + "AAAA": "signature", forged: "no instance",
		strings.Replace(good, " ", " 1", 1): "time",
	} {
		if err := two.Verify(header); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("header %q: %v, want %s", header, err, want)
		}
	}
	if err := two.Verify(good); err != nil {
		t.Error(err)
	}
	if status, _ := two.TakeOver(good, "m x", []byte(`[{"key":"a"}]`)); status != http.StatusForbidden {
		t.Errorf("another body than the signed one: %d", status)
	}
}

// Instances whose clocks differ exchange truths, up to a limit; beyond it the error names the clocks, and the truth
// waits until they are set.
func TestInstancesWithDifferentClocks(t *testing.T) {
	for _, tc := range []struct {
		ahead time.Duration
		want  string
	}{
		{4 * time.Minute, ""},
		{-4 * time.Minute, ""},
		{3 * time.Hour, "differs by 3h0m0s"},
		{-6 * time.Minute, "differs by 6m0s"},
	} {
		t.Run(tc.ahead.String(), func(t *testing.T) {
			servers := map[string]*Store{}
			var list []Peer
			wrong, right := &clock{now: testTime.Add(tc.ahead)}, &clock{now: testTime}
			for host, c := range map[string]*clock{"wrong": wrong, "right": right} {
				identity, err := serving.NewIdentity()
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, Peer{URL: "http://" + host, Key: identity.Public()})
				s := New(Options{
					Dir: t.TempDir(), now: c.Now, Identity: identity, Client: between(t, servers),
					Peers: func(context.Context) ([]Peer, error) { return list, nil },
				})
				s.Follow(serving.Plan{Options: map[serving.EndpointURL]serving.EndpointOptions{"m x": {Feedback: &serving.Feedback{Task: serving.TaskClassification, Prediction: "y"}}}})
				t.Cleanup(s.close)
				servers[host] = s
			}
			servers["right"].Observe(answered(right, "m x", "m x", "a", "{}", `{"y": 1}`))
			take(t, servers["wrong"], "m x", `[{"request_id": "a", "truth": 1}]`)
			_, err := servers["wrong"].offerOnce(t.Context())
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "set the clocks") {
					t.Errorf("the offer: %v, want %s", err, tc.want)
				}
				if r := servers["wrong"].Report("m x"); r.Waiting != 1 {
					t.Errorf("the truth is lost: %+v", r)
				}
				later := testTime.Add(max(tc.ahead, 0) + time.Minute) // both clocks are right, and the next offer is due
				wrong.add(later.Sub(wrong.Now()))
				right.add(later.Sub(right.Now()))
				_, err = servers["wrong"].offerOnce(t.Context())
			}
			if err != nil {
				t.Errorf("the offer: %v", err)
			}
			if r := servers["right"].Report("m x"); r.Outcomes[countJoined] != 1 {
				t.Errorf("the instance that answered: %+v", r)
			}
		})
	}
}

// between carries requests of instances to each other, by the names of their hosts.
func between(t *testing.T, servers map[string]*Store) Doer {
	t.Helper()
	return doer(func(r *http.Request) (int, []byte) {
		s := servers[r.URL.Host]
		if s == nil {
			return http.StatusBadGateway, nil
		}
		if r.URL.Path == serving.IdentityPath {
			proof, _ := s.o.Identity.Prove(r.URL.Query().Get("challenge"))
			text, err := json.Marshal(proof)
			if err != nil {
				t.Error(err)
			}
			return http.StatusOK, text
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(r.Body); err != nil {
			t.Error(err)
		}
		header := r.Header.Get(serving.PeerHeader)
		if err := s.Verify(header); err != nil {
			return http.StatusForbidden, []byte(err.Error())
		}
		return s.TakeOver(header, serving.CleanURL(strings.TrimPrefix(r.URL.Path, "/feedback/")), body.Bytes())
	})
}

// doer answers requests of instances to each other.
type doer func(*http.Request) (int, []byte)

func (d doer) Do(r *http.Request) (*http.Response, error) {
	status, body := d(r)
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: readCloser{bytes.NewReader(body)}}, nil
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func TestRunKeepsTheRestOfTheQueueAtItsEnd(t *testing.T) {
	dir := t.TempDir()
	s, c := openStore(t, dir, classes)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		s.Run(ctx)
		close(done)
	}()
	for i := range 100 {
		s.Observe(answered(c, "m", "m", fmt.Sprint(i), "{}", `{"y": 1, "p": 0.5}`))
	}
	cancel()
	<-done
	s, _ = openStore(t, dir, classes)
	if got := s.Report("m").Kept; got != 100 {
		t.Errorf("%d predictions kept", got)
	}
}

func TestCanonicalNames(t *testing.T) {
	for text, want := range map[string]string{"1.0": "1", "-3.000": "-3", "007": "007", "1.50": "1.50", "True": "true", "10": "10", "a.0": "a.0", "": "", "0.0": "0", "00.0": "00.0"} {
		if got := canonical(text); got != want {
			t.Errorf("canonical(%q) = %q, want %q", text, got, want)
		}
	}
}

// What is acknowledged afterwards is in a file that the next start reads.
func TestAFileThatIsRemovedOrDamagedWhileItIsUsedIsBegunAgain(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"folder removed": os.RemoveAll,
		"file removed":   func(dir string) error { return os.Remove(filepath.Join(dir, "feedback-1.db")) },
		"log removed":    func(dir string) error { return os.Remove(filepath.Join(dir, "feedback-1.db-wal")) },
		"file replaced by a folder": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "feedback-1.db")), os.Mkdir(filepath.Join(dir, "feedback-1.db"), 0o700))
		},
		"file damaged": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "feedback-1.db"), bytes.Repeat([]byte("garbage "), 10_000), 0o600)
		},
		"file truncated": func(dir string) error { return os.Truncate(filepath.Join(dir, "feedback-1.db"), 100) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "feedback")
			s, c := openStore(t, dir, classes)
			predict(s, c, "a", `{"y": 1, "p": 0.9}`)
			if err := harm(dir); err != nil {
				t.Fatal(err)
			}
			status := 0
			for i := 0; i < 50 && status != http.StatusOK; i++ { // some damage is seen only in the middle of a write
				status, _ = s.Take("m", []byte(`{"request_id": "b", "truth": 1}`))
			}
			if status != http.StatusOK {
				t.Fatalf("no feedback is taken any more: %s", *s.problem.Load())
			}
			s.close()
			again, c := openStore(t, dir, classes)
			predict(again, c, "b", `{"y": 1, "p": 0.9}`)
			if got := again.Report("m").Outcomes[countJoined]; got != 1 {
				t.Errorf("%d joined after a restart, want 1: an acknowledged truth is lost", got)
			}
		})
	}
}

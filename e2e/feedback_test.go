//go:build linux

package e2e_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// loans answers with the predictions in the request.
const loans = `class Preprocess:
    def load(self, path):
        return None

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"y": [r["y"] for r in data["rows"]], "p": [r["p"] for r in data["rows"]]}
`

// loanData are files of predictions and of the truths that came later: those of NannyML's labelled
// data set, if it is there (make e2e-feedback), or random ones of its form.
func loanData(t *testing.T, dir string) (predictions, truths string) {
	t.Helper()
	if data := os.Getenv("CLEARML_SERVING_LOAN_DATA"); data != "" {
		return filepath.Join(data, "synthetic_car_loan_analysis.csv"), filepath.Join(data, "synthetic_car_loan_analysis_target.csv")
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	var p, y strings.Builder
	p.WriteString("id,y_pred_proba,y_pred\n")
	y.WriteString("id,repaid\n")
	for id := range 5000 {
		score := math.Round(random.Float64()*100) / 100
		predicted, repaid := 0, 0
		if score >= 0.5 {
			predicted = 1
		}
		if random.Float64() < score {
			repaid = 1
		}
		fmt.Fprintf(&p, "%d,%v,%d\n", id, score, predicted)
		fmt.Fprintf(&y, "%d,%d\n", id, repaid)
	}
	predictions, truths = filepath.Join(dir, "predictions.csv"), filepath.Join(dir, "truths.csv")
	for path, text := range map[string]string{predictions: p.String(), truths: y.String()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return predictions, truths
}

// readCSV returns the named columns of the rows.
func readCSV(t *testing.T, path string, names ...string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is only read
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, record := range all[1:] {
		row := make([]string, len(names))
		for i, name := range names {
			row[i] = record[slices.Index(all[0], name)]
		}
		rows = append(rows, row)
	}
	return rows
}

type shownQuality struct {
	Versions []map[string]any
	Feedback map[string]int
	Pending  int
	// Predictions is the number of kept ones.
	Predictions int
}

func (s *system) quality(t *testing.T, endpoint string) (q shownQuality) {
	t.Helper()
	decode(t, s.must(t, "--json", "feedback", "show", "--endpoint", endpoint), &q)
	return q
}

func TestFeedbackGivesTheQualityThatScikitLearnComputes(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "loans")
	code := writeCode(t, s, "loans.py", loans)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "loans", "--version", "1", "--preprocess", code, "--wait")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "numbers", "--preprocess", code, "--wait")
	s.must(t, "feedback", "set", "--endpoint", "loans/1", "--prediction", "y", "--score", "p", "--key", "rows.id", "--wait")
	s.must(t, "feedback", "set", "--endpoint", "numbers", "--prediction", "p", "--task", "regression", "--key", "rows.id", "--wait")

	predictions, truths := loanData(t, s.dir)
	rows := readCSV(t, predictions, "id", "y_pred", "y_pred_proba")
	// Half of the truths come before their predictions.
	early, late := filepath.Join(s.dir, "early.csv"), filepath.Join(s.dir, "late.csv")
	var text [2]strings.Builder
	for i, row := range readCSV(t, truths, "id", "repaid") {
		half := &text[i%2]
		if half.Len() == 0 {
			half.WriteString("id,repaid\n")
		}
		half.WriteString(strings.Join(row, ",") + "\n")
	}
	for i, path := range []string{early, late} {
		if err := os.WriteFile(path, []byte(text[i].String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.must(t, "feedback", "import", early, "--endpoint", "loans")
	s.must(t, "feedback", "import", early, "--endpoint", "numbers")

	const batch = 500
	for i := 0; i < len(rows); i += batch {
		var body strings.Builder
		body.WriteString(`{"rows": [`)
		for k, row := range rows[i:min(i+batch, len(rows))] {
			if k > 0 {
				body.WriteByte(',')
			}
			fmt.Fprintf(&body, `{"id": %s, "y": %s, "p": %s}`, row[0], row[1], row[2])
		}
		body.WriteString(`]}`)
		for _, endpoint := range []string{"loans/1", "numbers"} {
			if status, answer := s.ask(t, endpoint, body.String()); status != http.StatusOK {
				t.Fatalf("%s: %d %s", endpoint, status, answer)
			}
		}
		if i == len(rows)/2/batch*batch { // what is in the file outlives the process
			for _, endpoint := range []string{"loans", "numbers"} {
				s.eventually(t, patience, "the predictions are kept", func() error {
					if q := s.quality(t, endpoint); q.Predictions != i+batch {
						return fmt.Errorf("%d of %d predictions of %s", q.Predictions, i+batch, endpoint)
					}
					return nil
				})
			}
			s.kill(t)
			s.start(t, role{})
			s.ready(t, "loans/1")
			s.ready(t, "numbers")
		}
	}
	for _, endpoint := range []string{"loans", "numbers"} {
		s.must(t, "feedback", "import", late, "--endpoint", endpoint)
		out := s.must(t, "feedback", "import", late, "--endpoint", endpoint) // again, as after an interruption
		if want := fmt.Sprintf("%d truths: 0 joined, 0 wait for their predictions, %[1]d known already\n", len(rows)/2); !strings.HasSuffix(out, want) {
			t.Errorf("the second import of %s: %s, want %s", endpoint, out, want)
		}
	}

	var want map[string]float64
	decode(t, s.python(t, pythonSDK2, "quality.py", predictions, truths), &want)
	check := func(endpoint string, names ...string) {
		q := s.quality(t, endpoint)
		if len(q.Versions) != 1 || q.Pending != 0 || q.Feedback["joined"] != len(rows) || q.Feedback["duplicate"] != len(rows)/2 {
			t.Fatalf("%s: %+v", endpoint, q)
		}
		for _, name := range names {
			got, _ := q.Versions[0][name].(float64)
			if math.Abs(got-want[name]) > 1e-9 {
				t.Errorf("%s: %s is %v, scikit-learn has %v", endpoint, name, got, want[name])
			}
		}
		t.Log(endpoint, want)
	}
	check("loans", "rows", "accuracy", "f1_macro", "f1_binary", "log_loss", "ece")
	check("numbers", "rows", "mae", "rmse")
	s.kill(t)
	s.start(t, role{})
	s.ready(t, "loans/1")
	check("loans", "rows", "accuracy", "f1_macro", "f1_binary", "log_loss", "ece")

	text2 := s.wantMetrics(t, fmt.Sprintf(`quality_rows_total{endpoint="loans",version="1"} %d`, len(rows)),
		fmt.Sprintf(`feedback_total{endpoint="loans",outcome="joined",version=""} %d`, len(rows)),
		fmt.Sprintf(`quality_absolute_error_count{endpoint="numbers",version=""} %d`, len(rows)))
	for line, value := range map[string]float64{
		`quality_log_loss_sum{endpoint="loans",version="1"} `:  want["log_loss"] * want["rows"],
		`quality_correct_total{endpoint="loans",version="1"} `: want["accuracy"] * want["rows"],
	} {
		_, rest, _ := strings.Cut(text2, "\nclearml_serving_"+line)
		number, _, _ := strings.Cut(rest, "\n")
		if got, err := strconv.ParseFloat(number, 64); err != nil || math.Abs(got-value) > 1e-6 {
			t.Errorf("%s%s, want %v", line, number, value)
		}
	}
	// A canary's rules and the charts read the same by PromQL.
	s.wantSeries(t, `max by (endpoint, version) (clearml_serving_quality_rows_total{endpoint="loans"})`, fmt.Sprintf(`{"endpoint":"loans","version":"1"} %d`, len(rows)))
	s.wantSeries(t, `max by (endpoint, version) (clearml_serving_quality_window_rows{endpoint="loans"})`, `{"endpoint":"loans","version":"1"} 1000`)
	var exported int
	for line := range strings.Lines(s.must(t, "feedback", "export", "--endpoint", "loans")) {
		var one struct{ Prediction, Truth []string }
		decode(t, line, &one)
		exported += len(one.Truth)
	}
	if exported != len(rows) {
		t.Errorf("%d rows exported, want %d", exported, len(rows))
	}
}

// ready waits until an endpoint answers.
func (s *system) ready(t *testing.T, endpoint string) {
	t.Helper()
	s.eventually(t, patience, endpoint+" is ready", func() error {
		if status, answer := s.ask(t, endpoint, `{"rows": []}`); status != http.StatusOK {
			return statusError(status, answer)
		}
		return nil
	})
}

func TestFeedbackIsCountedExactlyOverKills(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "loans")
	code := writeCode(t, s, "loans.py", loans)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "loans", "--preprocess", code, "--wait")
	s.must(t, "feedback", "set", "--endpoint", "loans", "--prediction", "y", "--key", "rows.id", "--wait")
	const all = 3000
	for i := 0; i < all; i += 1000 {
		var rows []string
		for k := i; k < i+1000; k++ {
			rows = append(rows, fmt.Sprintf(`{"id": %d, "y": %d, "p": 0}`, k, k%3))
		}
		if status, answer := s.ask(t, "loans", `{"rows": [`+strings.Join(rows, ",")+`]}`); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	s.eventually(t, patience, "the predictions are kept", func() error {
		if q := s.quality(t, "loans"); q.Predictions != all {
			return fmt.Errorf("%d predictions", q.Predictions)
		}
		return nil
	})
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // test data
	kills := 5
	for i := 0; i < all; i += 5 {
		var items []string
		for k := i; k < i+5; k++ {
			items = append(items, fmt.Sprintf(`{"key": %d, "truth": %d}`, k, k%2))
		}
		body := "[" + strings.Join(items, ",") + "]"
		if kills > 0 && random.IntN(all/5/6) == 0 { // while the request is under way
			kills--
			done := make(chan struct{})
			go func() {
				defer close(done)
				roundTrip(http.MethodPost, s.urls["serve"]+"/feedback/loans", "application/json", strings.NewReader(body))
			}()
			time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
			s.kill(t)
			<-done
			s.start(t, role{})
		}
		s.eventually(t, patience, "the truths are taken", func() error {
			if status, answer := roundTrip(http.MethodPost, s.urls["serve"]+"/feedback/loans", "application/json", strings.NewReader(body)); status != http.StatusOK {
				if status == http.StatusNotFound {
					t.Fatalf("the endpoint is unknown after a start: %s", answer)
				}
				return statusError(status, answer)
			}
			return nil
		})
	}
	if kills > 0 {
		t.Errorf("%d kills have not happened", kills)
	}
	q := s.quality(t, "loans")
	// Of each six, k%3 is k%2 for 0 and 1.
	if len(q.Versions) != 1 || q.Versions[0]["rows"] != float64(all) || q.Versions[0]["accuracy"] != 1./3 || q.Feedback["joined"] != all || q.Pending != 0 {
		t.Errorf("after the kills: %+v", q)
	}
}

func TestFeedbackReachesTheInstanceThatAnswered(t *testing.T) {
	s := up(t)
	var service struct{ ID string }
	decode(t, s.must(t, "--json", "create", "--name", "loans"), &service)
	code := writeCode(t, s, "loans.py", loans)
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "loans", "--preprocess", code, "--wait")
	s.must(t, "feedback", "set", "--endpoint", "loans", "--prediction", "y", "--score", "p", "--wait")
	other := instance(t, s, service.ID)
	other.ready(t, "loans")

	for i := range 10 {
		header := []string{"X-Request-Id", fmt.Sprintf("loan-%d", i)}
		if status, answer := roundTrip(http.MethodPost, other.urls["serve"]+"/serve/loans", "application/json", strings.NewReader(`{"rows": [{"y": 1, "p": 0.9}]}`), header...); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		truth, err := json.Marshal(map[string]any{"request_id": header[1], "truth": []int{i % 2}})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := roundTrip(http.MethodPost, s.urls["serve"]+"/feedback/loans", "application/json", strings.NewReader(string(truth))); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	s.eventually(t, patience, "the truths come to the instance that answered", func() error {
		q := s.quality(t, "loans") // of both instances
		if len(q.Versions) != 1 || q.Versions[0]["accuracy"] != 0.5 || q.Pending != 0 || !maps.Equal(q.Feedback, map[string]int{"joined": 10, "elsewhere": 10}) {
			return fmt.Errorf("%+v", q)
		}
		return nil
	})
}

// A candidate whose answers are fast and without errors, but wrong, is found by what turned out to be
// true.
func TestACanaryThatPredictsWorseIsTakenBackByItsFeedback(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "canary")
	for version, answer := range map[string]string{"1": "data['x']", "2": "0"} {
		code := writeCode(t, s, "v"+version+".py", "class Preprocess:\n    def process(self, data, state, collect=None):\n        return {'y': "+answer+"}\n")
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", "m", "--version", version, "--preprocess", code, "--wait")
	}
	s.must(t, "feedback", "set", "--endpoint", "m", "--prediction", "y", "--wait")
	quality := func(version string) string {
		return `sum(clearml_serving_quality_correct_total{endpoint="m",version="` + version + `"}) / sum(clearml_serving_quality_rows_total{endpoint="m",version="` + version + `"})`
	}
	guard := quality("2") + " < " + quality("1") + ` - 0.2 and sum(clearml_serving_quality_rows_total{endpoint="m",version="2"}) >= 50`
	s.must(t, "model", "canary", "--endpoint", "m", "--steps", "50", "100", "--step-time", "1h", "--guard", guard, "--input-endpoints", "m/2", "m/1", "--wait")
	for i := range 300 {
		id := fmt.Sprintf("r-%d", i)
		status, answer := roundTrip(http.MethodPost, s.urls["serve"]+"/serve/m", "application/json", strings.NewReader(fmt.Sprintf(`{"x": %d}`, i%2)), "X-Request-Id", id)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		if status, answer := roundTrip(http.MethodPost, s.urls["serve"]+"/feedback/m", "application/json", strings.NewReader(fmt.Sprintf(`{"request_id": %q, "truth": %d}`, id, i%2))); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
	}
	r := s.becomes(t, "rolled back")
	if end := r.Events[len(r.Events)-1]; !strings.Contains(end.Note, "the condition of --guard holds") {
		t.Errorf("%+v", end)
	}
	s.wants(t, "m", `{"x":1}`, `{"y":1}`)
}

package drift

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
)

// The study runs the detector on labelled data: synthetic_car_loan_*.csv of the Python package nannyml,
// in the folder that this variable names. "make drift-study" fetches it.
const studyVariable = "CLEARML_SERVING_DRIFT_DATA"

// The columns that drift from row driftRow of the analysis rows on, and those that do not.
var (
	drifting = []string{"car_value", "loan_length", "y_pred_proba", "salary_range", "repaid_loan_on_prev_car"}
	steady   = []string{"debt_to_income_ratio", "driver_tenure", "size_of_downpayment"}
)

const driftRow = 25_000

// studyRows are the rows of one file of the study.
func studyRows(t *testing.T, name string) [][]any {
	t.Helper()
	f, err := os.Open(filepath.Join(os.Getenv(studyVariable), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read from
	return readLoans(t, f)[""]
}

// readLoans reads rows, with the columns in the order drifting, steady, by the value of the column "part".
func readLoans(t *testing.T, from io.Reader) map[string][][]any {
	t.Helper()
	r := csv.NewReader(from)
	head, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	var at []int
	for _, name := range slices.Concat(drifting, steady) {
		i := slices.Index(head, name)
		if i < 0 {
			t.Fatalf("no column %s in %v", name, head)
		}
		at = append(at, i)
	}
	part, rows := slices.Index(head, "part"), map[string][][]any{}
	for {
		record, err := r.Read()
		if err == io.EOF {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		row := make([]any, len(at))
		for i, j := range at {
			row[i] = record[j]
		}
		name := ""
		if part >= 0 {
			name = record[part]
		}
		rows[name] = append(rows[name], row)
	}
}

// A part of the data is in testdata: 5,000 reference rows, and the analysis rows 23,000 to 25,999 (nannyml,
// Apache-2.0). It tells in each run of the tests what the study tells of all.
func TestDriftIsFoundInLabelledData(t *testing.T) {
	f, err := os.Open("testdata/loans.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read from
	text, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows := readLoans(t, text)
	if len(rows["reference"]) != 5_000 || len(rows["analysis"]) != 3_000 {
		t.Fatal(len(rows["reference"]), len(rows["analysis"]))
	}
	const clean = driftRow - 23_000
	var out strings.Builder
	delays(t, &out, rows["reference"], rows["analysis"], clean, 5, 2_000)
	cleanStreams(t, &out, slices.Concat(rows["reference"], rows["analysis"][:clean]), 2, 50_000, 2_000)
	t.Log("\n" + out.String())
}

// watched is a reference with a detector for each column.
type watched struct {
	variables []*Variable
	nulls     []Null
	detectors []Detector
	threshold float64
}

func watch(t *testing.T, rows [][]any) *watched {
	t.Helper()
	names := slices.Concat(drifting, steady)
	r, notes := build(t, names, "", rows)
	if len(notes) > 0 {
		t.Fatal(notes)
	}
	w := &watched{detectors: make([]Detector, len(names)), threshold: DefaultSettings().Threshold(len(names))}
	for _, name := range names {
		w.variables = append(w.variables, r.Variables[name])
		w.nulls = append(w.nulls, NewNull(r.Variables[name], len(names), DefaultSettings().MinPSI))
	}
	return w
}

// codes are the bins of rows, by column.
func (w *watched) codes(rows [][]any) [][]uint8 {
	all := make([][]uint8, len(w.variables))
	for i, v := range w.variables {
		all[i] = make([]uint8, len(rows))
		for j, row := range rows {
			c := NewCounts(v)
			c.Add(v, row[i])
			all[i][j] = uint8(slices.Index(c.Bins, 1)) //nolint:gosec // few bins
		}
	}
	return all
}

// sample draws n of the rows without replacement.
func sample(random *rand.Rand, rows [][]any, n int) [][]any {
	var drawn [][]any
	for _, i := range random.Perm(len(rows))[:n] {
		drawn = append(drawn, rows[i])
	}
	return drawn
}

// median is the lower one of an even number.
func median(values []int) int {
	slices.Sort(values)
	return values[len(values)/2]
}

func TestStudy(t *testing.T) {
	if os.Getenv(studyVariable) == "" {
		t.Skip("make drift-study")
	}
	reference := studyRows(t, "synthetic_car_loan_reference.csv")
	analysis := studyRows(t, "synthetic_car_loan_analysis.csv")
	if len(reference) != 50_000 || len(analysis) != 50_000 {
		t.Fatal(len(reference), len(analysis))
	}
	var out strings.Builder
	delays(t, &out, reference, analysis, driftRow, 20, 500, 2_000, 5_000, 25_000)
	cleanStreams(t, &out, slices.Concat(reference, analysis[:driftRow]), 100, 1_000_000, 500, 5_000, 50_000)
	fixedThresholds(t, &out, reference, analysis[:driftRow])
	t.Log("\n" + out.String())
	if os.Getenv("UPDATE") != "" {
		const page, begin, end = "../docs/drift.md", "<!-- made by make drift-study -->\n", "<!-- end of make drift-study -->"
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := strings.Cut(string(text), begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatal("the page has no place for the tables")
		}
		if err := os.WriteFile(page, []byte(head+begin+out.String()+end+tail), 0o644); err != nil { //nolint:gosec // a page
			t.Fatal(err)
		}
	}
}

// delays sends the analysis rows in their order, with some references of each size. The first rows are clean.
func delays(t *testing.T, out *strings.Builder, reference, analysis [][]any, clean, references int, sizes ...int) {
	t.Helper()
	fmt.Fprintf(out, "Rows from the beginning of the drift until it is reported: median and maximum over %d references of each size. The %s rows before it are clean.\n\n", references, humanize.Comma(int64(clean)))
	fmt.Fprintf(out, "| rows of the reference | false alarms before | %s | alarms in the %d steady columns |\n|---|---|%s---|\n", strings.Join(drifting, " | "), len(steady), strings.Repeat("---|", len(drifting)))
	for _, size := range sizes {
		found := make([][]int, len(drifting))
		before, wrong := 0, 0
		for seed := range references {
			random := rand.New(rand.NewPCG(uint64(seed), uint64(size))) //nolint:gosec // a study
			w := watch(t, sample(random, reference, size))
			codes := w.codes(analysis)
			first := make([]int, len(w.variables))
			for from := 0; from < len(analysis); from += BatchRows {
				for i, v := range w.variables {
					counts := make([]uint64, len(v.Counts))
					for _, b := range codes[i][from : from+BatchRows] {
						counts[b]++
					}
					if w.detectors[i].Batch(w.nulls[i], counts, w.threshold, time.Time{}) != Began {
						continue
					}
					switch {
					case from < clean:
						before++
					case i >= len(drifting):
						wrong++
					case first[i] == 0:
						first[i] = from + BatchRows - clean
					}
				}
			}
			for i := range drifting {
				if first[i] == 0 {
					first[i] = math.MaxInt
				}
				found[i] = append(found[i], first[i])
			}
		}
		fmt.Fprintf(out, "| %d | %d |", size, before)
		clearest := math.MaxInt
		for i, name := range drifting {
			m := median(found[i])
			clearest = min(clearest, m)
			if m > 800 && size > 500 || m > 1000 { // 500 rows tell less
				t.Errorf("reference of %d rows: %s was found after %d rows", size, name, m)
			}
			fmt.Fprintf(out, " %d / %d |", m, slices.Max(found[i]))
		}
		fmt.Fprintf(out, " %d |\n", wrong)
		if clearest > 400 || before > 0 || wrong > 0 {
			t.Errorf("reference of %d rows: clearest after %d, %d false alarms before, %d in steady columns", size, clearest, before, wrong)
		}
	}
}

// cleanStreams sends streams of rows that are drawn from the rows that the references are drawn from.
func cleanStreams(t *testing.T, out *strings.Builder, population [][]any, streams, rows int, sizes ...int) {
	t.Helper()
	alarms, most := make([]int, len(sizes)), slices.Repeat([]float64{-1}, len(sizes))
	var mu sync.Mutex
	var group sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for stream := range next {
				random := rand.New(rand.NewPCG(uint64(stream), 99)) //nolint:gosec // a study
				size := stream % len(sizes)
				w := watch(t, sample(random, population, sizes[size]))
				codes := w.codes(population)
				counts := make([][]uint64, len(w.variables))
				for i, v := range w.variables {
					counts[i] = make([]uint64, len(v.Counts))
				}
				began, evidence := 0, -1.0
				for range rows / BatchRows {
					for i := range counts {
						clear(counts[i])
					}
					for range BatchRows {
						row := random.IntN(len(population))
						for i := range counts {
							counts[i][codes[i][row]]++
						}
					}
					for i := range counts {
						if w.detectors[i].Batch(w.nulls[i], counts[i], w.threshold, time.Time{}) == Began {
							began++
						}
						evidence = max(evidence, w.detectors[i].Evidence())
					}
				}
				mu.Lock()
				alarms[size] += began
				most[size] = max(most[size], evidence)
				mu.Unlock()
			}
		})
	}
	for i := range streams {
		next <- i
	}
	close(next)
	group.Wait()
	threshold := DefaultSettings().Threshold(len(drifting) + len(steady))
	fmt.Fprintf(out, "\nClean streams of %s rows, %d columns each: alarms, and the largest evidence that was seen. Drift is reported at %.1f.\n\n| rows of the reference | streams | alarms | largest evidence |\n|---|---|---|---|\n", humanize.Comma(int64(rows)), len(drifting)+len(steady), threshold)
	for i, size := range sizes {
		fmt.Fprintf(out, "| %d | %d | %d | %.1f |\n", size, (streams+len(sizes)-1-i)/len(sizes), alarms[i], most[i])
		if alarms[i] > 0 {
			t.Errorf("%d alarms in clean streams", alarms[i])
		}
	}
}

// fixedThresholds counts clean windows that fixed thresholds call drifted, with Evidently's bins.
func fixedThresholds(t *testing.T, out *strings.Builder, reference, clean [][]any) {
	t.Helper()
	windows := []int{100, 500, 1000, 5000}
	fmt.Fprintf(out, "\nClean windows that a fixed threshold calls drifted, of all %d columns (in brackets: of the worst), with the whole reference of %d rows:\n\n| threshold | window of %d | %d | %d | %d |\n|---|---|---|---|---|\n",
		len(drifting)+len(steady), len(reference), windows[0], windows[1], windows[2], windows[3])
	names := []string{"PSI >= 0.1", "Jensen-Shannon >= 0.1", "Wasserstein >= 0.1 (numbers)", "p <= 0.05 (Kolmogorov-Smirnov, chi-squared)"}
	cells := make([][]string, len(names))
	w := watch(t, reference)
	for _, size := range windows {
		called := make([][]int, len(names))
		for i := range called {
			called[i] = make([]int, len(w.variables))
		}
		n := 0
		for from := 0; from+size <= len(clean); from += size {
			n++
			for i, v := range w.variables {
				p, q, values := windowOf(reference, clean[from:from+size], v, i)
				if PSI(occupied(p, q)) >= 0.1 {
					called[0][i]++
				}
				if JensenShannon(p, q) >= 0.1 {
					called[1][i]++
				}
				pValue := 0.0
				if values != nil {
					if wassersteinOf(values[0], values[1]) >= 0.1 {
						called[2][i]++
					}
					pValue = ksOf(values[0], values[1])
				} else {
					pValue = ChiSquare(p, q, float64(size))
				}
				if pValue <= 0.05 {
					called[3][i]++
				}
			}
		}
		for i := range names {
			sum, columns := 0, 0
			for j, v := range w.variables {
				if i != 2 || v.Kind == Number {
					sum += called[i][j]
					columns++
				}
			}
			cells[i] = append(cells[i], fmt.Sprintf("%.1f %% (%.0f %%)", 100*float64(sum)/float64(n*columns), 100*float64(slices.Max(called[i]))/float64(n)))
		}
	}
	for i, name := range names {
		fmt.Fprintf(out, "| %s | %s |\n", name, strings.Join(cells[i], " | "))
	}
	fmt.Fprintf(out, "| this detector | no alarm in the %d clean rows | | | |\n", len(clean))
}

// windowOf returns shares of a column, and its numbers if it has any.
func windowOf(reference, window [][]any, v *Variable, i int) (p, q []float64, values [][]float64) {
	if v.Kind == Category {
		a, b := NewCounts(v), NewCounts(v)
		for _, row := range reference {
			a.Add(v, row[i])
		}
		for _, row := range window {
			b.Add(v, row[i])
		}
		p, q = occupied(shares(a.Bins), shares(b.Bins))
		return p, q, nil
	}
	for _, rows := range [][][]any{reference, window} {
		var numbers []float64
		for _, row := range rows {
			x, _ := Float(row[i])
			numbers = append(numbers, x)
		}
		values = append(values, numbers)
	}
	p, q = sturges(values[0], values[1])
	return p, q, values
}

// ksOf is the p value of two windows of numbers themselves.
func ksOf(reference, live []float64) float64 {
	a, b := slices.Sorted(slices.Values(reference)), slices.Sorted(slices.Values(live))
	most, i := 0.0, 0
	for j := 0; j < len(b); {
		x, from := b[j], j
		for j < len(b) && b[j] == x {
			j++
		}
		for i < len(a) && a[i] < x {
			i++
		}
		below := float64(i) / float64(len(a))
		for i < len(a) && a[i] == x {
			i++
		}
		most = max(most, math.Abs(below-float64(from)/float64(len(b))), math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n, m := float64(len(a)), float64(len(b))
	return kolmogorovTail(int(math.RoundToEven(n*m/(n+m))), most)
}

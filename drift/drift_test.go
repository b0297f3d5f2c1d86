package drift

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// build makes a reference of rows.
func build(t *testing.T, names []string, timeColumn string, rows [][]any) (*Reference, []string) {
	t.Helper()
	b, err := NewBuilder(names, timeColumn)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if err := b.Row(row); err != nil {
			t.Fatal(err)
		}
	}
	r, notes, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return r, notes
}

// columnOf makes rows of one value.
func columnOf[T any](values ...T) (rows [][]any) {
	for _, v := range values {
		rows = append(rows, []any{v})
	}
	return rows
}

func TestEachValueHasABin(t *testing.T) {
	numbers, _ := build(t, []string{"x"}, "", columnOf(0.0, 1.0, 1.0, 2.0))
	words, _ := build(t, []string{"x"}, "", columnOf("cat", "cat", "dog", "7"))
	for name, tc := range map[string]struct {
		of     *Reference
		values []any
		want   Counts
	}{
		"numbers":    {numbers, []any{0.0, 0.5, 1.0, 2.0, -1.0, 3.0, json.Number("1"), "1.0", true}, Counts{Bins: []uint64{1, 2, 4, 1, 1, 0}, Below: 1, Above: 1}},
		"no numbers": {numbers, []any{nil, math.NaN(), "one", []any{1.0}, map[string]any{}, "0x1p2", "1_0"}, Counts{Bins: []uint64{0, 0, 0, 0, 0, 7}, Type: 5}},
		"infinities": {numbers, []any{math.Inf(1), math.Inf(-1), "inf", json.Number("1e999")}, Counts{Bins: []uint64{1, 0, 0, 0, 3, 0}, Below: 1, Above: 3}},
		"words":      {words, []any{"cat", "dog", 7.0, json.Number("7.0"), "bird", true, ""}, Counts{Bins: []uint64{1, 2, 1, 3, 0}, New: 3}},
		"no words":   {words, []any{nil, math.NaN(), []any{}, map[string]any{}}, Counts{Bins: []uint64{0, 0, 0, 0, 4}, Type: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			v := tc.of.Variables["x"]
			got := NewCounts(v)
			for _, value := range tc.values {
				got.Add(v, value)
			}
			if d := cmp.Diff(&tc.want, got); d != "" {
				t.Error(d, v.Bins())
			}
		})
	}
}

func TestMergedCountsAreThoseOfTheWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	rows := make([][]any, 3000)
	for i := range rows {
		rows[i] = []any{random.NormFloat64(), fmt.Sprint(random.IntN(30))}
		if random.IntN(20) == 0 {
			rows[i][0] = nil
		}
	}
	r, _ := build(t, []string{"x", "y"}, "", rows[:1000])
	for i, name := range []string{"x", "y"} {
		v := r.Variables[name]
		whole, a, b := NewCounts(v), NewCounts(v), NewCounts(v)
		for _, row := range rows {
			whole.Add(v, row[i])
			[]*Counts{a, b}[random.IntN(2)].Add(v, row[i])
		}
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		sent := &Counts{}
		if err := json.Unmarshal(text, sent); err != nil {
			t.Fatal(err)
		}
		before := a.Clone()
		a.Merge(sent)
		if d := cmp.Diff(whole, a); d != "" {
			t.Error(name, d)
		}
		if total(whole.Bins) != uint64(len(rows)) || total(before.Bins)+total(sent.Bins) != total(a.Bins) {
			t.Error(name, "values were lost")
		}
	}
}

func TestAReferenceSurvivesItsText(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var rows [][]any
	for i := range 500 {
		rows = append(rows, []any{random.ExpFloat64(), fmt.Sprint("w", random.IntN(200)), i%2 == 0})
	}
	r, _ := build(t, []string{"x", "y", "z"}, "", rows)
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, again, cmp.AllowUnexported(Variable{})); d != "" {
		t.Error(d)
	}
	for name, v := range r.Variables {
		if again.Variables[name].Hash() != v.Hash() {
			t.Error(name, "has another hash")
		}
	}
	if len(text) > 6000 {
		t.Errorf("%d bytes", len(text))
	}
}

func TestBadReferencesAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"no JSON":         {`{`, "unexpected end"},
		"nothing":         {`{}`, "no variables"},
		"null":            {`{"variables":{"x":null}}`, "is null"},
		"no kind":         {`{"variables":{"x":{"counts":[1]}}}`, "none of number, category"},
		"no values":       {`{"variables":{"x":{"kind":"number","edges":[1],"counts":[0,0,0]}}}`, "no values"},
		"too few counts":  {`{"variables":{"x":{"kind":"number","edges":[1],"counts":[1,1]}}}`, "2 counts for 3 bins"},
		"edges":           {`{"variables":{"x":{"kind":"number","edges":[1,1],"counts":[1,1,1,0]}}}`, "ascending"},
		"centers":         {`{"variables":{"x":{"kind":"number","edges":[1],"centers":[1],"counts":[1,1,0]}}}`, "centers"},
		"negative counts": {`{"variables":{"x":{"kind":"number","edges":[1],"counts":[1,-1,0]}}}`, "cannot unmarshal"},
		"no name":         {`{"variables":{"":{"kind":"number","edges":[1],"counts":[1,1,0]}}}`, "name"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Error(err)
			}
		})
	}
}

func TestWhatCannotBeWatchedIsSaid(t *testing.T) {
	many := make([][]any, 10_000)
	few := make([][]any, 10_000)
	for i := range many {
		many[i] = []any{fmt.Sprint("id-", i)}
		few[i] = []any{fmt.Sprint("w", int(math.Sqrt(float64(i))))} // 100 categories, the largest 2 %
	}
	for name, tc := range map[string]struct {
		rows [][]any
		want string // "" if it is watched
	}{
		"identifiers":   {many, "10000 different words"},
		"categories":    {few, ""},
		"never a value": {columnOf[any](nil, math.NaN(), math.Inf(1)), "no values"},
		"one value":     {columnOf(1.0, 1.0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := NewBuilder([]string{"x", "other"}, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range tc.rows {
				if err := b.Row(append(row, 1.0)); err != nil {
					t.Fatal(err)
				}
			}
			r, notes, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(notes, "; "); (tc.want == "") != (r.Variables["x"] != nil) || !strings.Contains(got, tc.want) {
				t.Errorf("%v, %q", r.Names(), got)
			}
		})
	}
	b, _ := NewBuilder([]string{"x"}, "")
	if _, _, err := b.Build(); err == nil || !strings.Contains(err.Error(), "no rows") {
		t.Error(err)
	}
	if _, err := NewBuilder([]string{"x", "x"}, ""); err == nil {
		t.Error("a column may occur twice")
	}
	if _, err := NewBuilder([]string{"x"}, "t"); err == nil || !strings.Contains(err.Error(), "the columns are x") {
		t.Error(err)
	}
	if err := b.Row([]any{1.0, 2.0}); err == nil {
		t.Error("a row may have more values than columns")
	}
}

// stream sends batches of 100 values to a detector until drift begins or ends.
func stream(d *Detector, v *Variable, n Null, batches int, value func() any) (Change, int) {
	threshold := DefaultSettings().Threshold(8)
	for i := range batches {
		c := NewCounts(v)
		for range BatchRows {
			c.Add(v, value())
		}
		if change := d.Batch(n, c.Bins, threshold, time.Unix(int64(i), 0)); change != None {
			return change, (i + 1) * BatchRows
		}
	}
	return None, batches * BatchRows
}

func TestDriftBeginsAndEnds(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	var rows [][]any
	for range 5000 {
		rows = append(rows, []any{random.NormFloat64()})
	}
	r, _ := build(t, []string{"x"}, "", rows)
	v := r.Variables["x"]
	n := NewNull(v, 8, 0.01)
	normal := func() any { return random.NormFloat64() }
	shifted := func() any { return random.NormFloat64() + 1 }
	var d Detector
	if change, at := stream(&d, v, n, 1000, normal); change != None {
		t.Fatal(change, at)
	}
	if change, at := stream(&d, v, n, 10, shifted); change != Began || at > 500 {
		t.Fatal(change, at)
	}
	if !d.Drifting || d.Alarms != 1 {
		t.Error(d.Drifting, d.Alarms)
	}
	if change, at := stream(&d, v, n, 50, shifted); change != None {
		t.Fatal("it changed again", change, at)
	}
	change, at := stream(&d, v, n, 1000, normal)
	if change != Ended || at < 4000 {
		t.Fatal(change, at)
	}
	if change, at := stream(&d, v, n, 1000, normal); change != None {
		t.Fatal(change, at)
	}
}

func TestADetectorSurvivesItsText(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	v := &Variable{Kind: Number, Edges: []float64{-1, 0, 1}, Counts: []uint64{160, 340, 340, 160, 0}}
	if err := v.prepare(); err != nil {
		t.Fatal(err)
	}
	n := NewNull(v, 1, 0.01)
	var d Detector
	stream(&d, v, n, 20, func() any { return random.NormFloat64() })
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var again Detector
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(d, again); d != "" {
		t.Error(d)
	}
}

// A reference of hours that differ widens the null by what they differ.
func TestADailyCycleOfTheReferenceIsNoDrift(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	value := func(hour int) float64 { return 0.5*math.Sin(2*math.Pi*float64(hour)/24) + random.NormFloat64() }
	rows := func(days int) (all [][]any) {
		for i := range days * 24 * 100 {
			now := at.Add(time.Duration(i) * 36 * time.Second)
			all = append(all, []any{now.Format("2006-01-02 15:04:05"), value(now.Hour())})
		}
		return all
	}
	r, notes := build(t, []string{"t", "x"}, "t", rows(14))
	v := r.Variables["x"]
	if len(r.Variables) != 1 || len(notes) > 0 || v.Swing < 0.2 || v.Swing > 0.45 {
		t.Fatal(r.Names(), notes, v.Swing)
	}
	short, notes := build(t, []string{"t", "x"}, "t", rows(1))
	if short.Variables["x"].Swing != 0 || len(notes) != 1 {
		t.Fatal(notes)
	}
	watch := func(v *Variable) int {
		n := NewNull(v, 1, 0.01)
		var d Detector
		for hour := range 240 {
			if change, _ := stream(&d, v, n, 36, func() any { return value(hour) }); change != None {
				return hour
			}
		}
		return -1
	}
	if hour := watch(v); hour >= 0 {
		t.Error("alarm in hour", hour)
	}
	plain := *v
	plain.Swing = 0
	if hour := watch(&plain); hour < 0 {
		t.Error("without the swing there is no alarm: the test tests nothing")
	}
}

func TestTheThresholdIsWhatTheUserSays(t *testing.T) {
	month := DefaultSettings()
	for k, want := range map[int]float64{1: 10.67, 8: 12.75, 50: 14.59} {
		near(t, "threshold", month.Threshold(k), want, 0.002)
	}
	month.FalseAlarms = 0.05
	near(t, "threshold", month.Threshold(1), 10.67+math.Log(20), 0.002)
}

func TestALargeReferenceIsSampled(t *testing.T) {
	b, err := NewBuilder([]string{"x"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range sampleRows * 2 {
		if err := b.Row([]any{float64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	r, _, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	v := r.Variables["x"]
	if v.Rows() != sampleRows || *v.Max != sampleRows*2-1 {
		t.Error(v.Rows(), *v.Max)
	}
	near(t, "median", v.Edges[4], sampleRows, 0.01)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"variables":{"x":{"kind":"number","edges":[1],"counts":[1,1,0]},"y":{"kind":"category","words":["a"],"counts":[1,0,0]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Decode(text)
		if err != nil {
			return
		}
		for _, v := range r.Variables {
			c := NewCounts(v)
			for _, value := range []any{nil, 1.0, "a", true, math.Inf(1), json.Number("1e400")} {
				c.Add(v, value)
			}
			var d Detector
			n := NewNull(v, 1, 0.01)
			d.Batch(n, c.Bins, 1, time.Time{})
			d.Distances(v, n)
			if len(v.Bins()) != len(v.Counts) {
				t.Fatal(v.Bins())
			}
		}
	})
}

func TestHugeNumbersHaveAReportThatCanBeStored(t *testing.T) {
	v, err := FromCounts(Number, []float64{-1.7e308, 1.7e308}, false, nil, []uint64{500, 500, 500, 0})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Reference{Variables: map[string]*Variable{"x": v}}).Encode(); err != nil {
		t.Error(err)
	}
	s, settings := NewState(v), DefaultSettings()
	s.Add(0, 200)
	if !s.Ready() {
		t.Fatal("200 rows are no batch")
	}
	s.Close(v, 1, settings, time.Now())
	r := s.Report(v, 1, settings)
	if _, err := json.Marshal(r); err != nil || r.Wasserstein <= 0 {
		t.Errorf("Wasserstein %v: %v", r.Wasserstein, err)
	}
}

func TestBinsHaveNamesOfTheirOwn(t *testing.T) {
	for name, tc := range map[string]struct {
		of   Variable
		want []string
	}{
		"few digits": {Variable{Kind: Number, Edges: []float64{27.263316464041882, 31.4, 1e6}}, []string{"x < 27.26", "27.26 <= x < 31.4", "31.4 <= x < 1e+06", "x >= 1e+06", "(missing)"}},
		"close":      {Variable{Kind: Number, Edges: []float64{1.00001, 1.00002}, Right: true}, []string{"x <= 1.00001", "1.00001 < x <= 1.00002", "x > 1.00002", "(missing)"}},
		"closest":    {Variable{Kind: Number, Edges: []float64{5, math.Nextafter(5, 6)}}, []string{"x < 5", "5 <= x < 5.000000000000001", "x >= 5.000000000000001", "(missing)"}},
		"no edges":   {Variable{Kind: Number}, []string{"any number", "(missing)"}},
		"words":      {Variable{Kind: Category, Words: []string{"a", "", "(other)", `"b"`}}, []string{"a", `""`, `"(other)"`, `"\"b\""`, "(other)", "(missing)"}},
	} {
		if d := cmp.Diff(tc.want, tc.of.Bins()); d != "" {
			t.Error(name, d)
		}
	}
}

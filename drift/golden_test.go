package drift

import (
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"
)

// golden is written by testdata/golden.py, which has the formulas a second time, with numpy and scipy.
type golden struct {
	References []struct {
		Values   []*float64
		Edges    []float64
		Counts   []uint64
		Centers  []*float64
		Std      float64
		Min, Max float64
	}
	Quantiles []struct {
		P, Quantile float64
		Freedom     int
	}
	Detectors []struct {
		Reference  []uint64
		K          int
		Least, Rho float64
		Batches    [][]uint64
		Evidence   []float64
		Distances  []struct {
			PSI           float64
			Noise         float64
			JensenShannon float64 `json:"jensen_shannon"`
			Rows, Chi2    float64
		}
	}
	Windows []struct {
		Reference, Live []uint64
		Centers         []float64
		KS, Wasserstein float64
	}
	Kolmogorov []struct {
		N       int
		D, Tail float64
	}
}

func readGolden(t *testing.T) (g golden) {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// near compares relative to the larger one, and absolutely below 1.
func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*max(1, math.Abs(want))) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestReferencesAreThoseOfNumpy(t *testing.T) {
	for _, want := range readGolden(t).References {
		b, err := NewBuilder([]string{"x"}, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range want.Values {
			var value any
			if x != nil {
				value = *x
			}
			if err := b.Row([]any{value}); err != nil {
				t.Fatal(err)
			}
		}
		r, notes, err := b.Build()
		if err != nil || len(notes) > 0 {
			t.Fatal(err, notes)
		}
		v := r.Variables["x"]
		if len(v.Edges) != len(want.Edges) || len(v.Counts) != len(want.Counts) {
			t.Fatalf("edges %v, want %v", v.Edges, want.Edges)
		}
		for i := range want.Edges {
			near(t, "edge", v.Edges[i], want.Edges[i], 0)
		}
		for i := range want.Counts {
			if v.Counts[i] != want.Counts[i] {
				t.Errorf("counts %v, want %v", v.Counts, want.Counts)
				break
			}
		}
		for i, c := range want.Centers {
			if c != nil {
				near(t, "center", v.Centers[i], *c, 1e-12)
			}
		}
		near(t, "std", v.Std, want.Std, 1e-12)
		near(t, "min", *v.Min, want.Min, 0)
		near(t, "max", *v.Max, want.Max, 0)
	}
}

func TestQuantilesAreThoseOfScipy(t *testing.T) {
	for _, q := range readGolden(t).Quantiles {
		near(t, "quantile", chiSquareQuantile(q.P, q.Freedom), q.Quantile, 1e-8)
	}
}

func TestTheDetectorIsThatOfTheFormulas(t *testing.T) {
	for _, want := range readGolden(t).Detectors {
		v := &Variable{Kind: Category, Counts: want.Reference}
		n := NewNull(v, want.K, want.Least)
		near(t, "rho", n.rho, want.Rho, 1e-9)
		var d Detector
		for i, batch := range want.Batches {
			d.Batch(n, batch, math.Inf(1), time.Time{})
			near(t, "evidence", d.Evidence(), want.Evidence[i], 1e-6)
			got, w := d.Distances(v, n), want.Distances[i]
			near(t, "rows", d.LiveRows(), w.Rows, 1e-9)
			near(t, "PSI", got.PSI, w.PSI, 1e-9)
			near(t, "noise", got.Noise, w.Noise, 1e-9)
			near(t, "Jensen-Shannon", got.JensenShannon, w.JensenShannon, 1e-9)
			near(t, "p of chi-squared", got.P, w.Chi2, 1e-8)
		}
		if t.Failed() {
			return
		}
	}
}

func TestDistancesOfNumbersAreThoseOfScipy(t *testing.T) {
	for _, w := range readGolden(t).Windows {
		p, q := shares(w.Reference), shares(w.Live)
		near(t, "Wasserstein", Wasserstein(p, q, w.Centers, 1), w.Wasserstein, 1e-9)
		near(t, "p of Kolmogorov-Smirnov", KolmogorovSmirnov(p, q, float64(total(w.Reference)), float64(total(w.Live))), w.KS, 1e-6)
	}
	for _, k := range readGolden(t).Kolmogorov {
		near(t, "tail", kolmogorovTail(k.N, k.D), k.Tail, 1e-6)
	}
}

package drift

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// Evidently's own functions were asked by testdata/evidently_golden.py.
func TestDistancesAreThoseOfEvidently(t *testing.T) {
	text, err := os.ReadFile("testdata/evidently.json")
	if err != nil {
		t.Fatal(err)
	}
	type window struct {
		Reference, Live []uint64
		Centers         []float64
		Std             float64
		PSI             float64
		JensenShannon   float64 `json:"jensen_shannon"`
		Wasserstein     float64
		Chi2, KS        *float64
	}
	var all struct {
		Category, Number []window
		Raw              []struct {
			Reference, Live                 []float64
			PSI, JensenShannon, Wasserstein float64
		}
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	tests := 0
	for i, w := range slices.Concat(all.Category, all.Number) {
		p, q := shares(w.Reference), shares(w.Live)
		near(t, "PSI", PSI(occupied(p, q)), w.PSI, 1e-6)
		near(t, "Jensen-Shannon", JensenShannon(p, q), w.JensenShannon, 1e-6)
		if w.Centers != nil {
			near(t, "Wasserstein", Wasserstein(p, q, w.Centers, w.Std), w.Wasserstein, 1e-6)
		}
		if w.Chi2 != nil {
			tests++
			near(t, "p of chi-squared", ChiSquare(p, q, float64(total(w.Live))), *w.Chi2, 1e-6)
		}
		if w.KS != nil {
			tests++
			near(t, "p of Kolmogorov-Smirnov", KolmogorovSmirnov(p, q, float64(total(w.Reference)), float64(total(w.Live))), *w.KS, 1e-6)
		}
		if t.Failed() {
			t.Fatal("window", i)
		}
	}
	for _, w := range all.Raw {
		p, q := sturges(w.Reference, w.Live)
		near(t, "PSI", PSI(p, q), w.PSI, 1e-6)
		near(t, "Wasserstein", wassersteinOf(w.Reference, w.Live), w.Wasserstein, 1e-6)
	}
	if len(all.Category) < 10 || len(all.Number) < 10 || len(all.Raw) < 3 || tests < 10 {
		t.Error("the file has too few windows")
	}
}

// sturges bins two windows of numbers as Evidently does: together, by the rule of Sturges.
func sturges(reference, live []float64) (p, q []float64) {
	least, most := math.Inf(1), math.Inf(-1)
	for _, values := range [][]float64{reference, live} {
		least, most = min(least, slices.Min(values)), max(most, slices.Max(values))
	}
	n := float64(len(reference) + len(live))
	width := (most - least) / (math.Log2(n) + 1)
	bins := int(math.Ceil((most - least) / width))
	share := func(values []float64) []float64 {
		counts := make([]uint64, bins)
		for _, x := range values {
			b := min(int((x-least)/(most-least)*float64(bins)), bins-1)
			counts[b]++
		}
		return shares(counts)
	}
	return share(reference), share(live)
}

// wassersteinOf is the distance of two windows of numbers themselves, in deviations of the first.
func wassersteinOf(reference, live []float64) float64 {
	all := slices.Sorted(slices.Values(slices.Concat(reference, live)))
	at := slices.Compact(slices.Clone(all))
	share := func(values []float64) []float64 {
		counts := make([]uint64, len(at))
		for _, x := range values {
			i, _ := slices.BinarySearch(at, x)
			counts[i]++
		}
		return shares(counts)
	}
	mean, square := 0.0, 0.0
	for _, x := range reference {
		mean += x / float64(len(reference))
	}
	for _, x := range reference {
		square += (x - mean) * (x - mean) / float64(len(reference))
	}
	return Wasserstein(share(reference), share(live), at, math.Sqrt(square))
}

package main

import (
	"strings"
	"testing"
)

// rounds makes a report of one case: three rounds a side, ours with this rate and
// this share of the machine used by others.
func rounds(rate, others float64) *report {
	r := newReport(&setup{})
	k := key{"null", 1, 64}
	for range 3 {
		r.add("ours", k, measured{PerSecond: rate, P50: 10, P99: 20, CPU: 10, Others: others})
		r.add("fastapi", k, measured{PerSecond: 1000, P50: 100, P99: 200, CPU: 100})
	}
	r.finish()
	return r
}

func TestARatioIsJudgedByItsGoal(t *testing.T) {
	for rate, met := range map[float64]bool{3500: true, 3400: false} {
		one := rounds(rate, 0).rows[0]
		if one.Met == nil || *one.Met != met || one.Goal != ">= 3.5x" || one.Ratio != rate/1000 {
			t.Errorf("rate %v: %+v, want met %v", rate, one, met)
		}
	}
}

func TestWhatWasNotMeasuredQuietlyIsNotJudged(t *testing.T) {
	r := rounds(100, 0.4)
	for _, one := range r.rows {
		if one.Met != nil {
			t.Errorf("%s was judged (%v) although the machine was not quiet", one.Metric, *one.Met)
		}
	}
	if page := r.page(); !strings.Contains(page, "null (doubtful)") || !strings.Contains(page, "not judged") {
		t.Errorf("the page does not say so:\n%s", page)
	}
	if page := rounds(100, 0.01).page(); strings.Contains(page, "(doubtful)") {
		t.Errorf("a quiet row is called doubtful:\n%s", page)
	}
}

func TestTheMedianIsTheMiddle(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.values, got, test.want)
		}
	}
}

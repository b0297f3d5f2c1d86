package load_test

import (
	"math"
	"testing"
	"time"

	"clearmlserving/bench/load"
)

func TestPercentilesAreWithinTwoPercent(t *testing.T) {
	for _, unit := range []time.Duration{time.Microsecond, 37 * time.Microsecond, time.Millisecond, 90 * time.Millisecond} {
		var h load.Histogram
		for i := 1; i <= 1000; i++ {
			h.Record(time.Duration(i) * unit)
		}
		for _, p := range []float64{1, 50, 90, 99, 99.9, 100} {
			want := float64(time.Duration(p*10) * unit)
			got := float64(h.Percentile(p))
			if math.Abs(got-want) > 0.02*want+float64(time.Microsecond)/5 {
				t.Errorf("unit %v: p%v is %v, want %v", unit, p, time.Duration(got), time.Duration(want))
			}
		}
	}
}

func TestAnyDurationIsTakenAndNothingIsLost(t *testing.T) {
	var a, b load.Histogram
	for _, d := range []time.Duration{-time.Second, 0, 1, 99, 6400, 12_800, time.Hour, math.MaxInt64} {
		a.Record(d)
	}
	b.Record(time.Millisecond)
	b.Add(&a)
	if b.Count() != 9 || b.Max() != math.MaxInt64 {
		t.Errorf("count %d, max %v, want 9 and the longest", b.Count(), b.Max())
	}
	var empty load.Histogram
	if got := empty.Percentile(99); got != 0 {
		t.Errorf("the percentile of nothing is %v, want 0", got)
	}
}

func TestALongerDurationNeverCountsAsShorter(t *testing.T) {
	last := time.Duration(0)
	for d := time.Duration(100); d < time.Hour; d += d/7 + 100 {
		var h load.Histogram
		h.Record(d)
		h.Record(math.MaxInt64) // so that the value comes from its bucket, not from the maximum
		got := h.Percentile(50)
		if got < last || got < d-100 {
			t.Fatalf("%v is reported as %v after %v", d, got, last)
		}
		last = got
	}
}

package batching

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestAFitFindsWhatARowAndABatchTake(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same noise at each run
	for name, c := range map[string]struct{ perRow, perBatch time.Duration }{
		"rows cost little":   {10 * time.Microsecond, 2 * time.Millisecond},
		"rows cost all":      {time.Millisecond, 0},
		"rows cost nothing":  {0, 3 * time.Millisecond},
		"both matter":        {100 * time.Microsecond, 300 * time.Microsecond},
		"a model that sorts": {7 * time.Millisecond, 70 * time.Millisecond},
	} {
		var f fit
		if f.known() || f.of(5) != 0 || !math.IsInf(f.rowsIn(time.Nanosecond), 1) {
			t.Fatalf("%s: it has an estimate without samples: %+v", name, f)
		}
		for range 300 {
			rows := 1 + noise.IntN(64)
			took := float64(c.perBatch) + float64(rows)*float64(c.perRow)
			f.add(rows, time.Duration(took*(0.95+0.1*noise.Float64())))
		}
		for _, rows := range []int{1, 16, 64} {
			want := c.perBatch + time.Duration(rows)*c.perRow
			if got := f.of(float64(rows)); math.Abs(float64(got-want)) > 0.1*float64(c.perBatch+64*c.perRow) {
				t.Errorf("%s: %d rows take %s by the fit, %s in truth", name, rows, got, want)
			}
		}
	}
}

func TestAFitOfOneSizePromisesNoMoreThanThatRate(t *testing.T) {
	var f fit
	for range 10 {
		f.add(4, 8*time.Millisecond)
	}
	if f.of(4) != 8*time.Millisecond || f.of(8) != 16*time.Millisecond || f.rowsIn(20*time.Millisecond) != 10 {
		t.Errorf("%+v: 8 rows take %s, %v fit into 20 ms", f, f.of(8), f.rowsIn(20*time.Millisecond))
	}
	f.add(0, time.Second) // an empty batch is not a sample
	f.add(1, 0)
	if f.samples != 10 {
		t.Errorf("%d samples", f.samples)
	}
}

func TestAFitFollowsAModelThatGetsSlower(t *testing.T) {
	var f fit
	for i := range 200 {
		f.add(1+i%8, time.Duration(1+i%8)*time.Millisecond)
	}
	for i := range 400 {
		f.add(1+i%8, time.Duration(1+i%8)*10*time.Millisecond)
	}
	if got := f.of(4); got < 38*time.Millisecond || got > 42*time.Millisecond {
		t.Errorf("4 rows take %s", got)
	}
	if f.rowsIn(time.Microsecond) >= 1 {
		t.Errorf("%v rows in a microsecond", f.rowsIn(time.Microsecond))
	}
}

package batching

import (
	"math"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestABatchIsAsLargeAsWhatWaitsPrefersAndDelaysSay(t *testing.T) {
	prefers := serving.Batching{MaxRows: 32, Preferred: []int{4, 8, 16}}
	for name, c := range map[string]struct {
		c        serving.Batching
		waiting  float64
		patience time.Duration
		rows     int
		why      string
		hold     time.Duration
	}{
		"all that waits":                {serving.Batching{MaxRows: 32}, 5, 0, 32, whySize, 0},
		"the largest that is preferred": {prefers, 13, 0, 8, whyPreferred, 0},
		"more than all preferred":       {prefers, 30, 0, 16, whyPreferred, 0},
		"too few for any preferred":     {prefers, 3, 0, 32, whySize, 0},
		"waiting for the first one":     {prefers, 3, time.Millisecond, 0, "", time.Millisecond},
		"no longer":                     {prefers, 3, -1, 32, whySize, 0},
		"enough, so no waiting":         {prefers, 4, time.Millisecond, 4, whyPreferred, 0},
		"waiting for a full one":        {serving.Batching{MaxRows: 32, Delay: 1}, 31, time.Second, 0, "", time.Second},
		"a full one":                    {serving.Batching{MaxRows: 32, Delay: 1}, 32, time.Second, 32, whySize, 0},
	} {
		rows, why, hold := NewPolicy(c.c).size(c.waiting, c.patience)
		if rows != c.rows || why != c.why || hold != c.hold {
			t.Errorf("%s: %d rows (%s), hold %s", name, rows, why, hold)
		}
	}
}

func TestPatienceEndsWhereTheDeadlineWouldBeMissed(t *testing.T) {
	p, now := NewPolicy(serving.Batching{MaxRows: 32, Delay: 100 * time.Millisecond}), time.Now()
	for range fitSamples {
		p.fit.add(1, 10*time.Millisecond)
	}
	at := func(since, deadline time.Duration) Request {
		r := Request{Since: now.Add(-since)}
		if deadline != 0 {
			r.Deadline = now.Add(deadline)
		}
		return r
	}
	for name, c := range map[string]struct {
		r    Request
		want time.Duration
	}{
		"no deadline":    {at(30*time.Millisecond, 0), 70 * time.Millisecond},
		"a distant one":  {at(30*time.Millisecond, time.Second), 70 * time.Millisecond},
		"a near one":     {at(0, 50*time.Millisecond), 20 * time.Millisecond}, // 0.8 * 50 - 2 rows of 10
		"waited already": {at(200*time.Millisecond, 0), -100 * time.Millisecond},
	} {
		if got := p.Patience(c.r, 2, now); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	p.Delay = 0
	if got := p.Patience(at(0, 0), 2, now); got != 0 {
		t.Errorf("without a delay: %s", got)
	}
}

func TestDeadlinesBoundABatchUnlessTheyCannotBeMet(t *testing.T) {
	p, now := NewPolicy(serving.Batching{MaxRows: 32}), time.Now()
	within := func(d time.Duration) float64 { return p.inTime(Request{Deadline: now.Add(d), Rows: 1}, now) }
	if got := within(time.Millisecond); !math.IsInf(got, 1) {
		t.Errorf("nothing is known, and the bound is %v", got)
	}
	for i := range 8 { // 1 ms, and 10 ms a row
		p.Note(Measured{Rows: i + 1, Requests: i + 1, Took: time.Duration(1+10*(i+1)) * time.Millisecond})
	}
	if got := within(101250 * time.Microsecond); math.Abs(got-8) > 0.01 { // 0.8 of it is 81 ms
		t.Errorf("%v rows in 101 ms", got)
	}
	if got := within(5 * time.Millisecond); !math.IsInf(got, 1) {
		t.Errorf("a deadline that cannot be met leaves %v rows", got)
	}
	if got := p.inTime(Request{Rows: 1}, now); !math.IsInf(got, 1) {
		t.Errorf("no deadline leaves %v rows", got)
	}
	p.Note(Measured{Requests: 0, Rows: 5})
	for i, b := range p.Report().BySize {
		if want := (serving.BatchTimes{Rows: i + 1, Batches: 1, Took: time.Duration(1+10*(i+1)) * time.Millisecond}); b != want || len(p.Report().BySize) != 8 {
			t.Errorf("%+v, want %+v", b, want)
		}
	}
	if p.batches != 8 || p.rows != 36 || p.perRequest != 1 {
		t.Errorf("%+v", p)
	}
}

func TestOnlyFastBatchesAreSentAhead(t *testing.T) {
	p := NewPolicy(serving.Batching{MaxRows: 4})
	if p.TakesAhead(0) {
		t.Error("nothing is known yet")
	}
	for i := range 8 {
		p.Note(Measured{Rows: i + 1, Requests: i + 1, Took: time.Duration(i+1) * 100 * time.Microsecond})
	}
	if !p.TakesAhead(7) || p.TakesAhead(8) {
		t.Error("more than the next batch is sent ahead, or less")
	}
	for i := range 500 {
		p.Note(Measured{Rows: 1 + i%4, Requests: 1 + i%4, Took: 3 * time.Millisecond})
	}
	if p.TakesAhead(1) {
		t.Error("a slow worker is sent more than it executes")
	}
}

func TestABatchIsClosedByItsTightestDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		deadlines []time.Duration // 0: none
		taken     int
		limit     int
		why       string
	}{
		"no deadlines":                {make([]time.Duration, 40), 32, 32, whySize},
		"a tight one in the middle":   {[]time.Duration{0, 0, 101300 * time.Microsecond, 0, 0, 0, 0, 0, 0, 0, 0}, 8, 8, whyDeadline},
		"one that is too late behind": {[]time.Duration{0, 0, 0, 0, 0, 35 * time.Millisecond, 0}, 5, 32, whyDeadline},
		"one that cannot be met":      {[]time.Duration{0, 0, 5 * time.Millisecond, 0}, 4, 32, whySize},
		"a tight one at the front":    {[]time.Duration{15 * time.Millisecond, 0}, 1, 1, whyDeadline},
	} {
		p, now := NewPolicy(serving.Batching{MaxRows: 32}), time.Now()
		for i := range 8 {
			p.Note(Measured{Rows: i + 1, Requests: i + 1, Took: time.Duration(1+10*(i+1)) * time.Millisecond})
		}
		b, _ := p.Begin(Request{Rows: 1}, float64(len(c.deadlines)), now)
		taken := 0
		for _, d := range c.deadlines {
			r := Request{Rows: 1}
			if d != 0 {
				r.Deadline = now.Add(d)
			}
			if !b.Fits(r, now) {
				break
			}
			b.Add(r, now)
			taken++
		}
		if limit := b.Limit(); taken != c.taken || limit != c.limit || p.Report().LimitedBy != c.why || p.Report().Limit != limit {
			t.Errorf("%s: %d taken, limit %d by %s", name, taken, limit, p.Report().LimitedBy)
		}
	}
}

func TestABatchThatIsHeldTakesNothing(t *testing.T) {
	p, now := NewPolicy(serving.Batching{MaxRows: 32, Delay: time.Second}), time.Now()
	oldest := Request{Since: now, Rows: 1}
	if b, hold := p.Begin(oldest, 1, now); hold != time.Second || b.Fits(oldest, now) {
		t.Errorf("held for %s, and it takes one: %t", hold, b.Fits(oldest, now))
	}
	if b, hold := p.Begin(oldest, 1, now.Add(time.Second)); hold != 0 || !b.Fits(oldest, now) {
		t.Errorf("after its delay it is held for %s", hold)
	}
}

package worker

import (
	"math"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"clearmlserving/serving"
)

func batchingFor(t *testing.T, b serving.Batching) *batching {
	t.Helper()
	g := &Group{spec: Spec{Batch: b, Extra: map[string]any{"other": 1}}}
	made := batchingOf(g)
	if g.spec.Extra["max_batch_size"] != b.MaxRows || g.spec.Extra["other"] != 1 {
		t.Fatalf("workers are told %v", g.spec.Extra)
	}
	return made
}

func TestABatchIsAsLargeAsWhatWaitsPrefersAndDelaysSay(t *testing.T) {
	prefers := serving.Batching{MaxRows: 32, Preferred: []int{4, 8, 16}}
	for name, c := range map[string]struct {
		b        serving.Batching
		wait     float64
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
		rows, why, hold := batchingFor(t, c.b).size(c.wait, c.patience)
		if rows != c.rows || why != c.why || hold != c.hold {
			t.Errorf("%s: %d rows (%s), hold %s", name, rows, why, hold)
		}
	}
}

func TestPatienceEndsWhereTheDeadlineWouldBeMissed(t *testing.T) {
	b, now := batchingFor(t, serving.Batching{MaxRows: 32, Delay: 100 * time.Millisecond}), time.Now()
	for range fitSamples {
		b.fit.add(1, 10*time.Millisecond)
	}
	at := func(since, deadline time.Duration) *flight {
		f := &flight{since: now.Add(-since)}
		if deadline != 0 {
			f.deadline = now.Add(deadline)
		}
		return f
	}
	for name, c := range map[string]struct {
		f    *flight
		want time.Duration
	}{
		"no deadline":    {at(30*time.Millisecond, 0), 70 * time.Millisecond},
		"a distant one":  {at(30*time.Millisecond, time.Second), 70 * time.Millisecond},
		"a near one":     {at(0, 50*time.Millisecond), 20 * time.Millisecond}, // 0.8 * 50 - 2 rows of 10
		"waited already": {at(200*time.Millisecond, 0), -100 * time.Millisecond},
	} {
		if got := b.patience(c.f, 2, now); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	b.o.Delay = 0
	if got := b.patience(at(0, 0), 2, now); got != 0 {
		t.Errorf("without a delay: %s", got)
	}
}

func TestDeadlinesBoundABatchUnlessTheyCannotBeMet(t *testing.T) {
	b, now := batchingFor(t, serving.Batching{MaxRows: 32}), time.Now()
	within := func(d time.Duration) float64 { return b.inTime(&flight{deadline: now.Add(d)}, now) }
	if got := within(time.Millisecond); !math.IsInf(got, 1) {
		t.Errorf("nothing is known, and the bound is %v", got)
	}
	for i := range 8 { // 1 ms, and 10 ms a row
		b.note(batchReport{rows: i + 1, requests: i + 1, took: time.Duration(1+10*(i+1)) * time.Millisecond})
	}
	if got := within(101250 * time.Microsecond); math.Abs(got-8) > 0.01 { // 0.8 of it is 81 ms
		t.Errorf("%v rows in 101 ms", got)
	}
	if got := within(5 * time.Millisecond); !math.IsInf(got, 1) {
		t.Errorf("a deadline that cannot be met leaves %v rows", got)
	}
	if got := b.inTime(&flight{}, now); !math.IsInf(got, 1) {
		t.Errorf("no deadline leaves %v rows", got)
	}
	b.note(batchReport{requests: 0, rows: 5})
	if b.batches != 8 || b.rows != 36 || b.perRequest != 1 {
		t.Errorf("%+v", b)
	}
}

func TestOnlyFastBatchesAreSentAhead(t *testing.T) {
	b := batchingFor(t, serving.Batching{MaxRows: 4})
	if b.takesAhead(0) {
		t.Error("nothing is known yet")
	}
	for i := range 8 {
		b.note(batchReport{rows: i + 1, requests: i + 1, took: time.Duration(i+1) * 100 * time.Microsecond})
	}
	if !b.takesAhead(7) || b.takesAhead(8) {
		t.Error("more than the next batch is sent ahead, or less")
	}
	for i := range 500 {
		b.note(batchReport{rows: 1 + i%4, requests: 1 + i%4, took: 3 * time.Millisecond})
	}
	if b.takesAhead(1) {
		t.Error("a slow worker is sent more than it executes")
	}
}

// The queue of a group whose worker is free: how far a batch goes, and who is told.
func TestABatchGoesAsFarAsItsTightestDeadline(t *testing.T) {
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
		g := &Group{spec: Spec{Batch: serving.Batching{MaxRows: 32}}}
		g.batch = batchingOf(g)
		for i := range 8 {
			g.batch.note(batchReport{rows: i + 1, requests: i + 1, took: time.Duration(1+10*(i+1)) * time.Millisecond})
		}
		w := &worker{g: g, state: ready, flights: map[uint64]*flight{}, link: link{out: &outbox{}}}
		w.rescue = time.AfterFunc(time.Hour, func() {})
		w.rescue.Stop()
		g.workers = []*worker{w}
		now := time.Now()
		for _, d := range c.deadlines {
			f := &flight{state: waiting}
			if d != 0 {
				f.deadline = now.Add(d)
			}
			g.queue.push(f)
		}
		g.feedBatch(w, now)
		w.rescue.Stop()
		if len(w.flights) != c.taken || g.batch.limit != c.limit || g.batch.why != c.why || g.queue.waiting != len(c.deadlines)-c.taken {
			t.Errorf("%s: %d taken, limit %d by %s, %d left", name, len(w.flights), g.batch.limit, g.batch.why, g.queue.waiting)
		}
		if g.batch.limits[w] != c.limit {
			t.Errorf("%s: the worker knows %d", name, g.batch.limits[w])
		}
	}
}

// Slow batches, of which a busy worker is sent no more than it executes.
func TestARequestJoinsABatchThatIsNotBegun(t *testing.T) {
	page, file, err := newMarks()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(page.close)
	t.Cleanup(func() { _ = file.Close() })
	g := &Group{spec: Spec{Batch: serving.Batching{MaxRows: 4}}}
	g.batch = batchingOf(g)
	for i := range 8 {
		g.batch.note(batchReport{rows: i + 1, requests: i + 1, took: time.Duration(1+10*(i+1)) * time.Second})
	}
	w := &worker{g: g, state: ready, flights: map[uint64]*flight{}, link: link{out: &outbox{}, marks: page}}
	w.rescue = time.AfterFunc(time.Hour, func() {})
	defer w.rescue.Stop()
	g.workers = []*worker{w}
	now := time.Now()
	sent := func(f *flight) bool {
		if g.pick(f) != w {
			return false
		}
		g.send(w, f)
		return true
	}
	tight := &flight{deadline: now.Add(40 * time.Second)} // 0.8 of it is time for 3 rows
	for i, f := range []*flight{{}, {}, tight} {
		if !sent(f) {
			t.Fatalf("request %d is not sent with those before it", i+1)
		}
	}
	if sent(&flight{}) {
		t.Error("a fourth one makes the third miss its deadline")
	}
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&page.page[0])), 1)
	clear(w.flights)
	if !sent(&flight{}) {
		t.Fatal("a free worker is sent nothing")
	}
	for range 3 {
		if !sent(&flight{}) {
			t.Error("what is not begun has room and is not joined")
		}
	}
	if sent(&flight{}) {
		t.Error("more rows than max_batch_size")
	}
	clear(w.flights)
	if !sent(&flight{}) {
		t.Fatal("a free worker is sent nothing")
	}
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&page.page[0])), w.nextID)
	if sent(&flight{}) {
		t.Error("what has begun is joined")
	}
	idle := &worker{g: g, state: ready, flights: map[uint64]*flight{}, link: link{out: &outbox{}, marks: page}}
	g.workers = []*worker{w, idle}
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&page.page[0])), 0)
	if g.pick(&flight{}) != idle {
		t.Error("nothing waits while a worker is free")
	}
}

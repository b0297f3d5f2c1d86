package worker

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"clearmlserving/batching"
	"clearmlserving/serving"
)

// batchingDispatch is the dispatch of an endpoint that batches, to which batches of 1 to 8
// rows were reported that took perBatch and for each row perRow.
func batchingDispatch(b serving.Batching, perBatch, perRow time.Duration) *dispatch {
	d := newSeats(context.Background(), New(Options{}), Spec{Batch: b, Limits: serving.Limits{MaxQueue: 100}}, &arena{}, &sync.WaitGroup{}).d
	for i := range 8 {
		d.policy.Note(batching.Measured{Rows: i + 1, Requests: i + 1, Took: perBatch + time.Duration(i+1)*perRow})
	}
	return d
}

// listed makes a worker without a process that takes requests.
func listed(d *dispatch, page *marks) *worker {
	w := newWorker(d)
	w.state, w.out, w.marks = ready, &outbox{}, page
	d.workers = append(d.workers, w)
	return w
}

func TestWorkersAreToldTheRowsOfABatch(t *testing.T) {
	s := newSeats(context.Background(), New(Options{}), Spec{Batch: serving.Batching{MaxRows: 7}, Extra: map[string]any{"other": 1}}, &arena{}, &sync.WaitGroup{})
	if err := s.encodeSpec(); err != nil {
		t.Fatal(err)
	}
	var told struct{ Extra map[string]int }
	if err := json.Unmarshal(s.specJSON, &told); err != nil || told.Extra["max_batch_size"] != 7 || told.Extra["other"] != 1 {
		t.Errorf("%v, %v", told, err)
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
		"no deadlines":                {make([]time.Duration, 40), 32, 32, "max_batch_size"},
		"a tight one in the middle":   {[]time.Duration{0, 0, 101300 * time.Microsecond, 0, 0, 0, 0, 0, 0, 0, 0}, 8, 8, "deadline"},
		"one that is too late behind": {[]time.Duration{0, 0, 0, 0, 0, 35 * time.Millisecond, 0}, 5, 32, "deadline"},
		"one that cannot be met":      {[]time.Duration{0, 0, 5 * time.Millisecond, 0}, 4, 32, "max_batch_size"},
		"a tight one at the front":    {[]time.Duration{15 * time.Millisecond, 0}, 1, 1, "deadline"},
	} {
		d := batchingDispatch(serving.Batching{MaxRows: 32}, time.Millisecond, 10*time.Millisecond)
		w := listed(d, nil)
		now := time.Now()
		for _, left := range c.deadlines {
			f := &flight{state: waiting, kind: kindRequest}
			if left != 0 {
				f.deadline = now.Add(left)
			}
			d.queue.push(f)
		}
		d.feedBatch(w, now)
		w.rescue.Stop()
		if s := d.policy.Report(); len(w.flights) != c.taken || s.Limit != c.limit || s.LimitedBy != c.why || d.queue.len() != len(c.deadlines)-c.taken {
			t.Errorf("%s: %d taken, limit %d by %s, %d left", name, len(w.flights), s.Limit, s.LimitedBy, d.queue.len())
		}
		if w.rowLimit != c.limit {
			t.Errorf("%s: the worker knows %d", name, w.rowLimit)
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
	d := batchingDispatch(serving.Batching{MaxRows: 4}, time.Second, 10*time.Second)
	w := listed(d, page)
	defer w.rescue.Stop()
	now := time.Now()
	sent := func(f *flight) bool {
		f.kind = kindRequest
		if d.pick(f) != w {
			return false
		}
		d.send(w, f)
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
	idle := listed(d, page)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&page.page[0])), 0)
	if d.pick(&flight{kind: kindRequest}) != idle {
		t.Error("nothing waits while a worker is free")
	}
}

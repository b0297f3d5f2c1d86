package worker

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/serving"
)

const mib = 1 << 20

// fakes are workers without processes, and what they take.
type fakes struct {
	last     int // worker
	taken    map[int]process.Memory
	measured []int
	groups   []*Group
}

func newFakes() *fakes { return &fakes{taken: map[int]process.Memory{}} }

func (f *fakes) system() system {
	return system{
		below: func([]int) []int { return slices.Collect(maps.Keys(f.taken)) },
		measure: func(pid int) (process.Memory, error) {
			f.measured = append(f.measured, pid)
			if m, ok := f.taken[pid]; ok {
				return m, nil
			}
			return process.Memory{}, fs.ErrNotExist
		},
	}
}

// add makes an endpoint whose workers were asked last so long ago; each has 100 MiB
// for itself. Its workers are numbered on from those that there are.
func (f *fakes) add(least int, now time.Time, idle ...time.Duration) *Group {
	g := newGroup(context.Background(), New(Options{}), Spec{Workers: len(idle), Elastic: len(idle) - least})
	g.seats.started = true
	for _, d := range idle {
		f.last++
		pid := f.last
		w := listed(g.dispatch, nil)
		w.pid, w.since = pid, now.Add(-d)
		w.seat = &seat{w: w}
		g.seats.seats = append(g.seats.seats, w.seat)
		f.taken[pid] = process.Memory{Share: 100 * mib, Own: 100 * mib}
	}
	f.groups = append(f.groups, g)
	return g
}

// left lists the workers that were told to leave.
func (f *fakes) left() (pids []int) {
	for _, g := range f.groups {
		for _, w := range g.dispatch.workers {
			if w.state == leaving {
				pids = append(pids, w.pid)
			}
		}
	}
	slices.Sort(pids)
	return pids
}

func TestShortMemoryEndsThoseThatHaveBeenIdleForLongest(t *testing.T) {
	now := time.Now()
	const s = time.Second
	for name, c := range map[string]struct {
		limit int64
		make  func(f *fakes)
		want  []int
	}{
		"enough":                           {500 * mib, func(f *fakes) { f.add(0, now, 9*s); f.add(0, now, 8*s); f.add(0, now, 7*s) }, nil},
		"near the limit":                   {330 * mib, func(f *fakes) { f.add(0, now, 7*s); f.add(0, now, 9*s); f.add(0, now, 8*s) }, []int{2}},
		"far beyond it":                    {150 * mib, func(f *fakes) { f.add(0, now, 7*s); f.add(0, now, 9*s); f.add(0, now, 8*s) }, []int{2, 3}},
		"of one endpoint, above its least": {150 * mib, func(f *fakes) { f.add(1, now, 7*s, 9*s, 8*s) }, []int{2, 3}},
		"an endpoint's least":              {150 * mib, func(f *fakes) { f.add(2, now, 9*s, 8*s); f.add(0, now, 7*s) }, []int{3}},
		"one that was asked a moment ago":  {150 * mib, func(f *fakes) { f.add(0, now, s/2); f.add(0, now, 0); f.add(0, now, 2*s) }, []int{3}},
		"one that works":                   {150 * mib, func(f *fakes) { f.add(0, now, 9*s).dispatch.workers[0].flights[1] = &flight{}; f.add(0, now, 2*s) }, []int{2}},
		"one whose code waits for another": {150 * mib, func(f *fakes) { f.add(0, now, 9*s).dispatch.workers[0].calls[1] = &openCall{}; f.add(0, now, 2*s) }, []int{2}},
		"one that keeps a request's state": {150 * mib, func(f *fakes) {
			f.add(0, now, 9*s).dispatch.workers[0].prepared = map[uint64]*Prepared{1: {}}
			f.add(0, now, 2*s)
		}, []int{2}},
		"one of an endpoint with requests":     {150 * mib, func(f *fakes) { f.add(0, now, 9*s).dispatch.queue.push(&flight{}); f.add(0, now, 2*s) }, []int{2}},
		"one that is being replaced":           {150 * mib, func(f *fakes) { f.add(0, now, 9*s).dispatch.workers[0].seat = nil; f.add(0, now, 2*s) }, []int{2}},
		"one that leaves is not counted again": {350 * mib, func(f *fakes) { f.add(0, now, 9*s).dispatch.workers[0].state = leaving; f.add(0, now, 8*s, 7*s) }, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakes()
			c.make(f)
			l := newMemoryLedger(c.limit, f.system())
			before := f.left()
			ended := l.look(now, f.groups, nil).EndedEarly
			if got := f.left(); !slices.Equal(got, c.want) || int(ended) != len(got)-len(before) {
				t.Errorf("%v left, want %v; %d are said to have been ended", got, c.want, ended)
			}
			for _, g := range f.groups {
				if len(g.seats.seats) < g.seats.least() {
					t.Errorf("%d seats are left of at least %d", len(g.seats.seats), g.seats.least())
				}
			}
			if again := l.look(now, f.groups, nil).EndedEarly; again != ended {
				t.Errorf("%d more were ended at the next look, before those have gone", again-ended)
			}
		})
	}
}

func TestMemoryIsMeasuredNowAndThenAndSoonWhenProcessesChange(t *testing.T) {
	f, now := newFakes(), time.Now()
	f.add(0, now, time.Second)
	g := f.add(0, now, time.Second)
	l := newMemoryLedger(1<<40, f.system())
	step := func(after time.Duration, measured int, taken int64) {
		t.Helper()
		f.measured = nil
		now = now.Add(after)
		if s := l.look(now, f.groups, nil); len(f.measured) != measured || s.Taken != taken*mib {
			t.Errorf("%d were measured, want %d; %d MiB are taken, want %d", len(f.measured), measured, s.Taken/mib, taken)
		}
	}
	step(0, 2, 200)
	f.taken[1] = process.Memory{Share: 300 * mib, Own: 300 * mib}
	step(measureEvery-lookEvery, 0, 200)
	step(lookEvery, 2, 400)
	f.add(0, now, 0)
	f.taken[3] = process.Memory{Share: 20 * mib, Own: 20 * mib}
	step(lookEvery, 0, 600) // a new worker counts as much as the others do on average
	step(measureSoonest, 3, 420)
	g.dispatch.workers = nil
	step(lookEvery, 0, 320)
	delete(f.taken, 2)
	step(measureSoonest, 2, 320)
	step(measureSoonest, 0, 320)
	f.groups[0].seats.template.f = &forker{pid: 100} // a large model
	f.taken[100] = process.Memory{Share: 600 * mib, Own: 600 * mib}
	step(lookEvery, 3, 920)
	step(measureSoonest, 0, 920)
}

func TestALargeModelGoesWithItsLastWorker(t *testing.T) {
	f, now := newFakes(), time.Now()
	for i := range 3 {
		g := f.add(0, now, time.Duration(9-i)*time.Second)
		pid := 100 + i // the template, which shares 600 MiB with its worker
		g.seats.template.f = &forker{pid: pid}
		f.taken[pid] = process.Memory{Share: 310 * mib, Own: 10 * mib}
		f.taken[g.dispatch.workers[0].pid] = process.Memory{Share: 310 * mib, Own: 10 * mib}
	}
	l := newMemoryLedger(1800*mib, f.system())
	if s := l.look(now, f.groups, nil); s.EndedEarly != 1 || l.stays != 2*620*mib {
		t.Errorf("%d were ended, and %d MiB are taken after it", s.EndedEarly, l.stays/mib)
	}
}

func TestShortMemoryIsSaidOnce(t *testing.T) {
	var out bytes.Buffer
	f, now := newFakes(), time.Now()
	b := NewBudget(330*mib, slog.New(slog.NewTextHandler(&out, nil)))
	b.system = f.system()
	p := New(Options{Budget: b})
	b.join(p)
	l := newMemoryLedger(b.limit, b.system)
	wait := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(lookEvery) {
			b.look(now, l)
			for _, g := range f.groups {
				g.dispatch.workers = slices.DeleteFunc(g.dispatch.workers, func(w *worker) bool {
					if w.state == leaving {
						delete(f.taken, w.pid)
					}
					return w.state == leaving
				})
			}
		}
	}
	add := func(n int) {
		for range n {
			p.groups[f.add(0, now, time.Minute)] = struct{}{}
		}
	}
	says := func(want ...string) {
		t.Helper()
		got := slices.Collect(strings.Lines(out.String()))
		out.Reset()
		if !slices.EqualFunc(got, want, strings.Contains) {
			t.Errorf("the log says %q, want %q", got, want)
		}
	}
	add(2)
	wait(measureEvery)
	says()
	add(1)
	wait(measureEvery)
	says("worker memory is short")
	for range 3 {
		add(1)
		wait(measureEvery)
	}
	says()
	if s := b.Status(); s != (serving.MemoryReport{Budget: 330 * mib, Taken: 200 * mib, EndedEarly: 4, Short: true}) {
		t.Errorf("status = %+v", s)
	}
	wait(shortFor)
	says("is sufficient again")
	for _, g := range f.groups { // all that are left work
		for _, w := range g.dispatch.workers {
			w.flights[1] = &flight{}
			f.taken[w.pid] = process.Memory{Share: 200 * mib, Own: 200 * mib}
		}
	}
	wait(measureEvery)
	says("memory budget exceeded")
	if s := b.Status(); s != (serving.MemoryReport{Budget: 330 * mib, Taken: 400 * mib, EndedEarly: 4, Exceeded: true}) {
		t.Errorf("status = %+v", s)
	}
	asked := b.system.measure
	l.system.measure = func(int) (process.Memory, error) { return process.Memory{}, fs.ErrNotExist }
	wait(measureEvery) // that they have just died is no reason to say anything
	says()
	b.system.measure = func(int) (process.Memory, error) { return process.Memory{}, fs.ErrPermission }
	l.system = b.system
	wait(measureEvery)
	says("bounds nothing")
	if s := b.Status(); !s.Unmeasured || s.Exceeded {
		t.Errorf("status = %+v", s)
	}
	l.system.measure = asked
	b.leave(p)
	clear(f.taken)
	wait(measureEvery)
	says()
	if s := b.Status(); s != (serving.MemoryReport{Budget: 330 * mib, EndedEarly: 4, Unmeasured: true}) { // nobody is left who could be asked
		t.Errorf("status = %+v", s)
	}
}

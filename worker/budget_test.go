package worker

import (
	"bytes"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/process"
)

const mib = 1 << 20

// fakes are workers without processes, and what they take.
type fakes struct {
	last     int // worker
	taken    map[int]process.Memory
	faults   map[int]int64
	measured []int // of which one was asked alone
	groups   []*Group
}

func newFakes() *fakes { return &fakes{taken: map[int]process.Memory{}, faults: map[int]int64{}} }

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
		faults: func(pid int) int64 { return f.faults[pid] },
		spent:  func() time.Duration { return 0 }, // measuring takes no time
	}
}

// add makes an endpoint whose workers were asked last so long ago; each has 100 MiB
// for itself. Its workers are numbered on from those that there are.
func (f *fakes) add(least int, now time.Time, idle ...time.Duration) *Group {
	g := &Group{started: true, log: slog.New(slog.DiscardHandler), spec: Spec{Workers: len(idle), Elastic: len(idle) - least}}
	for _, d := range idle {
		f.last++
		pid := f.last
		w := &worker{g: g, pid: pid, state: ready, since: now.Add(-d), flights: map[uint64]*flight{}, calls: map[uint64]*openCall{}}
		w.place = &seat{w: w}
		g.workers, g.seats = append(g.workers, w), append(g.seats, w.place)
		f.taken[pid] = process.Memory{Share: 100 * mib, Own: 100 * mib}
	}
	f.groups = append(f.groups, g)
	return g
}

// left lists the workers that were told to leave.
func (f *fakes) left() (pids []int) {
	for _, g := range f.groups {
		for _, w := range g.workers {
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
		"enough":                               {500 * mib, func(f *fakes) { f.add(0, now, 9*s); f.add(0, now, 8*s); f.add(0, now, 7*s) }, nil},
		"near the limit":                       {330 * mib, func(f *fakes) { f.add(0, now, 7*s); f.add(0, now, 9*s); f.add(0, now, 8*s) }, []int{2}},
		"far beyond it":                        {150 * mib, func(f *fakes) { f.add(0, now, 7*s); f.add(0, now, 9*s); f.add(0, now, 8*s) }, []int{2, 3}},
		"of one endpoint, above its least":     {150 * mib, func(f *fakes) { f.add(1, now, 7*s, 9*s, 8*s) }, []int{2, 3}},
		"an endpoint's least":                  {150 * mib, func(f *fakes) { f.add(2, now, 9*s, 8*s); f.add(0, now, 7*s) }, []int{3}},
		"one that was asked a moment ago":      {150 * mib, func(f *fakes) { f.add(0, now, s/2); f.add(0, now, 0); f.add(0, now, 2*s) }, []int{3}},
		"one that works":                       {150 * mib, func(f *fakes) { f.add(0, now, 9*s).workers[0].flights[1] = &flight{}; f.add(0, now, 2*s) }, []int{2}},
		"one whose code waits for another":     {150 * mib, func(f *fakes) { f.add(0, now, 9*s).workers[0].calls[1] = &openCall{}; f.add(0, now, 2*s) }, []int{2}},
		"one of an endpoint with requests":     {150 * mib, func(f *fakes) { f.add(0, now, 9*s).queued = 1; f.add(0, now, 2*s) }, []int{2}},
		"one that is being replaced":           {150 * mib, func(f *fakes) { f.add(0, now, 9*s).workers[0].place = nil; f.add(0, now, 2*s) }, []int{2}},
		"one that leaves is not counted again": {350 * mib, func(f *fakes) { f.add(0, now, 9*s).workers[0].state = leaving; f.add(0, now, 8*s, 7*s) }, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakes()
			c.make(f)
			l := newLedger(c.limit, f.system())
			before := f.left()
			ended := l.relieve(now, l.look(now, f.groups, nil))
			if got := f.left(); !slices.Equal(got, c.want) || ended != len(got)-len(before) {
				t.Errorf("%v left, want %v; %d are said to have been ended", got, c.want, ended)
			}
			for _, g := range f.groups {
				if len(g.seats) < g.spec.Workers-g.spec.Elastic {
					t.Errorf("%d seats are left of at least %d", len(g.seats), g.spec.Workers-g.spec.Elastic)
				}
			}
			if again := l.relieve(now, l.look(now, f.groups, nil)); again != 0 {
				t.Errorf("%d more were ended at the next look, before those have gone", again)
			}
		})
	}
}

func TestOnlyWorkersThatMayTakeMoreAreMeasuredAgain(t *testing.T) {
	f, now := newFakes(), time.Now()
	a, b := f.add(0, now, time.Second), f.add(0, now, time.Second)
	l := newLedger(1<<40, f.system())
	step := func(after time.Duration) []int {
		f.measured = nil
		now = now.Add(after)
		l.look(now, f.groups, nil)
		slices.Sort(f.measured)
		return f.measured
	}
	if got := step(0); len(got) != 2 || l.taken != 200*mib {
		t.Errorf("%v were counted, want all; %d MiB are taken", got, l.taken/mib)
	}
	if got := step(measureEvery); len(got) != 0 {
		t.Errorf("%v were measured though nothing has happened", got)
	}
	a.workers[0].served++
	if got := step(measureEvery); len(got) != 0 {
		t.Errorf("%v were measured though they had no page fault", got)
	}
	a.workers[0].served++
	f.faults[1], f.taken[1] = 10_000, process.Memory{Share: 130 * mib, Own: 130 * mib}
	if got := step(lookEvery); len(got) != 0 {
		t.Errorf("%v were measured again at once", got)
	}
	if got := step(measureEvery); !slices.Equal(got, []int{1}) || l.taken != 230*mib {
		t.Errorf("%v were measured, want the one that has worked; %d MiB are taken", got, l.taken/mib)
	}
	b.workers[0].flights[1] = &flight{} // for a long while
	f.faults[2] = 10_000
	if got := step(measureEvery); !slices.Equal(got, []int{2}) {
		t.Errorf("%v were measured, want the one that works", got)
	}
	b.workers = nil
	if step(lookEvery); l.taken != 130*mib {
		t.Errorf("%d MiB are taken when one has gone", l.taken/mib)
	}
	if got := step(countEvery); len(got) != 2 { // the process is still there
		t.Errorf("%v were counted, want all", got)
	}
}

func TestANewWorkerIsTakenToBeLikeTheLastOneOfItsEndpoint(t *testing.T) {
	f, now := newFakes(), time.Now()
	small, large := f.add(0, now, time.Second), f.add(0, now, time.Second)
	f.taken[1], f.taken[2] = process.Memory{Share: 20 * mib, Own: 20 * mib}, process.Memory{Share: 500 * mib, Own: 500 * mib}
	for _, g := range f.groups {
		g.workers[0].served = 1
	}
	loaded := f.add(0, now, time.Second) // has answered nobody
	other := f.add(0, now)               // had no worker yet
	l := newLedger(1<<40, f.system())
	look := func() { now = now.Add(lookEvery); l.look(now, f.groups, nil) }
	look()
	again := func(g *Group) {
		g.workers = nil
		look()
		before := l.taken
		g.workers = f.add(0, now, 0).workers
		f.groups = f.groups[:len(f.groups)-1]
		f.measured = nil
		look()
		// Of the last one nothing is known: it is like the middle of those that have answered.
		want := map[*Group]int64{small: 20, large: 500, loaded: 200, other: 500}[g]
		if got := (l.taken - before) / mib; got != want || len(f.measured) != 0 {
			t.Errorf("it counts %d MiB, want %d; %v were measured", got, want, f.measured)
		}
	}
	again(small)
	again(large)
	again(loaded)
	again(other)
	f.measured = nil
	now = now.Add(measureEvery)
	if look(); len(f.measured) != 4 || l.taken != 400*mib {
		t.Errorf("%v were measured after a while, want the new ones; %d MiB are taken", f.measured, l.taken/mib)
	}
}

func TestALargeModelGoesWithItsLastWorker(t *testing.T) {
	f, now := newFakes(), time.Now()
	for i := range 3 {
		g := f.add(0, now, time.Duration(9-i)*time.Second)
		pid := 100 + i // the template, which shares 600 MiB with its worker
		g.template.f = &forker{pid: pid}
		f.taken[pid] = process.Memory{Share: 310 * mib, Own: 10 * mib}
		f.taken[g.workers[0].pid] = process.Memory{Share: 310 * mib, Own: 10 * mib}
	}
	l := newLedger(1800*mib, f.system())
	if ended := l.relieve(now, l.look(now, f.groups, nil)); ended != 1 || l.taken != 2*620*mib {
		t.Errorf("%d were ended, and %d MiB are taken after it", ended, l.taken/mib)
	}
}

func TestALargeModelIsCountedSoon(t *testing.T) {
	f, now := newFakes(), time.Now()
	g := f.add(0, now, time.Second)
	l := newLedger(1<<40, f.system())
	l.look(now, f.groups, nil)
	g.template.f = &forker{pid: 100}
	f.taken[100] = process.Memory{Share: 600 * mib, Own: 600 * mib}
	if l.look(now.Add(countSoonest-lookEvery), f.groups, nil); l.taken != 100*mib {
		t.Errorf("%d MiB are taken at once", l.taken/mib)
	}
	if l.look(now.Add(countSoonest), f.groups, nil); l.taken != 700*mib {
		t.Errorf("%d MiB are taken a second later", l.taken/mib)
	}
	f.taken[100] = process.Memory{Share: 800 * mib, Own: 800 * mib}
	if l.look(now.Add(2*countSoonest), f.groups, nil); l.taken != 700*mib {
		t.Errorf("it is counted again: %d MiB", l.taken/mib)
	}
}

func TestShortMemoryIsSaidOnce(t *testing.T) {
	var out bytes.Buffer
	f, now := newFakes(), time.Now()
	b := NewBudget(330*mib, slog.New(slog.NewTextHandler(&out, nil)))
	b.system = f.system()
	p := New(Options{Budget: b})
	b.join(p)
	l, e := newLedger(b.limit, b.system), episode{}
	wait := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(lookEvery) {
			b.look(now, l, &e)
			for _, g := range f.groups {
				g.workers = slices.DeleteFunc(g.workers, func(w *worker) bool {
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
	wait(countEvery)
	says()
	add(1)
	wait(countEvery)
	says("is short: idle ones end")
	for range 3 {
		add(1)
		wait(countEvery)
	}
	says()
	if s := b.Status(); s != (BudgetStatus{Limit: 330 * mib, Taken: 200 * mib, EndedEarly: 4, Short: true}) {
		t.Errorf("status = %+v", s)
	}
	wait(episodeEnd)
	says("is sufficient again")
	for _, g := range f.groups { // all that are left work
		for _, w := range g.workers {
			w.flights[1] = &flight{}
			f.taken[w.pid] = process.Memory{Share: 200 * mib, Own: 200 * mib}
		}
	}
	wait(countEvery)
	says("more memory than their budget, and none")
	if s := b.Status(); s != (BudgetStatus{Limit: 330 * mib, Taken: 400 * mib, EndedEarly: 4, Exceeded: true}) {
		t.Errorf("status = %+v", s)
	}
	asked := b.system.measure
	l.system.measure = func(int) (process.Memory, error) { return process.Memory{}, fs.ErrNotExist }
	wait(countEvery) // that they have just died is no reason to say anything
	says()
	b.system.measure = func(int) (process.Memory, error) { return process.Memory{}, fs.ErrPermission }
	l.system = b.system
	wait(countEvery)
	says("bounds nothing")
	if s := b.Status(); !s.Blind || s.Exceeded {
		t.Errorf("status = %+v", s)
	}
	l.system.measure = asked
	b.leave(p)
	clear(f.taken)
	wait(countEvery)
	says()
	if s := b.Status(); s != (BudgetStatus{Limit: 330 * mib, EndedEarly: 4, Blind: true}) { // nobody is left who could be asked
		t.Errorf("status = %+v", s)
	}
}

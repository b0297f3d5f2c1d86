package worker

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// lookEvery is the time between two looks at all groups.
	lookEvery = 100 * time.Millisecond
	// Every thorough-th look also inspects each process.
	thorough = 10
	// Every censusEvery-th thorough look scans /proc; a rise of censusGrowth in the
	// machine's tasks causes a scan at once.
	censusEvery  = 10
	censusGrowth = 64
	// stoppedLooks is at how many thorough looks in a row a process must be stopped
	// before it is replaced.
	stoppedLooks = 2
)

// watch looks after the workers until ctx ends: how many there are, and whether
// one takes more of the machine than it may. One goroutine does it for all groups.
func (p *Pool) watch(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var groups []*Group
	tasks := tasksOfMachine()
	for n := 1; ; n++ {
		var now time.Time
		select {
		case now = <-ticker.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		groups = groups[:0]
		for g := range p.groups {
			groups = append(groups, g)
		}
		p.mu.Unlock()
		full := n%thorough == 0
		seen := tasksOfMachine()
		counts := full && n%(thorough*censusEvery) == 0 || seen > tasks+censusGrowth
		if counts || seen < tasks {
			tasks = seen
		}
		var all *census
		for _, g := range groups {
			for _, w := range g.look(now) {
				if counts && all == nil {
					all = p.census(groups)
				}
				g.examine(w, now, full, all)
			}
		}
		if full {
			p.endOrphans(now)
			p.wakeForkers(groups)
		}
		clear(groups)
	}
}

// census counts the processes of the machine, and which of them come from workers.
func (p *Pool) census(groups []*Group) *census {
	workers := map[int]bool{}
	for _, g := range groups {
		g.mu.Lock()
		for _, w := range g.workers {
			workers[w.pid] = true
		}
		g.mu.Unlock()
	}
	all := takeCensus()
	all.attribute(p.zygote.mark, workers)
	return all
}

// orphansFor is how long after a zygote's death what it has left behind is looked
// for: its workers die with it, but not at the same moment.
const orphansFor = 10 * time.Second

// endOrphans ends what had detached itself from workers of a zygote that is dead.
func (p *Pool) endOrphans(now time.Time) {
	died := p.zygote.orphaned.Load()
	if died == nil || now.Sub(*died) > orphansFor {
		return
	}
	if n := endOrphans(p.zygote.mark); n > 0 {
		p.o.Logger.Warn("processes were ended that had outlived their worker", "count", n)
	}
}

// wakeForkers has the processes go on that fork workers, should one be stopped.
func (p *Pool) wakeForkers(groups []*Group) {
	p.zygote.mu.Lock()
	f := p.zygote.current
	p.zygote.mu.Unlock()
	if f != nil {
		f.wake()
	}
	for _, g := range groups {
		if t := &g.template; t.mu.TryLock() { // held while it loads: await looks after it then
			if t.f != nil {
				t.f.wake()
			}
			t.mu.Unlock()
		}
	}
}

// examine looks at one worker's process. all is nil without a census.
func (g *Group) examine(w *worker, now time.Time, full bool, all *census) {
	limits := g.spec.Limits
	if !full && limits.Memory <= 0 && all == nil {
		return
	}
	facts, ok := factsOf(w.pid)
	if !ok {
		return // it is dead, or the system does not tell
	}
	var members []int
	if all != nil {
		members = all.below(w.pid)
	}
	if limits.Memory > 0 && facts.resident >= limits.Memory || len(members) > 0 && limits.Memory > 0 {
		taken := pss(w.pid)
		for _, pid := range members {
			taken += pss(pid)
		}
		if taken > limits.Memory {
			w.killNow(fmt.Sprintf("memory limit %s exceeded (%s)", exactBytes(limits.Memory), exactBytes(taken)), members)
			return
		}
	}
	if len(members) > g.o.maxProcesses {
		w.killNow(fmt.Sprintf("it has started %d processes, more than the limit of %d", len(members), g.o.maxProcesses), members)
		return
	}
	if !full {
		return
	}
	if facts.threads > g.o.maxThreads {
		w.killNow(fmt.Sprintf("it has %d threads, more than the limit of %d", facts.threads, g.o.maxThreads), nil)
		return
	}
	if facts.stopped {
		w.stopped++
	} else {
		w.stopped = 0
	}
	if w.stopped >= stoppedLooks {
		w.killNow("its process was stopped by a signal, and answers nothing", nil)
		return
	}
	if most := limits.RecycleMemory; most > 0 && facts.resident > most {
		if taken := pss(w.pid); taken > most {
			g.mu.Lock()
			g.recycle(w, now, fmt.Sprintf("it takes %s, more than %s", exactBytes(taken), exactBytes(most)))
			g.mu.Unlock()
		}
	}
}

// killNow ends the worker for what it takes of the machine: it is not asked
// anything, since each moment it takes more. members are processes of its own
// that may have left its group.
func (w *worker) killNow(reason string, members []int) {
	if !w.condemn(reason) {
		return
	}
	w.process.kill(syscall.SIGKILL, true)
	for _, pid := range members {
		_ = syscall.Kill(pid, syscall.SIGKILL) // seen a moment ago; gone: nothing to do
	}
}

// exactBytes has four digits, so that a size just above its limit differs from it.
func exactBytes(n int64) string { return humanize.IBytesN(uint64(max(n, 0)), 4) }

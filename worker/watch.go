package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"clearmlserving/process"
)

const (
	// lookEvery is the interval between looks at all groups.
	lookEvery = 100 * time.Millisecond
	// Every thorough-th look also inspects each process.
	thorough = 10
	// Every censusEvery-th thorough look scans /proc; a rise of censusGrowth in the
	// machine's tasks causes a scan at once.
	censusEvery  = 10
	censusGrowth = 64
	// stoppedLooks is the number of consecutive thorough looks at which a process must be
	// stopped before it is replaced.
	stoppedLooks = 2
)

// watch checks the number of workers and their use of resources until ctx ends. One
// goroutine does it for all groups.
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
		groups = p.appendGroups(groups[:0])
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
			p.killDetached(now)
			p.wakeForkers(groups)
		}
		clear(groups)
	}
}

// census lists the processes of the machine, and which of them come from workers.
func (p *Pool) census(groups []*Group) *census {
	workers := map[int]bool{}
	for _, g := range groups {
		for _, w := range g.dispatch.Workers() {
			workers[w.pid] = true
		}
	}
	all := takeCensus()
	all.attribute(p.zygote.mark, workers)
	return all
}

// detachedFor is how long after a zygote's death its remaining processes are searched: its
// workers die with it, but not at the same moment.
const detachedFor = 10 * time.Second

// killDetached ends the detached processes of workers whose zygote is dead.
func (p *Pool) killDetached(now time.Time) {
	died := p.zygote.lastDeath.Load()
	if died == nil || now.Sub(*died) > detachedFor {
		return
	}
	if n := killDetached(p.zygote.mark); n > 0 {
		p.o.Logger.Warn("detached processes of dead workers ended", "count", n)
	}
}

// wakeForkers continues the processes that fork workers, if one is stopped.
func (p *Pool) wakeForkers(groups []*Group) {
	p.zygote.forker().wake()
	for _, g := range groups {
		g.seats.template.forker().wake() // while it loads, await looks after it
	}
}

// examine checks one worker's process against its limits. all is nil without a census.
func (g *Group) examine(w *worker, now time.Time, full bool, all *census) {
	limits := g.seats.spec.Limits
	if !full && limits.Memory <= 0 && all == nil {
		return
	}
	stat, ok := process.StatOf(w.pid)
	if !ok {
		return // it is dead, or the system does not report it
	}
	var members []int
	if all != nil {
		members = all.below(w.pid)
	}
	taken := int64(0)
	if limits.Memory > 0 && (stat.Resident >= limits.Memory || len(members) > 0) {
		taken = pss(w.pid)
		for _, pid := range members {
			taken += pss(pid)
		}
	}
	if full && stat.Stopped {
		w.stopped++
	} else if full {
		w.stopped = 0
	}
	reason := ""
	switch {
	case limits.Memory > 0 && taken > limits.Memory:
		reason = fmt.Sprintf("memory limit %s exceeded (%s)", exactBytes(limits.Memory), exactBytes(taken))
	case len(members) > g.pool.o.maxProcesses:
		reason = fmt.Sprintf("it has started %d processes, more than the limit of %d", len(members), g.pool.o.maxProcesses)
	case full && stat.Threads > g.pool.o.maxThreads:
		reason = fmt.Sprintf("it has %d threads, more than the limit of %d", stat.Threads, g.pool.o.maxThreads)
	case w.stopped >= stoppedLooks:
		reason = "its process was stopped by a signal, and answers nothing"
	case !full:
		return
	}
	if reason != "" {
		w.killNow(reason, members)
		return
	}
	if most := limits.RecycleMemory; most > 0 && stat.Resident > most {
		if taken := pss(w.pid); taken > most {
			g.seats.Recycle(w, now, fmt.Sprintf("it takes %s, more than %s", exactBytes(taken), exactBytes(most)))
		}
	}
}

// exactBytes has four digits, so that a size just above a limit differs from the limit.
func exactBytes(n int64) string { return humanize.IBytesN(uint64(max(n, 0)), 4) }

package worker

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"clearmlserving/process"
	"clearmlserving/serving"
)

// A Budget bounds the memory of all workers of an instance, in all its pools. When
// memory is short, idle workers above their endpoint's minimum are ended, the longest
// idle first, as if their idle timeout had passed; the endpoint's next request is held
// until another worker is forked. Busy workers and an endpoint's minimum are never ended.
type Budget struct {
	limit  int64
	log    *slog.Logger
	system system

	mu     sync.Mutex // guards the rest
	pools  map[*Pool]struct{}
	status serving.MemoryReport
}

const (
	// Above the share budgetHigh of the budget, idle workers are ended down to budgetLow.
	budgetHigh, budgetLow = 0.9, 0.8
	// earliestEnd protects a worker after its last answer, so that two endpoints that
	// are asked in turn do not end each other's workers.
	earliestEnd = time.Second
	// shortFor is how long memory counts as short after a worker was ended early.
	shortFor = time.Minute
	// All processes are measured every measureEvery, and after measureSoonest when memory
	// is short or processes have started or ended. A measurement takes some milliseconds
	// for each process; the pause is at least measureRest times what the last one took.
	measureEvery, measureSoonest = 10 * time.Second, time.Second
	measureRest                  = 20
)

// NewBudget makes a budget of so many bytes; Run enforces it.
func NewBudget(limit int64, log *slog.Logger) *Budget {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	host := system{
		below: func(roots []int) []int {
			return process.All().Below(func(pid int) bool { return slices.Contains(roots, pid) })
		},
		measure: process.MemoryOf,
	}
	return &Budget{limit: limit, log: log, system: host, pools: map[*Pool]struct{}{}, status: serving.MemoryReport{Budget: limit}}
}

// system lists processes and measures their memory.
type system struct {
	below   func(roots []int) []int // the roots and all their descendants
	measure func(pid int) (process.Memory, error)
}

// Run enforces the budget until ctx ends. It is called once.
func (b *Budget) Run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	l := newMemoryLedger(b.limit, b.system)
	for {
		select {
		case now := <-ticker.C:
			b.look(now, l)
		case <-ctx.Done():
			return
		}
	}
}

func (b *Budget) look(now time.Time, l *memoryLedger) {
	groups, roots := b.members()
	b.report(l.look(now, groups, roots))
}

// Status describes the budget at the last look.
func (b *Budget) Status() serving.MemoryReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// join has the budget count p's workers until leave.
func (b *Budget) join(p *Pool) {
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pools[p] = struct{}{}
	}
}

func (b *Budget) leave(p *Pool) {
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.pools, p)
	}
}

// members lists the groups that share the budget, and the zygotes of their pools.
func (b *Budget) members() (groups []*Group, roots []int) {
	b.mu.Lock()
	pools := slices.Collect(maps.Keys(b.pools))
	b.mu.Unlock()
	for _, p := range pools {
		groups = p.appendGroups(groups)
		if pid := p.zygote.forker().process(); pid != 0 {
			roots = append(roots, pid)
		}
	}
	return groups, roots
}

// report publishes the status and logs when it changes, not each ended worker.
func (b *Budget) report(s serving.MemoryReport) {
	b.mu.Lock()
	was := b.status
	b.status = s
	b.mu.Unlock()
	log := b.log.With("budget", humanize.IBytes(uint64(max(s.Budget, 0))), "taken", humanize.IBytes(uint64(max(s.Taken, 0))))
	switch {
	case s.Short && !was.Short:
		log.Warn("worker memory is short", "action", "idle workers are ended before their idle timeout, the longest idle first")
	case was.Short && !s.Short:
		log.Info("worker memory is sufficient again", "ended_early", s.EndedEarly)
	}
	if s.Exceeded && !was.Exceeded {
		log.Warn("worker memory budget exceeded", "reason", "no worker is idle and above its endpoint's minimum")
	}
	if s.Unmeasured && !was.Unmeasured {
		log.Warn("worker memory cannot be measured", "effect", "the memory budget bounds nothing", "hint", "with --worker-user the service needs CAP_SYS_PTRACE")
	}
}

// memoryLedger holds what the workers take. One goroutine uses it.
type memoryLedger struct {
	system system
	status serving.MemoryReport
	last   time.Time // when a worker was ended early last

	own      map[*worker]int64 // private memory of each worker at the last measurement
	mean     int64             // of them; a worker that started since counts as much
	others   int64             // shared memory, and that of all other processes
	models   map[*Group]int64  // what the endpoint's template shares with its workers, of others
	stays    int64             // of all but the workers that are leaving
	measured time.Time
	took     time.Duration
}

func newMemoryLedger(limit int64, s system) *memoryLedger {
	return &memoryLedger{system: s, status: serving.MemoryReport{Budget: limit}}
}

// member is a worker at one look.
type member struct {
	g      *Group
	w      *worker
	leaves bool
	last   time.Time
}

// look measures if it is time to, and ends workers if memory is short.
func (l *memoryLedger) look(now time.Time, groups []*Group, roots []int) serving.MemoryReport {
	var all []member
	for _, g := range groups {
		all = g.dispatch.Members(g, all)
	}
	pause := measureEvery
	if l.above(l.stays, budgetHigh) || l.changed(groups, all) {
		pause = measureSoonest
	}
	if now.Sub(l.measured) >= max(pause, measureRest*l.took) {
		l.measure(now, groups, roots, all)
	}
	l.stays = l.others
	leaving := int64(0)
	for _, m := range all {
		if m.leaves {
			leaving += l.ownOf(m.w)
		} else {
			l.stays += l.ownOf(m.w)
		}
	}
	s := &l.status
	s.Taken = l.stays + leaving
	ended := l.relieve(now, all)
	s.EndedEarly += ended
	if ended > 0 {
		l.last = now
	}
	s.Short = s.EndedEarly > 0 && now.Sub(l.last) < shortFor
	if l.stays > s.Budget && ended == 0 {
		s.Exceeded = true
	} else if !l.above(l.stays, budgetHigh) {
		s.Exceeded = false
	}
	return *s
}

func (l *memoryLedger) above(taken int64, share float64) bool {
	return float64(taken) > share*float64(l.status.Budget)
}

// changed reports whether workers or templates have started or ended since the last
// measurement.
func (l *memoryLedger) changed(groups []*Group, all []member) bool {
	for _, g := range groups {
		if _, known := l.models[g]; known != (g.seats.template.forker().process() != 0) {
			return true
		}
	}
	return len(all) != len(l.own) || slices.ContainsFunc(all, func(m member) bool { _, known := l.own[m.w]; return !known })
}

// ownOf is the private memory of a worker.
func (l *memoryLedger) ownOf(w *worker) int64 {
	if own, known := l.own[w]; known {
		return own
	}
	return l.mean
}

// measure measures all processes below roots.
func (l *memoryLedger) measure(now time.Time, groups []*Group, roots []int, all []member) {
	begun := time.Now()
	taken, refused := map[int]process.Memory{}, false
	l.others = 0
	for _, pid := range l.system.below(roots) {
		m, err := l.system.measure(pid)
		switch {
		case err == nil:
			taken[pid] = m
			l.others += m.Share
		case errors.Is(err, fs.ErrPermission):
			refused = true
		}
	}
	l.own, l.models = make(map[*worker]int64, len(all)), map[*Group]int64{}
	var sum, read int64
	for _, g := range groups {
		if pid := g.seats.template.forker().process(); pid != 0 {
			l.models[g] = taken[pid].Share
		}
	}
	for _, m := range all {
		found, ok := taken[m.w.pid]
		l.own[m.w] = found.Own
		sum += found.Own
		if model, has := l.models[m.g]; has {
			l.models[m.g] = model + found.Share - found.Own
		}
		if ok {
			read++
		}
	}
	l.others -= sum
	if read > 0 {
		l.mean = sum / read
	}
	if read > 0 || refused {
		l.status.Unmeasured = read == 0
	}
	l.measured, l.took = now, time.Since(begun)
}

// relieve ends idle workers if memory is short, and returns how many.
func (l *memoryLedger) relieve(now time.Time, all []member) (ended uint64) {
	if !l.above(l.stays, budgetHigh) {
		return 0
	}
	slices.SortFunc(all, func(x, y member) int { return cmp.Or(x.last.Compare(y.last), cmp.Compare(x.w.pid, y.w.pid)) })
	for _, m := range all {
		if !l.above(l.stays, budgetLow) || now.Sub(m.last) < earliestEnd {
			break
		}
		gone, sleeps := m.g.seats.Spare(m.w, now, earliestEnd)
		if !gone {
			continue
		}
		ended++
		l.stays -= l.ownOf(m.w)
		if sleeps { // its template ends too
			l.stays -= l.models[m.g]
			l.others -= l.models[m.g]
			delete(l.models, m.g)
		}
	}
	return ended
}

// Members appends the workers that take requests, and those that leave.
func (d *dispatch) Members(g *Group, all []member) []member {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return all
	}
	for _, w := range d.workers {
		if w.state == ready || w.state == leaving {
			all = append(all, member{g: g, w: w, leaves: w.state == leaving, last: w.lastUse()})
		}
	}
	return all
}

package worker

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"clearmlserving/process"
)

// A Budget bounds the memory of all workers of an instance, those of all its pools
// together. When it gets short, workers end that nobody asks and that are above
// their endpoint's least, the one that has been idle for longest first, as if their
// idle timeout had passed: a request that comes next is held until another has
// been forked. Nobody who works is ended, and nobody whom an endpoint must have.
type Budget struct {
	limit  int64
	log    *slog.Logger
	system system

	mu     sync.Mutex // guards the rest
	pools  map[*Pool]struct{}
	status BudgetStatus
}

// BudgetStatus describes a Budget for people.
type BudgetStatus struct {
	// Limit is the budget, Taken what the workers and the processes that they are
	// forked from take, in bytes.
	Limit, Taken int64
	// EndedEarly counts the workers that were ended before their idle timeout.
	EndedEarly uint64
	// Short says that workers are ended early these days, and Exceeded that more is
	// taken than the budget allows although no idle worker is left. Blind: the system
	// does not tell what workers take, so that the budget bounds nothing.
	Short, Exceeded, Blind bool
}

const (
	// Between these parts of the budget nothing happens: above the first, idle
	// workers end until the second is reached. What is left above the first is for
	// what comes before a look has seen it.
	budgetHigh, budgetLow = 0.9, 0.8
	// earliestEnd is how long a worker is left in peace after its last answer, however
	// short memory is: two endpoints that are asked in turn must not end each other.
	earliestEnd = time.Second
	// episodeEnd is how long nothing must have been ended early until memory counts as
	// sufficient again, which is said in the log.
	episodeEnd = time.Minute

	// A worker that has worked is measured after so long, and again when it has had
	// so many page faults meanwhile: without one no process takes more than before.
	measureEvery  = time.Second
	measureFaults = 128
	// countEvery is the time between two counts of all processes, and countSoonest the
	// same when memory is short, for decisions rest on a fresh one, or when a large
	// model has been loaded.
	countEvery, countSoonest = 10 * time.Second, time.Second
	// lookShare is the share of one processor that single measurements may take, and
	// countRest how many times as long as a count took the pause after it is.
	lookShare = 0.05
	countRest = 20
)

// NewBudget makes a budget of so many bytes; Run enforces it.
func NewBudget(limit int64, log *slog.Logger) *Budget {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	host := system{
		below:   func(roots []int) []int { return takeCensus().tree(roots) },
		measure: process.MemoryOf,
		faults: func(pid int) int64 {
			f, _ := factsOf(pid)
			return f.faults
		},
		spent: threadTime,
	}
	return &Budget{limit: limit, log: log, system: host, pools: map[*Pool]struct{}{}, status: BudgetStatus{Limit: limit}}
}

// system tells which processes there are and what they take.
type system struct {
	below   func(roots []int) []int // the roots, and all processes that come from them
	measure func(pid int) (process.Memory, error)
	faults  func(pid int) int64  // page faults until now
	spent   func() time.Duration // processor time of whoever measures
}

// Run looks after the budget until ctx ends. It is called once.
func (b *Budget) Run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	runtime.LockOSThread() // for what it spends to be its own
	defer runtime.UnlockOSThread()
	l, e := newLedger(b.limit, b.system), episode{}
	for {
		select {
		case now := <-ticker.C:
			b.look(now, l, &e)
		case <-ctx.Done():
			return
		}
	}
}

func (b *Budget) look(now time.Time, l *ledger, e *episode) {
	groups, roots := b.members()
	seen := l.look(now, groups, roots)
	ended := l.relieve(now, seen)
	b.note(now, e, l, ended)
}

// Status describes the budget as it was at the last look.
func (b *Budget) Status() BudgetStatus {
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

// members lists the groups that share the budget, and the processes from which all
// of their workers come.
func (b *Budget) members() (groups []*Group, roots []int) {
	b.mu.Lock()
	pools := make([]*Pool, 0, len(b.pools))
	for p := range b.pools {
		pools = append(pools, p)
	}
	b.mu.Unlock()
	for _, p := range pools {
		p.mu.Lock()
		for g := range p.groups {
			groups = append(groups, g)
		}
		p.mu.Unlock()
		p.zygote.mu.Lock()
		f := p.zygote.current
		p.zygote.mu.Unlock()
		if pid := f.process(); pid != 0 {
			roots = append(roots, pid)
		}
	}
	return groups, roots
}

// note keeps what people are told: in the log the beginning and the end of a time
// in which memory is short, not each worker.
func (b *Budget) note(now time.Time, e *episode, l *ledger, ended int) {
	was, taken := *e, l.present()
	e.follow(now, b.limit, l.taken, ended)
	e.blind = l.blind
	b.mu.Lock()
	b.status = BudgetStatus{Limit: b.limit, Taken: taken, EndedEarly: e.ended, Short: e.short, Exceeded: e.exceeded, Blind: e.blind}
	b.mu.Unlock()
	log := b.log.With("budget", humanize.IBytes(uint64(max(b.limit, 0))), "taken", humanize.IBytes(uint64(max(taken, 0))))
	switch {
	case e.short && !was.short:
		log.Warn("memory of the workers is short: idle ones end before their idle timeout, those first that have been idle for longest")
	case was.short && !e.short:
		log.Info("memory of the workers is sufficient again", "ended_early", e.ended-was.before, "lasted", was.last.Sub(was.since))
	}
	if e.exceeded && !was.exceeded {
		log.Warn("workers take more memory than their budget, and none of them can be spared")
	}
	if e.blind && !was.blind {
		log.Warn("the system does not tell what the workers take: their memory budget bounds nothing; with --worker-user the service needs CAP_SYS_PTRACE")
	}
}

// episode is a time in which memory is short.
type episode struct {
	short, exceeded bool
	blind           bool
	since, last     time.Time // its begin, and when a worker was ended last
	before          uint64    // how many had been ended until then
	ended           uint64    // how many ever
}

// follow takes in one look: how much is taken after it by those that stay, and how
// many workers were ended at it.
func (e *episode) follow(now time.Time, limit, taken int64, ended int) {
	switch {
	case ended > 0 && !e.short:
		e.short, e.since, e.before, e.last = true, now, e.ended, now
	case ended > 0:
		e.last = now
	case e.short && now.Sub(e.last) >= episodeEnd:
		e.short = false
	}
	e.ended += uint64(ended)
	switch {
	case taken > limit && ended == 0:
		e.exceeded = true
	case float64(taken) <= budgetHigh*float64(limit):
		e.exceeded = false
	}
}

// ledger follows what the workers take, at little cost, for the kernel needs some
// milliseconds to tell it of one: all processes are counted now and then; in between
// a new worker is taken to be like the last one of its endpoint until it has been
// measured, and those are measured again that may take more than before. One
// goroutine uses it.
type ledger struct {
	limit  int64
	system system

	taken   int64                // of all, as far as is known, but for those that leave
	leaving int64                // of those: it is about to come back
	workers map[*worker]*account // that are counted in it
	known   map[*Group]known     // what a worker of it had for itself
	usual   int64                // the median of those that have answered
	models  map[*Group]int64     // what the endpoint's template holds for its workers, at the last count

	counted time.Time     // when
	took    time.Duration // how long
	stale   bool          // a template has ended since
	blind   bool          // no worker could be asked
}

// account is what is known of one worker.
type account struct {
	own      int64
	measured bool
	served   uint64 // when it was looked at last
	faults   int64  // when it was measured last
	due      time.Time
	seen     bool // at this look
	leaves   bool
}

func newLedger(limit int64, s system) *ledger {
	return &ledger{limit: limit, system: s, workers: map[*worker]*account{}, known: map[*Group]known{}, models: map[*Group]int64{}}
}

// known is what the last worker of an endpoint had for itself, when it had answered or
// only loaded.
type known struct {
	own      int64
	answered bool
}

// member is a worker as it is at one look.
type member struct {
	g      *Group
	w      *worker
	served uint64
	busy   bool
	spare  bool // it may be ended
	leaves bool
	last   time.Time
}

// look takes in what has changed since the last one.
func (l *ledger) look(now time.Time, groups []*Group, roots []int) []member {
	var all []member
	for _, g := range groups {
		all = g.members(all)
	}
	for _, a := range l.workers {
		a.seen = false
	}
	for _, m := range all {
		a := l.workers[m.w]
		if a == nil {
			a = &account{own: l.expect(m.g), due: now.Add(measureEvery)}
			l.workers[m.w] = a
			l.taken += a.own
		}
		if a.seen = true; m.leaves {
			l.leave(a)
		}
	}
	for w, a := range l.workers {
		if !a.seen { // it is gone
			l.leave(a)
			l.leaving -= a.own
			delete(l.workers, w)
		}
	}
	l.remeasure(now, all)
	pause := countEvery
	if l.isShort() || l.stale || slices.ContainsFunc(groups, l.isNew) {
		pause = countSoonest
	}
	if now.Sub(l.counted) >= max(pause, countRest*l.took) {
		l.count(now, groups, roots, all)
	}
	return all
}

// leave takes note that a worker is about to end.
func (l *ledger) leave(a *account) {
	if !a.leaves {
		a.leaves = true
		l.taken -= a.own
		l.leaving += a.own
	}
}

// present is what is taken at the moment.
func (l *ledger) present() int64 { return l.taken + l.leaving }

func (l *ledger) isShort() bool { return float64(l.present()) > budgetHigh*float64(l.limit) }

// isNew says whether g has a template that was not there at the last count: a large
// model, which no worker has for itself.
func (l *ledger) isNew(g *Group) bool {
	_, counted := l.models[g]
	return !counted && g.template.process() != 0
}

// expect is what a new worker of g will take for itself: as much as the last one, and
// something more if that has only loaded.
func (l *ledger) expect(g *Group) int64 {
	last, ok := l.known[g]
	switch {
	case !ok:
		return l.usual
	case last.answered:
		return last.own
	}
	return min(max(l.usual, last.own), 2*last.own)
}

// remeasure asks anew what those take for themselves that may have taken more since
// they were asked last, the longest due first, as many as the time allows.
func (l *ledger) remeasure(now time.Time, all []member) {
	var due []member
	for _, m := range all {
		if a := l.workers[m.w]; !a.leaves && !now.Before(a.due) && (!a.measured || m.busy || m.served != a.served) {
			due = append(due, m)
		}
	}
	if len(due) == 0 {
		return
	}
	slices.SortFunc(due, func(x, y member) int { return l.workers[x.w].due.Compare(l.workers[y.w].due) })
	defer l.sumUp()
	end := l.system.spent() + time.Duration(lookShare*float64(lookEvery))
	for _, m := range due {
		begun := l.system.spent()
		if begun > end {
			return
		}
		a := l.workers[m.w]
		faults := l.system.faults(m.w.pid)
		a.served, a.due = m.served, now.Add(measureEvery)
		if a.measured && faults < a.faults+measureFaults {
			continue
		}
		taken, err := l.system.measure(m.w.pid)
		if err != nil {
			continue // it has ended, and will be missed at the next look
		}
		l.taken += taken.Own - a.own
		l.learn(m, a, taken.Own)
		a.faults = faults
		a.due = now.Add(max(measureEvery, time.Duration(float64(l.system.spent()-begun)/lookShare)))
	}
}

// learn notes what a worker has been found to take for itself. One that has answered
// tells more of the next one than one that has only loaded.
func (l *ledger) learn(m member, a *account, own int64) {
	a.own, a.measured = own, true
	if m.served > 0 || !l.known[m.g].answered {
		l.known[m.g] = known{own, m.served > 0}
	}
}

// sumUp finds what is usual among what is known.
func (l *ledger) sumUp() {
	var all []int64
	for _, k := range l.known {
		if k.answered {
			all = append(all, k.own)
		}
	}
	if l.usual = 0; len(all) > 0 {
		slices.Sort(all)
		l.usual = all[len(all)/2]
	}
}

// count asks all processes below roots what they take.
func (l *ledger) count(now time.Time, groups []*Group, roots []int, all []member) {
	begun := l.system.spent()
	taken, silent := map[int]process.Memory{}, map[int]bool{}
	l.taken, l.leaving = 0, 0
	for _, pid := range l.system.below(roots) {
		m, err := l.system.measure(pid)
		switch {
		case err == nil:
			taken[pid] = m
			l.taken += m.Share
		case errors.Is(err, fs.ErrPermission):
			silent[pid] = true
		}
	}
	told, refused := 0, 0
	there := make(map[*Group]bool, len(groups))
	for _, g := range groups {
		there[g] = true
	}
	maps.DeleteFunc(l.known, func(g *Group, _ known) bool { return !there[g] })
	for _, m := range all {
		a := l.workers[m.w]
		a.own = 0
		if found, ok := taken[m.w.pid]; ok {
			told++
			l.learn(m, a, found.Own)
			if a.leaves {
				l.taken -= found.Own
				l.leaving += found.Own
			}
		} else if silent[m.w.pid] {
			refused++
		}
	}
	l.sumUp()
	if told+refused > 0 {
		l.blind = told == 0
	}
	clear(l.models)
	for _, g := range groups {
		template := g.template.process()
		model := taken[template].Share
		g.mu.Lock()
		for _, w := range g.workers {
			model += taken[w.pid].Share - taken[w.pid].Own
		}
		g.mu.Unlock()
		if template != 0 {
			l.models[g] = model
		}
	}
	l.counted, l.took, l.stale = now, l.system.spent()-begun, false
}

// relieve ends idle workers when too much is taken, and returns how many. What leaves
// already counts as given back, so nobody is ended for it again.
func (l *ledger) relieve(now time.Time, all []member) (ended int) {
	if !l.isShort() {
		return 0
	}
	slices.SortFunc(all, func(x, y member) int { return cmp.Or(x.last.Compare(y.last), cmp.Compare(x.w.pid, y.w.pid)) })
	for _, m := range all {
		if float64(l.taken) <= budgetLow*float64(l.limit) || now.Sub(m.last) < earliestEnd {
			break
		}
		if !m.spare {
			continue
		}
		gone, sleeps := m.g.endEarly(m.w, now)
		if !gone {
			continue // it has been asked meanwhile
		}
		ended++
		l.leave(l.workers[m.w])
		if model := l.models[m.g]; sleeps && model > 0 { // its template goes with it
			l.taken -= model
			l.leaving += model
			l.stale = true // nobody tells when it is gone
			delete(l.models, m.g)
		}
	}
	return ended
}

// members appends the group's workers that take requests, and those that leave.
func (g *Group) members(all []member) []member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || !g.started {
		return all
	}
	for _, w := range g.workers {
		m := member{g: g, w: w, served: w.served, busy: !w.idle(), last: w.lastUse()}
		switch w.state {
		case ready:
			m.spare = g.mayShrink() && !m.busy && w.place != nil && w.place.w == w
		case leaving:
			m.leaves = true
		default:
			continue
		}
		all = append(all, m)
	}
	return all
}

// endEarly has a worker leave although its idle timeout has not passed, unless it
// is needed after all. sleeps says that the endpoint has none left.
func (g *Group) endEarly(w *worker, now time.Time) (gone, sleeps bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.seats, func(s *seat) bool { return s.w == w })
	if g.closed || i < 0 || !g.mayShrink() || w.state != ready || !w.idle() || now.Sub(w.lastUse()) < earliestEnd {
		return false, false
	}
	g.giveUp(i)
	return true, len(g.seats) == 0
}

// Package remote chooses among the addresses of an engine that runs beside this process: least
// outstanding requests, ejection of addresses that fail, a trial before they are used again, retries of
// what has not begun, and a probe that sees a server without progress. An engine has one Set, and a Pool
// for each list of addresses:
//
//	pool, err := e.set.Open(key, func() (remote.Options, error) {
//		conns := connect(addresses)
//		return remote.Options{Name: "Triton", Addresses: addresses, Probe: conns.ready, Value: conns, Close: conns.close}, nil
//	})
//	...
//	err = pool.Do(ctx, func(ctx context.Context, use *remote.Use) error {
//		answer, err = conns[use.Index()].Infer(ctx, request)
//		return err // remote.NotBegun(err), remote.Broken(err), or what the server has answered
//	})
//
// An engine that speaks HTTP calls Pool.Send. Set.Run owns all goroutines: an engine.Runner calls it.
package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/retry"
	"clearmlserving/serving"
)

const (
	// A server is probed each interval, and has that long to answer: one that has stopped is ejected after two
	// failed probes, that is within 3 s.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = time.Second
	failedProbes  = 2
	// An address is ejected after as many failed requests in a row, for a pause that doubles with each
	// failed trial.
	failedRequests = 3
	firstPause     = time.Second
	longestPause   = 4 * time.Second
	// Retries are at most a share of the requests, and a few more at the beginning.
	retryShare  = 0.2
	mostRetries = 20
)

// RetryIn is the time after which a client, or a load, may try again a server that cannot answer.
const RetryIn = 2 * time.Second

// Options of a Pool.
type Options struct {
	// Name is what the servers are in texts, such as "Triton".
	Name string
	// Addresses are the servers, at least one. What an address means is the caller's.
	Addresses []string
	// Probe asks a server for a sign of progress: a real round trip whose answer it checks. ctx has a
	// deadline, which Probe observes. It should not share a connection with requests. The pool calls it
	// for each address from one goroutine. Required.
	Probe func(ctx context.Context, index int) error
	// Timeout is the time that a server has to answer a probe. Default 1 s: longer ones are seen later
	// than in 3 s.
	Timeout time.Duration
	// Value is what Pool.Value returns, such as the connections of all who share the pool.
	Value any
	// Close releases what belongs to the pool, when its last user has closed it. nil: nothing to release.
	Close  func()
	Logger *slog.Logger
}

// Set holds the pools of an engine. The zero value is ready for use.
type Set struct {
	mu     sync.Mutex
	pools  map[string]*Pool
	checks map[string]check // the failed ones of the last moments, by the key of the pool
	start  func(*Pool)      // nil before Run
	ended  bool
	probes sync.WaitGroup
}

// Run probes all addresses until ctx ends. It is called once; Open may be called before it.
func (s *Set) Run(ctx context.Context) {
	s.mu.Lock()
	s.start = func(p *Pool) {
		watched, stop := context.WithCancel(ctx)
		p.stop = stop
		for _, a := range p.addresses {
			s.probes.Go(func() { p.watch(watched, a) })
		}
	}
	for _, p := range s.pools {
		s.start(p)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.probes.Wait()
}

// opened counts the pools of this process: engines have a Set each, and their reports are read together.
var opened atomic.Uint64 //nolint:gochecknoglobals // see above

// Open returns the pool of a key. If nobody uses it, options makes it; it does no I/O. The caller closes
// the pool.
func (s *Set) Open(key string, options func() (Options, error)) (*Pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errors.New("the instance is stopping")
	}
	if p := s.pools[key]; p != nil {
		p.users++
		return p, nil
	}
	o, err := options()
	if err != nil {
		return nil, err
	}
	if len(o.Addresses) == 0 {
		return nil, errors.New("there is no address")
	}
	o.Name, o.Timeout, o.Logger = cmp.Or(o.Name, "the engine"), cmp.Or(o.Timeout, probeTimeout), cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	p := &Pool{o: o, set: s, key: key, id: opened.Add(1), users: 1, stop: func() {}}
	p.budget.Store(mostRetries * budgetUnit)
	now := time.Now()
	for i, name := range o.Addresses {
		p.addresses = append(p.addresses, &address{name: name, index: i, since: now})
	}
	if s.pools == nil {
		s.pools = map[string]*Pool{}
	}
	s.pools[key] = p
	if s.start != nil {
		s.start(p)
	}
	return p, nil
}

// Pool is the addresses of servers that answer the same requests.
type Pool struct {
	o         Options
	set       *Set
	key       string
	id        uint64 // for reports
	users     int    // guarded by set.mu
	stop      func() // ends the probes; guarded by set.mu
	addresses []*address
	turn      atomic.Uint32 // where the search for an address begins
	budget    atomic.Int64  // of retries, in units of 1/budgetUnit
}

// Close ends the use of a pool. The caller has no request left in it.
func (p *Pool) Close() {
	p.set.mu.Lock()
	p.users--
	last := p.users == 0
	if last {
		delete(p.set.pools, p.key)
		p.stop()
	}
	p.set.mu.Unlock()
	if last && p.o.Close != nil {
		p.o.Close()
	}
}

// Value is that of the Options.
func (p *Pool) Value() any { return p.o.Value }

// Addresses are those of the Options.
func (p *Pool) Addresses() []string { return p.o.Addresses }

// check is the failure of a Check.
type check struct {
	at  time.Time
	err error
}

// Check probes all addresses, and returns nil if one of them answers. It serves a load, which should fail
// while no server is there. The error has the words of each. It is kept for a moment, so that the loads of
// many endpoints of the same servers do not wait one after the other.
func (p *Pool) Check(ctx context.Context) error {
	p.set.mu.Lock()
	last, failed := p.set.checks[p.key]
	p.set.mu.Unlock()
	if failed && time.Since(last.at) < RetryIn/2 {
		return last.err
	}
	err := p.check(ctx)
	if ctx.Err() != nil {
		return err
	}
	p.set.mu.Lock()
	defer p.set.mu.Unlock()
	for key, c := range p.set.checks {
		if key == p.key || time.Since(c.at) >= RetryIn {
			delete(p.set.checks, key)
		}
	}
	if err != nil {
		if p.set.checks == nil {
			p.set.checks = map[string]check{}
		}
		p.set.checks[p.key] = check{time.Now(), err}
	}
	return err
}

func (p *Pool) check(ctx context.Context) error {
	failed := make([]error, len(p.addresses))
	var probes sync.WaitGroup
	for i := range p.addresses {
		probes.Go(func() { failed[i] = p.probe(ctx, i) })
	}
	probes.Wait()
	var told []string
	for i, err := range failed {
		if err == nil {
			return nil
		}
		told = append(told, fmt.Sprintf("%s: %s", p.addresses[i].name, words(err)))
	}
	return fmt.Errorf("%s does not answer: %s", p.o.Name, strings.Join(told, "; "))
}

// Report describes all addresses.
func (p *Pool) Report() []serving.AddressReport {
	list := make([]serving.AddressReport, len(p.addresses))
	for i, a := range p.addresses {
		list[i] = a.report()
		list[i].Pool = p.id
	}
	return list
}

// Unavailable says why no address can be used, "" if one can.
func (p *Pool) Unavailable() string {
	var told []string
	for _, a := range p.addresses {
		if a.state.Load() != ejected {
			return ""
		}
		told = append(told, a.name+": "+a.why())
	}
	return fmt.Sprintf("%s cannot answer: %s", p.o.Name, strings.Join(told, "; "))
}

func (p *Pool) unavailable() error {
	why := p.Unavailable()
	if why == "" { // a trial is under way
		why = fmt.Sprintf("%s has failed and is being tried again", p.o.Name)
	}
	return &engine.Error{Kind: engine.KindUnavailable, Text: why, RetryAfter: RetryIn}
}

// failure is a server's failure to answer, as opposed to an error that it answers.
type failure struct {
	begun bool
	err   error
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// NotBegun marks an error of a request that no server has seen: a failed connection, a refused stream. It
// is tried again with another address.
func NotBegun(err error) error { return &failure{err: err} }

// Broken marks an error of a request that a server may have executed, and not answered as its protocol
// says: a connection that ended, an answer that is garbage. It is not tried again.
func Broken(err error) error { return &failure{begun: true, err: err} }

// Begun reports whether an error says that a server may have executed the request.
func Begun(err error) bool {
	failed, marked := errors.AsType[*failure](err)
	return marked && failed.begun
}

// Use is the use of an address by one request.
type Use struct {
	p     *Pool
	a     *address
	trial bool
	held  bool
	again bool // another address has been tried before
}

// Index is the place of the address in Options.Addresses.
func (u *Use) Index() int { return u.a.index }

// Address is the address.
func (u *Use) Address() string { return u.a.name }

// Progress tells that the server has sent something, such as a piece of a streamed answer.
func (u *Use) Progress() { u.a.progress.Add(1) }

// Hold keeps the use beyond the call of Do, for a streamed answer that has begun. The caller calls End once.
func (u *Use) Hold() {
	u.held = true
	if u.trial { // others need not wait for its end
		u.trial = false
		u.p.restore(u.a, false)
	}
	u.Progress()
}

// End ends a use that is held. err is nil if the server has answered, or as that of the function given to Do.
func (u *Use) End(err error) { u.p.end(u, err) }

// Drop ends a use that is held without a verdict about the server: the client does not want the rest.
func (u *Use) Drop() { u.p.end(u, errNeutral) }

// Do calls attempt with the address that has the least outstanding requests. The error of attempt is
// returned; it says what happened:
//
//   - nil, or an error without a mark: the server has answered, if ctx has not ended.
//   - NotBegun: attempt is called with another address, if there is one and the budget of retries allows it.
//   - Broken: it counts against the address.
//
// Without an address that can be used, the error is an *engine.Error of KindUnavailable, which says why.
func (p *Pool) Do(ctx context.Context, attempt func(ctx context.Context, use *Use) error) error {
	p.earn()
	var tried uint64 // the addresses as bits
	var last error
	for {
		u, ok := p.choose(tried)
		if !ok {
			if last != nil {
				return last
			}
			return p.unavailable()
		}
		u.again = tried != 0
		err := attempt(ctx, &u)
		if !u.held {
			p.end(&u, endOf(ctx, err))
		}
		failed, marked := errors.AsType[*failure](err)
		if !marked || failed.begun || ctx.Err() != nil || u.held {
			return err
		}
		last = err
		if tried |= bit(u.a.index); !p.spend() {
			return last
		}
	}
}

// endOf is the end of an attempt: the end of ctx tells nothing about the server.
func endOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errNeutral
	}
	return err
}

var errNeutral = errors.New("the request has ended")

// bit is the mark of an address in a set of 64; later addresses share theirs.
func bit(index int) uint64 { return 1 << (index % 64) }

// choose finds the address with the least outstanding requests, in turn among several.
func (p *Pool) choose(tried uint64) (Use, bool) {
	n := len(p.addresses)
	begin := 0
	if n > 1 {
		begin = int(p.turn.Add(1) % uint32(n)) //nolint:gosec // a length
	}
	var best *address
	least := int64(0)
	for i := range n {
		a := p.addresses[(begin+i)%n]
		if tried != 0 && tried&bit(a.index) != 0 {
			continue
		}
		switch a.state.Load() {
		case healthy:
			if o := a.outstanding.Load(); best == nil || o < least {
				best, least = a, o
			}
		case trial:
			if a.trying.CompareAndSwap(false, true) { // one request finds out
				a.outstanding.Add(1)
				return Use{p: p, a: a, trial: true}, true
			}
		}
	}
	if best == nil {
		return Use{}, false
	}
	best.outstanding.Add(1)
	return Use{p: p, a: best}, true
}

// budgetUnit is one retry, so that shares of it are whole numbers.
const budgetUnit = 1000

// earn adds the share of a request to the budget of retries.
func (p *Pool) earn() {
	if len(p.addresses) > 1 && p.budget.Load() < mostRetries*budgetUnit {
		p.budget.Add(retryShare * budgetUnit)
	}
}

// spend takes one retry from the budget.
func (p *Pool) spend() bool {
	if p.budget.Add(-budgetUnit) >= 0 {
		return true
	}
	p.budget.Add(budgetUnit)
	return false
}

// end counts the end of a request.
func (p *Pool) end(u *Use, err error) {
	a := u.a
	a.outstanding.Add(-1)
	failed, marked := errors.AsType[*failure](err)
	switch {
	case errors.Is(err, errNeutral):
		if u.trial {
			a.trying.Store(false)
		}
	case !marked:
		a.progress.Add(1)
		a.answered.Add(1)
		if a.failures.Load() != 0 {
			a.failures.Store(0)
		}
		if u.trial {
			p.restore(a, false)
		}
	default:
		a.failed.Add(1)
		a.remember(failed.err)
		if n := a.failures.Add(1); u.trial || n >= failedRequests {
			p.eject(a, failed.err, false)
		}
	}
}

// The states of an address.
const (
	healthy int32 = iota
	trial
	ejected
)

var stateNames = [...]serving.AddressState{healthy: serving.AddressHealthy, trial: serving.AddressTrial, ejected: serving.AddressEjected} //nolint:gochecknoglobals // a constant table

// address is one server.
type address struct {
	name  string
	index int

	outstanding      atomic.Int64
	answered, failed atomic.Uint64
	progress         atomic.Uint64 // signs of progress
	failures         atomic.Int32  // of requests in a row
	state            atomic.Int32
	trying           atomic.Bool // the trial's request is under way

	mu         sync.Mutex // guards what follows, and changes of state
	since      time.Time  // of the state
	reason     string     // why it is ejected
	silent     bool       // its probes fail
	failing    bool       // its requests have failed while its probes succeeded
	pauses     int        // in a row
	until      time.Time  // the end of the pause
	last       string     // the last error
	lastFailed time.Time
}

func (a *address) why() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reason
}

func (a *address) remember(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last, a.lastFailed = words(err), time.Now()
}

func (a *address) report() serving.AddressReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	return serving.AddressReport{
		Address: a.name, State: stateNames[a.state.Load()], Since: a.since, Reason: a.reason, Outstanding: max(a.outstanding.Load(), 0),
		Answered: a.answered.Load(), Failed: a.failed.Load(), LastError: a.last, LastErrorAt: a.lastFailed,
	}
}

// mostWords bounds the text of an error.
const mostWords = 500

func words(err error) string { return serving.Shorten(err.Error(), mostWords) }

// enter changes the state. a.mu is held.
func (p *Pool) enter(a *address, state int32, reason string) {
	if a.state.Load() != state {
		a.since = time.Now()
		switch state {
		case ejected:
			p.o.Logger.Warn("engine address ejected", "engine", p.o.Name, "address", a.name, "reason", reason)
		case healthy:
			p.o.Logger.Info("engine address is healthy again", "engine", p.o.Name, "address", a.name)
		}
	}
	a.reason = reason
	a.trying.Store(false)
	a.state.Store(state)
}

// eject stops the use of an address, because its probes or its requests fail.
func (p *Pool) eject(a *address, err error, probed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if probed {
		a.silent, a.failing = true, false // its next successful probe is enough
		a.last, a.lastFailed = words(err), time.Now()
	} else {
		if a.state.Load() == ejected { // a request that began before
			return
		}
		a.failing = true
		a.pauses++
		a.until = time.Now().Add(retry.Doubled(a.pauses, firstPause, longestPause))
	}
	p.enter(a, ejected, words(err))
}

// restore is called after a successful probe or trial.
func (p *Pool) restore(a *address, probed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !probed {
		a.failing, a.pauses = false, 0
		if a.state.Load() == trial {
			p.enter(a, healthy, "")
		}
		return
	}
	a.silent = false
	switch {
	case a.state.Load() != ejected:
	case !a.failing:
		a.failures.Store(0)
		p.enter(a, healthy, "")
	case !time.Now().Before(a.until):
		p.enter(a, trial, a.reason)
	}
}

// watch probes an address until ctx ends.
func (p *Pool) watch(ctx context.Context, a *address) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begun, before := time.Now(), a.progress.Load()
		err := p.probe(ctx, a.index)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, context.DeadlineExceeded) && a.progress.Load() != before {
			err = nil // it is slow, but it answers requests
		}
		if err == nil {
			failures = 0
			p.restore(a, true)
		} else if failures++; failures >= failedProbes {
			p.eject(a, err, true)
		}
		timer.Reset(max(probeInterval-time.Since(begun), 0))
	}
}

// probe calls the probe with its deadline. A panic is an error.
func (p *Pool) probe(ctx context.Context, index int) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.o.Timeout, silence(p.o.Timeout))
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the probe panicked: %v", r)
		}
	}()
	if err = p.o.Probe(ctx, index); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// silence is the error of a probe that a server has not answered in that time.
type silence time.Duration

func (s silence) Error() string {
	return fmt.Sprintf("it has not answered a probe within %s", time.Duration(s))
}

// Is reports it as the end of a deadline.
func (silence) Is(target error) bool { return target == context.DeadlineExceeded }

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/batching"
	"clearmlserving/process"
	"clearmlserving/retry"
)

// seats holds the processes of one endpoint: how many there are, and the life of each. It
// gives those that have loaded to dispatch, and learns from its demand how many are wanted.
type seats struct {
	pool      *Pool
	o         *Options
	spec      Spec // its Variables are guarded by mu
	log       *slog.Logger
	d         *dispatch
	arena     *arena
	all       *sync.WaitGroup // of the group
	modelSize int64
	needs     []string
	more      chan struct{} // holds one: look whether more seats are wanted
	template  template
	life      context.Context //nolint:containedctx // ends with Stop, and with it whatever starts workers
	cancel    context.CancelCauseFunc

	showsClient atomic.Bool // set by each load

	// mu guards the rest, and seat and variables of all workers. dispatch.mu may be taken
	// while it is held.
	mu        sync.Mutex
	specJSON  []byte // the first message to each process
	seats     []*seat
	wanted    int
	waitLooks int  // number of looks in a row at which requests have waited
	started   bool // it has loaded once
	loadTook  time.Duration
	lastLoad  error
	distrust  bool     // a load has failed: its files are compared before the next one
	warnings  []string // of the last load
	signature json.RawMessage
	hasModel  bool     // of the last load
	methods   []string // of the code
	restarts  int
	lastEnd   process.Death
	without   time.Time // since when no worker is ready, zero while one is
}

// seat is a place for one worker. Its goroutine, keep, starts a worker, waits for its
// death, and starts the next one.
type seat struct {
	number int
	renew  chan string // holds one: the reason for the replacement of its worker, which serves meanwhile
	pause  backoff

	// Guarded by seats.mu.
	until     time.Time // when the next start is due, zero if it is not delayed
	w         *worker   // nil: the seat is vacant
	left      bool      // no worker will follow
	deaths    int       // consecutive deaths of workers that lived for a short time
	notBefore time.Time // no replacement before
}

func newSeats(ctx context.Context, p *Pool, spec Spec, shared *arena, all *sync.WaitGroup) *seats {
	s := &seats{
		pool: p, o: &p.o, spec: spec, log: p.o.Logger.With("endpoint", spec.Endpoint), arena: shared, all: all,
		more: make(chan struct{}, 1),
	}
	s.life, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	d := &dispatch{
		endpoint: spec.Endpoint, log: s.log, o: &p.o, maxQueue: spec.Limits.MaxQueue, arena: shared, background: all.Go,
		wake: s.wake, drained: make(chan struct{}), moved: time.Now(),
	}
	d.hold = time.AfterFunc(time.Hour, d.FeedAll)
	d.hold.Stop()
	if spec.Batch.On() {
		d.policy = batching.NewPolicy(spec.Batch)
	}
	s.d = d
	return s
}

// start loads the first worker; the other seats follow in the background.
func (s *seats) start(ctx context.Context) error {
	if err := s.encodeSpec(); err != nil {
		return fmt.Errorf("start %q: %w", s.spec.Endpoint, err)
	}
	s.modelSize = sizeOf(s.spec.ModelPath)
	s.needs = s.spec.needs(s.o.preload())
	first, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(s.life, func() { end(ErrClosed) })() // Stop ends the load as well
	started := time.Now()
	w, err := s.spawn(first)
	if err != nil {
		return err
	}
	s.log.Info("endpoint loaded", "engine", s.spec.Engine, "worker", w.pid, "took", time.Since(started))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started, s.wanted = true, max(1, s.least())
	s.fill(w)
	if s.life.Err() == nil {
		s.all.Go(s.tend)
	}
	return nil
}

// Stop ends what starts workers.
func (s *seats) Stop() {
	s.mu.Lock() // fill starts nothing afterwards
	defer s.mu.Unlock()
	s.cancel(ErrClosed)
}

// least is the number of workers without load.
func (s *seats) least() int { return s.spec.Workers - s.spec.Elastic }

// encodeSpec makes the message that tells a process what to load. mu is held, unless
// nothing has started.
func (s *seats) encodeSpec() error {
	env := make(map[string]string, len(s.spec.Env))
	for _, e := range cpuCaps(s.spec.Env) {
		if name, value, ok := strings.Cut(e, "="); ok {
			env[name] = value
		}
	}
	fields := s.spec.Fields
	if len(fields) == 0 {
		fields = json.RawMessage("{}")
	}
	dir := s.spec.CodePath
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	extra := maps.Clone(s.spec.Extra)
	if s.spec.Batch.On() {
		if extra == nil {
			extra = map[string]any{}
		}
		extra["max_batch_size"] = s.spec.Batch.MaxRows
	}
	spec, err := json.Marshal(map[string]any{
		"endpoint": s.spec.Endpoint, "engine": s.spec.Engine, "code_path": s.spec.CodePath, "code_name": s.spec.CodeName,
		"model_path": s.spec.ModelPath, "fields": fields, "variables": s.spec.Variables,
		"extra": extra, "env": env, "dir": dir, "max_frame": s.o.maxFrame, "max_reentry": s.o.maxReentry,
		"confine": s.o.confinement(),
	})
	if err != nil {
		return err
	}
	s.specJSON = spec
	return nil
}

// SetVariables replaces the names of the statistics variables.
func (s *seats) SetVariables(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.spec.Variables
	s.spec.Variables = names
	if err := s.encodeSpec(); err != nil {
		s.spec.Variables = before
		return fmt.Errorf("set the variables of %q: %w", s.spec.Endpoint, err)
	}
	for _, w := range s.d.Workers() {
		s.sendVariables(w)
		w.out.flush()
	}
	return nil
}

// sendVariables sends a worker the names that it does not have yet. mu is held, and
// the caller flushes w.out.
func (s *seats) sendVariables(w *worker) {
	if slices.Equal(w.variables, s.spec.Variables) {
		return
	}
	names, err := json.Marshal(append([]string{}, s.spec.Variables...)) // [] and not null
	if err != nil {
		return // a list of texts always encodes
	}
	w.variables = s.spec.Variables
	w.post(header{kind: kindVariables}, names)
}

// tend keeps as many seats as are wanted until Stop.
func (s *seats) tend() {
	for {
		select {
		case <-s.more:
		case <-s.life.Done():
			return
		}
		s.mu.Lock()
		if len(s.seats) == 0 {
			s.wanted = 1 // a request waits
		}
		s.fill(nil)
		s.mu.Unlock()
	}
}

// wake has tend look whether more seats are wanted. It needs no lock.
func (s *seats) wake() {
	select {
	case s.more <- struct{}{}:
	default: // it will
	}
}

// fill makes the seats that are wanted and not there; first takes the first one. mu is held.
func (s *seats) fill(first *worker) {
	for s.life.Err() == nil && len(s.seats) < s.wanted {
		one := &seat{number: len(s.seats), pause: backoff{limit: s.o.maxBackoff}, renew: make(chan string, 1)}
		s.seats = append(s.seats, one)
		taken := first
		first = nil
		s.all.Go(func() { s.keep(one, taken) })
	}
	s.publish()
}

// publish tells dispatch whether a worker will come. mu is held.
func (s *seats) publish() {
	o := outlook{seats: len(s.seats)}
	for i, one := range s.seats {
		if one.until.IsZero() {
			o.due = time.Time{}
			break
		}
		if i == 0 || one.until.Before(o.due) {
			o.due = one.until
		}
	}
	switch {
	case s.lastLoad != nil:
		o.reason = s.lastLoad.Error()
	case !s.lastEnd.IsZero():
		o.reason = "its workers die again and again, the last one: " + s.lastEnd.String()
	default:
		o.reason = "its workers die again and again"
	}
	s.d.Expect(o)
}

// provenRequests is the number of answers after which a worker's death does not count as a
// crash loop.
const provenRequests = 50

// keep keeps a worker in a seat until Stop, or until the seat is removed and its worker has
// ended.
func (s *seats) keep(one *seat, w *worker) {
	for {
		if w == nil {
			var err error
			if w, err = s.spawn(s.life); err != nil {
				if s.life.Err() != nil {
					return
				}
				s.log.Error("worker not started", "seat", one.number, "err", err)
				s.mu.Lock()
				s.distrust = s.distrust || (s.lastLoad == nil && isLoadError(err)) // the first of a row
				s.lastLoad = err
				s.mu.Unlock()
				if !s.backOff(one) {
					return
				}
				continue
			}
		}
		s.setWorker(one, w)
		if next := s.awaitReplacement(one, w); next != nil {
			w = next
			continue
		}
		s.setWorker(one, nil)
		if s.life.Err() != nil || s.sleeps(one) {
			return
		}
		// A worker that served requests, or that died because its forker died, is no crash loop.
		lasted := time.Since(w.since) > s.o.maxBackoff || w.served >= provenRequests || w.process.lost
		if lasted {
			one.pause.reset()
		}
		s.mu.Lock()
		s.restarts++
		s.lastEnd = w.death
		if one.deaths++; lasted {
			one.deaths = 1
		}
		s.mu.Unlock()
		s.log.Error("worker died", "worker", w.pid, "err", w.death, "requests", w.served, "last_lines", w.death.LastLines)
		w = nil
		if !s.backOff(one) {
			return
		}
	}
}

func (s *seats) setWorker(one *seat, w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.w = w; w != nil {
		w.seat = one
	}
}

// awaitReplacement waits until w has ended or is replaced; next is the replacement, which
// serves already when w begins to leave.
func (s *seats) awaitReplacement(one *seat, w *worker) (next *worker) {
	for {
		var why string
		select {
		case <-w.ended:
			return nil
		case why = <-one.renew:
		}
		next, err := s.spawn(s.life)
		if err == nil {
			served := s.d.Retire(w)
			s.log.Info("worker recycled", "worker", w.pid, "by", next.pid, "reason", why, "requests", served)
			return next
		}
		if s.life.Err() == nil {
			s.log.Warn("worker not recycled: its replacement cannot be started", "worker", w.pid, "reason", why, "err", err)
		}
	}
}

// sleeps reports whether the seat was removed. With the last one the template ends.
func (s *seats) sleeps(one *seat) bool {
	s.mu.Lock()
	left, last := one.left, len(s.seats) == 0
	s.mu.Unlock()
	if left && last {
		s.template.unload()
	}
	return left
}

// backOff waits before the next start in a seat. It does not wait after the first death.
func (s *seats) backOff(one *seat) bool {
	wait := one.pause.next()
	if wait == 0 {
		return s.life.Err() == nil
	}
	s.delay(one, time.Now().Add(wait))
	err := retry.Sleep(s.life, wait)
	s.delay(one, time.Time{})
	return err == nil
}

// delay notes when the next start of a seat is due.
func (s *seats) delay(one *seat, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.until = until
	s.publish()
}

func isLoadError(err error) bool {
	_, ok := errors.AsType[*LoadError](err)
	return ok
}

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// seat is a place for one worker of a group. A goroutine of its own keeps it
// taken: it starts a worker, waits for its death, and starts the next one.
type seat struct {
	number int
	renew  chan string // holds one: why its worker is to be replaced while it goes on
	pause  backoff

	// Guarded by Group.mu.
	until     time.Time // when the next start is due, zero if it is not delayed
	w         *worker   // nil: the seat is vacant
	left      bool      // no worker will follow
	deaths    int       // of workers that lived for a short time only, in a row
	notBefore time.Time // no replacement before
}

// templateSeat is the place for the process that has loaded the endpoint and from
// which its workers are forked, so that they share the model's memory.
type templateSeat struct {
	mu      sync.Mutex // guards the rest; held while a template loads: the others would load the same
	f       *forker
	w       *worker // the template itself, as long as f is set
	refused bool    // the workers load for themselves
	why     string  // why they do, or why they need not
}

// start loads the first worker; the other seats follow in the background.
func (g *Group) start(ctx context.Context) error {
	if err := g.encodeSpec(); err != nil {
		g.pool.forget(g)
		return fmt.Errorf("start %q: %w", g.spec.Endpoint, err)
	}
	g.modelSize = sizeOf(g.spec.ModelPath)
	g.needs = g.spec.needs(g.o.preload())
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.mu.Lock()
	g.cancel = cancel
	closed := g.closed
	g.mu.Unlock()
	if closed {
		cancel()
		return fmt.Errorf("start %q: %w", g.spec.Endpoint, ErrClosed)
	}
	first, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(life, stop)() // Close ends the load as well
	started := time.Now()
	w, err := g.spawn(first)
	if err != nil {
		_ = g.Close(ctx) // nothing is under way that could be cut off
		return err
	}
	g.log.Info("endpoint loaded", "engine", g.spec.Engine, "worker", w.pid, "took", time.Since(started))
	g.mu.Lock()
	g.started, g.moved, g.wanted = true, time.Now(), max(1, g.spec.Workers-g.spec.Elastic)
	g.mu.Unlock()
	g.seat(life, w)
	g.all.Go(func() { g.tend(life) })
	return nil
}

// encodeSpec makes the messages that tell a process what to load. mu is held, unless
// the group has not started.
func (g *Group) encodeSpec() error {
	env := make(map[string]string, len(g.spec.Env))
	for _, e := range cpuCaps(g.spec.Env) {
		if name, value, ok := strings.Cut(e, "="); ok {
			env[name] = value
		}
	}
	fields := g.spec.Fields
	if len(fields) == 0 {
		fields = json.RawMessage("{}")
	}
	dir := ""
	if g.spec.CodePath != "" {
		dir = g.spec.CodePath
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			dir = filepath.Dir(dir)
		}
	}
	spec, err := json.Marshal(map[string]any{
		"endpoint": g.spec.Endpoint, "engine": g.spec.Engine, "code_path": g.spec.CodePath, "code_name": g.spec.CodeName,
		"model_path": g.spec.ModelPath, "fields": fields, "variables": g.spec.Variables,
		"extra": g.spec.Extra, "env": env, "dir": dir, "max_frame": g.o.maxFrame, "max_reentry": g.o.maxReentry,
		"confine": g.o.confinement(),
	})
	if err != nil {
		return err
	}
	g.specJSON, g.hurryJSON = spec, append(slices.Clone(spec[:len(spec)-1]), `,"hurry":true}`...)
	return nil
}

// SetVariables replaces the names of the statistics variables. Nothing is loaded
// again: the workers there are take them with the next request.
func (g *Group) SetVariables(names []string) error {
	g.mu.Lock()
	before := g.spec.Variables
	g.spec.Variables = names
	if err := g.encodeSpec(); err != nil {
		g.spec.Variables = before
		g.mu.Unlock()
		return fmt.Errorf("set the variables of %q: %w", g.spec.Endpoint, err)
	}
	workers := g.workers
	for _, w := range workers {
		g.sendVariables(w)
	}
	g.mu.Unlock()
	for _, w := range workers {
		w.out.flush()
	}
	return nil
}

// sendVariables sends a worker the names that it does not have yet. mu is held, and
// the caller flushes w.out.
func (g *Group) sendVariables(w *worker) {
	if slices.Equal(w.variables, g.spec.Variables) {
		return
	}
	names, err := json.Marshal(append([]string{}, g.spec.Variables...)) // [] and not null
	if err != nil {
		return // a list of texts always encodes
	}
	w.variables = g.spec.Variables
	w.out.add(appendHeader(make([]byte, 0, headerSize), header{kind: kindVariables, length: uint32(len(names))}), names, nil)
}

// provenRequests is how many answers show that a worker can do its work: its death
// is then not held against the endpoint.
const provenRequests = 50

// keep keeps a seat taken until ctx ends or the seat is given up, and its worker
// is buried.
func (g *Group) keep(ctx context.Context, s *seat, w *worker) {
	for {
		if w == nil {
			var err error
			if w, err = g.spawn(ctx); err != nil {
				if ctx.Err() != nil {
					return
				}
				g.log.Error("worker not started", "seat", s.number, "err", err)
				g.mu.Lock()
				g.distrust = g.distrust || (g.lastLoad == nil && isLoadError(err)) // the first of a row
				g.lastLoad = err
				g.mu.Unlock()
				if !g.rest(ctx, s) {
					return
				}
				continue
			}
		}
		g.sit(s, w)
		if next := g.outlive(ctx, s, w); next != nil {
			w = next
			continue
		}
		g.sit(s, nil)
		if ctx.Err() != nil || g.sleeps(s) {
			return
		}
		// A worker that served requests, or that died because its forker died, is no crash loop.
		lasted := time.Since(w.since) > g.o.maxBackoff || w.served >= provenRequests || w.process.lost
		if lasted {
			s.pause.reset()
		}
		g.mu.Lock()
		g.restarts++
		g.lastEnd = w.death
		if s.deaths++; lasted {
			s.deaths = 1
		}
		g.mu.Unlock()
		g.log.Error("worker died", "worker", w.pid, "err", w.death, "requests", w.served, "last_lines", w.death.LastLines)
		w = nil
		if !g.rest(ctx, s) {
			return
		}
	}
}

func (g *Group) sit(s *seat, w *worker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.w = w; w != nil {
		w.place = s
	}
}

// outlive waits until w is buried or replaced; next is the replacement, which
// serves already when w begins to leave.
func (g *Group) outlive(ctx context.Context, s *seat, w *worker) (next *worker) {
	for {
		var why string
		select {
		case <-w.buried:
			return nil
		case why = <-s.renew:
		}
		next, err := g.spawn(ctx)
		if err == nil {
			g.mu.Lock()
			served := w.served
			w.startLeaving()
			g.mu.Unlock()
			g.log.Info("worker recycled", "worker", w.pid, "by", next.pid, "reason", why, "requests", served)
			return next
		}
		if ctx.Err() == nil {
			g.log.Warn("worker not recycled: its replacement cannot be started", "worker", w.pid, "reason", why, "err", err)
		}
	}
}

// sleeps reports whether the seat was given up. The last one's template goes too.
func (g *Group) sleeps(s *seat) bool {
	g.mu.Lock()
	left, last := s.left, len(g.seats) == 0
	g.mu.Unlock()
	if left && last {
		g.template.unload()
	}
	return left
}

// rest waits before the next start of a seat: not at all after the first death.
func (g *Group) rest(ctx context.Context, s *seat) bool {
	wait := s.pause.next()
	if wait == 0 {
		return ctx.Err() == nil
	}
	g.mu.Lock()
	s.until = time.Now().Add(wait)
	if err := g.unavailable(); err != nil {
		g.failQueue(err)
	}
	g.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	s.until = time.Time{}
	g.mu.Unlock()
	return ctx.Err() == nil
}

func isLoadError(err error) bool {
	_, ok := errors.AsType[*LoadError](err)
	return ok
}

// spawn makes one worker that can answer.
func (g *Group) spawn(ctx context.Context) (*worker, error) {
	for attempt := 0; ; attempt++ {
		w, err := g.spawnOnce(ctx)
		if errors.Is(err, errForkerGone) && attempt < 3 && ctx.Err() == nil {
			continue // a new zygote or template is on its way
		}
		return w, err
	}
}

func (g *Group) spawnOnce(ctx context.Context) (*worker, error) {
	if err := g.restore(ctx); err != nil {
		return nil, err
	}
	var from *forker
	if g.wantsTemplate() {
		f, self, err := g.fromTemplate(ctx)
		if err != nil || self != nil {
			return self, err
		}
		from = f
	}
	if from == nil {
		f, err := g.pool.zygote.get(ctx)
		if err != nil {
			return nil, fmt.Errorf("start a worker of %q: %w", g.spec.Endpoint, err)
		}
		from = f
	}
	w, _, err := g.launch(ctx, from, false)
	if err != nil {
		return nil, fmt.Errorf("start a worker of %q: %w", g.spec.Endpoint, err)
	}
	r, err := g.await(ctx, w)
	if err != nil {
		return nil, err
	}
	return g.enlist(ctx, w, r)
}

// fromTemplate returns the forker of the group's template, which is loaded if
// there is none. Where workers must not be forked from a loaded process, that
// process itself is returned as a worker, and later ones load for themselves.
func (g *Group) fromTemplate(ctx context.Context) (*forker, *worker, error) {
	t := &g.template
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f != nil && t.f.alive() {
		return t.f, nil, nil
	}
	t.f, t.w = nil, nil
	if t.refused {
		return nil, nil, nil
	}
	zygote, err := g.pool.zygote.get(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("start the template of %q: %w", g.spec.Endpoint, err)
	}
	w, children, err := g.launch(ctx, zygote, true)
	if err != nil {
		return nil, nil, fmt.Errorf("start the template of %q: %w", g.spec.Endpoint, err)
	}
	g.all.Go(func() { children.read(func(control) {}) })
	r, err := g.await(ctx, w)
	if err != nil {
		children.close()
		return nil, nil, err
	}
	t.why = r.Why
	if r.Template {
		t.f, t.w = children, w
		return children, nil, nil
	}
	children.close()
	t.refused = true
	g.log.Info("workers load for themselves", "reason", r.Why)
	self, err := g.enlist(ctx, w, r)
	return nil, self, err
}

func (t *templateSeat) close() {
	t.unload()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused, t.why = true, "closed"
}

// process is the id of the template's process, 0 when there is none or it loads.
func (t *templateSeat) process() int {
	if !t.mu.TryLock() { // held while it loads
		return 0
	}
	defer t.mu.Unlock()
	return t.f.process()
}

// unload ends the template, which unloads what it has loaded; the next worker makes
// another one. Its workers have ended.
func (t *templateSeat) unload() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f == nil {
		return
	}
	t.f.close()
	w := t.w
	w.g.all.Go(func() { w.stop(context.Background()) })
	t.f, t.w = nil, nil
}

// await waits until w has loaded, as long as it makes progress.
func (g *Group) await(ctx context.Context, w *worker) (loadResult, error) {
	interval := min(max(g.o.loadStall/20, 10*time.Millisecond), time.Second)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	lastSign, lastMove := progressOf(w.pid), time.Now()
	for {
		select {
		case r := <-w.loaded:
			if r.err == nil {
				return r, nil
			}
			w.stop(ctx)
			var failed *LoadError
			if errors.As(r.err, &failed) && failed.Death.IsZero() {
				failed.LastLines = w.tail.Lines()
			}
			return r, r.err
		case now := <-ticker.C:
			if sign := progressOf(w.pid); sign != lastSign || sign == "" {
				lastSign, lastMove = sign, now
			}
			if now.Sub(lastMove) < g.o.loadStall {
				continue
			}
			w.kill(fmt.Sprintf("loading made no progress for %s", g.o.loadStall))
			<-w.buried
			return loadResult{}, &LoadError{
				Endpoint: g.spec.Endpoint, LastLines: w.death.LastLines, Death: w.death,
				Text: fmt.Sprintf("loading made no progress for %s, its process was killed", g.o.loadStall),
			}
		case <-ctx.Done():
			g.mu.Lock()
			w.asked = true
			g.mu.Unlock()
			w.process.kill(syscall.SIGKILL, true)
			<-w.buried
			return loadResult{}, fmt.Errorf("load endpoint %q: %w", g.spec.Endpoint, context.Cause(ctx))
		}
	}
}

// enlist makes a loaded worker one that gets requests.
func (g *Group) enlist(ctx context.Context, w *worker, r loadResult) (*worker, error) {
	g.mu.Lock()
	if g.closed || w.state == dead {
		g.mu.Unlock()
		w.stop(ctx)
		return nil, fmt.Errorf("start a worker of %q: %w", g.spec.Endpoint, ErrClosed)
	}
	w.state = ready
	g.async, g.warnings = r.Async, r.Warnings
	if !g.started && g.batch != nil && !r.Batches { // the code has no way to execute requests together
		g.batch.hold.Stop()
		g.batch = nil
	}
	g.lastLoad = nil
	g.loadTook = max(g.loadTook, time.Duration(r.Took*float64(time.Second)))
	g.workers = append(slices.Clip(g.workers), w) // a copy: others read the old one
	g.sendVariables(w)
	g.feed(w)
	g.mu.Unlock()
	w.out.flush()
	return w, nil
}

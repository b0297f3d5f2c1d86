package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// A model of this size, or a load of this duration, justifies a template: a process that
// keeps the model loaded, and from which workers are forked in milliseconds.
const (
	templateSize = 64 << 20
	templateLoad = 500 * time.Millisecond
)

// template is the process that has loaded the endpoint and from which its workers are
// forked, so that they share the model's memory.
type template struct {
	mu      sync.Mutex // guards the rest; held while a template loads: the others would load the same
	f       *forker
	w       *worker // the template itself, as long as f is set
	refused bool    // each worker loads separately
	why     string  // the reason for that, or for sharing
}

func (t *template) close() {
	t.unload()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused, t.why = true, "closed"
}

// forker returns the template's forker, nil when there is none or it loads.
func (t *template) forker() *forker {
	if !t.mu.TryLock() { // held while it loads
		return nil
	}
	defer t.mu.Unlock()
	return t.f
}

// unload ends the template, which unloads what it has loaded; the next worker makes
// another one. Its workers have ended.
func (t *template) unload() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f == nil {
		return
	}
	t.f.close()
	w := t.w
	w.background(func() { w.stop(context.Background()) })
	t.f, t.w = nil, nil
}

// spawn makes one worker that can answer.
func (s *seats) spawn(ctx context.Context) (*worker, error) {
	for attempt := 0; ; attempt++ {
		w, err := s.spawnOnce(ctx)
		if errors.Is(err, errForkerGone) && attempt < 3 && ctx.Err() == nil {
			continue // a new zygote or template is on its way
		}
		return w, err
	}
}

func (s *seats) spawnOnce(ctx context.Context) (*worker, error) {
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	var from *forker
	if s.wantsTemplate() {
		f, self, err := s.fromTemplate(ctx)
		if err != nil || self != nil {
			return self, err
		}
		from = f
	}
	w, _, err := s.launch(ctx, from, false)
	if err != nil {
		return nil, fmt.Errorf("start a worker of %q: %w", s.spec.Endpoint, err)
	}
	r, err := s.await(ctx, w)
	if err != nil {
		return nil, err
	}
	return s.enlist(ctx, w, r)
}

// fromTemplate returns the forker of the endpoint's template, which is loaded if
// there is none. Where workers must not be forked from a loaded process, that
// process itself is returned as a worker, and later ones load separately.
func (s *seats) fromTemplate(ctx context.Context) (*forker, *worker, error) {
	t := &s.template
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.f != nil && t.f.alive() {
		return t.f, nil, nil
	}
	t.f, t.w = nil, nil
	if t.refused {
		return nil, nil, nil
	}
	w, children, err := s.launch(ctx, nil, true)
	if err != nil {
		return nil, nil, fmt.Errorf("start the template of %q: %w", s.spec.Endpoint, err)
	}
	s.all.Go(func() { children.read(func(control) {}) })
	r, err := s.await(ctx, w)
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
	s.log.Info("each worker loads separately", "reason", r.Why)
	self, err := s.enlist(ctx, w, r)
	return nil, self, err
}

// launch forks a process, from the zygote if from is nil, and sends it the spec. The result
// of its load comes through loaded. A template also has a forker of its own.
func (s *seats) launch(ctx context.Context, from *forker, template bool) (_ *worker, children *forker, err error) {
	if from == nil {
		if from, err = s.pool.zygote.get(ctx); err != nil {
			return nil, nil, err
		}
	}
	w := newWorker(s.d)
	if children, err = w.start(ctx, from, template, s.needs, s.arena); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	spec := s.specJSON
	if s.hurries() {
		spec = append(slices.Clone(spec[:len(spec)-1]), `,"hurry":true}`...)
	}
	if !s.started { // later loads, for which requests may wait, do not find it out again
		spec = append(slices.Clone(spec[:len(spec)-1]), `,"signature":true}`...)
	}
	w.variables = s.spec.Variables
	s.mu.Unlock()
	w.post(header{kind: kindSpec}, spec)
	w.out.flush()
	return w, children, nil
}

// await waits until w has loaded, as long as it makes progress.
func (s *seats) await(ctx context.Context, w *worker) (loadResult, error) {
	interval := min(max(s.o.loadStall/20, 10*time.Millisecond), time.Second)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	lastSign, lastBelow, lastMove := progressOf(w.pid), "", time.Now()
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
			} else if below := progressBelow(w.pid); below != lastBelow {
				lastBelow, lastMove = below, now
			}
			if now.Sub(lastMove) < s.o.loadStall {
				continue
			}
			text := fmt.Sprintf("loading made no progress for %s", s.o.loadStall)
			w.kill(text)
			<-w.ended
			return loadResult{}, &LoadError{
				Endpoint: s.spec.Endpoint, LastLines: w.death.LastLines, Death: w.death, Text: text + ", its process was killed",
			}
		case <-ctx.Done():
			w.abort()
			return loadResult{}, fmt.Errorf("load endpoint %q: %w", s.spec.Endpoint, context.Cause(ctx))
		}
	}
}

// enlist makes a loaded worker one that gets requests.
func (s *seats) enlist(ctx context.Context, w *worker, r loadResult) (*worker, error) {
	s.mu.Lock()
	if !s.started {
		s.signature = r.Signature
		if !r.Batches {
			s.d.BatchNothing()
		}
	}
	s.sendVariables(w)
	enlisted := s.d.Enlist(w, r.Async)
	if enlisted {
		s.warnings, s.lastLoad = r.Warnings, nil
		s.showsClient.Store(r.Client)
		s.hasModel, s.methods = r.Model, r.Methods
		s.loadTook = max(s.loadTook, time.Duration(r.Took*float64(time.Second)))
	}
	s.mu.Unlock()
	if !enlisted {
		w.stop(ctx)
		return nil, fmt.Errorf("start a worker of %q: %w", s.spec.Endpoint, ErrClosed)
	}
	return w, nil
}

// wantsTemplate reports whether workers are forked from a process that has loaded:
// several share its memory, and a large or slow model is not loaded again when a
// worker dies. A small model of one worker does not justify the process.
func (s *seats) wantsTemplate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec.Workers > 1 || s.modelSize >= templateSize || s.loadTook >= templateLoad
}

// hurries reports whether the next load has normal priority, because requests wait for it:
// the endpoint has slept, or its last worker has died. A long load would slow down other
// endpoints more than it helps. mu is held.
func (s *seats) hurries() bool {
	return s.started && s.modelSize < templateSize && s.loadTook < templateLoad && !s.d.Ready()
}

// restore restores what a new process needs: files may have been removed or damaged since
// the endpoint was loaded. The first load does not need it: its files were just fetched.
func (s *seats) restore(ctx context.Context) error {
	s.mu.Lock()
	started, distrust := s.started, s.distrust
	s.distrust = false
	s.mu.Unlock()
	if !started {
		return nil
	}
	var err error
	if s.spec.Restore != nil {
		if err = s.spec.Restore(ctx, distrust); err == nil {
			err = s.pool.admit(s.spec)
		}
	}
	if err == nil {
		err = s.pool.zygote.restore(ctx)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("start a worker of %q: %w", s.spec.Endpoint, context.Cause(ctx))
	}
	s.mu.Lock()
	s.distrust = s.distrust || distrust
	s.mu.Unlock()
	return &LoadError{Endpoint: s.spec.Endpoint, Text: "what it is loaded from is gone and cannot be brought back: " + err.Error()}
}

// sizeOf is the size of a file or of the files in a folder; what cannot be read
// counts nothing: the load will report it.
func sizeOf(path string) (size int64) {
	if path == "" {
		return 0
	}
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}

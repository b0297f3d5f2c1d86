package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"clearmlserving/process"
	"clearmlserving/retry"
)

// importStall is how long the import of one package may take: the first one from
// a cold disk or a network file system is slow.
const importStall = 2 * time.Minute

// zygote keeps one process alive that has imported the heavy packages and forks
// workers. Its run owns the process.
type zygote struct {
	o    Options
	mark uint32 // of what workers start: see marks in forks.py

	orphaned atomic.Pointer[time.Time] // when a zygote died last: processes that had detached themselves have no parent then

	mu      sync.Mutex // guards the rest
	current *forker    // nil while there is none that can fork
	err     error      // why there is none, nil while one starts
	changed chan struct{}
}

func newZygote(o Options) *zygote {
	return &zygote{o: o, mark: 1 + rand.Uint32N(1<<30), changed: make(chan struct{})} //nolint:gosec // a number of our own, no secret
}

// set publishes a state and wakes those who wait for one.
func (z *zygote) set(f *forker, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.current, z.err = f, err
	close(z.changed)
	z.changed = make(chan struct{})
}

// get returns a forker that is ready. It waits for one that starts, and returns
// why the last one did not.
func (z *zygote) get(ctx context.Context) (*forker, error) {
	for {
		z.mu.Lock()
		f, err, changed := z.current, z.err, z.changed
		z.mu.Unlock()
		switch {
		case f != nil && f.alive():
			return f, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// run keeps a zygote alive until ctx ends. It returns an error when none can be
// started at all.
func (z *zygote) run(ctx context.Context) (err error) {
	defer func() {
		final := err
		if final == nil {
			final = ErrClosed
		}
		z.set(nil, final) // the final state
	}()
	dir, err := extractRuntime(z.o.RuntimeDir)
	if err != nil {
		return err
	}
	pause := backoff{limit: z.o.maxBackoff}
	for {
		started := time.Now()
		var h *standby
		ready := false
		err := z.restore(ctx)
		if err == nil {
			h, ready, err = z.live(ctx, dir)
		}
		z.orphaned.Store(new(time.Now()))
		err = z.failOver(ctx, h, err)
		if ctx.Err() != nil {
			return nil
		}
		if z.o.Restore == nil && errors.Is(err, fs.ErrNotExist) && errors.Is(err, process.ErrNotStarted) {
			return err
		}
		if ready && time.Since(started) > z.o.maxBackoff {
			pause.reset()
		}
		wait := pause.next()
		z.o.Logger.Error("zygote died", "worker", "zygote", "err", err, "restart_in", wait)
		if wait == 0 {
			z.set(nil, nil)
			continue
		}
		z.set(nil, fmt.Errorf("the python process that forks workers does not run: %w", err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		z.set(nil, nil)
	}
}

// live starts one zygote and stays until it is dead. The error says how it died;
// h is what can go on in its place, if there is something.
func (z *zygote) live(ctx context.Context, dir string) (h *standby, ready bool, err error) {
	f, theirs, err := newForker()
	if err != nil {
		return nil, false, err
	}
	defer f.close()
	options, err := json.Marshal(map[string]any{"preload": z.o.preload(), "mark": z.mark})
	if err != nil {
		_ = theirs.Close()
		return nil, false, fmt.Errorf("encode the zygote's options: %w", err)
	}
	log := z.o.Logger.With("worker", "zygote")
	out := newOutput(log, z.o.outputRate)
	child, err := process.Start(ctx, process.Spec{
		Path: z.o.Environment.program(), Args: []string{filepath.Join(dir, "zygote.py"), string(options)},
		Env: cpuCaps(z.o.ZygoteEnv), ExtraFiles: []*os.File{theirs}, WhenWeDie: syscall.SIGTERM, // its children are its to end

		LogLine: func(stream process.Stream, line []byte) { out.line(string(stream), line) },
	})
	_ = theirs.Close()
	if err != nil {
		return nil, false, err
	}

	progress := make(chan struct{}, 1)
	isReady, imported := make(chan struct{}), make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		f.read(func(m control) {
			switch m.Is {
			case "importing":
				select {
				case progress <- struct{}{}:
				default:
				}
			case "ready":
				log.Info("zygote ready", "pid", child.PID(), "took", time.Since(child.Since()))
				z.set(f, nil)
				close(isReady)
			case "imported":
				for name, why := range m.Failed {
					log.Warn("package cannot be imported", "package", name, "err", why)
				}
				if m.Threads > 1 {
					log.Warn("zygote has threads, which its workers will lack", "threads", m.Threads)
				}
				log.Info("packages imported", "pid", child.PID(), "took", time.Since(child.Since()), "imported", len(m.Imported))
				close(imported)
			}
		})
	})
	defer reader.Wait()
	defer f.close()

	stall := time.NewTimer(importStall)
	defer stall.Stop()
	for all := false; !all; {
		select {
		case <-ctx.Done():
			f.close() // it ends by itself, and its children with it
			_ = child.Stop(context.WithoutCancel(ctx), stopGrace)
			return nil, ready, nil
		case <-child.Done():
			return nil, ready, fmt.Errorf("zygote died: %w", detailed(child.Death()))
		case <-progress:
			stall.Reset(importStall)
		case <-isReady:
			isReady, ready = nil, true
		case <-imported:
			all = true
		case <-stall.C:
			_ = child.Kill()
			death := child.Death()
			death.Reason = fmt.Sprintf("importing packages made no progress for %s", importStall)
			return nil, ready, fmt.Errorf("zygote hung: %w", detailed(death))
		}
	}
	h = z.superviseStandby(ctx, f, child.Done())
	if ctx.Err() != nil {
		h.end()
		f.close()
		_ = child.Stop(context.WithoutCancel(ctx), stopGrace)
		return nil, true, nil
	}
	return h, true, fmt.Errorf("zygote died: %w", detailed(child.Death()))
}

// deathDetail is a death whose text includes its last lines.
type deathDetail struct{ death process.Death }

func (d deathDetail) Error() string { return d.death.Detail() }

func (d deathDetail) Unwrap() error { return d.death }

func detailed(d process.Death) error { return deathDetail{d} }

// backoff is the growing pause between restarts of what dies again and again:
// none the first time.
type backoff struct {
	limit time.Duration
	count int
}

func (b *backoff) next() time.Duration {
	b.count++
	if b.count == 1 {
		return 0
	}
	return retry.Doubled(b.count-1, 100*time.Millisecond, b.limit)
}

func (b *backoff) reset() { b.count = 0 }

package worker

import (
	"cmp"
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

// importStall bounds the import of one package. The first import from a cold disk or a
// network file system is slow.
const importStall = 2 * time.Minute

// zygote keeps one process running that has imported the large packages and forks
// workers. Its run owns the process.
type zygote struct {
	o    Options
	mark uint32 // identifies the processes that workers start: see marks in forks.py

	lastDeath atomic.Pointer[time.Time] // last death of a zygote: detached processes of its workers may be left

	mu      sync.Mutex // guards the rest
	current *forker    // nil while none can fork
	err     error      // why none can, nil while one starts
	changed chan struct{}
}

func newZygote(o Options) *zygote {
	return &zygote{o: o, mark: 1 + rand.Uint32N(1<<30), changed: make(chan struct{})} //nolint:gosec // a number of our own, no secret
}

// set publishes a state and wakes the waiting get calls.
func (z *zygote) set(f *forker, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.current, z.err = f, err
	close(z.changed)
	z.changed = make(chan struct{})
}

// forker returns the current forker, nil when there is none.
func (z *zygote) forker() *forker {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.current
}

// get returns a forker that is ready. It waits for one that starts, and returns the error
// of the last start if that failed.
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

// run keeps a zygote running until ctx ends. It returns an error when none can be
// started at all.
func (z *zygote) run(ctx context.Context) (err error) {
	defer func() {
		final := cmp.Or(err, ErrClosed)
		z.set(nil, final) // the final state
	}()
	dir, err := extractRuntime(z.o.RuntimeDir)
	if err != nil {
		return err
	}
	pause := backoff{limit: z.o.maxBackoff}
	for {
		started := time.Now()
		p, ready, err := z.start(ctx, dir)
		for p != nil {
			standby := z.superviseStandby(ctx, p)
			if ctx.Err() != nil {
				p.end()
				standby.end()
				break
			}
			err = fmt.Errorf("zygote died: %w", p.death())
			if p = standby; p != nil {
				z.lastDeath.Store(new(time.Now()))
				z.set(p.f, nil)
				z.o.Logger.Error("zygote died, its standby has taken over", "worker", "zygote", "err", err)
			}
		}
		z.lastDeath.Store(new(time.Now()))
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
		if retry.Sleep(ctx, wait) != nil {
			return nil
		}
		z.set(nil, nil)
	}
}

// start starts a zygote, and returns it when it has imported all packages. ready says that
// it could fork before.
func (z *zygote) start(ctx context.Context, dir string) (p *zygoteProcess, ready bool, err error) {
	if err := z.restore(ctx); err != nil {
		return nil, false, err
	}
	options, err := json.Marshal(map[string]any{"preload": z.o.preload(), "mark": z.mark})
	if err != nil {
		return nil, false, fmt.Errorf("encode the zygote's options: %w", err)
	}
	f, theirs, err := newForker()
	if err != nil {
		return nil, false, err
	}
	log := z.o.Logger.With("worker", "zygote")
	out := newOutput(log, z.o.outputRate)
	child, err := process.Start(ctx, process.Spec{
		Path: z.o.Environment.Program(), Args: []string{filepath.Join(dir, "zygote.py"), string(options)},
		Env: cpuCaps(z.o.ZygoteEnv), ExtraFiles: []*os.File{theirs}, WhenWeDie: syscall.SIGTERM, // it ends its children itself

		LogLine: func(stream process.Stream, line []byte) { out.line(string(stream), line) },
	})
	_ = theirs.Close()
	if err != nil {
		f.close()
		return nil, false, err
	}
	done := make(chan struct{})
	p = &zygoteProcess{
		f: f, done: done, kill: func() { _ = child.Kill() }, death: func() error { return deathDetail{child.Death()} },
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
					log.Warn("zygote has threads, which its workers will not have", "threads", m.Threads)
				}
				log.Info("packages imported", "pid", child.PID(), "took", time.Since(child.Since()), "imported", len(m.Imported))
				close(imported)
			}
		})
	})
	go func() { // ends with the process, which end waits for
		defer close(done)
		<-child.Done()
		f.close()
		reader.Wait()
	}()

	stall := time.NewTimer(importStall)
	defer stall.Stop()
	for {
		select {
		case <-ctx.Done():
			p.end()
			return nil, ready, nil
		case <-done:
			return nil, ready, fmt.Errorf("zygote died: %w", p.death())
		case <-progress:
			stall.Reset(importStall)
		case <-isReady:
			isReady, ready = nil, true
		case <-imported:
			return p, true, nil
		case <-stall.C:
			p.kill()
			<-done
			death := child.Death()
			death.Reason = fmt.Sprintf("importing packages made no progress for %s", importStall)
			return nil, ready, fmt.Errorf("zygote hung: %w", deathDetail{death})
		}
	}
}

// restore creates the folders that the zygote and its workers read from, if they are missing.
func (z *zygote) restore(ctx context.Context) error {
	if z.o.Restore != nil {
		if err := z.o.Restore(ctx); err != nil {
			return err
		}
	}
	files, err := embedded()
	if err == nil && !files.present(filepath.Join(z.o.RuntimeDir, files.hash)) {
		_, err = extractRuntime(z.o.RuntimeDir)
	}
	return err
}

// deathDetail is a death whose text includes its last lines.
type deathDetail struct{ death process.Death }

func (d deathDetail) Error() string { return d.death.Detail() }

func (d deathDetail) Unwrap() error { return d.death }

// backoff is the growing pause between restarts of a process that dies repeatedly; the
// first restart is immediate.
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

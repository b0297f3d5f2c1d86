package host

import (
	"context"
	"log/slog"
	"sync"

	"clearmlserving/worker"
)

// pools holds one pool of workers for each Python environment in use. A pool starts
// with its first user and ends with its last.
type pools struct {
	make func(environment) *worker.Pool
	log  *slog.Logger
	all  sync.WaitGroup // each pool's Run

	mu     sync.Mutex // guards the rest
	closed bool
	byPath map[string]*pool // by interpreter
}

type pool struct {
	*worker.Pool
	users int
	stop  context.CancelFunc
}

// take returns the pool of an environment; the caller calls release once, when its
// group is closed.
func (p *pools) take(at environment) (_ *worker.Pool, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, worker.ErrClosed
	}
	path := at.Python
	taken := p.byPath[path]
	if taken == nil {
		// The pool outlives the load that starts it; close ends it.
		ctx, stop := context.WithCancel(context.Background())
		taken = &pool{Pool: p.make(at), stop: stop}
		p.byPath[path] = taken
		p.all.Go(func() { p.run(ctx, path, taken) })
	}
	taken.users++
	return taken.Pool, func() { p.release(path, taken) }, nil
}

// run runs a pool to its end. One that fails is removed, so that the next load
// starts another.
func (p *pools) run(ctx context.Context, path string, one *pool) {
	defer one.stop()
	err := one.Run(ctx)
	if err != nil {
		p.log.Error("python workers ended", "python", path, "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(path, one)
}

func (p *pools) release(path string, one *pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.users--; one.users == 0 {
		one.stop()
		p.drop(path, one)
	}
}

// drop removes a pool unless another has replaced it. mu is held.
func (p *pools) drop(path string, one *pool) {
	if p.byPath[path] == one {
		delete(p.byPath, path)
	}
}

// close ends every pool and waits for them; take fails from now on.
func (p *pools) close() {
	p.mu.Lock()
	p.closed = true
	for _, one := range p.byPath {
		one.stop()
	}
	p.mu.Unlock()
	p.all.Wait()
}

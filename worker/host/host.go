// Package host is what all engines with user code in Python share: the environments,
// one pool of workers for each environment in use, the memory budget, and the calls of
// user code to other endpoints. It knows neither engines nor the data plane.
package host

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	"clearmlserving/worker"
	"clearmlserving/worker/venv"
)

// Options of a Host.
type Options struct {
	// Worker configures the processes; the Host sets its Caller, Environment and Restore.
	Worker worker.Options
	// Find looks for the interpreter when Run begins, so that nothing else has to
	// wait for it. With its error every load fails, and the rest of the instance
	// goes on.
	Find func(ctx context.Context) (*worker.Environment, error)
	// Env is the environment of user code, "NAME=value".
	Env []string
	// Environments makes Python environments beside the interpreter's own, for
	// endpoints that ask for one and for Extra; nil: none can be made.
	Environments *venv.Maker
	// Extra are packages for every endpoint without an environment of its own, as
	// arguments of "pip install".
	Extra []string
}

// Host runs the Python workers of an instance.
type Host struct {
	o            Options
	environments *environments
	pools        *pools
	instance     instanceFile
	begun        chan struct{} // closed when Run has looked for the interpreter
	unusable     error         // why there is none; valid once begun
	caller       atomic.Pointer[worker.Caller]
}

// EnvironmentError says why an endpoint has no Python environment.
type EnvironmentError struct {
	Err error
	own bool // of an endpoint's own requirements
}

func (e *EnvironmentError) Error() string { return e.Err.Error() }

func (e *EnvironmentError) Unwrap() error { return e.Err }

// Final reports whether the endpoint's own requirements are at fault, on every machine. Packages
// that the instance adds are the instance's.
func (e *EnvironmentError) Final() bool {
	failed, ok := errors.AsType[*venv.Error](e.Err)
	return errors.Is(e.Err, venv.ErrNoRequirements) || (ok && e.own && failed.Final())
}

// New prepares a Host; Run starts it.
func New(o Options) *Host {
	h := &Host{o: o, begun: make(chan struct{}), instance: newInstanceFile(o.Worker.RuntimeDir)}
	log := cmp.Or(o.Worker.Logger, slog.New(slog.DiscardHandler))
	h.environments = &environments{
		maker: o.Environments, extra: o.Extra, env: o.Env, known: map[string]*worker.Environment{},
	}
	ahead := cmp.Or(o.Worker.Ahead, worker.NewAhead(0)) // one for all pools
	h.pools = &pools{log: log, byPath: map[string]*pool{}, make: func(at environment) *worker.Pool {
		own := o.Worker
		own.Caller, own.Environment, own.Restore = h, at.Environment, at.remake
		own.Ahead = ahead
		if at.Environment != h.environments.base {
			own.ZygoteEnv = at.env
		}
		return worker.New(own)
	}}
	return h
}

// Run owns the worker processes until ctx ends. Calls of user code go to caller.
// It is called once.
func (h *Host) Run(ctx context.Context, caller worker.Caller) error {
	h.caller.Store(&caller)
	defer h.instance.remove()
	h.environments.base, h.unusable = h.o.Find(ctx)
	close(h.begun)
	if h.unusable != nil {
		<-ctx.Done()
		return nil
	}
	if h.o.Environments != nil {
		defer h.o.Environments.Close()
		if _, err := h.o.Environments.Prune(); err != nil {
			h.pools.log.Warn("old python environments not removed", "err", err)
		}
	}
	if budget := h.o.Worker.Budget; budget != nil {
		watched, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last worker has ended
		var watch sync.WaitGroup
		watch.Go(func() { budget.Run(watched) })
		defer watch.Wait()
		defer stop()
	}
	defer h.pools.close()
	h.warm(ctx)
	<-ctx.Done()
	return nil
}

// warm keeps the shared environment's pool running, also while no endpoint uses it.
func (h *Host) warm(ctx context.Context) {
	at, err := h.environments.shared(ctx)
	if err != nil {
		if ctx.Err() == nil {
			h.pools.log.Error("python environment cannot be made; endpoints try again", "err", err)
		}
		return
	}
	_, _, _ = h.pools.take(at) // close releases it; an error means that close was called
}

// ready waits until the interpreter is known, and says why there is none.
func (h *Host) ready(ctx context.Context) error {
	select {
	case <-h.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if h.unusable != nil {
		return &EnvironmentError{Err: h.unusable}
	}
	return nil
}

// Prepare makes the environment that Start will need. own asks for one made from the
// requirements.txt in the code folder.
func (h *Host) Prepare(ctx context.Context, own bool, codePath string) error {
	if err := h.ready(ctx); err != nil {
		return ctx.Err() // Start says what is wrong with the interpreter
	}
	_, err := h.environments.of(ctx, own, codePath)
	return err
}

// Environment is the Python environment of an endpoint, as Start chooses it. The error is an
// *EnvironmentError.
func (h *Host) Environment(ctx context.Context, own bool, codePath string) (*worker.Environment, error) {
	if err := h.ready(ctx); err != nil {
		return nil, err
	}
	at, err := h.environments.of(ctx, own, codePath)
	if err != nil {
		return nil, err
	}
	return at.Environment, nil
}

// Start loads an endpoint in its environment and returns when its first worker can
// answer. The Host sets Spec.Env and completes Spec.Restore. An *EnvironmentError or a
// *worker.LoadError says what is wrong with the endpoint.
func (h *Host) Start(ctx context.Context, own bool, spec worker.Spec) (*Group, error) {
	if err := h.ready(ctx); err != nil {
		return nil, err
	}
	at, err := h.environments.of(ctx, own, spec.CodePath)
	if err != nil {
		return nil, err
	}
	pool, release, err := h.pools.take(at)
	if err != nil {
		return nil, err
	}
	spec.Env, spec.Restore = at.env, at.restore(spec.Restore)
	extra := map[string]any{"instance_file": h.instance.path}
	maps.Copy(extra, spec.Extra)
	spec.Extra = extra
	group, err := pool.Start(ctx, spec)
	if err != nil {
		release()
		return nil, err
	}
	return &Group{Group: group, release: release}, nil
}

// Call answers a send_request of user code; it implements worker.Caller.
func (h *Host) Call(ctx context.Context, c worker.CallRequest) (worker.CallResponse, error) {
	return (*h.caller.Load()).Call(ctx, c)
}

// Group is an endpoint's workers.
type Group struct {
	*worker.Group

	release func() // of the pool
}

// Close ends the workers as worker.Group.Close does, and their pool if nothing else
// uses it. It is called once.
func (g *Group) Close(ctx context.Context) error {
	defer g.release()
	return g.Group.Close(ctx)
}

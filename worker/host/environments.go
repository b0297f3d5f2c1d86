package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"clearmlserving/worker"
	"clearmlserving/worker/venv"
)

// environments finds the Python environment that an endpoint's code runs in: the
// instance's interpreter, the interpreter with extra packages over it, or one made
// from the endpoint's own requirements.
type environments struct {
	base  *worker.Environment
	maker *venv.Maker // nil: only base exists
	extra []string
	env   []string

	mu    sync.Mutex // guards known
	known map[string]*worker.Environment
}

// environment is a Python environment with the variables of its processes.
type environment struct {
	*worker.Environment
	env []string
	// remake makes the environment again if its folder is gone; nil for the
	// interpreter's own.
	remake func(ctx context.Context) error
}

// shared is the environment of endpoints without one of their own.
func (e *environments) shared(ctx context.Context) (environment, error) {
	if len(e.extra) == 0 {
		return environment{Environment: e.base, env: e.env}, nil
	}
	if e.maker == nil {
		return environment{}, errors.New("extra Python packages: no folder for environments is configured")
	}
	layer := func(ctx context.Context) (venv.Environment, error) {
		made, err := e.maker.Layer(ctx, e.interpreter(), e.extra)
		if err != nil {
			return made, fmt.Errorf("extra Python packages (%s): %w", strings.Join(e.extra, " "), err)
		}
		return made, nil
	}
	return e.activate(ctx, layer, e.env)
}

// own is the environment of the code folder's requirements.txt.
func (e *environments) own(ctx context.Context, codePath string) (environment, error) {
	if e.maker == nil {
		return environment{}, errors.New("environment=own: no folder for environments is configured")
	}
	if info, err := os.Stat(codePath); err != nil || !info.IsDir() {
		return environment{}, fmt.Errorf("environment=own: the code is not a folder, so it %w", venv.ErrNoRequirements)
	}
	own := func(ctx context.Context) (venv.Environment, error) {
		return e.maker.Own(ctx, e.interpreter(), codePath)
	}
	// What PYTHONPATH names is not in the requirements.
	env := slices.DeleteFunc(slices.Clone(e.env), func(v string) bool { return strings.HasPrefix(v, "PYTHONPATH=") })
	return e.activate(ctx, own, env)
}

func (e *environments) interpreter() venv.Interpreter {
	path := cmp.Or(e.base.Executable, e.base.Python)
	return venv.Interpreter{Path: path, Version: e.base.Version}
}

// activate makes an environment, inspects its interpreter once, and sets the
// variables of an activated environment.
func (e *environments) activate(ctx context.Context, make func(context.Context) (venv.Environment, error), env []string) (environment, error) {
	made, err := make(ctx)
	if err != nil {
		return environment{}, err
	}
	bin := filepath.Join(made.Dir, "bin")
	var variables []string
	path := bin
	for _, v := range env {
		switch {
		case strings.HasPrefix(v, "VIRTUAL_ENV="):
		case strings.HasPrefix(v, "PATH="):
			path = bin + string(filepath.ListSeparator) + strings.TrimPrefix(v, "PATH=")
		default:
			variables = append(variables, v)
		}
	}
	variables = append(variables, "PATH="+path, "VIRTUAL_ENV="+made.Dir)
	e.mu.Lock()
	found := e.known[made.Python]
	e.mu.Unlock()
	if found == nil {
		var err error
		if found, err = worker.Probe(ctx, made.Python, worker.Search{Env: variables}); err != nil {
			return environment{}, err
		}
		e.mu.Lock()
		e.known[made.Python] = found
		e.mu.Unlock()
	}
	return environment{Environment: found, env: variables, remake: func(ctx context.Context) error {
		if _, err := os.Stat(made.Python); err == nil {
			return nil
		}
		_, err := make(ctx)
		return err
	}}, nil
}

// restore makes the environment again after restoring the endpoint's files, from which
// it may be made.
func (at environment) restore(files func(ctx context.Context, distrust bool) error) func(ctx context.Context, distrust bool) error {
	return func(ctx context.Context, distrust bool) error {
		if files != nil {
			if err := files(ctx, distrust); err != nil {
				return err
			}
		}
		if at.remake != nil {
			return at.remake(ctx)
		}
		return nil
	}
}

// of chooses the environment of an endpoint. Every error is an *EnvironmentError.
func (e *environments) of(ctx context.Context, own bool, codePath string) (environment, error) {
	choose := e.shared
	if own {
		choose = func(ctx context.Context) (environment, error) { return e.own(ctx, codePath) }
	}
	at, err := choose(ctx)
	if err != nil {
		return environment{}, &EnvironmentError{Err: err, own: own}
	}
	return at, nil
}

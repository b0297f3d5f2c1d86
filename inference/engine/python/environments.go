package python

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/venv"
)

// environments finds the Python environment that an endpoint's code runs in:
// the instance's interpreter, that with extra packages laid over it, or one made
// of the endpoint's own requirements.
type environments struct {
	base  *worker.Environment
	maker *venv.Maker // nil: only the base is there
	extra []string
	env   []string

	mu    sync.Mutex // guards known
	known map[string]*worker.Environment
}

// place is an environment with the variables that processes in it get.
type place struct {
	*worker.Environment
	env []string
	// remake makes the environment again if its folder is gone, nil for the
	// interpreter's own.
	remake func(ctx context.Context) error
}

// shared is the environment of every endpoint that asks for no other.
func (e *environments) shared(ctx context.Context) (place, error) {
	if len(e.extra) == 0 {
		return place{Environment: e.base, env: e.env}, nil
	}
	if e.maker == nil {
		return place{}, errors.New("extra Python packages are asked for, but there is no folder for environments")
	}
	layer := func(ctx context.Context) (venv.Environment, error) {
		made, err := e.maker.Layer(ctx, e.interpreter(), e.extra)
		if err != nil {
			return made, fmt.Errorf("extra Python packages (%s): %w", strings.Join(e.extra, " "), err)
		}
		return made, nil
	}
	return e.place(ctx, layer, e.env)
}

// own is the environment of the code folder's requirements.txt.
func (e *environments) own(ctx context.Context, spec engine.Spec) (place, error) {
	if e.maker == nil {
		return place{}, errors.New("an environment of its own is asked for, but there is no folder for environments")
	}
	if info, err := os.Stat(spec.CodePath); err != nil || !info.IsDir() {
		return place{}, fmt.Errorf("environment=own: the code is no folder, so it %w", venv.ErrNoRequirements)
	}
	own := func(ctx context.Context) (venv.Environment, error) {
		return e.maker.Own(ctx, e.interpreter(), spec.CodePath)
	}
	// What PYTHONPATH names is not in the requirements.
	env := slices.DeleteFunc(slices.Clone(e.env), func(v string) bool { return strings.HasPrefix(v, "PYTHONPATH=") })
	return e.place(ctx, own, env)
}

func (e *environments) interpreter() venv.Interpreter {
	path := e.base.Executable
	if path == "" {
		path = e.base.Python
	}
	return venv.Interpreter{Path: path, Version: e.base.Version}
}

// place asks an environment's interpreter what it has, once, and gives its
// processes the variables that an activated environment has.
func (e *environments) place(ctx context.Context, make func(context.Context) (venv.Environment, error), env []string) (place, error) {
	made, err := make(ctx)
	if err != nil {
		return place{}, err
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
			return place{}, err
		}
		e.mu.Lock()
		e.known[made.Python] = found
		e.mu.Unlock()
	}
	return place{Environment: found, env: variables, remake: func(ctx context.Context) error {
		if _, err := os.Stat(made.Python); err == nil {
			return nil
		}
		_, err := make(ctx)
		return err
	}}, nil
}

// restore brings an endpoint's files back, and then the environment that is made of
// them.
func (at place) restore(spec engine.Spec) func(ctx context.Context, distrust bool) error {
	return func(ctx context.Context, distrust bool) error {
		if spec.Restore != nil {
			if err := spec.Restore(ctx, distrust); err != nil {
				return err
			}
		}
		if at.remake != nil {
			return at.remake(ctx)
		}
		return nil
	}
}

// of chooses the environment of an endpoint. Every error is a *engine.LoadError.
func (e *environments) of(ctx context.Context, spec engine.Spec) (place, error) {
	own, err := serving.OwnEnvironment(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	var at place
	switch {
	case err != nil:
	case own:
		at, err = e.own(ctx, spec)
	default:
		at, err = e.shared(ctx)
	}
	if err != nil {
		return place{}, &engine.LoadError{Text: err.Error(), Err: err}
	}
	return at, nil
}

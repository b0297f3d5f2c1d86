// Package native is the engine of models that are computed in Go: scikit-learn, XGBoost and LightGBM
// models of endpoints with the setting accelerate. It has each model extracted by its own library in a
// short-lived Python process, compares its answers with the library's, and serves it without Python if
// they agree. What it cannot answer exactly as Python does, it leaves to the endpoint's Python, which is
// started for that and ends when it is idle. Package clearmlserving/native computes; this one never does.
package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/python"
	"clearmlserving/serving"
	"clearmlserving/worker/host"
)

// Options of an Engine.
type Options struct {
	// Python loads the endpoints of this engine in Python. It is run by its owner.
	Python engine.Loader
	// Workers run the code of endpoints around their models. It is the engine behind Python.
	Workers *python.Engine
	// Host runs the short-lived processes. It is run by its owner.
	Host *host.Host
	// Dir is where extracts are kept, for all instances with the same data folder. Required.
	Dir string
	// Made is a folder of extracts that were proven before, on another machine with the same libraries, and that
	// is only read; "" for none. If this machine has no Python, they are used by the content of the model alone.
	Made string
	// RuntimeDir is where workers may read the files of the extraction. Required.
	RuntimeDir string
	// ONNX loads models of ONNX, for those that are converted because Go does not compute them; ONNXRuntime finds its library.
	// nil: nothing is converted.
	ONNX        engine.Loader
	ONNXRuntime func(ctx context.Context) (string, error)
	// Logger logs the results of proofs. Default: none.
	Logger *slog.Logger

	proofTime time.Duration     // bounds one extraction with its proof
	started   func(*host.Group) // for tests: the process of an extraction has loaded the model
}

// defaultProofTime bounds one extraction with its proof. A large forest takes seconds.
const defaultProofTime = 10 * time.Minute

// Engine loads models; see the package.
type Engine struct {
	o      Options
	proofs keyedLocks
	places chan struct{} // holds one for each large body that is computed, of all models
}

// New prepares an Engine.
func New(o Options) *Engine {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.proofTime = cmp.Or(o.proofTime, defaultProofTime)
	return &Engine{o: o, places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}
}

// Prepare implements engine.Preparer.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	if preparer, ok := e.o.Python.(engine.Preparer); ok {
		return preparer.Prepare(ctx, spec)
	}
	return nil
}

// Load implements engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	how, err := serving.Accelerate(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	if how == serving.AccelerateOff {
		return e.o.Python.Load(ctx, spec)
	}
	if ctx.Err() != nil { // a kept extract would not notice
		return nil, context.Cause(ctx)
	}
	m, err := e.accelerate(ctx, spec, how)
	unproven, ok := errors.AsType[*unprovenError](err)
	if ok && unproven.final && spec.CodePath == "" {
		m, err = e.convert(ctx, spec, how)
		if second, converts := errors.AsType[*unprovenError](err); converts {
			both := *unproven
			both.reason += "; nor by " + byONNX + ": " + second.reason
			both.final = second.final
			if both.report == nil {
				both.report = second.report
			}
			unproven = &both
		} else {
			ok = false
		}
	}
	switch {
	case !ok:
		return m, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case how == serving.AccelerateOn:
		return nil, &engine.LoadError{Text: unproven.Error() + "; accelerate=auto serves it in Python", Final: unproven.final, Err: err}
	}
	e.o.Logger.Info("model stays in python", "endpoint", spec.URL, "reason", unproven.reason)
	inPython, err := e.o.Python.Load(ctx, spec)
	if err != nil {
		return nil, err
	}
	report := serving.NativeReport{Setting: how}
	if unproven.report != nil {
		report = *unproven.report
		report.Setting, report.On = how, false
	}
	report.Reason = unproven.reason
	return staying(inPython, report), nil
}

// unprovenError says why a model is not computed in Go.
type unprovenError struct {
	reason string
	final  bool                  // it will be the same at the next attempt
	report *serving.NativeReport // the comparisons, if there were some
}

func (e *unprovenError) Error() string {
	return "accelerate=true: the model is not computed in Go: " + e.reason
}

// accelerate loads the model in Go, or fails with an *unprovenError, or with the error of a model that cannot be loaded at all.
func (e *Engine) accelerate(ctx context.Context, spec engine.Spec, how serving.Acceleration) (engine.Model, error) {
	if spec.CodePath != "" {
		if err := codeFits(spec, how); err != nil {
			return nil, err
		}
	}
	p, err := e.proven(ctx, spec)
	if err != nil {
		return nil, err
	}
	m, err := e.open(spec, how, p)
	if err != nil {
		return nil, &unprovenError{reason: fmt.Sprintf("its extract cannot be opened: %v", err)}
	}
	if spec.CodePath == "" {
		return m, nil
	}
	made, err := e.around(ctx, spec, m)
	if err != nil {
		return nil, errors.Join(err, m.Close(context.WithoutCancel(ctx)))
	}
	return made, nil
}

// codeFits returns why the model of an endpoint with code stays in Python. What code returns is not known before, and Go
// has no Python to leave it to, so only accelerate=true says that it suits.
func codeFits(spec engine.Spec, how serving.Acceleration) error {
	if how != serving.AccelerateOn {
		return &unprovenError{reason: "the endpoint has preprocess code, whose results are not known before; accelerate=true computes the model in Go between preprocess and postprocess", final: true}
	}
	own, err := serving.OwnEnvironment(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	if own {
		return &unprovenError{reason: "the endpoint has environment=own, and models are compared with the libraries of the shared environment", final: true}
	}
	return nil
}

// keyedLocks are locks by name.
type keyedLocks struct {
	mu   sync.Mutex // guards held
	held map[string]*keyedLock
}

type keyedLock struct {
	free  chan struct{} // holds one while the lock is free
	users int
}

// lock takes a lock, unless ctx ends before. The caller calls unlock.
func (k *keyedLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.held[name]
	if l == nil {
		if k.held == nil {
			k.held = map[string]*keyedLock{}
		}
		l = &keyedLock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		k.held[name] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, name)
		}
	}
	select {
	case <-l.free:
		return func() {
			l.free <- struct{}{}
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

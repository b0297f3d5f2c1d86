// Package venv creates Python environments: one with the packages of a requirements.txt, or a layer
// on another with additional packages. It owns the folder of environments: each is created once,
// under a name that is the hash of its inputs, and found again at the next start. It never runs
// user code and starts the installers only through package process.
package venv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"clearmlserving/atomicfile"
)

// Options of a Maker.
type Options struct {
	// Dir is the folder of the environments. Required; instances may share it.
	Dir string
	// Made is a folder of environments that were created there before, and that is only read; "" for none.
	Made string
	// Constraints is a folder with the exact versions for environments of endpoints, in files that are named by
	// ConstraintsName; "" for none.
	Constraints string
	// Env is the whole environment of the installers: PATH, HOME, proxies, and the settings of
	// package registries. Nil: an empty one.
	Env []string
	// UV is the program uv, "uv" by default. If it cannot be started, venv and pip are used.
	UV string
	// Stall is the time without output after which an installer is killed. Default 10 minutes.
	Stall time.Duration
	// Keep is the time after which an unused environment is removed. Default DefaultKeep.
	Keep time.Duration
	// Logger gets the progress. Default: none.
	Logger *slog.Logger
}

// Maker creates environments and finds existing ones. Its methods may be called from any goroutine;
// concurrent requests for one environment create it once.
type Maker struct {
	o Options

	mu   sync.Mutex // guards used
	used map[string]*os.File
}

// New creates a Maker; it does no I/O.
func New(o Options) *Maker {
	o.UV = cmp.Or(o.UV, "uv")
	o.Env = forBoth(o.Env)
	o.Stall = cmp.Or(o.Stall, 10*time.Minute)
	o.Keep = cmp.Or(o.Keep, DefaultKeep)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Maker{o: o, used: map[string]*os.File{}}
}

// Interpreter is the Python of an environment.
type Interpreter struct {
	// Path is the interpreter, and Version its version ("3.11.7").
	Path, Version string
}

// Environment is a complete environment.
type Environment struct {
	// Dir is its folder and Python its interpreter.
	Dir, Python string
}

// Own creates the environment with exactly the packages of the folder's requirements.txt. A
// requirements file may name other files of the folder. The error is an *Error if the installer
// fails.
func (m *Maker) Own(ctx context.Context, base Interpreter, folder string) (Environment, error) {
	text, err := requirements(folder)
	if err != nil {
		return Environment{}, err
	}
	args, inputs := []string{"-r", RequirementsFile}, []string{"own", base.Path, base.Version, text}
	if m.o.Constraints != "" {
		file := filepath.Join(m.o.Constraints, constraintsName(text))
		pins, err := os.ReadFile(file)
		if err == nil {
			args, inputs = append(args, "-c", file), append(inputs, string(pins))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return Environment{}, fmt.Errorf("exact versions of the environment: %w", err)
		}
	}
	return m.make(ctx, recipe{base: base, name: "requirements.txt", dir: folder, args: args, key: key(inputs...)})
}

// Layer creates an environment on top of the base, with additional packages. They are arguments as
// for "pip install". The error is an *Error if the installer fails.
func (m *Maker) Layer(ctx context.Context, base Interpreter, packages []string) (Environment, error) {
	parts := append([]string{"layer", base.Path, base.Version}, packages...)
	return m.make(ctx, recipe{base: base, name: "extra packages", args: packages, layered: true, key: key(parts...)})
}

// recipe has the inputs of an environment.
type recipe struct {
	base    Interpreter
	what    string   // for errors, "" for an environment
	name    string   // for messages
	dir     string   // base of relative names
	args    []string // what to install
	layered bool     // the base's packages are visible too
	key     string
	turn    *os.File // locked while the environment is created
}

// stampFile is written last: an environment without it is incomplete.
const stampFile = ".made.json"

func (m *Maker) make(ctx context.Context, r recipe) (Environment, error) {
	if m.o.Made != "" {
		if e := environmentAt(m.o.Made, r.key); made(e) {
			return e, nil
		}
	}
	e := environmentAt(m.o.Dir, r.key)
	if err := os.MkdirAll(m.o.Dir, 0o755); err != nil {
		return Environment{}, fmt.Errorf("make python environment: %w", err)
	}
	if err := m.use(ctx, e); err != nil { // first, so that it is not pruned
		return Environment{}, fmt.Errorf("use python environment: %w", err)
	}
	if made(e) {
		return e, nil
	}
	log := m.o.Logger.With("environment", filepath.Base(e.Dir))
	turn, err := tryLock(e.Dir+lockSuffix, syscall.LOCK_EX)
	if turn == nil && err == nil {
		log.Info("waiting for the lock of the python environment")
		turn, err = lockFile(ctx, e.Dir+lockSuffix, syscall.LOCK_EX)
	}
	if err != nil {
		return Environment{}, fmt.Errorf("make python environment: %w", err)
	}
	defer unlock(turn)
	if made(e) { // created by the previous holder of the lock
		return e, nil
	}
	r.turn = turn
	log.Info("creating python environment", "from", r.name, "python", r.base.Path, "version", r.base.Version)
	begun := time.Now()
	if err := os.RemoveAll(e.Dir); err != nil { // the remains of an interrupted creation
		return Environment{}, fmt.Errorf("make python environment: %w", err)
	}
	if err := m.install(ctx, e, r, log); err != nil {
		_ = os.RemoveAll(e.Dir) // without its stamp it is never used
		return Environment{}, err
	}
	if err := stamp(e, r); err != nil {
		return Environment{}, fmt.Errorf("make python environment: %w", err)
	}
	log.Info("python environment created", "took", time.Since(begun).Round(time.Millisecond))
	return e, nil
}

func environmentAt(dir, key string) Environment {
	e := Environment{Dir: filepath.Join(dir, key)}
	e.Python = filepath.Join(e.Dir, "bin", "python")
	return e
}

// made reports whether an environment is complete and its interpreter exists.
func made(e Environment) bool {
	stamp, err := os.Stat(filepath.Join(e.Dir, stampFile))
	_, errPython := os.Stat(e.Python)
	return err == nil && stamp.Mode().IsRegular() && stamp.Size() > 0 && errPython == nil
}

func stamp(e Environment, r recipe) error {
	text, err := json.Marshal(map[string]any{"from": r.name, "install": r.args, "python": r.base.Path, "version": r.base.Version, "layered": r.layered, "made": time.Now().UTC()})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(e.Dir, stampFile), text, 0o644)
}

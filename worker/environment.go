package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"clearmlserving/process"
)

// packages are those that the probe looks for: import name, name for pip.
var packages = [...][2]string{
	{"numpy", "numpy"},
	{"joblib", "joblib"},
	{"sklearn", "scikit-learn"},
	{"scipy", "scipy"},
	{"xgboost", "xgboost"},
	{"lightgbm", "lightgbm"},
	{"pandas", "pandas"},
	{"clearml", "clearml"},
	{"orjson", "orjson"},
	{"uvloop", "uvloop"},
	{"starlette", "starlette"},
	{"fastapi", "fastapi"},
	{"torch", "torch"},
	{"onnx", "onnx"},
	{"skl2onnx", "skl2onnx"},
}

const oldestPython = 9 // 3.9

// Environment is an interpreter that can run workers, and its packages.
type Environment struct {
	// Python is the interpreter's path as it was given; Executable is sys.executable.
	Python     string `json:"python"`
	Executable string `json:"executable"`
	// Version is like "3.11.7".
	Version string `json:"version"`
	// Packages holds import name -> version of the well-known packages that are
	// installed; a version can be "".
	Packages map[string]string `json:"packages"`
	// ONNXRuntime is the shared library of the package onnxruntime, "" if there is none.
	ONNXRuntime string `json:"onnxruntime"`
}

// Search says where to look for an interpreter.
type Search struct {
	// Candidates are paths or names of interpreters in order; the first that exists is
	// used, even if it is unusable: a wrong --python must not be skipped silently. Empty
	// ones are skipped.
	Candidates []string
	// Env is the environment in which the interpreter runs. nil: an empty one.
	Env []string
	// Timeout bounds the probe. Default 30 seconds.
	Timeout time.Duration
}

// FindEnvironment finds an interpreter and probes it. All errors are of type *PythonError.
func FindEnvironment(ctx context.Context, s Search) (*Environment, error) {
	var tried []string
	for _, candidate := range s.Candidates {
		if candidate == "" {
			continue
		}
		env, err := Probe(ctx, candidate, s)
		var missing *PythonError
		if errors.As(err, &missing) && missing.Problem == PythonNotFound {
			tried = append(tried, candidate)
			continue
		}
		return env, err
	}
	return nil, &PythonError{
		Problem: PythonNotFound,
		Text:    fmt.Sprintf("no python interpreter found (tried %s)", strings.Join(tried, ", ")),
		Hint:    "install Python 3.9 or newer, or name one: --python /path/to/python3",
	}
}

// Probe asks one interpreter for its version and packages. All errors are of type *PythonError.
func Probe(ctx context.Context, python string, s Search) (*Environment, error) {
	unusable := func(problem PythonProblem, err error, hint, text string, args ...any) (*Environment, error) {
		return nil, &PythonError{Problem: problem, Err: err, Hint: hint, Text: fmt.Sprintf(text, args...)}
	}
	script, err := runtimeFiles.ReadFile("runtime/probe.py")
	names, errNames := json.Marshal(packages)
	if err = errors.Join(err, errNames); err != nil {
		return unusable(PythonBroken, err, "", "read the embedded probe: %v", err)
	}
	var mu sync.Mutex // guards answer: two streams call LogLine
	var answer []byte
	child, err := process.Start(ctx, process.Spec{
		Path: python, Args: []string{"-c", string(script), string(names)}, Env: s.Env, MaxLine: 64 << 10,
		LogLine: func(stream process.Stream, line []byte) {
			mu.Lock()
			defer mu.Unlock()
			if stream == process.Stdout {
				answer = slices.Clone(line)
			}
		},
	})
	if err != nil {
		problem := PythonBroken
		if errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "executable file not found") {
			problem = PythonNotFound
		}
		return unusable(problem, err, "name another one: --python /path/to/python3", "python interpreter %s: %v", python, err)
	}
	timeout := cmp.Or(s.Timeout, 30*time.Second)
	death, hung, err := child.Await(ctx, timeout)
	if err != nil {
		return unusable(PythonBroken, err, "", "ask %s for its version: %v", python, err)
	}
	var facts struct {
		Version    []int             `json:"version"`
		Executable string            `json:"executable"`
		Packages   map[string]string `json:"packages"`
		Runtime    string            `json:"onnxruntime"`
	}
	mu.Lock()
	defer mu.Unlock()
	if err := json.Unmarshal(answer, &facts); err != nil || len(facts.Version) < 3 || hung {
		hint := "run it to see the cause: " + python + " -c 'import sys; print(sys.version)'"
		if hung {
			return unusable(PythonBroken, death, hint, "%s did not tell its version within %s", python, timeout)
		}
		return unusable(PythonBroken, death, hint, "%s is no usable python interpreter: %s", python, death.Detail())
	}
	v := facts.Version
	version := fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	if v[0] != 3 || v[1] < oldestPython {
		return unusable(PythonTooOld, nil, "name a newer one: --python /path/to/python3", "%s is Python %s, and 3.%d is the oldest that works", python, version, oldestPython)
	}
	if facts.Packages == nil {
		facts.Packages = map[string]string{}
	}
	return &Environment{Python: python, Executable: facts.Executable, Version: version, Packages: facts.Packages, ONNXRuntime: facts.Runtime}, nil
}

// Require returns a *PythonError, with a command to install them, if the environment lacks
// some of the packages (import names).
func (e *Environment) Require(names ...string) error {
	var lacks, install []string
	for _, name := range names {
		if _, ok := e.Packages[name]; ok {
			continue
		}
		lacks = append(lacks, name)
		pip := name
		for _, p := range packages {
			if p[0] == name {
				pip = p[1]
			}
		}
		install = append(install, pip)
	}
	if len(lacks) == 0 {
		return nil
	}
	return &PythonError{
		Problem: PythonLacksPackage,
		Text:    fmt.Sprintf("%s lacks %s", e.Python, strings.Join(lacks, ", ")),
		Hint:    fmt.Sprintf("install: %s -m pip install %s", e.Executable, strings.Join(install, " ")),
	}
}

// Program is the path to start: the interpreter itself rather than a shim.
func (e *Environment) Program() string { return cmp.Or(e.Executable, e.Python) }

// preload lists the packages that a zygote imports once for all workers.
func (e *Environment) preload() []string {
	names := []string{} // Python reads it: null is no list
	for _, name := range []string{"numpy", "joblib", "pandas", "sklearn", "xgboost", "lightgbm", "orjson"} {
		if _, ok := e.Packages[name]; ok {
			names = append(names, name)
		}
	}
	return append(names, "asyncio")
}

// cpuCaps limits native libraries to one thread: threads do not survive a fork, and the
// threads of several workers would compete for cores.
func cpuCaps(env []string) []string {
	caps := []string{
		"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1",
		"VECLIB_MAXIMUM_THREADS=1",
	}
	out := make([]string, 0, len(env)+len(caps))
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(caps, func(c string) bool { return strings.HasPrefix(c, name+"=") }) {
			out = append(out, e)
		}
	}
	return append(out, caps...)
}

// pss is the memory of a process in bytes, with shared memory divided among the processes
// that share it; 0 where the system does not report it.
func pss(pid int) int64 {
	m, _ := process.MemoryOf(pid)
	return m.Share
}

package worker

import (
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

// packages are those that the probe asks for: import name, name for pip.
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

// Environment is an interpreter that can run workers, and what it has.
type Environment struct {
	// Python is the interpreter's path as it was asked for; Executable what the
	// interpreter calls itself.
	Python     string `json:"python"`
	Executable string `json:"executable"`
	// Version is like "3.11.7".
	Version string `json:"version"`
	// Packages holds import name -> version of the well-known packages that are
	// installed; a version can be "".
	Packages map[string]string `json:"packages"`
}

// Search says where to look for an interpreter.
type Search struct {
	// Candidates are paths or names of interpreters in order; the first that is
	// there is taken, even if it is unusable: a wrong --python must not be passed
	// over silently. Empty ones are skipped.
	Candidates []string
	// Env is the environment in which the interpreter runs, and whose PATH is
	// looked through by the caller. Nil: an empty one.
	Env []string
	// Timeout bounds the probe. Default 30 seconds.
	Timeout time.Duration
}

// FindEnvironment finds an interpreter and asks it once what it is. All errors
// are of type *PythonError.
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
		Python: strings.Join(tried, ", "), Problem: PythonNotFound,
		Text: fmt.Sprintf("no python interpreter found (tried %s)", strings.Join(tried, ", ")),
		Hint: "install Python 3.9 or newer, or name one: --python /path/to/python3",
	}
}

// Probe asks one interpreter what it is. All errors are of type *PythonError.
func Probe(ctx context.Context, python string, s Search) (*Environment, error) {
	if s.Timeout <= 0 {
		s.Timeout = 30 * time.Second
	}
	script, err := runtimeFiles.ReadFile("runtime/probe.py")
	if err != nil {
		return nil, &PythonError{Python: python, Problem: PythonBroken, Text: "read the embedded probe", Err: err}
	}
	names, err := json.Marshal(packages)
	if err != nil {
		return nil, &PythonError{Python: python, Problem: PythonBroken, Text: "encode the names of packages", Err: err}
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
		return nil, &PythonError{
			Python: python, Problem: problem, Err: err, Text: fmt.Sprintf("python interpreter %s: %v", python, err),
			Hint: "name another one: --python /path/to/python3",
		}
	}
	late := time.NewTimer(s.Timeout)
	defer late.Stop()
	hung := false
	select {
	case <-child.Done():
	case <-late.C:
		hung = true
	case <-ctx.Done():
	}
	_ = child.Kill() // gone already, mostly
	death := child.Death()
	if err := context.Cause(ctx); err != nil {
		return nil, &PythonError{Python: python, Problem: PythonBroken, Err: err, Text: fmt.Sprintf("ask %s for its version: %v", python, err)}
	}
	var facts struct {
		Version    []int             `json:"version"`
		Executable string            `json:"executable"`
		Packages   map[string]string `json:"packages"`
	}
	mu.Lock()
	defer mu.Unlock()
	if err := json.Unmarshal(answer, &facts); err != nil || len(facts.Version) < 3 || hung {
		text := fmt.Sprintf("%s is no usable python interpreter: %s", python, death.Detail())
		if hung {
			text = fmt.Sprintf("%s did not tell its version within %s", python, s.Timeout)
		}
		return nil, &PythonError{
			Python: python, Problem: PythonBroken, Err: death, Text: text,
			Hint: "see what it says to: " + python + " -c 'import sys; print(sys.version)'",
		}
	}
	env := &Environment{
		Python: python, Executable: facts.Executable, Packages: facts.Packages,
		Version: fmt.Sprintf("%d.%d.%d", facts.Version[0], facts.Version[1], facts.Version[2]),
	}
	if v := facts.Version; v[0] != 3 || v[1] < oldestPython {
		return nil, &PythonError{
			Python: python, Problem: PythonTooOld,
			Text: fmt.Sprintf("%s is Python %s, and 3.%d is the oldest that works", python, env.Version, oldestPython),
			Hint: "name a newer one: --python /path/to/python3",
		}
	}
	if env.Packages == nil {
		env.Packages = map[string]string{}
	}
	return env, nil
}

// Require says, with the command that helps, which of the packages (by import
// name) the environment lacks; nil when none. The error is a *PythonError.
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
		Python: e.Python, Problem: PythonLacksPackage,
		Text: fmt.Sprintf("%s lacks %s", e.Python, strings.Join(lacks, ", ")),
		Hint: fmt.Sprintf("install: %s -m pip install %s", e.Executable, strings.Join(install, " ")),
	}
}

// program is what to start: the interpreter itself rather than a shim before it.
func (e *Environment) program() string {
	if e.Executable != "" {
		return e.Executable
	}
	return e.Python
}

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

// cpuCaps keeps native libraries at one thread in the zygote: threads would not
// survive a fork, and workers would fight for cores.
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

// pss is the memory of a process in bytes, what it shares divided among those
// who share it; 0 where the system does not tell.
func pss(pid int) int64 {
	m, _ := process.MemoryOf(pid)
	return m.Share
}

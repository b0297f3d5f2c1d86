package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/worker"
)

// pythonCandidates are the interpreters to try, best first: as configured alone,
// else that of the active virtual environment, that of the environment in which pip
// has installed this program, then python3.
func (a *app) pythonCandidates() []string {
	if python := a.text("python"); python != "" {
		return []string{python}
	}
	var candidates []string
	if venv, ok := a.sys.env("VIRTUAL_ENV"); ok && venv != "" {
		candidates = append(candidates, filepath.Join(venv, "bin", "python"))
	}
	if program, err := os.Executable(); err == nil {
		if venv := filepath.Dir(filepath.Dir(program)); exists(filepath.Join(venv, "pyvenv.cfg")) {
			candidates = append(candidates, filepath.Join(venv, "bin", "python"))
		}
	}
	return append(candidates, "python3", "python")
}

// findPython finds the interpreter that runs models in that environment.
func (a *app) findPython(ctx context.Context, env []string) (*worker.Environment, error) {
	return worker.FindEnvironment(ctx, worker.Search{Candidates: a.pythonCandidates(), Env: env})
}

// enginePackages are what each engine imports; without them it cannot load a model.
var enginePackages = []struct {
	engine   string
	packages []string
}{
	{"sklearn", []string{"numpy", "joblib", "sklearn"}},
	{"xgboost", []string{"numpy", "xgboost"}},
	{"lightgbm", []string{"numpy", "lightgbm"}},
}

// checkPython tells which interpreter runs models and which engines it can run.
func (a *app) checkPython(ctx context.Context) []finding {
	found, err := a.findPython(ctx, a.workerEnv(clearml.Config{}))
	if err != nil {
		if python, ok := errors.AsType[*worker.PythonError](err); ok {
			return []finding{{"python", stateFail, python.Text, python.Hint}}
		}
		return []finding{{"python", stateFail, err.Error(), "Name an interpreter: --python /path/to/python3"}}
	}
	findings := []finding{{"python", stateOK, fmt.Sprintf("%s at %s", found.Version, firstOf(found.Executable, found.Python)), ""}}
	for _, e := range enginePackages {
		findings = append(findings, checkEngine(found, e.engine, e.packages))
	}
	return findings
}

// checkEngine warns of an engine that lacks packages: not everybody needs each.
func checkEngine(found *worker.Environment, engine string, packages []string) finding {
	err := found.Require(packages...)
	if lacks, ok := errors.AsType[*worker.PythonError](err); ok {
		return finding{"engine", stateWarn, fmt.Sprintf("%s cannot run: %s", engine, lacks.Text), "Only if you need it: " + strings.TrimPrefix(lacks.Hint, "install: ")}
	}
	versions := make([]string, len(packages))
	for i, name := range packages {
		versions[i] = strings.TrimSpace(name + " " + found.Packages[name])
	}
	return finding{"engine", stateOK, fmt.Sprintf("%s: %s", engine, strings.Join(versions, ", ")), ""}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/modelfile"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// runPlan is what run makes of a model.
type runPlan struct {
	flags    runFlags
	model    string // as it was given
	endpoint string
	engine   string
	file     modelfile.File // Path is empty for code alone
	code     string         // file or folder, "" for none
	table    bool           // the code was made here
	temp     string         // folder of code that was made here, "" for none
}

// String is the plan in one line.
func (p *runPlan) String() string {
	what := p.file.Format
	if p.file.Class != "" {
		what = p.file.Class + " (" + what + ")"
	}
	what = cmp.Or(what, "code")
	text := p.model + ": " + what
	switch {
	case p.table:
		text += " with code that makes a table of a request"
	case p.code != "" && p.file.Path != "":
		text += " with code"
	}
	return text + ", engine " + p.engine
}

// planRun finds out how a model is served. The caller removes the plan, also after an error.
func planRun(model string, f runFlags) (*runPlan, error) {
	p := &runPlan{flags: f, model: model, code: f.preprocess, endpoint: firstOf(f.endpoint, endpointName(model)), engine: f.engine}
	info, err := os.Stat(model)
	if err != nil {
		return p, notFound("model '%s' could not be found", model)
	}
	for _, file := range []struct{ flag, path string }{{"preprocess", f.preprocess}, {"requirements", f.requirements}} {
		if file.path != "" && !exists(file.path) {
			return p, notFound("--%s '%s' could not be found", file.flag, file.path)
		}
	}
	switch {
	case !info.IsDir() && f.preprocess == "" && filepath.Ext(model) == ".py":
		p.code = model
	case !info.IsDir():
		p.file, err = modelfile.Look(model)
	case f.preprocess != "":
		p.file = modelfile.File{Path: model, Format: "folder", Why: "it is a folder"}
	default:
		err = p.readFolder()
	}
	if err != nil && (info.IsDir() || (p.code == "" && p.engine == "")) {
		return p, hint(err, "Try: --preprocess with code that loads it, or --engine if you know better")
	}
	if err := p.chooseEngine(); err != nil {
		return p, err
	}
	if p.file.Table && p.code == "" && p.engine == serving.EngineSklearn {
		return p, p.makeTable()
	}
	return p, nil
}

// makeTable gives a model that chooses its columns by name the code that makes a table of a
// request.
func (p *runPlan) makeTable() error {
	columns, err := json.Marshal(p.file.Columns)
	if err != nil {
		return err
	}
	if err := p.temporary(); err != nil {
		return err
	}
	p.code, p.table = filepath.Join(p.temp, "preprocess.py"), true
	p.file.Packages = append(p.file.Packages, "pandas")
	return os.WriteFile(p.code, []byte(fmt.Sprintf(tableCode, columns)), 0o600)
}

// tableCode is preprocess code for a model that chooses its columns by name.
const tableCode = `import pandas

COLUMNS = %s


class Preprocess:
    """Makes a table of a JSON object, or of a list of them."""

    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return pandas.DataFrame(body if isinstance(body, list) else [body], columns=COLUMNS)
`

// temporary makes the folder for code.
func (p *runPlan) temporary() (err error) {
	if p.temp, err = os.MkdirTemp("", "clearml-serving-code-"); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	return nil
}

// remove removes what was made for the plan.
func (p *runPlan) remove() error { return os.RemoveAll(p.temp) }

// chooseEngine takes the one of --engine, else custom for code that does the engine's work,
// else the file's.
func (p *runPlan) chooseEngine() error {
	if p.engine != "" {
		return nil
	}
	p.engine = p.file.Engine
	switch {
	case p.code == "" && p.engine == "":
		return hint(fmt.Errorf("no engine runs %s (%s): %s", p.model, p.file.Format, p.file.Why),
			"Try: --preprocess preprocess.py   (examples/custom shows such code)")
	case p.code != "" && (p.engine == "" || modelfile.Predicts(p.code)):
		p.engine = serving.EngineCustom
	}
	return nil
}

// readFolder finds the code and the model of a folder. The model is not packed with the code.
func (p *runPlan) readFolder() (err error) {
	var hasCode bool
	if p.file, hasCode, err = modelfile.LookFolder(p.model); err != nil || !hasCode {
		return err
	}
	if err := p.temporary(); err != nil {
		return err
	}
	p.code = filepath.Join(p.temp, filepath.Base(p.model))
	if err := modelfile.CopyCode(p.model, p.code, p.file); err != nil {
		return fmt.Errorf("copy the code of %s: %w", p.model, err)
	}
	return nil
}

// pipNames are the packages' names for pip, by their names for import, with their version in a
// model file where that decides whether it can be loaded.
var pipNames = map[string]string{"sklearn": "scikit-learn"}

// missingPackages are the packages, as for pip install, that the model needs and the interpreter
// lacks, and those of --requirements.
func (a *app) missingPackages(ctx context.Context, p *runPlan) ([]string, error) {
	if p.engine == serving.EngineONNX && p.code == "" && p.flags.requirements == "" {
		return nil, nil // no Python is needed
	}
	var extra []string
	if p.flags.requirements != "" {
		full, err := filepath.Abs(p.flags.requirements)
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(full, " \t") {
			return nil, fmt.Errorf("--requirements %s: a path with blanks cannot be given to the installer", full)
		}
		extra = []string{"-r", full}
	}
	found, err := a.findPython(ctx, a.workerEnv(clearml.Config{}))
	if err != nil {
		if python, ok := errors.AsType[*worker.PythonError](err); ok {
			return nil, hint(err, "%s", python.Hint)
		}
		return nil, err
	}
	needed := slices.Clone(p.file.Packages)
	if p.engine == serving.EngineSklearn || p.engine == serving.EngineXGBoost || p.engine == serving.EngineLightGBM {
		needed = append(needed, "numpy", p.engine)
	}
	slices.Sort(needed)
	for _, name := range slices.Compact(needed) {
		if found.Require(name) == nil {
			continue
		}
		want := firstOf(pipNames[name], name)
		if p.file.Version != "" && ((name == "sklearn" && p.file.Framework == "ScikitLearn") || (name == "xgboost" && p.file.Framework == "XGBoost")) {
			want += "==" + p.file.Version
		}
		extra = append(extra, want)
	}
	if len(extra) > 0 {
		a.print.line("Installing %s for %s", strings.Join(extra, " "), firstOf(found.Executable, found.Python))
	}
	return extra, nil
}

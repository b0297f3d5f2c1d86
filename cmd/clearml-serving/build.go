package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/worker/venv"
)

// buildFlags are the flags of the command build.
type buildFlags struct {
	output, base, endpoint, requirements string
	native                               bool
}

// The folders and files of an image's context.
const (
	buildServing      = "serving"
	buildConstraints  = "constraints"
	buildRequirements = "requirements.txt"
)

func buildCommand(a *app) *cobra.Command {
	var f buildFlags
	var what string
	cmd := &cobra.Command{
		Use:   "build SERVICE|FOLDER",
		Short: "Write what makes an image that serves without a ClearML server",
		Long: `Write a Dockerfile and its context for an image that serves a service exactly as it is
now: the same revisions of code and models, and the same Python packages, with no
ClearML server. SERVICE is the id or the name of a serving service. FOLDER is a model
file, or a folder, as "clearml-serving run" takes it.

Code and models are copied with their hashes, and the packages of endpoints with
environments of their own are pinned. When the image is built, every endpoint is
loaded once in it: what cannot be served, or does not reproduce its golden samples,
fails the build.

--native makes an image from scratch, without Python, for endpoints with
accelerate=true: their models are computed in Go.`,
		Example: `  clearml-serving build "serving example" --output ./image
  docker build -t churn:7 ./image && docker run -p 8080:8080 --read-only --tmpfs /tmp --tmpfs /var/lib/clearml-serving churn:7
  clearml-serving build ./churn.pkl --endpoint churn --output ./image`,
		Args:        oneArg(&what, "give one serving service, model file or folder", "Try: clearml-serving build ./model.pkl --output ./image"),
		Annotations: map[string]string{markWords: ""},
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.build(cmd.Context(), what, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.output, "output", "image", "folder to write, which must not exist or be empty")
	flags.StringVar(&f.base, "base", "", "image to build on (default: clearml-serving-inference of this version)")
	flags.StringVar(&f.endpoint, "endpoint", "", "name under /serve/ of a model (default: that of the file or folder)")
	flags.StringVar(&f.requirements, "requirements", "", "file of further Python packages for all endpoints, as for pip install -r; they are pinned")
	flags.BoolVar(&f.native, "native", false, "an image without Python, from scratch")
	a.declare(flags, "python")
	return cmd
}

func (a *app) build(ctx context.Context, what string, f buildFlags) (err error) {
	if err := mustBeEmpty(f.output); err != nil {
		return err
	}
	if f.requirements != "" && !exists(f.requirements) {
		return notFound("--requirements '%s' could not be found", f.requirements)
	}
	// Until all of it is there, nothing is: a part of a context would make an image of a part.
	defer func() {
		if err != nil {
			err = errors.Join(err, emptied(f.output))
		}
	}()
	served, required, remove, err := a.toBuild(ctx, what, f)
	if err != nil {
		return err
	}
	defer remove()
	folder := filepath.Join(f.output, buildServing)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	report, err := reconcile.WriteFolder(ctx, folder, served.state, served.files)
	if err != nil {
		return err
	}
	if len(report.Endpoints) == 0 {
		return hint(fmt.Errorf("service '%s' has no endpoint", served.state.ServiceName), "Try: clearml-serving model add --help")
	}
	if f.native {
		if err := computedInGo(report); err != nil {
			return err
		}
	}
	pinned, err := a.pin(ctx, f, report, required)
	if err != nil {
		return err
	}
	d := dockerfile{
		Version: version, Service: served.state.ServiceName, ID: served.state.ServiceID, State: served.state.Hash(), Base: f.base,
		Endpoints: report.Endpoints, Requirements: pinned, Native: f.native,
	}
	if err := d.write(f.output); err != nil {
		return err
	}
	return a.sayBuild(f, report)
}

// computedInGo refuses endpoints that need Python, for an image without it.
func computedInGo(report reconcile.FolderReport) error {
	for _, url := range report.Endpoints {
		e := report.Records[url]
		how, err := serving.Accelerate(e.EngineType, e.AuxiliaryCfg)
		switch {
		case err != nil:
			return fmt.Errorf("endpoint '%s': %w", url, err)
		case !slices.Contains(modelEngines, e.EngineType):
			return fmt.Errorf("--native: endpoint '%s' has the engine %s, which is not computed in Go", url, e.EngineType)
		case e.PreprocessArtifact != "":
			return fmt.Errorf("--native: endpoint '%s' has preprocess code, which runs in Python", url)
		case how != serving.AccelerateOn:
			return hint(fmt.Errorf("--native: endpoint '%s' is computed in Python", url), "Try: clearml-serving model add … --aux-config accelerate=true, then build again")
		}
	}
	return nil
}

// mustBeEmpty refuses a folder that has something.
func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--output %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return hint(fmt.Errorf("--output %s: the folder is not empty", dir), "Try: another folder, or remove this one")
	}
	return nil
}

// emptied removes what an unfinished build has written.
func emptied(dir string) error {
	var all error
	for _, name := range []string{buildServing, buildRequirements, "constraints.txt", "Dockerfile", ".dockerignore"} {
		all = errors.Join(all, os.RemoveAll(filepath.Join(dir, name)))
	}
	return all
}

// buildSource is what is built.
type buildSource struct {
	state *reconcile.State
	files reconcile.Files
}

// toBuild reads a service or a model. required are the packages that a model needs, as for pip install.
func (a *app) toBuild(ctx context.Context, what string, f buildFlags) (source buildSource, required []string, remove func(), err error) {
	remove = func() {}
	if !exists(what) {
		source, err = a.serviceToBuild(ctx, what)
		if f.endpoint != "" && err == nil {
			err = fmt.Errorf("--endpoint %s: a service has the names of its endpoints", f.endpoint)
		}
		return source, nil, remove, err
	}
	if reconcile.IsFolder(what) {
		return source, nil, remove, hint(fmt.Errorf("%s was written by build already", what), "Try: docker build on the folder above it")
	}
	p, err := planRun(what, runFlags{endpoint: f.endpoint})
	removePlan := func() {
		if err := p.remove(); err != nil {
			a.print.notice("Warning: a temporary folder is left over: %v", err)
		}
	}
	if err != nil {
		removePlan()
		return source, nil, remove, err
	}
	a.print.line("%s", p)
	folder, removeCode, err := a.folderOf(ctx, p, f.native)
	if err != nil {
		removePlan()
		return source, nil, remove, err
	}
	remove = func() { removeCode(); removePlan() }
	dir, err := a.dataDir()
	if err != nil {
		return source, nil, remove, err
	}
	if err := a.folderFiles(dir, folder, a.logger(slog.LevelWarn)); err != nil {
		return source, nil, remove, err
	}
	if p.file.Version != "" { // the versions that wrote the file; the others are those of the image
		switch p.file.Framework {
		case "ScikitLearn":
			required = append(required, "scikit-learn=="+p.file.Version)
		case "XGBoost":
			required = append(required, "xgboost-cpu=="+p.file.Version)
		}
	}
	if extra := filepath.Join(what, venv.RequirementsFile); exists(extra) && f.requirements == "" {
		text, err := os.ReadFile(extra)
		if err != nil {
			return source, nil, remove, err
		}
		required = append(required, strings.TrimRight(string(text), "\n"))
	}
	return buildSource{folder.State(), folder}, required, remove, nil
}

// serviceToBuild reads the present configuration of a service, as an instance does.
func (a *app) serviceToBuild(ctx context.Context, what string) (buildSource, error) {
	client, err := a.connect()
	if err != nil {
		return buildSource{}, err
	}
	defer client.Close()
	services, err := client.ListServices(ctx)
	if err != nil {
		return buildSource{}, err
	}
	id := what
	same := slices.DeleteFunc(services, func(s clearml.Service) bool { return s.Name != what })
	switch {
	case len(same) == 1:
		id = same[0].ID
	case len(same) > 1:
		return buildSource{}, hint(fmt.Errorf("%d serving services are named '%s'", len(same), what), "Try: its id instead   (clearml-serving list)")
	}
	log := a.logger(slog.LevelWarn)
	source := &reconcile.ClearMLSource{Client: client, ServiceID: id, Logger: log}
	state, err := source.Load(ctx, nil)
	if errors.Is(err, clearml.ErrNotFound) {
		return buildSource{}, hint(notFound("'%s' is neither a serving service nor a file or folder", what), "Try: clearml-serving list")
	}
	if err != nil {
		return buildSource{}, err
	}
	dir, err := a.dataDir()
	if err != nil {
		return buildSource{}, err
	}
	files, err := a.modelFiles(dir, client, log)
	return buildSource{state, files}, err
}

// pin writes the exact versions of the Python packages: those of endpoints with environments of their own, and those for all
// endpoints, of which it reports whether there are some.
func (a *app) pin(ctx context.Context, f buildFlags, report reconcile.FolderReport, required []string) (bool, error) {
	if f.requirements != "" {
		text, err := os.ReadFile(f.requirements)
		if err != nil {
			return false, err
		}
		required = append(required, strings.TrimRight(string(text), "\n"))
	}
	if f.native || len(report.Environments) == 0 && len(required) == 0 {
		return false, nil
	}
	env := a.workerEnv(clearml.Config{})
	found, err := a.findPython(ctx, env)
	if err != nil {
		return false, err
	}
	base := venv.Interpreter{Path: firstOf(found.Executable, found.Python), Version: found.Version}
	maker := venv.New(venv.Options{Env: a.installerEnv(), Logger: a.logger(slog.LevelWarn)})
	defer maker.Close()
	for _, url := range slices.Sorted(maps.Keys(report.Environments)) {
		a.print.line("Choosing the packages of %s", url)
		if err := pinOwn(ctx, maker, base, report.Environments[url], filepath.Join(f.output, buildServing, buildConstraints)); err != nil {
			return false, fmt.Errorf("endpoint '%s': %w", url, err)
		}
	}
	if len(required) == 0 {
		return false, nil
	}
	file := filepath.Join(f.output, buildRequirements)
	if err := os.WriteFile(file, []byte(strings.Join(required, "\n")+"\n"), 0o644); err != nil {
		return false, err
	}
	a.print.line("Choosing the packages of all endpoints")
	pins, err := maker.Pins(ctx, base, f.output, buildRequirements)
	if err != nil {
		return false, err
	}
	return true, os.WriteFile(filepath.Join(f.output, "constraints.txt"), []byte(pins), 0o644)
}

// pinOwn writes the versions for the requirements.txt in packed code.
func pinOwn(ctx context.Context, maker *venv.Maker, base venv.Interpreter, archive, into string) error {
	temp, err := os.MkdirTemp("", "clearml-serving-code-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }() // the system clears its temporary folder in the end
	code := filepath.Join(temp, "code")
	if err := storage.Unpack(ctx, archive, code, storage.Limits{}); err != nil {
		return err
	}
	name, err := venv.ConstraintsName(code)
	if err != nil {
		return err
	}
	pins, err := maker.Pins(ctx, base, code, venv.RequirementsFile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(into, name), []byte(pins), 0o644)
}

// dockerfile is what the image's Dockerfile is made of.
type dockerfile struct {
	Version, Service, ID, State, Base string
	Endpoints                         []serving.EndpointURL
	Requirements, Native              bool
}

//go:embed build.Dockerfile.tmpl
var dockerfileText string

func (d dockerfile) write(dir string) error {
	t, err := template.New("Dockerfile").Funcs(template.FuncMap{"line": oneLineComment}).Parse(dockerfileText)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := t.Execute(&text, d); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("Dockerfile\n"), 0o644)
}

// oneLineComment is a text that cannot end a comment.
func oneLineComment(text any) string {
	return strings.Join(strings.Fields(fmt.Sprint(text)), " ")
}

func (a *app) sayBuild(f buildFlags, report reconcile.FolderReport) error {
	for _, url := range slices.Sorted(maps.Keys(report.Skipped)) {
		a.print.notice("Warning: endpoint '%s' is left out: %s", url, report.Skipped[url])
	}
	names := make([]string, len(report.Endpoints))
	for i, url := range report.Endpoints {
		names[i] = string(url)
	}
	a.print.line("%s serves %s (%s of code and models)", f.output, strings.Join(names, ", "), humanize.IBytes(uint64(max(0, report.Bytes))))
	a.print.line("Build it:  docker build -t NAME %s", shellWord(f.output))
	return a.print.result(object{{"output", f.output}, {"endpoints", names}, {"bytes", report.Bytes}})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// runFlags are the flags of the command run.
type runFlags struct {
	preprocess, engine, endpoint, requirements string
	keep, open                                 bool
}

func runCommand(a *app) *cobra.Command {
	var f runFlags
	var model string
	cmd := &cobra.Command{
		Use:   "run MODEL",
		Short: "Serve a model file at once",
		Long: `Serve a model file at once: find its engine by its content, start the ClearML server
and the inference service if none runs, upload the model, deploy it, and print a
request that works. Ctrl-C ends all of it and removes everything.

MODEL is a pickle or joblib file of scikit-learn, XGBoost or LightGBM, a model file of
XGBoost (json, ubj) or LightGBM (text), an ONNX model, a file of code with a class Preprocess, or a
folder that holds such code as preprocess.py or __init__.py, and a model. Other models
need --preprocess with code that loads them. Nothing in a file is executed to find its
engine; the endpoint's worker executes it, as any pickle is. ONNX models are computed
without Python.

Packages that the model needs and the interpreter lacks are installed into an
environment of their own; --requirements names further ones.

If an inference service runs from the data folder, the model is served by that one,
and removed from it at the end.`,
		Example: `  clearml-serving run model.pkl
  clearml-serving run churn.joblib --preprocess preprocess.py --open
  clearml-serving run ./my_model/ --requirements my_model/requirements.txt --keep`,
		Args:        oneArg(&model, "give one model file or folder", "Try: clearml-serving run model.pkl"),
		Annotations: map[string]string{markWords: ""},
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.runModel(cmd.Context(), model, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.preprocess, "preprocess", "", "file or folder with the class Preprocess")
	flags.StringVar(&f.engine, "engine", "", "engine that runs the model (default: found by the content)")
	oneOf(cmd, "engine", availableEngines()...)
	flags.StringVar(&f.endpoint, "endpoint", "", "name under /serve/ (default: that of the file or folder)")
	flags.StringVar(&f.requirements, "requirements", "", "file of further Python packages, as for pip install -r")
	flags.BoolVar(&f.keep, "keep", false, "keep the model and its endpoint, in the data folder")
	flags.BoolVar(&f.open, "open", false, "open the web pages in a browser")
	a.declare(flags, "api-addr", "files-addr")
	a.declareInference(flags)
	return cmd
}

func (a *app) runModel(ctx context.Context, model string, f runFlags) error {
	p, err := planRun(model, f)
	defer func() {
		if err := p.remove(); err != nil {
			a.print.notice("Warning: a temporary folder is left over: %v", err)
		}
	}()
	if err != nil {
		return err
	}
	a.print.line("%s", p)
	if running, err := a.serveURL(); err == nil && answers(ctx, running) {
		return a.runThere(ctx, p, running)
	}
	return a.runHere(ctx, p)
}

// runHere serves a model by a server and an inference service of this process.
func (a *app) runHere(ctx context.Context, p *runPlan) error {
	library, err := a.runLibrary(ctx, p)
	if err != nil {
		return err
	}
	if !p.flags.keep {
		dir, remove, err := temporaryData()
		if err != nil {
			return err
		}
		defer func() {
			if err := remove(); err != nil {
				a.print.notice("Warning: the temporary folder is left over: %v", err)
			}
		}()
		if err := a.flags.Set("data-dir", dir); err != nil {
			return err
		}
	}
	extra, err := a.missingPackages(ctx, p)
	if err != nil {
		return err
	}
	if p.engine == serving.EngineONNX && library == "" {
		if library, err = a.fetchForRun(ctx); err != nil {
			return err
		}
	}
	a.override(map[string]string{"CLEARML_SERVING_ADDR_FALLBACK": "true", "CLEARML_EXTRA_PYTHON_PACKAGES": strings.Join(extra, " "), "CLEARML_SERVING_ONNXRUNTIME": library})
	var r *deployment
	return a.runRole(ctx, slog.LevelWarn, func(sockets *sockets) ([]part, error) {
		return a.upParts(ctx, upSetup{
			sockets: sockets,
			// Before the instance starts, which then finds its service at once.
			answers: func(server *controlPlane, config clearml.Config) error {
				client, err := clearml.New(clearml.Options{Config: config, Logger: sockets.log, ClientName: "clearml-serving-" + compatVersion})
				if err != nil {
					return err
				}
				r = &deployment{runPlan: p, client: client, pages: func() (string, error) { return server.LoginLink(ctx) }}
				return a.chooseService(ctx, r)
			},
			then: func(ctx context.Context) error {
				if err := a.deploy(ctx, r, sockets.urls[serveSocket.name]); err != nil {
					return err
				}
				again := "clearml-serving up"
				if len(extra) > 0 {
					again = "CLEARML_EXTRA_PYTHON_PACKAGES=" + shellWord(strings.Join(extra, " ")) + " " + again
				}
				a.sayRun(ctx, r, "Ctrl-C ends it, and removes everything; --keep keeps it", "Ctrl-C ends it; it is kept, and served again by: "+again)
				<-ctx.Done()
				return nil
			},
		})
	})
}

// temporaryData makes a data folder for one run. It also removes those of runs that were
// killed: a folder in use is locked by its process.
func temporaryData() (dir string, remove func() error, err error) {
	const prefix = "clearml-serving-run-"
	left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", nil, err
	}
	for _, old := range left {
		if lock, err := lockFolder(old); err == nil {
			_ = os.RemoveAll(old) // of another user, if it fails
			_ = lock.Close()      // was only locked
		}
	}
	if dir, err = os.MkdirTemp("", prefix); err != nil {
		return "", nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return "", nil, fmt.Errorf("lock the temporary folder %s: %w", dir, err)
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, nil
}

// lockFolder locks a folder until the returned file is closed. It fails if another process
// has locked it.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// chooseService takes the service of --id, else the first active one, else a new one.
func (a *app) chooseService(ctx context.Context, r *deployment) error {
	services, err := r.client.ListServices(ctx)
	if err != nil {
		return err
	}
	switch {
	case a.serviceID != "":
	case len(services) > 0:
		a.serviceID = services[0].ID
	default:
		if a.serviceID, err = r.client.CreateService(ctx, clearml.NewService{Name: "run", Project: "DevOps", Version: compatVersion}); err != nil {
			return err
		}
	}
	r.service, err = operations.Open(ctx, r.client, a.serviceID)
	return err
}

// runThere serves a model by the inference service that runs from the data folder.
func (a *app) runThere(ctx context.Context, p *runPlan, url string) error {
	if p.flags.requirements != "" {
		return hint(fmt.Errorf("an inference service runs at %s: --requirements cannot add packages to it", url),
			"Try: another --data-dir, or a folder of code with a requirements.txt and --aux-config environment=own: clearml-serving model add --help")
	}
	client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	r := &deployment{runPlan: p, client: client, pages: func() (string, error) { return a.loginLink(ctx) }}
	if live, err := a.liveState(ctx); err == nil && a.serviceID == "" {
		a.serviceID = live.ServiceID
	}
	if err := a.chooseService(ctx, r); err != nil {
		return err
	}
	err = a.deploy(ctx, r, url)
	if err == nil {
		a.sayRun(ctx, r, "Ctrl-C removes it again; --keep keeps it", "It is kept, and served by the running service")
	}
	if p.flags.keep {
		return err
	}
	if err == nil {
		<-ctx.Done()
	}
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(err, r.undo(cleaning))
}

// deployment is a model that run deploys.
type deployment struct {
	*runPlan
	client  *clearml.Client
	service *operations.Service
	pages   func() (link string, err error)

	address  string // of the endpoint
	modelID  string
	code     string // artifact
	endpoint bool   // is added
}

// deploy uploads model and code, adds the endpoint, and waits until it answers.
func (a *app) deploy(ctx context.Context, r *deployment, url string) error {
	s, p := r.service, r.runPlan
	e := serving.Endpoint{EngineType: p.engine, ServingURL: p.endpoint}
	if err := e.Validate(); err != nil {
		return err
	}
	if s.Config.Serves(e.URL()) {
		return hint(fmt.Errorf("endpoint '%s' exists already", e.URL()), "Try: --endpoint with another name")
	}
	if p.file.Path != "" {
		to, err := a.openDestination(r.client, r.client.FilesURL())
		if err != nil {
			return err
		}
		uri, err := a.uploadModelFile(ctx, to, s.Doc, p.file.Path)
		if err != nil {
			return err
		}
		flags := uploadFlags{name: p.endpoint, project: firstOf(s.Doc.Project, "DevOps"), framework: p.file.Framework, path: p.file.Path}
		if r.modelID, err = a.registerModel(ctx, r.client, s.Doc, flags, uri, nil, nil); err != nil {
			return err
		}
		e.ModelID = serving.ModelID(r.modelID)
	}
	if p.code != "" {
		var err error
		if e.PreprocessArtifact, err = a.storeCode(ctx, s, string(e.URL()), p.code, func(string) bool { return true }); err != nil {
			return err
		}
		r.code = e.PreprocessArtifact
	}
	r.endpoint = true
	if err := s.AddEndpoint(ctx, e); err != nil {
		return err
	}
	r.address = url + "/" + strings.Trim(a.text("serve-suffix"), "/") + "/" + string(e.URL())
	if _, err := a.wait(ctx, s, []serving.EndpointURL{e.URL()}); err != nil {
		return hint(fmt.Errorf("serve %s: %w", p.model, err), "Try: clearml-serving test --help   (runs code and model without a service, and shows all that they print)")
	}
	return nil
}

// undo removes what deploy has made. A service that was made stays: the running instance has
// begun to serve it.
func (r *deployment) undo(ctx context.Context) error {
	var all error
	if r.endpoint {
		_, err := r.service.Remove(ctx, r.runPlan.endpoint)
		if !errors.Is(err, serving.ErrNotFound) {
			all = errors.Join(all, err)
		}
	}
	all = errors.Join(all, r.service.DropUnusedCode(ctx, r.code))
	if r.modelID != "" {
		all = errors.Join(all, r.client.Call(ctx, "models.delete", map[string]any{"model": r.modelID, "force": true}, nil))
	}
	if all != nil {
		return fmt.Errorf("remove what run has added: %w", all)
	}
	return nil
}

// sayRun prints where the endpoint is, and a request that works.
func (a *app) sayRun(ctx context.Context, r *deployment, ends, kept string) {
	example := a.example(ctx, r)
	if ctx.Err() != nil {
		return
	}
	a.print.line("Serving it at %s", a.print.paint(bold, r.address))
	a.print.line("%s", example)
	pages, err := r.pages()
	if err != nil {
		a.print.notice("Warning: no link to the web pages: %v", err)
	} else {
		a.print.line("Web pages:  %s", pages)
		if r.flags.open {
			a.openBrowser(ctx, pages)
		}
	}
	if r.flags.keep {
		ends = kept
	}
	a.print.line("%s", ends)
	_ = a.print.result(object{
		{"endpoint", r.runPlan.endpoint},
		{"url", r.address},
		{"engine", r.engine},
		{"model_id", orNull(r.modelID)},
		{"request", jsonOrText(example.request)},
		{"answer", jsonOrText(example.answer)},
		{"works", example.works},
		{"pages", orNull(pages)},
	})
}

// openBrowser opens a page. The link is printed already, so a failure is only told.
func (a *app) openBrowser(ctx context.Context, link string) {
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := exec.CommandContext(ctx, program, link).Run(); err != nil {
		a.print.notice("Warning: no browser could be opened: %s: %v", program, err)
	}
}

// override sets variables of this run, over those of the environment.
func (a *app) override(variables map[string]string) {
	env := a.sys.env
	a.sys.env = func(name string) (string, bool) {
		if value, ok := variables[name]; ok && value != "" {
			return value, true
		}
		return env(name)
	}
}

// endpointName makes the name of an endpoint of a file's.
func endpointName(path string) string {
	return firstOf(plainName(baseName(path)), "model")
}

// baseName is the name of a file or folder without its folders and its extension.
func baseName(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		path = full // for a path such as "."
	}
	name := filepath.Base(path)
	return strings.TrimSuffix(name, filepath.Ext(name))
}

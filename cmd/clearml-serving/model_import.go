package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/mar"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// archiveFlags are the flags of model import.
type archiveFlags struct {
	archive           string
	endpoint, version string
	name, project     string
	tags              []string
	publish           bool
	destination       string
	environment       string
	requirements      []string
	withPackage       bool
	to                string
}

func modelImportCommand(a *app) *cobra.Command {
	var f archiveFlags
	var why revisionFlags
	cmd := &cobra.Command{
		Use:   "import FILE.mar",
		Short: "Make an endpoint of a model archive of TorchServe",
		Long: `Make an ordinary endpoint of a model archive of TorchServe: its model becomes a model
of the repository, its handler runs in the workers of an endpoint with the engine
custom. TorchServe is not needed any more.

Handlers are those that TorchServe brings for images and tensors, and any handler in
Python: a class with initialize and handle, or a function handle. What an archive has
that an endpoint cannot do is told, and nothing is stored: docs/torchserve.md.

An archive with a requirements file gets a Python environment of its own with those
packages and those that the handler imports (--environment instance: the one of the
instance). With --to the endpoint's code and model are only written to a folder.`,
		Example: `  clearml-serving model import densenet161.mar --project "serving examples"
  clearml-serving model import mnist.mar --endpoint digits --version 1 --requirement torch==2.4.1
  clearml-serving model import mnist.mar --to ./digits`,
		Args:        oneArg(&f.archive, "give the model archive", "Try: clearml-serving model import FILE.mar"),
		Annotations: map[string]string{markWords: ""},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "name under /serve/ (default: the name of the model in the archive)")
	flags.StringVar(&f.version, "version", "", "version of the endpoint, the last part of its url")
	flags.StringVar(&f.name, "name", "", "name of the model in the repository (default: its name and version in the archive)")
	flags.StringVar(&f.project, "project", "", "project of the model, created when it does not exist (default: the service's)")
	flags.Var(wordList(&f.tags), "tags", "tags of the model")
	flags.BoolVar(&f.publish, "publish", false, "publish the model: it can no longer be changed")
	flags.StringVar(&f.destination, "destination", "", "where to upload to: an http, s3, gs or azure address, or file:// (default: the service's own, else the file server)")
	flags.StringVar(&f.environment, "environment", "", "Python environment: own, with the archive's packages, or instance (default: own, if the archive has requirements)")
	oneOf(cmd, "environment", "own", "instance")
	flags.StringArrayVar(&f.requirements, "requirement", nil, "a further line of requirements.txt for the own environment, such as torch==2.4.1; may be repeated")
	flags.BoolVar(&f.withPackage, "torchserve-package", false, "take the handlers from TorchServe's Python package, which the own environment gets, instead of our own")
	flags.StringVar(&f.to, "to", "", "only write the endpoint's code and model to this new folder")
	why.declare(cmd)
	a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		why.apply(s)
		return a.importArchive(ctx, s, f)
	})
	stored := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !exists(f.archive) {
			return notFound("Model archive '%s' could not be found", f.archive)
		}
		if f.environment == "instance" && len(f.requirements) > 0 {
			return usagef(cmd, "--environment instance installs nothing: leave out --requirement")
		}
		if f.to != "" {
			return a.writeArchive(cmd.Context(), f)
		}
		return stored(cmd, args)
	}
	return cmd
}

// convert unpacks and converts the archive below a folder.
func (f *archiveFlags) convert(ctx context.Context, folder string) (*mar.Archive, *mar.Endpoint, error) {
	archive, err := mar.Open(ctx, f.archive, filepath.Join(folder, "archive"))
	if err != nil {
		return nil, nil, f.explained(err)
	}
	made, err := archive.Convert(ctx, folder, mar.Options{Own: f.environment == "own", Instance: f.environment == "instance", Requirements: f.requirements, Package: f.withPackage})
	return archive, made, f.explained(err)
}

func (f *archiveFlags) explained(err error) error {
	if bad, ok := errors.AsType[*mar.Error](err); ok {
		return fmt.Errorf("model archive '%s' cannot be imported: %w", f.archive, bad)
	}
	return err
}

// writeArchive writes code and model of the endpoint to a folder.
func (a *app) writeArchive(ctx context.Context, f archiveFlags) error {
	if err := os.Mkdir(f.to, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return hint(fmt.Errorf("--to='%s' exists already", f.to), "Try: the name of a new folder")
		}
		return err
	}
	_, made, err := f.convert(ctx, f.to)
	if err != nil {
		return errors.Join(err, os.RemoveAll(f.to))
	}
	a.print.line("Written: code %s, model %s", made.Code, orNone(made.Model))
	a.noticeImport(made)
	return a.print.result(object{{"code", made.Code}, {"model", orNull(made.Model)}, {"aux_config", made.Settings}})
}

// importArchive stores the model, the code and the endpoint of an archive.
func (a *app) importArchive(ctx context.Context, s *operations.Service, f archiveFlags) (change, error) {
	temp, err := os.MkdirTemp("", "clearml-serving-")
	if err != nil {
		return change{}, fmt.Errorf("import '%s': %w", f.archive, err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // the system clears its temporary folder in the end
	archive, made, err := f.convert(ctx, temp)
	if err != nil {
		return change{}, err
	}
	model := archive.Manifest.Model
	e := serving.Endpoint{EngineType: serving.EngineCustom, ServingURL: firstOf(f.endpoint, model.Name), Version: f.version}
	if made.Settings != nil {
		e.AuxiliaryCfg = made.Settings
	}
	a.sayEdit(s, "Adding Model endpoint '/%s/'", e.ServingURL)
	if err := e.Validate(); err != nil {
		return change{}, err
	}
	url := string(e.URL())
	_, replaced := serving.LookUp(s.Config.Endpoints, url)
	if replaced {
		a.print.notice("Warning: Model endpoint '%s' overwritten", url)
	}
	if made.Model != "" {
		if err := a.storeImported(ctx, s, f, model, made, &e); err != nil {
			return change{}, err
		}
	}
	if err := a.putEndpoint(ctx, s, &e, made.Code); err != nil {
		return change{}, err
	}
	a.noticeImport(made)
	return change{[]serving.EndpointURL{e.URL()}, object{
		{"endpoint", url},
		{"model_id", orNull(e.ModelID)},
		{"preprocess_artifact", orNull(e.PreprocessArtifact)},
		{"replaced", replaced},
		{"aux_config", made.Settings},
	}}, nil
}

// storeImported uploads the model of an archive.
func (a *app) storeImported(ctx context.Context, s *operations.Service, f archiveFlags, model mar.Model, made *mar.Endpoint, e *serving.Endpoint) error {
	to, err := a.openDestination(s.Client, firstOf(f.destination, s.Doc.OutputDestination, s.Client.FilesURL()))
	if err != nil {
		return err
	}
	a.print.line("Uploading model file '%s' to %s", model.SerializedFile, to.URL)
	uri, err := a.uploadModelFile(ctx, to, s.Doc, made.Model)
	if err != nil {
		return err
	}
	name := firstOf(f.name, strings.TrimSpace(model.Name+" "+model.Version))
	as := uploadFlags{name: name, project: firstOf(f.project, s.Doc.Project), tags: f.tags, framework: "PyTorch", path: f.archive}
	id, err := a.registerModel(ctx, s.Client, s.Doc, as, uri, nil, nil)
	if err != nil {
		return err
	}
	a.print.line("Model created and registered, new Model ID=%s", id)
	if f.publish {
		if err := s.Client.PublishModel(ctx, id); err != nil {
			return fmt.Errorf("publish model %s: %w", id, err)
		}
	}
	e.ModelID = serving.ModelID(id)
	return nil
}

// noticeImport tells what is left to the user.
func (a *app) noticeImport(made *mar.Endpoint) {
	if _, own := made.Settings["environment"]; !own && len(made.Packages) > 0 {
		a.print.notice("Notice: the handler needs these packages in the instance's Python: %s (or import with --environment own)", strings.Join(made.Packages, " "))
	}
	for _, note := range made.Notes {
		a.print.notice("Notice: %s", note)
	}
	if names := slices.Sorted(maps.Keys(made.Settings)); len(names) > 0 {
		a.print.line("Settings of the endpoint: %s", strings.Join(names, ", "))
	}
}

func orNone(text string) string { return firstOf(text, "none") }

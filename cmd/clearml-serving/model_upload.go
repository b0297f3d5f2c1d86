package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/modelfile"
	"clearmlserving/places"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
)

// uploadFlags are the flags of model upload.
type uploadFlags struct {
	name, project string
	tags          []string
	framework     string
	publish       bool
	path, url     string
	destination   string
	preprocess    string

	reference, referenceTime string
}

func modelUploadCommand(a *app) *cobra.Command {
	var f uploadFlags
	cmd := &cobra.Command{
		Use:   "upload",
		Short: "Upload or register a model file",
		Long: `Upload a model file or folder to the model repository, or register one that lies
somewhere already. It becomes an output model of the serving service.

With --preprocess the model brings its own code: model auto-update serves it with
that code instead of its own, so that model and code change together.

With --reference the values of requests and answers are compared with the rows of
a file, column by column: docs/drift.md.`,
		Example: `  clearml-serving model upload --name "manual sklearn model" --project "serving examples" \
      --framework scikitlearn --path ./sklearn-model.pkl --preprocess ./preprocess.py
  clearml-serving model upload --name m --project "serving examples" --url https://example.com/model.onnx`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.modelUpload(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "name of the model")
	flags.StringVar(&f.project, "project", "", "project of the model, created when it does not exist")
	required(cmd, "name", "project")
	flags.Var(wordList(&f.tags), "tags", "tags of the model")
	flags.StringVar(&f.framework, "framework", "", "framework of the model (default: told by the file's extension): "+strings.Join(modelfile.Frameworks, ", "))
	choices := append([]string{}, modelfile.Frameworks...)
	choices = append(choices, keys(modelfile.FrameworkAliases)...)
	mark(flags, "framework", markChoices, choices...)
	offer(cmd, "framework", modelfile.Frameworks...)
	flags.BoolVar(&f.publish, "publish", false, "publish the model: it can no longer be changed")
	flags.StringVar(&f.path, "path", "", "file or folder to upload; a folder is packed as a zip")
	flags.StringVar(&f.url, "url", "", "address of a file that is only registered")
	flags.StringVar(&f.destination, "destination", "", "where to upload to: an http, s3, gs or azure address, or file:// (default: the service's own, else the file server)")
	flags.StringVar(&f.preprocess, "preprocess", "", "file or folder with the class Preprocess that belongs to this model, for model auto-update")
	flags.StringVar(&f.reference, "reference", "", "CSV or Parquet file with the rows that live values are compared with, such as the training data; a summary of it is stored")
	flags.StringVar(&f.referenceTime, "reference-time", "", "column of --reference with the times of the rows, which tells daily cycles from drift")
	mark(flags, "preprocess", markOurs)
	mark(flags, "reference", markOurs)
	mark(flags, "reference-time", markOurs)
	return cmd
}

func (a *app) modelUpload(ctx context.Context, f uploadFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	var reference []byte
	if f.reference != "" { // first: a file that cannot be read must leave nothing behind
		r, err := a.readReference(f.reference, f.referenceTime)
		if err != nil {
			return err
		}
		if reference, err = a.encodeReference(r); err != nil {
			return err
		}
	}
	s, err := a.openService(ctx)
	if err != nil {
		return err
	}
	client, doc := s.Client, s.Doc
	if alias, ok := modelfile.FrameworkAliases[f.framework]; ok {
		f.framework = alias
	}
	shownTags := ""
	if f.tags != nil {
		shownTags = pyRepr(f.tags)
	}
	a.print.line("Creating new Model name='%s' project='%s' tags=%s", f.name, f.project, shownTags)
	uri := f.url
	var to places.Destination
	if f.path != "" || f.preprocess != "" {
		if to, err = a.openDestination(client, firstOf(f.destination, doc.OutputDestination, client.FilesURL())); err != nil {
			return err
		}
	}
	var own *serving.ModelCode
	if f.preprocess != "" { // first: a model without its code must not be seen
		if own, err = a.uploadModelCode(ctx, to, doc, f.preprocess); err != nil {
			return err
		}
	}
	if f.path != "" {
		a.print.line("Uploading model file '%s' to %s", f.path, to.URL)
		if uri, err = a.uploadModelFile(ctx, to, doc, f.path); err != nil {
			return err
		}
	} else {
		a.print.line("Registering model file '%s'", f.url)
		if _, err := (file.Adapter{}).Stat(ctx, f.url); storage.Scheme(f.url) == "file" && errors.Is(err, storage.ErrNotExist) {
			a.print.notice("Warning: '%s' is not on this machine; each instance must find it under this path", f.url)
		}
	}
	id, err := a.registerModel(ctx, client, doc, f, uri, own, reference)
	if err != nil {
		return err
	}
	a.print.line("Model created and registered, new Model ID=%s", id)
	if f.publish {
		if err := client.PublishModel(ctx, id); err != nil {
			return fmt.Errorf("publish model %s: %w", id, err)
		}
		a.print.line("Published Model ID=%s", id)
	}
	result := object{{"id", id}, {"name", f.name}, {"project", f.project}, {"uri", uri}, {"published", f.publish}}
	if own != nil {
		result = append(result, field{"preprocess", own.URI})
	}
	if reference != nil {
		result = append(result, field{"reference", json.RawMessage(reference)})
	}
	return a.print.result(result)
}

// check looks at the flags in the original's order.
func (f *uploadFlags) check() error {
	switch {
	case f.path == "" && f.url == "":
		return errors.New("Either --path or --url must be specified") //nolint:staticcheck // the original's words
	case f.path != "" && f.url != "":
		return errors.New("Either --path or --url but not both") //nolint:staticcheck // the original's words
	case f.path != "" && !exists(f.path):
		return notFound("--path='%s' could not be found", f.path)
	case f.referenceTime != "" && f.reference == "":
		return errors.New("--reference-time names a column of --reference, which is missing")
	case f.reference != "" && !exists(f.reference):
		return notFound("--reference='%s' could not be found", f.reference)
	case f.preprocess != "" && !exists(f.preprocess):
		return notFound("Preprocessing code '%s' could not be found", f.preprocess)
	case f.url != "":
		if u, err := url.Parse(f.url); err != nil || u.Scheme == "" {
			return fmt.Errorf("--url='%s' is no address: give it with its scheme, for example https://example.com/model.pkl", f.url)
		}
	}
	return nil
}

// uploadModelFile brings a file or a packed folder to the destination and
// returns its address. It never overwrites a file that another model refers to.
func (a *app) uploadModelFile(ctx context.Context, to places.Destination, doc *clearml.Service, name string) (string, error) {
	full, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("upload '%s': %w", name, err)
	}
	file, fileName := full, filepath.Base(full)
	if info, err := os.Stat(full); err != nil {
		return "", fmt.Errorf("upload '%s': %w", name, err)
	} else if info.IsDir() {
		packed, err := a.packFolder(ctx, name, full, true)
		if err != nil {
			return "", err
		}
		defer packed.remove()
		file, fileName = packed.file, packed.name
	}
	object := path.Join(doc.StoragePath(), "models", fileName)
	taken, err := to.Client.Models(ctx, clearml.ModelFilter{URI: places.URL(to.URL, object), Limit: 1})
	if err != nil {
		return "", fmt.Errorf("look for other models of that file: %w", err)
	}
	if len(taken) > 0 {
		sum, err := storage.HashFile(ctx, file)
		if err != nil {
			return "", fmt.Errorf("upload '%s': %w", name, err)
		}
		object = path.Join(doc.StoragePath(), "models", sum[:12], fileName)
	}
	return a.uploadFile(ctx, to, object, file)
}

// uploadModelCode brings the code that belongs to a model to the destination. Its
// address holds its hash: a model's code, like its file, never changes.
func (a *app) uploadModelCode(ctx context.Context, to places.Destination, doc *clearml.Service, name string) (*serving.ModelCode, error) {
	c, err := a.packCode(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.remove()
	a.print.line("Uploading preprocessing code '%s' to %s", name, to.URL)
	uri, err := a.uploadFile(ctx, to, path.Join(doc.StoragePath(), "models", "code", c.sha256[:12], c.name), c.file)
	if err != nil {
		return nil, err
	}
	return &serving.ModelCode{URI: uri, SHA256: c.sha256, Folder: c.kind == "archive"}, nil
}

// uploadFile sends a file with a progress bar.
func (a *app) uploadFile(ctx context.Context, to places.Destination, object, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("upload: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("upload: %w", err)
	}
	if info.Size() == 0 {
		return "", fmt.Errorf("upload '%s': the file is empty", file)
	}
	bar := a.progress(path.Base(object), info.Size())
	defer bar.done()
	uri, err := to.Put(ctx, object, f, info.Size(), bar.set)
	if err != nil {
		return "", fmt.Errorf("upload '%s' to %s: %w", file, storage.Redact(to.URL), err)
	}
	return uri, nil
}

// registerModel makes the model's record after its file is stored, so that the
// repository never lists a model without a file.
func (a *app) registerModel(ctx context.Context, client *clearml.Client, doc *clearml.Service, f uploadFlags, uri string, own *serving.ModelCode, reference []byte) (string, error) {
	project, err := client.EnsureProject(ctx, f.project)
	if err != nil {
		return "", fmt.Errorf("project '%s': %w", f.project, err)
	}
	framework := f.framework
	file := path.Base(uri)
	framework = cmp.Or(framework, modelfile.FrameworkOf(file))
	model := clearml.NewModel{
		Name: f.name, ProjectID: project.ID, URI: uri, Framework: framework, Tags: f.tags, TaskID: doc.ID,
		Comment: "snapshot " + firstOf(f.path, f.url) + " stored",
	}
	if info, err := os.Stat(f.path); f.path != "" && err == nil && info.IsDir() {
		model.SystemTags = []string{clearml.PackagedTag}
	}
	model.Metadata = clearml.ModelMetadata{}
	if own != nil {
		model.Metadata = own.Metadata()
	}
	if reference != nil {
		model.Metadata[serving.MetadataReference] = string(reference)
	}
	id, err := client.CreateModel(ctx, model)
	if err != nil {
		return "", fmt.Errorf("create model '%s': %w", f.name, err)
	}
	stem := strings.TrimSuffix(file, path.Ext(file))
	if err := client.AddTaskModel(ctx, doc.ID, clearml.ModelOutput, firstOf(stem, f.name), id); err != nil {
		return "", fmt.Errorf("link model %s to the serving service: %w", id, err)
	}
	return id, nil
}

// firstOf is the first text that is not empty.
func firstOf(texts ...string) string { return cmp.Or(texts...) }

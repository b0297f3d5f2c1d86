package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"clearmlserving/drift"
	"clearmlserving/drift/table"
	"clearmlserving/operations"
	"clearmlserving/serving"
	"clearmlserving/storage"
)

func driftReferenceCommand(a *app) *cobra.Command {
	var endpoint, file, artifact, timeColumn string
	cmd := &cobra.Command{
		Use:   "reference",
		Short: "Set the rows that an endpoint's live values are compared with",
		Long: `Set the rows that an endpoint's live values are compared with: a CSV or Parquet file
with a column for each variable, or an artifact of the task that created the model,
such as a DataFrame that the ClearML SDK has uploaded. It replaces the reference of
the model. A summary is stored, not the rows; the variables are logged from then on.`,
		Example: `  clearml-serving drift reference --endpoint test_model/1 --file train.parquet
  clearml-serving drift reference --endpoint test_model/1 --artifact train_data`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if (file == "") == (artifact == "") {
				return usagef(cmd, "give either --file or --artifact")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&endpoint, "endpoint", "", "endpoint with its version, or a beginning with * behind it: \"model/*\"")
	required(cmd, "endpoint")
	flags.StringVar(&file, "file", "", "CSV or Parquet file")
	flags.StringVar(&artifact, "artifact", "", "name of an artifact of the task that created the model")
	flags.StringVar(&timeColumn, "time", "", "column with the times of the rows, which tells daily cycles from drift")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		url := serving.CleanURL(endpoint)
		a.sayEdit(s, "Setting the reference of '%s'", url)
		if artifact != "" {
			fetched, err := a.fetchArtifact(ctx, s, url, artifact)
			if err != nil {
				return change{}, err
			}
			defer os.RemoveAll(filepath.Dir(fetched)) //nolint:errcheck // a temporary folder
			file = fetched
		}
		r, err := a.readReference(file, timeColumn)
		if err != nil {
			return change{}, err
		}
		if err := a.storeReference(ctx, s, url, r); err != nil {
			return change{}, err
		}
		return change{result: object{{"endpoint", string(url)}, {"variables", r.Names()}}}, nil
	})
}

// fetchArtifact downloads an artifact of the task that created an endpoint's model into a temporary folder.
func (a *app) fetchArtifact(ctx context.Context, s *operations.Service, url serving.EndpointURL, name string) (file string, err error) {
	e, ok := serving.LookUp(s.Config.Endpoints, string(url))
	if !ok {
		e, ok = serving.LookUp(s.Config.MonitoringEndpoints, string(url))
	}
	if !ok {
		return "", hint(notFound("there is no endpoint '%s'", url), nameHint)
	}
	if e.ModelID == "" {
		return "", fmt.Errorf("endpoint '%s' has no model: give --file", url)
	}
	model, err := s.Client.Model(ctx, string(e.ModelID))
	if err != nil {
		return "", fmt.Errorf("read model %s: %w", e.ModelID, err)
	}
	if model.TaskID == "" {
		return "", fmt.Errorf("model %s was not created by a task: give --file", e.ModelID)
	}
	task, err := s.Client.Task(ctx, model.TaskID)
	if err != nil {
		return "", fmt.Errorf("read the task of model %s: %w", e.ModelID, err)
	}
	var names []string
	for _, artifact := range task.Execution.Artifacts {
		if names = append(names, artifact.Key); artifact.Key == name {
			return a.download(ctx, s, artifact.URI)
		}
	}
	return "", notFound("task %s has no artifact '%s'; it has: %s", model.TaskID, name, joinMost(append(names, "nothing else"), 20))
}

// download copies a file into a temporary folder.
func (a *app) download(ctx context.Context, s *operations.Service, uri string) (file string, err error) {
	open, err := a.opener(s.Client)
	if err != nil {
		return "", err
	}
	in, err := open(ctx, uri)
	if err != nil {
		return "", fmt.Errorf("download %s: %w", storage.Redact(uri), err)
	}
	defer in.Close() //nolint:errcheck // only read from
	folder, err := os.MkdirTemp("", "clearml-serving-reference-")
	if err != nil {
		return "", fmt.Errorf("download: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(folder)
		}
	}()
	out, err := os.Create(filepath.Join(folder, path.Base(uri)))
	if err != nil {
		return "", fmt.Errorf("download: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("download %s: %w", storage.Redact(uri), err)
	}
	return out.Name(), nil
}

// readReference summarizes a file of rows, and says what is not watched.
func (a *app) readReference(file, timeColumn string) (*drift.Reference, error) {
	r, notes, err := table.Reference(file, timeColumn)
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		a.print.notice("Notice: %s", note)
	}
	return r, nil
}

// encodeReference says what a reference can tell, and writes it.
func (a *app) encodeReference(r *drift.Reference) ([]byte, error) {
	for _, name := range r.Names() {
		v := r.Variables[name]
		least := drift.NewNull(v, len(r.Variables), drift.DefaultSettings().MinPSI).MinPSI()
		switch {
		case v.Swing > 0 && v.Swing >= least:
			a.print.notice("Notice: variable '%s' swings by PSI %.2g over the day: smaller drift is not reported", name, v.Swing)
		case least > 2*drift.DefaultSettings().MinPSI:
			a.print.notice("Notice: variable '%s': with %d rows, drift below PSI %.2g cannot be told from chance", name, v.Rows(), least)
		}
	}
	text, err := r.Encode()
	if err != nil {
		return nil, err
	}
	if len(text) > serving.MaxReference {
		return nil, fmt.Errorf("the summary has %d bytes, at most %d are stored: use fewer columns", len(text), serving.MaxReference)
	}
	a.print.line("Reference of %d variables: %s", len(r.Variables), joinMost(r.Names(), 10))
	return text, nil
}

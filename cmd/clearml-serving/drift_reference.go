package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/drift"
	"clearmlserving/drift/table"
	driftwatch "clearmlserving/drift/watch"
	"clearmlserving/operations"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/timeseries"
)

func driftReferenceCommand(a *app) *cobra.Command {
	var endpoint, file, artifact, timeColumn, from, to string
	cmd := &cobra.Command{
		Use:   "reference",
		Short: "Set the rows that an endpoint's live values are compared with",
		Long: `Set the rows that an endpoint's live values are compared with: a CSV or Parquet file
with a column for each variable, or an artifact of the task that created the model,
such as a DataFrame that the ClearML SDK has uploaded. It replaces the reference of
the model. A summary is stored, not the rows; the variables are logged from then on.

With --from, what the instances have counted in a recorded time becomes the reference:
of variables that have a reference, in its bins, and of those that metrics add logs as
scalar or enum, in their buckets or words.`,
		Example: `  clearml-serving drift reference --endpoint test_model/1 --file train.parquet
  clearml-serving drift reference --endpoint test_model/1 --artifact train_data
  clearml-serving drift reference --endpoint test_model/1 --from 14d --to 7d`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			given := 0
			for _, value := range []string{file, artifact, from} {
				if value != "" {
					given++
				}
			}
			switch {
			case given != 1:
				return usagef(cmd, "give one of --file, --artifact and --from")
			case to != "" && from == "":
				return usagef(cmd, "--to needs --from")
			case timeColumn != "" && from != "":
				return usagef(cmd, "--time is a column of --file or --artifact")
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
	flags.StringVar(&from, "from", "", "begin of a recorded time: so long ago (36h, 14d), or as 2026-01-31 or 2026-01-31T08:00:00Z")
	flags.StringVar(&to, "to", "", "end of the recorded time (default: now)")
	a.declare(flags, "prometheus-url")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		url := serving.CleanURL(endpoint)
		a.sayEdit(s, "Setting the reference of '%s'", url)
		if from != "" {
			r, err := a.recordedReference(ctx, s, url, from, to)
			if err != nil {
				return change{}, err
			}
			if err := a.storeReference(ctx, s, url, r); err != nil {
				return change{}, err
			}
			return change{result: object{{"endpoint", string(url)}, {"variables", r.Names()}}}, nil
		}
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

// recordedReference makes a reference of what was counted between two times.
func (a *app) recordedReference(ctx context.Context, s *operations.Service, url serving.EndpointURL, from, to string) (*drift.Reference, error) {
	now := time.Now()
	begin, err := readTime("--from", from, now)
	if err != nil {
		return nil, err
	}
	end := now
	if to != "" {
		if end, err = readTime("--to", to, now); err != nil {
			return nil, err
		}
	}
	e, ok := storedEndpoint(s.Config, url)
	if !ok {
		return nil, hint(notFound("there is no endpoint '%s'", url), nameHint)
	}
	present, err := a.referenceOf(ctx, s, url)
	if err != nil && !errors.Is(err, errNotFound) {
		return nil, err
	}
	series, err := a.recordedSeries(ctx, s.Client)
	if err != nil {
		return nil, err
	}
	endpoint, version := driftwatch.LabelsOf(url, e)
	r, notes, err := driftwatch.FromSeries(ctx, series, s.Doc.ID, endpoint, version, present, begin, end)
	for _, note := range notes {
		a.print.notice("Notice: %s", note)
	}
	if err != nil {
		return nil, err
	}
	r.Source = fmt.Sprintf("live values from %s to %s", begin.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	r.Created = now.UTC().Truncate(time.Second)
	return r, nil
}

// readTime reads a time, or how long ago it was.
func readTime(flag, text string, now time.Time) (time.Time, error) {
	if days, err := readDays(text); err == nil {
		return now.Add(-time.Duration(*days * 24 * float64(time.Hour))), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return now, fmt.Errorf("%s '%s' is no time: give it as 36h, 14d, 2026-01-31 or 2026-01-31T08:00:00Z", flag, text)
}

// recordedSeries are the time series of a service: those of --prometheus-url, or of the embedded server.
func (a *app) recordedSeries(ctx context.Context, client *clearml.Client) (timeseries.Querier, error) {
	if a.text("prometheus-url") == "" {
		info, err := client.Info(ctx)
		if err != nil {
			return nil, err
		}
		if !info.Embedded() {
			return nil, errors.New("this ClearML server keeps no time series: give the address of a Prometheus with --prometheus-url")
		}
	}
	return a.seriesOf(client)
}

// storedEndpoint is an endpoint of a service: a static one, or one made by monitoring.
func storedEndpoint(c serving.Service, url serving.EndpointURL) (serving.Endpoint, bool) {
	if e, ok := serving.LookUp(c.Endpoints, string(url)); ok {
		return e, true
	}
	return serving.LookUp(c.MonitoringEndpoints, string(url))
}

// fetchArtifact downloads an artifact of the task that created an endpoint's model into a temporary folder.
func (a *app) fetchArtifact(ctx context.Context, s *operations.Service, url serving.EndpointURL, name string) (file string, err error) {
	e, ok := storedEndpoint(s.Config, url)
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
	defer in.Close()
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

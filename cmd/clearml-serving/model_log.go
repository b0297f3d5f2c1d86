package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/inference/reconcile"
	"clearmlserving/requestlog"
	"clearmlserving/serving"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
)

func modelLogCommand(a *app) *cobra.Command {
	option := serving.RequestLog{Share: 1}
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Log requests of an endpoint with their answers as tables",
		Long: `Have the running instances write a share of an endpoint's requests with their answers
to Parquet files, so that a model can be trained on them. The fields of JSON objects
are columns. The files are put into request-log of the data folder of the machine that
answers, or where --request-log of inference or up says, such as a bucket. Requests
are never delayed by it. docs/request-log.md describes it.

The base name of an auto-updated endpoint stands for all its versions; "*" for all
endpoints without an option of their own. Personal data: name the fields to blank with
--redact; a plain name means every field of that name, a path with dots one place.
What is no JSON is then not logged.`,
		Example: `  clearml-serving model log --endpoint test_model --share 0.1
  clearml-serving model log --endpoint prices/2 --redact password user.address
  clearml-serving model log --endpoint "*" --share 0.01
  clearml-serving model log --endpoint test_model --off`,
	}
	flags := cmd.Flags()
	flags.Var(decimal(&option.Share), "share", "share of the requests, above 0, at most 1 (default 1)")
	flags.Var(wordList(&option.Redact), "redact", "fields whose values are not logged")
	return optionCommand(a, cmd, endpointOption[serving.RequestLog]{
		what: "request log", doing: "Logging requests of",
		which: ": an endpoint, an auto-updated one, a canary, or \"*\"", off: "log no more requests; what has been logged stays",
		at:     func(o *serving.EndpointOptions) **serving.RequestLog { return &o.Log },
		value:  replacing(&option, func(o *serving.RequestLog) *map[string]json.RawMessage { return &o.Unknown }),
		result: "request_log",
	})
}

// requestLog makes the request log of an instance. A place that cannot be reached is not an error:
// files wait for it.
func (a *app) requestLog(dir string, log *slog.Logger) (*requestlog.Log, error) {
	o := requestlog.Options{Dir: filepath.Join(dir, "request-log-spool"), Destination: a.text("request-log"), Logger: log}
	var err, err2 error
	o.FileBytes, err = a.setting("request-log-file-size").size()
	o.MaxBytes, err2 = a.setting("request-log-max-size").size()
	if err := cmp.Or(err, err2); err != nil {
		return nil, err
	}
	if o.FileTime, err = a.duration("request-log-file-time", time.Second); err != nil {
		return nil, err
	}
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, err
	}
	all := conf.Clouds()
	all["file"] = file.Adapter{}
	if o.Destination == "" {
		o.Destination = filepath.Join(dir, "request-log")
	}
	place, err := all.For(o.Destination)
	if err != nil {
		return nil, fmt.Errorf("keep the request log at %s (%s): %w", storage.Redact(o.Destination), a.setting("request-log").source, err)
	}
	if storage.Scheme(o.Destination) == "file" {
		if !strings.HasPrefix(strings.ToLower(o.Destination), "file:") {
			if o.Destination, err = filepath.Abs(o.Destination); err != nil {
				return nil, err
			}
		}
		if o.Local, err = (file.Adapter{}).LocalPath(o.Destination); err != nil {
			return nil, err
		}
	}
	o.Place = placer{place}
	return requestlog.New(o), nil
}

// size is the value of an option that is a size.
func (s setting) size() (int64, error) {
	size, err := parseSize(s.value)
	if err != nil || size < 1 {
		return 0, s.refuse("give a size such as 64MiB")
	}
	return size, nil
}

// placer stores files of the request log in a storage.
type placer struct{ place storage.Adapter }

// Put implements requestlog.Placer.
func (p placer) Put(ctx context.Context, url string, r io.Reader, size int64) error {
	return p.place.Put(ctx, url, r, size, nil)
}

// requestLogFollower tells the request log which endpoints are logged, and runs it.
type requestLogFollower struct{ log *requestlog.Log }

// Planned implements reconcile.Follower.
func (f requestLogFollower) Planned(_ *reconcile.State, plan serving.Plan, _ bool) {
	f.log.Follow(plan)
}

// StatusChanged implements reconcile.Follower.
func (requestLogFollower) StatusChanged(func() serving.Status) {}

// Run implements inference.FollowerRunner.
func (f requestLogFollower) Run(ctx context.Context, _ func() serving.Status) error { //nolint:unparam // of the interface
	f.log.Run(ctx)
	return nil
}

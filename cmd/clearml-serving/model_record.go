package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelRecordCommand(a *app) *cobra.Command {
	var endpoint string
	var off bool
	var share number
	var wait waitFlags
	record := serving.Record{}
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Record requests of an endpoint with their answers",
		Long: `Have the running instances keep a share of an endpoint's requests with their
answers, the newest of them, in recordings/<endpoint>.jsonl of the data folder of
the machine that answers. Requests are never delayed by it.

A recording can be replayed (clearml-serving test … --request FILE) or become
golden samples (model golden). The base name of an auto-updated endpoint stands
for all its versions. Personal data: name the fields to blank with --redact; a
plain name means every field of that name, a path with dots one place. What is
no JSON is then not recorded.`,
		Example: `  clearml-serving model record --endpoint test_model --share 0.1 --max 500
  clearml-serving model record --endpoint prices/2 --redact password user.address
  clearml-serving model record --endpoint test_model --off`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			record.Share = 1
			if share.value != nil {
				record.Share = *share.value
			}
			if f := cmd.Flags().Lookup("max"); f.Changed && record.Max < 1 {
				return &usageError{command: cmd, problem: "argument --max: give 1 or more", hint: "Try: " + cmd.CommandPath() + " --help"}
			}
			return a.modelRecord(cmd.Context(), endpoint, record, off, wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&endpoint, "endpoint", "", "name under /serve/: an endpoint, an auto-updated one, or a canary")
	mark(flags, "endpoint", markRequired)
	flags.Var(&share, "share", "share of the requests, above 0, at most 1 (default 1)")
	flags.IntVar(&record.Max, "max", serving.DefaultRecordMax, "how many are kept by each instance, the newest")
	flags.Var((*wordList)(&record.Redact), "redact", "fields whose values are not recorded")
	flags.BoolVar(&off, "off", false, "stop recording; what has been recorded stays")
	wait.declare(a, cmd)
	return cmd
}

func (a *app) modelRecord(ctx context.Context, endpoint string, record serving.Record, off bool, wait waitFlags) error {
	s, err := a.openOptions(ctx, endpoint, "Recording requests of")
	if err != nil {
		return err
	}
	result := object{{"id", s.Doc.ID}, {"endpoint", string(serving.CleanURL(endpoint))}, {"recording", !off}}
	if off {
		if optionsOf(s, endpoint).Record == nil && !brokenOptions(s, endpoint) {
			return noOption(endpoint, "recording")
		}
		err = a.setOptions(ctx, s, endpoint, func(o *serving.EndpointOptions) { o.Record = nil })
	} else {
		a.warnOfMissingEndpoint(s, endpoint)
		err = a.setOptions(ctx, s, endpoint, func(o *serving.EndpointOptions) { o.Record = &record })
	}
	if err != nil {
		return hintOfField(err, "share", "Try: --share 0.1")
	}
	return a.finish(ctx, s, wait, nil, result)
}

// brokenOptions tells whether what is stored for an endpoint cannot be read.
func brokenOptions(s *operations.Service, endpoint string) bool {
	for _, b := range s.Config.BrokenIn(serving.SectionOptions) {
		if serving.CleanURL(b.Key) == serving.CleanURL(endpoint) {
			return true
		}
	}
	return false
}

// hintOfField adds a next step to an error about that field.
func hintOfField(err error, name, text string) error {
	if wrong, ok := errors.AsType[*serving.FieldError](err); ok && wrong.Field == name {
		return hint(err, "%s", text)
	}
	return err
}

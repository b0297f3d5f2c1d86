package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func modelRecordCommand(a *app) *cobra.Command {
	record := serving.Record{Share: 1}
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
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if record.Max < 1 {
				return usagef(cmd, "argument --max: give 1 or more")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.Var(decimal(&record.Share), "share", "share of the requests, above 0, at most 1 (default 1)")
	flags.IntVar(&record.Max, "max", serving.DefaultRecordMax, "how many are kept by each instance, the newest")
	flags.Var(wordList(&record.Redact), "redact", "fields whose values are not recorded")
	return optionCommand(a, cmd, endpointOption[serving.Record]{
		what: "recording", doing: "Recording requests of",
		which: ": an endpoint, an auto-updated one, or a canary", off: "stop recording; what has been recorded stays",
		at:     func(o *serving.EndpointOptions) **serving.Record { return &o.Record },
		value:  replacing(&record, func(o *serving.Record) *map[string]json.RawMessage { return &o.Unknown }),
		result: "recording",
	})
}

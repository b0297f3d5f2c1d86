package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelShadowCommand(a *app) *cobra.Command {
	shadow := serving.Shadow{Share: 1, Tolerance: defaultTolerance}
	cmd := &cobra.Command{
		Use:   "shadow",
		Short: "Send copies of an endpoint's requests to another",
		Long: `Send a copy of a share of an endpoint's requests to another endpoint or canary, to
see how it does under real traffic. Clients notice nothing: the copy is sent after
the answer, and dropped when the other cannot keep up. Its answers are compared with
those that the clients got, and counted: see model list --verbose, or /status.`,
		Example: `  clearml-serving model shadow --endpoint test_model/1 --to test_model/2 --share 0.1
  clearml-serving model shadow --endpoint test_model/1 --off`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if shadow.To == "" && !cmd.Flags().Changed("off") {
				return usagef(cmd, "the following arguments are required: --to, or --off")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&shadow.To, "to", "", "endpoint or canary that the copies go to")
	flags.Var(decimal(&shadow.Share), "share", "share of the requests, above 0, at most 1 (default 1)")
	flags.Var(decimal(&shadow.Tolerance), "tolerance", "how much numbers may differ, absolutely or relatively, to count as equal (default 1e-06)")
	return optionCommand(a, cmd, endpointOption[serving.Shadow]{
		what: "shadow traffic", doing: "Shadow traffic of",
		which: " whose requests are copied: an endpoint, an auto-updated one, or a canary", off: "send no more copies",
		at: func(o *serving.EndpointOptions) **serving.Shadow { return &o.Shadow },
		prepare: func(_ context.Context, s *operations.Service, _ string) error {
			a.warnOfMissingEndpoint(s, shadow.To)
			shadow.To = string(serving.CleanURL(shadow.To))
			return nil
		},
		value:  replacing(&shadow, func(o *serving.Shadow) *map[string]json.RawMessage { return &o.Unknown }),
		result: "shadow",
	})
}

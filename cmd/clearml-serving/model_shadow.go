package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func modelShadowCommand(a *app) *cobra.Command {
	var endpoint string
	var off bool
	var share, tolerance number
	var wait waitFlags
	shadow := serving.Shadow{}
	cmd := &cobra.Command{
		Use:   "shadow",
		Short: "Send copies of an endpoint's requests to another",
		Long: `Send a copy of a share of an endpoint's requests to another endpoint or canary, to
see how it does under real traffic. Clients notice nothing: the copy is sent after
the answer, and dropped when the other cannot keep up. Its answers are compared with
those that the clients got, and counted: see model list --verbose, or /status.`,
		Example: `  clearml-serving model shadow --endpoint test_model/1 --to test_model/2 --share 0.1
  clearml-serving model shadow --endpoint test_model/1 --off`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			shadow.Share, shadow.Tolerance = 1, defaultTolerance
			if share.value != nil {
				shadow.Share = *share.value
			}
			if tolerance.value != nil {
				shadow.Tolerance = *tolerance.value
			}
			if !off && shadow.To == "" {
				return &usageError{command: cmd, problem: "the following arguments are required: --to, or --off", hint: "Try: " + cmd.CommandPath() + " --help"}
			}
			return a.modelShadow(cmd.Context(), endpoint, shadow, off, wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&endpoint, "endpoint", "", "name under /serve/ whose requests are copied: an endpoint, an auto-updated one, or a canary")
	mark(flags, "endpoint", markRequired)
	flags.StringVar(&shadow.To, "to", "", "endpoint or canary that the copies go to")
	flags.Var(&share, "share", "share of the requests, above 0, at most 1 (default 1)")
	flags.Var(&tolerance, "tolerance", "how much numbers may differ, absolutely or relatively, to count as equal (default 1e-06)")
	flags.BoolVar(&off, "off", false, "send no more copies")
	wait.declareImplied(a, cmd)
	return cmd
}

func (a *app) modelShadow(ctx context.Context, endpoint string, shadow serving.Shadow, off bool, wait waitFlags) error {
	s, err := a.openOptions(ctx, endpoint, "Shadow traffic of")
	if err != nil {
		return err
	}
	result := object{{"id", s.Doc.ID}, {"endpoint", string(serving.CleanURL(endpoint))}, {"shadow", !off}}
	if off {
		if optionsOf(s, endpoint).Shadow == nil {
			return noOption(endpoint, "shadow traffic")
		}
		err = a.setOptions(ctx, s, endpoint, func(o *serving.EndpointOptions) { o.Shadow = nil })
	} else {
		a.warnOfMissingEndpoint(s, endpoint)
		a.warnOfMissingEndpoint(s, shadow.To)
		shadow.To = string(serving.CleanURL(shadow.To))
		err = a.setOptions(ctx, s, endpoint, func(o *serving.EndpointOptions) { o.Shadow = &shadow })
	}
	if err != nil {
		return hintOfField(err, "share", "Try: --share 0.1")
	}
	return a.finish(ctx, s, wait, nil, result)
}

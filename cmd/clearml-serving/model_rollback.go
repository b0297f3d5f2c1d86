package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelRollbackCommand(a *app) *cobra.Command {
	var endpoint string
	var to int
	var why revisionFlags
	cmd := &cobra.Command{
		Use:   "rollback ENDPOINT",
		Short: "Bring back an earlier revision of an endpoint",
		Long: `Bring back an earlier revision of an endpoint, as a new one: its model, code,
environment and limits. Without --to it is the last good one that differs from
the newest. Nothing is uploaded, and no request is lost. Golden samples stay as
they are. An endpoint that was removed is served again.`,
		Example: `  clearml-serving model rollback test_model
  clearml-serving model rollback test_model --to 11 --message "prices were wrong"`,
		Args:        oneArg(&endpoint, "give the name of one endpoint", nameHint),
		Annotations: map[string]string{markWords: ""},
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("to") && to < 1 {
				return &usageError{command: cmd, problem: "--to is the number of a revision", hint: "Try: clearml-serving model history " + shellWord(endpoint)}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&to, "to", 0, "number of the revision (default: the last good one that differs)")
	why.declare(cmd)
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		why.apply(s)
		made, err := s.Rollback(ctx, endpoint, to)
		if errors.Is(err, operations.ErrNothingToRollBack) || errors.Is(err, serving.ErrNotFound) {
			return change{}, hint(&marked{error: err, kind: errNotFound}, "Try: clearml-serving model history %s", shellWord(endpoint))
		}
		if err != nil {
			return change{}, err
		}
		url := serving.CleanURL(endpoint)
		a.print.line("Revision %d of '/%s' brings back revision %d", made.Number, url, made.Of)
		a.dropUnusedCode(ctx, s, "")
		return change{[]serving.EndpointURL{url}, object{{"endpoint", string(url)}, {"revision", made.Number}, {"brings_back", made.Of}}}, nil
	})
}

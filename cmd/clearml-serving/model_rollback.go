package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelRollbackCommand(a *app) *cobra.Command {
	var to int
	var why revisionFlags
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "rollback ENDPOINT",
		Short: "Bring back an earlier revision of an endpoint",
		Long: `Bring back an earlier revision of an endpoint, as a new one: its model, code,
environment and limits. Without --to it is the last good one that differs from
the newest. Nothing is uploaded, and no request is lost. Golden samples stay as
they are. An endpoint that was removed is served again.`,
		Example: `  clearml-serving model rollback test_model
  clearml-serving model rollback test_model --to 11 --message "prices were wrong"`,
		Args: cobra.ArbitraryArgs, Annotations: map[string]string{markWords: ""},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{command: cmd, problem: "give the name of one endpoint", hint: "Try: clearml-serving model list   (shows the names)"}
		}
		if cmd.Flags().Changed("to") && to < 1 {
			return &usageError{command: cmd, problem: "--to is the number of a revision", hint: "Try: clearml-serving model history " + shellWord(args[0])}
		}
		return a.modelRollback(cmd.Context(), args[0], to, why, wait)
	}
	cmd.Flags().IntVar(&to, "to", 0, "number of the revision (default: the last good one that differs)")
	why.declare(cmd)
	wait.declareImplied(a, cmd)
	return cmd
}

func (a *app) modelRollback(ctx context.Context, endpoint string, to int, why revisionFlags, wait waitFlags) error {
	s, err := a.openForEdit(ctx)
	if err != nil {
		return err
	}
	why.apply(s)
	made, err := s.Rollback(ctx, endpoint, to)
	if errors.Is(err, operations.ErrNothingToRollBack) || errors.Is(err, serving.ErrNotFound) {
		return hint(&marked{error: err, kind: errNotFound}, "Try: clearml-serving model history %s", shellWord(endpoint))
	}
	if err != nil {
		return err
	}
	url := serving.CleanURL(endpoint)
	a.print.line("Revision %d of '/%s' brings back revision %d", made.Number, url, made.Of)
	a.dropUnusedCode(ctx, s, "")
	return a.finish(ctx, s, wait, []serving.EndpointURL{url}, object{{"id", s.Doc.ID}, {"endpoint", string(url)}, {"revision", made.Number}, {"brings_back", made.Of}})
}

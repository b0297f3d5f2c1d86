package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func metricsRemoveCommand(a *app) *cobra.Command {
	var endpoint string
	var variables []string
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Stop logging variables of an endpoint",
		Long:  "Stop logging some variables of an endpoint, or all of them.",
		Example: `  clearml-serving metrics remove --endpoint test_model_sklearn --variable x0 x1
  clearml-serving metrics remove --endpoint "test_model_auto/*"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.metricsRemove(cmd.Context(), endpoint, variables, wait)
		},
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "endpoint, as it was given to metrics add")
	mark(cmd.Flags(), "endpoint", markRequired)
	cmd.Flags().Var((*wordList)(&variables), "variable", "names of variables (default: all)")
	wait.declare(a, cmd)
	return cmd
}

func (a *app) metricsRemove(ctx context.Context, endpoint string, variables []string, wait waitFlags) error {
	s, err := a.openForEdit(ctx)
	if err != nil {
		return err
	}
	a.print.line("Serving service Task %s, Removing metrics from endpoint=%s", s.Doc.ID, endpoint)
	a.printSync(s)
	err = s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
		return serving.SectionMetrics, c.RemoveMetrics(endpoint, variables)
	})
	if err != nil {
		return hintIfNotFound(err, "Try: clearml-serving metrics list   (shows what is logged)")
	}
	if len(variables) == 0 {
		a.print.line("Removing metric endpoint: %s", endpoint)
	}
	for _, name := range variables {
		a.print.line("Removing metric endpoint: %s / %s", endpoint, name)
	}
	a.print.line("Updating serving service")
	return a.finish(ctx, s, wait, nil, object{{"id", s.Doc.ID}, {"endpoint", endpoint}, {"removed_variables", orNullList(variables)}})
}

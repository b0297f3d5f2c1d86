package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func metricsRemoveCommand(a *app) *cobra.Command {
	var endpoint string
	var variables []string
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Stop logging variables of an endpoint",
		Long:  "Stop logging some variables of an endpoint, or all of them.",
		Example: `  clearml-serving metrics remove --endpoint test_model_sklearn --variable x0 x1
  clearml-serving metrics remove --endpoint "test_model_auto/*"`,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "endpoint, as it was given to metrics add")
	required(cmd, "endpoint")
	cmd.Flags().Var(wordList(&variables), "variable", "names of variables (default: all)")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.sayEdit(s, "Removing metrics from endpoint=%s", endpoint)
		err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
			return serving.SectionMetrics, c.RemoveMetrics(endpoint, variables)
		})
		if err != nil {
			return change{}, hintIfNotFound(err, "Try: clearml-serving metrics list   (shows what is logged)")
		}
		if len(variables) == 0 {
			a.print.line("Removing metric endpoint: %s", endpoint)
		}
		for _, name := range variables {
			a.print.line("Removing metric endpoint: %s / %s", endpoint, name)
		}
		a.print.line("Updating serving service")
		return change{result: object{{"endpoint", endpoint}, {"removed_variables", orNullList(variables)}}}, nil
	})
}

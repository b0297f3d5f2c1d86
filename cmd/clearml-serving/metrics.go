package main

import "github.com/spf13/cobra"

// metricsCommand is the group of commands about logged variables.
func metricsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Choose which variables of requests and answers are logged",
		Long: `Choose which variables of requests and answers are logged as statistics, for an
endpoint or, with a name that ends in "*", for all endpoints that begin so.`,
		Example: `  clearml-serving metrics add --endpoint test_model_sklearn --variable-scalar x0=0,0.1,0.5,1,10 y=0/1/5
  clearml-serving metrics list`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(metricsAddCommand(a), metricsRemoveCommand(a), metricsListCommand(a))
	return cmd
}

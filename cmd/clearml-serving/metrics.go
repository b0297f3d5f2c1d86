package main

import "github.com/spf13/cobra"

// metricsShown says where logged variables are.
const metricsShown = `Each instance exposes them as Prometheus metrics at /metrics of its admin listener:
docs/metrics.md describes them.`

// metricsCommand is the group of commands about logged variables.
func metricsCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "metrics",
		Short: "Choose which variables of requests and answers are logged",
		Long: `Choose which variables of requests and answers are logged as statistics, for an
endpoint or, with a name that ends in "*", for all endpoints that begin so.

` + metricsShown,
		Example: `  clearml-serving metrics add --endpoint test_model_sklearn --variable-scalar x0=0,0.1,0.5,1,10 y=0/1/5
  clearml-serving metrics list`,
	}, metricsAddCommand(a), metricsRemoveCommand(a), metricsListCommand(a))
}

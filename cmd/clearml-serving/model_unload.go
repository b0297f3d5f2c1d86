package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelUnloadCommand(a *app) *cobra.Command {
	return a.loading(&cobra.Command{
		Use:   "unload",
		Short: "Take an endpoint out of service",
		Long: `Take an endpoint out of service on all instances: its model is closed, and its
requests get 503, until it is loaded again. Its configuration and its revisions
stay. The base name of an auto-updated endpoint, or a name that only has versions,
stands for all of them. Clients of the Open Inference Protocol may do the same
after "clearml-serving config --model-control on".`,
		Example: `  clearml-serving model unload --endpoint test_model
  clearml-serving model load --endpoint test_model`,
	}, false)
}

func modelLoadCommand(a *app) *cobra.Command {
	return a.loading(&cobra.Command{
		Use:     "load",
		Short:   "Take an endpoint into service again",
		Long:    "Take an endpoint into service again that was unloaded, on all instances.",
		Example: "  clearml-serving model load --endpoint test_model --wait",
	}, true)
}

// loading makes cmd a command that loads or unloads an endpoint.
func (a *app) loading(cmd *cobra.Command, load bool) *cobra.Command {
	var endpoint string
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name under /serve/")
	required(cmd, "endpoint")
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		url := serving.CleanURL(endpoint)
		verb := "Unloading"
		if load {
			verb = "Loading"
		}
		a.sayEdit(s, "%s '/%s/'", verb, url)
		urls, err := s.SetLoaded(ctx, url, load, s.Author.Name)
		if err != nil {
			return change{}, hintIfNotFound(err, nameHint)
		}
		return change{urls: append(urls, url), result: object{{"endpoint", string(url)}, {"loaded", load}}}, nil
	})
}

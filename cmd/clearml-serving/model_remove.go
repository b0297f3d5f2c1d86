package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelRemoveCommand(a *app) *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Stop serving an endpoint",
		Long: `Stop serving an endpoint, an auto-updated one, or a canary: the first of these
that has the name. The model itself stays in the model repository.`,
		Example: `  clearml-serving model remove --endpoint test_model_sklearn
  clearml-serving model remove --endpoint test_model/2`,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name of the endpoint, with its version if it has one")
	required(cmd, "endpoint")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.sayEdit(s, "Removing Model endpoint=%s", endpoint)
		before, static := serving.LookUp(s.Config.Endpoints, endpoint)
		codeBefore := before.PreprocessArtifact
		if !static {
			monitoring, _ := serving.LookUp(s.Config.Monitoring, endpoint)
			codeBefore = monitoring.PreprocessArtifact
		}
		kind, err := s.Remove(ctx, endpoint)
		if kind == "" {
			return change{}, hintIfNotFound(err, "Try: clearml-serving model list   (shows what there is)")
		}
		a.print.line("Removing %s: %s", kind, endpoint)
		a.print.line("Updating serving service")
		if err != nil {
			return change{}, err
		}
		if kind != serving.RemovedCanary {
			a.dropUnusedCode(ctx, s, codeBefore)
		}
		url := serving.CleanURL(endpoint)
		again := "clearml-serving --id " + s.Doc.ID
		if _, logged := serving.LookUp(s.Config.Metrics, endpoint); logged && kind == serving.RemovedEndpoint {
			a.print.notice("Notice: the logged metrics of '%s' are kept; to remove them: %s metrics remove --endpoint %s", url, again, shellWord(string(url)))
		}
		if !s.Config.Serves(url) {
			for _, graph := range s.Config.GraphsThatCall(url) {
				a.print.notice("Warning: the graph '%s' calls '%s': its requests fail until there is one again", graph, url)
			}
		}
		kept, _ := serving.LookUp(s.Config.Options, endpoint)
		for _, option := range []struct {
			on      bool
			command string
		}{
			{kept.Record != nil, "model record"},
			{kept.Golden != nil, "model golden"},
			{kept.Shadow != nil, "model shadow"},
			{kept.Limits != nil, "model limits"},
			{kept.Feedback != nil, "feedback set"},
			{kept.Log != nil, "model log"},
			{kept.Tool != nil, "model tool"},
		} {
			if option.on {
				a.print.notice("Notice: an option of '%s' is kept; to remove it: %s %s --endpoint %s --off", url, again, option.command, shellWord(string(url)))
			}
		}
		return change{result: object{{"endpoint", endpoint}, {"removed", string(kind)}}}, nil
	})
}

package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func modelRemoveCommand(a *app) *cobra.Command {
	var endpoint string
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Stop serving an endpoint",
		Long: `Stop serving an endpoint, an auto-updated one, or a canary: the first of these
that has the name. The model itself stays in the model repository.`,
		Example: `  clearml-serving model remove --endpoint test_model_sklearn
  clearml-serving model remove --endpoint test_model/2`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.modelRemove(cmd.Context(), endpoint, wait) },
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name of the endpoint, with its version if it has one")
	mark(cmd.Flags(), "endpoint", markRequired)
	wait.declare(a, cmd)
	return cmd
}

func (a *app) modelRemove(ctx context.Context, endpoint string, wait waitFlags) error {
	s, err := a.openForEdit(ctx)
	if err != nil {
		return err
	}
	a.print.line("Serving service Task %s, Removing Model endpoint=%s", s.Doc.ID, endpoint)
	a.printSync(s)
	before, static := serving.LookUp(s.Config.Endpoints, endpoint)
	codeBefore := before.PreprocessArtifact
	if !static {
		monitoring, _ := serving.LookUp(s.Config.Monitoring, endpoint)
		codeBefore = monitoring.PreprocessArtifact
	}
	kind, err := s.Remove(ctx, endpoint)
	if kind == "" {
		return hintIfNotFound(err, "Try: clearml-serving model list   (shows what there is)")
	}
	a.print.line("Removing %s: %s", kind, endpoint)
	a.print.line("Updating serving service")
	if err != nil {
		return err
	}
	if kind != serving.RemovedCanary {
		a.dropUnusedCode(ctx, s, codeBefore)
	}
	if _, logged := serving.LookUp(s.Config.Metrics, endpoint); logged && kind == serving.RemovedEndpoint {
		url := string(serving.CleanURL(endpoint))
		a.print.notice("Notice: the logged metrics of '%s' are kept; to remove them: clearml-serving --id %s metrics remove --endpoint %s", url, s.Doc.ID, shellWord(url))
	}
	if kept, set := serving.LookUp(s.Config.Options, endpoint); set {
		url := shellWord(string(serving.CleanURL(endpoint)))
		for _, option := range []struct {
			on      bool
			command string
		}{{kept.Record != nil, "record"}, {kept.Golden != nil, "golden"}, {kept.Shadow != nil, "shadow"}, {kept.Limits != nil, "limits"}} {
			if option.on {
				a.print.notice("Notice: an option of '%s' is kept; to remove it: clearml-serving --id %s model %s --endpoint %s --off", serving.CleanURL(endpoint), s.Doc.ID, option.command, url)
			}
		}
	}
	return a.finish(ctx, s, wait, nil, object{{"id", s.Doc.ID}, {"endpoint", endpoint}, {"removed", string(kind)}})
}

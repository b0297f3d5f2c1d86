package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/serving"
)

func modelCanaryCommand(a *app) *cobra.Command {
	var c serving.Canary
	var weights numbers
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "canary",
		Short: "Split the requests of one name over several endpoints",
		Long: `Split the requests of one name over several endpoints by weight.

With --input-endpoints each weight belongs to the endpoint at its position. With
--input-endpoint-prefix the endpoints whose name begins so take part, and the
first weight belongs to the newest version.`,
		Example: `  clearml-serving model canary --endpoint test_model --weights 0.1 0.9 --input-endpoints test_model/2 test_model/1
  clearml-serving model canary --endpoint test_model_auto --weights 0.1 0.9 --input-endpoint-prefix test_model_auto`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Weights = weights
			return a.modelCanary(cmd.Context(), c, wait)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Endpoint, "endpoint", "", "name under /serve/ whose requests are split")
	flags.Var(&weights, "weights", "shares, one number for each endpoint; they need not sum to 1")
	flags.Var((*wordList)(&c.LoadEndpoints), "input-endpoints", "the endpoints, with their version: test_model/2 test_model/1")
	flags.StringVar(&c.LoadEndpointPrefix, "input-endpoint-prefix", "", "take the endpoints whose name begins so, newest version first")
	// Without these two the original stores a record that nobody can read.
	mark(flags, "endpoint", markRequired)
	mark(flags, "weights", markRequired)
	// The original's readme writes the flag with one more "s", which the original refuses.
	flags.StringVar(&c.LoadEndpointPrefix, "input-endpoints-prefix", "", "")
	flags.Lookup("input-endpoints-prefix").Hidden = true
	wait.declareImplied(a, cmd)
	return cmd
}

func (a *app) modelCanary(ctx context.Context, c serving.Canary, wait waitFlags) error {
	s, err := a.openForEdit(ctx)
	if err != nil {
		return err
	}
	a.print.line("Serving service Task %s, Adding canary endpoint '/%s/'", s.Doc.ID, c.Endpoint)
	a.printSync(s)
	if err := c.Validate(); err != nil {
		return err
	}
	url := serving.CleanURL(c.Endpoint)
	_, replaced := serving.LookUp(s.Config.Canaries, string(url))
	if replaced {
		a.print.notice("Warning: Model monitoring '%s' overwritten", url)
	}
	a.warnOfMissingTargets(s.Config, c)
	a.print.line("Updating serving service")
	if err := s.Edit(ctx, func(config *serving.Service) (serving.Section, error) {
		_, err := config.AddCanary(c)
		return serving.SectionCanary, err
	}); err != nil {
		return err
	}
	return a.finish(ctx, s, wait, []serving.EndpointURL{url}, object{{"id", s.Doc.ID}, {"endpoint", string(url)}, {"replaced", replaced}})
}

// warnOfMissingTargets tells which endpoints of a canary do not exist: they may
// be added later, but more often the name is mistyped.
func (a *app) warnOfMissingTargets(config serving.Service, c serving.Canary) {
	for _, name := range c.LoadEndpoints {
		url := string(serving.CleanURL(name))
		_, static := serving.LookUp(config.Endpoints, url)
		_, monitored := serving.LookUp(config.MonitoringEndpoints, url)
		if static || monitored {
			continue
		}
		if slices.ContainsFunc(keys(config.Monitoring), func(base string) bool {
			return strings.HasPrefix(url, string(serving.CleanURL(base))+"/")
		}) {
			continue // monitoring will make it
		}
		if _, canary := serving.LookUp(config.Canaries, url); canary {
			a.print.notice("Warning: '%s' is a canary and takes no requests here: a canary chooses among endpoints only", name)
			continue
		}
		a.print.notice("Warning: endpoint '%s' does not exist yet, it takes no requests until it is added", name)
	}
}

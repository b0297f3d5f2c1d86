package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelCanaryCommand(a *app) *cobra.Command {
	var c serving.Canary
	cmd := &cobra.Command{
		Use:   "canary",
		Short: "Split the requests of one name over several endpoints",
		Long: `Split the requests of one name over several endpoints by weight.

With --input-endpoints each weight belongs to the endpoint at its position. With
--input-endpoint-prefix the endpoints whose name begins so take part, and the
first weight belongs to the newest version.`,
		Example: `  clearml-serving model canary --endpoint test_model --weights 0.1 0.9 --input-endpoints test_model/2 test_model/1
  clearml-serving model canary --endpoint test_model_auto --weights 0.1 0.9 --input-endpoint-prefix test_model_auto`,
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Endpoint, "endpoint", "", "name under /serve/ whose requests are split")
	flags.Var(numbers(&c.Weights), "weights", "shares, one number for each endpoint; they need not sum to 1")
	flags.Var(wordList(&c.LoadEndpoints), "input-endpoints", "the endpoints, with their version: test_model/2 test_model/1")
	flags.StringVar(&c.LoadEndpointPrefix, "input-endpoint-prefix", "", "take the endpoints whose name begins so, newest version first")
	// Without these two the original stores a record that nobody can read.
	required(cmd, "endpoint", "weights")
	// The original's readme writes the flag with one more "s", which the original refuses.
	flags.StringVar(&c.LoadEndpointPrefix, "input-endpoints-prefix", "", "")
	flags.Lookup("input-endpoints-prefix").Hidden = true
	return a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) { return a.modelCanary(ctx, s, c) })
}

func (a *app) modelCanary(ctx context.Context, s *operations.Service, c serving.Canary) (change, error) {
	a.sayEdit(s, "Adding canary endpoint '/%s/'", c.Endpoint)
	if err := c.Validate(); err != nil {
		return change{}, err
	}
	url := serving.CleanURL(c.Endpoint)
	_, replaced := serving.LookUp(s.Config.Canaries, string(url))
	if replaced {
		a.print.notice("Warning: Model monitoring '%s' overwritten", url)
	}
	a.warnOfMissingTargets(s.Config, c)
	a.print.line("Updating serving service")
	err := s.Edit(ctx, func(config *serving.Service) (serving.Section, error) {
		_, err := config.AddCanary(c)
		return serving.SectionCanary, err
	})
	return change{[]serving.EndpointURL{url}, object{{"endpoint", string(url)}, {"replaced", replaced}}}, err
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

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"clearmlserving/canary"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

func modelCanaryCommand(a *app) *cobra.Command {
	var c serving.Canary
	var steps stepFlags
	var analyse string
	cmd := &cobra.Command{
		Use:   "canary",
		Short: "Split the requests of one name over several endpoints",
		Long: `Split the requests of one name over several endpoints by weight.

With --input-endpoints each weight belongs to the endpoint at its position. With
--input-endpoint-prefix the endpoints whose name begins so take part, and the
first weight belongs to the newest version.

With --steps the first of two endpoints is a candidate for the place of the second
one. It gets the percentages of the requests one after the other. The instances
compare errors and latencies of both: a candidate that is worse loses its
requests, and a step is taken when the candidate is shown not to be worse. With
100 as the last step it is promoted, else a person is asked. docs/canary.md has
the rules and their error rates; model list --verbose shows the evidence.`,
		Example: `  clearml-serving model canary --endpoint test_model --weights 0.1 0.9 --input-endpoints test_model/2 test_model/1
  clearml-serving model canary --endpoint test_model_auto --weights 0.1 0.9 --input-endpoint-prefix test_model_auto
  clearml-serving model canary --endpoint test_model --steps 5 10 25 50 100 --input-endpoints test_model/2 test_model/1
  clearml-serving model canary --endpoint test_model --pause
  clearml-serving model canary --analyse recordings/test_model.jsonl --input-endpoints test_model/2 test_model/1`,
		PreRunE: func(cmd *cobra.Command, _ []string) error { return steps.check(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Endpoint, "endpoint", "", "name under /serve/ whose requests are split")
	flags.Var(numbers(&c.Weights), "weights", "shares, one number for each endpoint; they need not sum to 1")
	flags.Var(wordList(&c.LoadEndpoints), "input-endpoints", "the endpoints, with their version: test_model/2 test_model/1")
	flags.StringVar(&c.LoadEndpointPrefix, "input-endpoint-prefix", "", "take the endpoints whose name begins so, newest version first")
	steps.declare(cmd)
	flags.StringVar(&analyse, "analyse", "", "file of recorded requests to a canary: tell what the rules would have done, and change nothing")
	mark(flags, "analyse", markOurs)
	// Without these two the original stores a record that nobody can read.
	mark(flags, "endpoint", markRequired, "analyse")
	mark(flags, "weights", markRequired, append([]string{"steps", "analyse"}, rolloutActions...)...)
	// The original's readme writes the flag with one more "s", which the original refuses.
	flags.StringVar(&c.LoadEndpointPrefix, "input-endpoints-prefix", "", "")
	flags.Lookup("input-endpoints-prefix").Hidden = true
	a.deploys(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		if action := steps.action(cmd); action != "" {
			return a.moveCanary(ctx, s, c.Endpoint, action)
		}
		return a.modelCanary(ctx, s, c, steps.rollout())
	})
	changes := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if analyse != "" {
			return a.analyseCanary(analyse, c, canary.Rules{Alpha: steps.alpha, Tolerance: steps.tolerance})
		}
		return changes(cmd, args)
	}
	return cmd
}

// stepFlags are the flags of the steps of a canary.
type stepFlags struct {
	percent                    []float64
	stepTime, deadline, mirror time.Duration
	alpha, tolerance           float64
	guards, freeze             []string
	webhook                    string
}

// rolloutActions are flags that change the steps of a canary.
var rolloutActions = []string{"pause", "resume", "promote", "abort"} //nolint:gochecknoglobals // a constant list

// stepRules are the flags that only make sense with --steps.
var stepRules = []string{"step-time", "deadline", "mirror", "alpha", "tolerance", "guard", "freeze", "webhook"} //nolint:gochecknoglobals // a constant list

func (f *stepFlags) declare(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(numbers(&f.percent), "steps", "percentages of the requests for the first endpoint, one after the other; 100 promotes it")
	flags.DurationVar(&f.stepTime, "step-time", 5*time.Minute, "shortest time of a step")
	flags.DurationVar(&f.deadline, "deadline", 0, "ask a person if it is not known until then which one is better, for example 24h (default: none)")
	flags.Var(decimal(&f.alpha), "alpha", "greatest probability of taking back a candidate that is not worse (default 0.01)")
	flags.Var(decimal(&f.tolerance), "tolerance", "how many times the errors and slow answers of the baseline the candidate may have, from 1 (default 1)")
	flags.Var(wordList(&f.guards), "guard", "PromQL conditions: the candidate loses its requests when one has a result")
	flags.Var(wordList(&f.freeze), "freeze", "PromQL conditions: nothing is decided while one has a result, for example when the baseline is bad")
	flags.DurationVar(&f.mirror, "mirror", 0, "before the first step, send copies of the requests to the candidate for at least this time")
	flags.StringVar(&f.webhook, "webhook", "", "address that is asked before and told after each step, and told of a rollback")
	for _, name := range append([]string{"steps"}, stepRules...) {
		mark(flags, name, markOurs)
	}
	for _, action := range []struct{ name, help string }{
		{"pause", "take no more steps; a candidate that is worse still loses its requests"},
		{"resume", "go on with the steps"},
		{"promote", "give all requests to the candidate now"},
		{"abort", "give all requests to the baseline now"},
	} {
		flags.Bool(action.name, false, action.help)
		mark(flags, action.name, markOurs)
	}
}

// action is the one that is asked for, "" for none.
func (f *stepFlags) action(cmd *cobra.Command) string {
	for _, name := range rolloutActions {
		if on, err := cmd.Flags().GetBool(name); err == nil && on {
			return name
		}
	}
	return ""
}

func (f *stepFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	var actions []string
	for _, name := range rolloutActions {
		if given(name) {
			actions = append(actions, name)
		}
	}
	defines := func(name string) bool { return given(name) }
	other := append([]string{"weights", "input-endpoints", "input-endpoint-prefix", "input-endpoints-prefix", "steps", "analyse"}, stepRules...)
	switch i := slices.IndexFunc(other, defines); {
	case len(actions) > 1:
		return usagef(cmd, "argument --%s: not allowed with argument --%s", actions[1], actions[0])
	case len(actions) == 1 && i >= 0:
		return usagef(cmd, "argument --%s: not allowed with argument --%s", actions[0], other[i])
	}
	if given("analyse") {
		return nil
	}
	if !given("steps") {
		if i := slices.IndexFunc(stepRules, defines); i >= 0 {
			return usagef(cmd, "argument --%s: needs --steps", stepRules[i])
		}
		return nil
	}
	for _, name := range []string{"weights", "input-endpoint-prefix", "input-endpoints-prefix"} {
		if given(name) {
			return usagef(cmd, "argument --steps: not allowed with argument --%s", name)
		}
	}
	return nil
}

// rollout is what the flags define, nil without --steps.
func (f *stepFlags) rollout() *serving.Rollout {
	if len(f.percent) == 0 {
		return nil
	}
	r := &serving.Rollout{
		ID: strings.ReplaceAll(uuid.NewString(), "-", "")[:16], StepTime: f.stepTime.Seconds(), Deadline: f.deadline.Seconds(), Mirror: f.mirror.Seconds(),
		Alpha: f.alpha, Tolerance: f.tolerance, Guards: f.guards, Freeze: f.freeze, Webhook: f.webhook,
	}
	for _, p := range f.percent {
		r.Steps = append(r.Steps, p/100)
	}
	return r
}

func (a *app) modelCanary(ctx context.Context, s *operations.Service, c serving.Canary, r *serving.Rollout) (change, error) {
	a.sayEdit(s, "Adding canary endpoint '/%s/'", c.Endpoint)
	if r != nil {
		c.Weights = make([]float64, max(1, len(c.LoadEndpoints))) // SetCanary gives those of the first step
		c.Weights[0] = 1
	}
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
	if err := s.SetCanary(ctx, c, r); err != nil {
		if wrong, ok := errors.AsType[*serving.FieldError](err); ok && wrong.Field == "steps" {
			return change{}, hint(err, "Try: --steps 5 10 25 50 100   (percentages)")
		}
		return change{}, err
	}
	result := object{{"endpoint", string(url)}, {"replaced", replaced}}
	if r != nil {
		result = append(result, field{"rollout", r.ID})
	}
	return change{[]serving.EndpointURL{url}, result}, nil
}

// moveCanary applies a decision of a person.
func (a *app) moveCanary(ctx context.Context, s *operations.Service, endpoint, action string) (change, error) {
	url := serving.CleanURL(endpoint)
	r, ok := serving.LookUp(s.Config.Rollouts, string(url))
	if !ok {
		return change{}, notFound("canary '%s' has no steps: they are defined with --steps", url)
	}
	m := serving.RolloutMove{By: s.Author.Name}
	switch action {
	case "pause":
		m.Phase = serving.RolloutPaused
	case "resume":
		m.Phase = serving.RolloutRunning
	case "promote":
		m.Phase = serving.RolloutPromoted
	case "abort":
		m.Phase = serving.RolloutRolledBack
	}
	if _, err := s.MoveRollout(ctx, url, m); err != nil {
		return change{}, err
	}
	r = s.Config.Rollouts[string(url)]
	a.print.line("The canary '/%s/' is %s: %s gets %s of the requests", url, r.Phase, r.Candidate, percentOf(r.Share()))
	return change{[]serving.EndpointURL{url}, object{{"endpoint", string(url)}, {"phase", string(r.Phase)}, {"share", r.Share()}}}, nil
}

func percentOf(share float64) string {
	return strconv.FormatFloat(math.Round(share*1e6)/1e4, 'f', -1, 64) + " %"
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

// printRollouts shows the steps of canaries, with the evidence of the instance that decides.
func (a *app) printRollouts(s *operations.Service, f fleet) {
	var rows [][]string
	for _, key := range keys(s.Config.Rollouts) {
		r, url := s.Config.Rollouts[key], serving.CleanURL(key)
		row := []string{"/" + string(url), string(r.Candidate), string(r.Phase), stepOf(r), percentOf(r.Share())}
		told := reportOf(f, url)
		if told == nil {
			rows = append(rows, append(row, "", "", "", lastNote(r)))
			continue
		}
		rows = append(rows, append(row,
			fmt.Sprintf("%d/%d", told.Errors, told.Requests), fmt.Sprintf("%d/%d", told.BaselineErrors, told.BaselineRequests),
			fmt.Sprintf("%.0f %%", max(0, 100*told.Evidence/told.Limit)), firstOf(told.Note, lastNote(r))))
	}
	a.print.section([]string{"CANARY", "CANDIDATE", "PHASE", "STEP", "SHARE", "ERRORS", "BASELINE'S", "EVIDENCE AGAINST", "NOTE"}, rows)
}

// reportOf is what the instance that decides tells of a rollout, else any other one; nil for none.
func reportOf(f fleet, url serving.EndpointURL) (found *serving.RolloutReport) {
	for _, l := range f.instances {
		for _, c := range l.Canaries {
			if c.URL == url && c.Rollout != nil && (found == nil || c.Rollout.Decides) {
				found = c.Rollout
			}
		}
	}
	return found
}

func stepOf(r serving.Rollout) string {
	if r.Step == serving.MirrorStep {
		return "copies"
	}
	return fmt.Sprintf("%d/%d", r.Step+1, len(r.Steps))
}

func lastNote(r serving.Rollout) string {
	if len(r.Events) == 0 {
		return ""
	}
	return r.Events[len(r.Events)-1].Note
}

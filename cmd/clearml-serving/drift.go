package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/drift"
	driftwatch "clearmlserving/drift/watch"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// driftCommand shows the drift of variables; below it are the commands that decide what drift is.
func driftCommand(a *app) *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Show whether live values still have the distribution of their reference",
		Long: `Show, for each variable with a reference, how far the live values are from it.

DISTANCE is the population stability index without its expected noise, and NOISE the
value up to which it is noise. They decide nothing. What decides is the EVIDENCE: a
variable drifts once it reaches the threshold, which follows from the number of false
alarms that "drift set" allows. docs/drift.md explains both.

References come with a model (model upload --reference), or from drift reference.`,
		Example: `  clearml-serving drift
  clearml-serving drift --endpoint test_model/1 --json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "only this endpoint, with its version")
	a.reads(cmd, func(ctx context.Context, s *operations.Service) (object, error) { return a.drift(ctx, s, endpoint) })
	cmd.AddCommand(driftReferenceCommand(a), driftAcceptCommand(a), driftSetCommand(a), driftWatchCommand(a))
	return cmd
}

func (a *app) drift(ctx context.Context, s *operations.Service, endpoint string) (object, error) {
	a.warnOfBroken(s.Config, serving.SectionDrift)
	report, err := driftwatch.Last(ctx, s.Client, s.Doc.ID)
	if errors.Is(err, driftwatch.ErrNoReport) {
		a.print.line("No drift is watched yet. A variable needs a reference: clearml-serving model upload --reference, or clearml-serving drift reference")
		return object{{"id", s.Doc.ID}, {"variables", []any{}}, {"events", []any{}}}, nil
	}
	if err != nil {
		return nil, err
	}
	if report.Problem != "" {
		a.print.notice("Warning: %s", report.Problem)
	}
	if silent := s.Client.ServerTime().Sub(report.At); silent > 5*driftReportEvery {
		a.print.notice("Warning: nothing watches drift now, the last report is of %s", age(report.At))
	}
	url := serving.CleanURL(endpoint)
	shown := []drift.VariableReport{}
	for _, r := range report.Variables {
		if url == "" || serving.JoinURL(r.Endpoint, r.Version) == url {
			shown = append(shown, r)
		}
	}
	if url != "" && len(shown) == 0 {
		return nil, hint(notFound("endpoint '%s' has no variable with a reference", url), "Try: clearml-serving drift reference --endpoint %s --file rows.csv", shellWord(string(url)))
	}
	rows := make([][]string, len(shown))
	for i, r := range shown {
		rows[i] = []string{
			string(serving.JoinURL(r.Endpoint, r.Version)), r.Variable, string(r.Verdict), fmt.Sprintf("%.3g", r.PSI), fmt.Sprintf("%.2g", r.Noise),
			fmt.Sprintf("%.1f of %.1f", r.Evidence, r.Threshold), fmt.Sprint(r.Rows), age(r.Since),
		}
		if r.Verdict == drift.Absent || r.Verdict == drift.Waiting {
			rows[i][3], rows[i][4], rows[i][5] = "", "", ""
		}
	}
	slices.SortStableFunc(rows, func(a, b []string) int { // what drifts first
		return driftOrder(b[2]) - driftOrder(a[2])
	})
	a.print.table([]string{"ENDPOINT", "VARIABLE", "STATE", "DISTANCE", "NOISE", "EVIDENCE", "ROWS", "SINCE"}, rows)
	events := report.Events
	if events == nil {
		events = []drift.Event{}
	}
	return object{{"id", s.Doc.ID}, {"at", report.At}, {"problem", report.Problem}, {"variables", shown}, {"events", events}}, nil
}

// driftReportEvery is about the time between two reports.
const driftReportEvery = time.Minute

func driftOrder(verdict string) int {
	if verdict == string(drift.Drifting) {
		return 1
	}
	return 0
}

// joinMost lists names, at most some of them.
func joinMost(names []string, most int) string {
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func driftSetCommand(a *app) *cobra.Command {
	var endpoint, per string
	var falseAlarms, minPSI *float64
	var ignore []string
	var reset bool
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Say what is drift: false alarms that are allowed, and the least drift that counts",
		Long: `Say what is drift, for an endpoint, for all endpoints that begin so ("model/*"), or for
all of the service ("*"). What an endpoint does not say is that of a shorter name, or the
default: one false alarm in 30 days over all variables of the service, and drift from a
population stability index (PSI) of 0.01 on.`,
		Example: `  clearml-serving drift set --endpoint "*" --false-alarms 1 --per 90d
  clearml-serving drift set --endpoint test_model/1 --min-psi 0.05 --ignore customer_id
  clearml-serving drift set --endpoint test_model/1 --reset`,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"false-alarms", "per", "min-psi", "ignore", "reset"} {
				if cmd.Flags().Changed(name) {
					return nil
				}
			}
			return usagef(cmd, "nothing to set: give --false-alarms, --per, --min-psi, --ignore or --reset")
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&endpoint, "endpoint", "", "endpoint with its version, or a beginning with * behind it")
	required(cmd, "endpoint")
	flags.Var(optionalDecimal(&falseAlarms), "false-alarms", "allowed false alarms within --per, over all variables of the service (default 1)")
	flags.StringVar(&per, "per", "", "time for --false-alarms, such as 12h or 90d (default 30d)")
	flags.Var(optionalDecimal(&minPSI), "min-psi", "smaller drift is no drift (default 0.01)")
	flags.Var(wordList(&ignore), "ignore", "variables that are not watched; * for all")
	flags.BoolVar(&reset, "reset", false, "remove all of it first, and a reference that was set with drift reference or drift accept")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		days, err := readDays(per)
		if err != nil {
			return change{}, fmt.Errorf("--per %w", err)
		}
		url := string(serving.CleanURL(endpoint))
		a.sayEdit(s, "Setting drift of '%s'", url)
		err = s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
			return serving.SectionDrift, c.SetDrift(url, func(d *serving.DriftSettings) {
				if reset {
					*d = serving.DriftSettings{}
				}
				d.FalseAlarms, d.MinPSI, d.Days = orBefore(falseAlarms, d.FalseAlarms), orBefore(minPSI, d.MinPSI), orBefore(days, d.Days)
				if ignore != nil {
					d.Ignore = ignore
				}
			})
		})
		if err != nil {
			return change{}, hintIfNotFound(err, nameHint)
		}
		a.print.line("Updating serving service")
		return change{result: object{{"endpoint", url}}}, nil
	})
}

func orBefore[T any](now, before *T) *T {
	if now != nil {
		return now
	}
	return before
}

// readDays reads a time such as 12h or 30d, as days; nil for "".
func readDays(text string) (*float64, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // not given
	}
	number, unit := strings.TrimRight(text, "hdw"), 1.0
	switch strings.TrimPrefix(text, number) {
	case "h":
		unit = 1.0 / 24
	case "d":
	case "w":
		unit = 7
	default:
		number = "?"
	}
	days, err := readDecimal(number)
	if err != nil || !(days > 0) || math.IsInf(days, 0) {
		return nil, fmt.Errorf("'%s' is no time: give it as 12h, 30d or 4w", text)
	}
	days *= unit
	return &days, nil
}

func driftAcceptCommand(a *app) *cobra.Command {
	var endpoint string
	var names []string
	cmd := &cobra.Command{
		Use:   "accept",
		Short: "Take the live values as the new reference",
		Long: `Take the present live values of an endpoint's variables as their new reference, so
that they no longer count as drift. The bins stay those of the old reference; after a
large drift a reference from a file (drift reference --file) sees more.`,
		Example: `  clearml-serving drift accept --endpoint test_model/1 --variable age income`,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "endpoint with its version")
	required(cmd, "endpoint")
	cmd.Flags().Var(wordList(&names), "variable", "variables (default: those that drift)")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		url := serving.CleanURL(endpoint)
		a.sayEdit(s, "Accepting the live values of '%s'", url)
		report, err := driftwatch.Last(ctx, s.Client, s.Doc.ID)
		if errors.Is(err, driftwatch.ErrNoReport) {
			return change{}, hint(notFound("no live values are known: no watcher has reported on this service yet"), "Try: clearml-serving drift reference --endpoint %s --file rows.csv", shellWord(string(url)))
		}
		if err != nil {
			return change{}, err
		}
		now, err := a.referenceOf(ctx, s, url)
		if err != nil {
			return change{}, err
		}
		next, accepted := now.Without(), []string{}
		for _, r := range report.Variables {
			if serving.JoinURL(r.Endpoint, r.Version) != url || now.Variables[r.Variable] == nil {
				continue
			}
			if names == nil && r.Verdict != drift.Drifting || names != nil && !slices.Contains(names, r.Variable) {
				continue
			}
			if next.Variables[r.Variable], err = now.Variables[r.Variable].AcceptLive(r); err != nil {
				return change{}, err
			}
			accepted = append(accepted, r.Variable)
		}
		for _, name := range names {
			if !slices.Contains(accepted, name) {
				return change{}, notFound("endpoint '%s' has no live values of variable '%s'", url, name)
			}
		}
		if len(accepted) == 0 {
			return change{}, hint(notFound("no variable of endpoint '%s' drifts", url), "Try: --variable with the names of those to accept")
		}
		next.Source = "live values"
		if err := a.storeReference(ctx, s, url, next); err != nil {
			return change{}, err
		}
		a.print.line("Accepted: %s", strings.Join(accepted, ", "))
		return change{result: object{{"endpoint", string(url)}, {"accepted", accepted}}}, nil
	})
}

// referenceOf is the reference in force of an endpoint.
func (a *app) referenceOf(ctx context.Context, s *operations.Service, url serving.EndpointURL) (*drift.Reference, error) {
	text := []byte(s.Config.DriftFor(url).Reference)
	if text == nil {
		e, ok := storedEndpoint(s.Config, url)
		if !ok {
			return nil, hint(notFound("there is no endpoint '%s'", url), nameHint)
		}
		if e.ModelID != "" {
			model, err := s.Client.Model(ctx, string(e.ModelID))
			if err != nil {
				return nil, fmt.Errorf("read model %s: %w", e.ModelID, err)
			}
			text = []byte(model.Metadata[serving.MetadataReference])
		}
	}
	if len(text) == 0 {
		return nil, hint(notFound("endpoint '%s' has no reference", url), "Try: clearml-serving drift reference --endpoint %s --file rows.csv", shellWord(string(url)))
	}
	return drift.Decode(text)
}

// storeReference makes a reference that of an endpoint, in the service's configuration.
func (a *app) storeReference(ctx context.Context, s *operations.Service, url serving.EndpointURL, r *drift.Reference) error {
	text, err := a.encodeReference(r)
	if err != nil {
		return err
	}
	err = s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
		return serving.SectionDrift, c.SetDrift(string(url), func(d *serving.DriftSettings) { d.Reference = json.RawMessage(text) })
	})
	if err != nil {
		return hintIfNotFound(err, nameHint)
	}
	a.print.line("Updating serving service")
	return nil
}

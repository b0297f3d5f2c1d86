package main

import (
	"context"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

func metricsListCommand(a *app) *cobra.Command {
	return a.reads(&cobra.Command{
		Use:     "list",
		Short:   "List the logged variables of all endpoints",
		Long:    "List the logged variables of all endpoints.",
		Example: "  clearml-serving metrics list --json",
	}, a.metricsList)
}

func (a *app) metricsList(_ context.Context, s *operations.Service) (object, error) {
	a.print.line("List endpoint metrics, control task id=%s", s.Doc.ID)
	a.printSync(s)
	a.warnOfBroken(s.Config, serving.SectionMetrics)
	metrics := sorted(s.Config.Metrics, showMetrics)
	text, err := indented(metrics)
	if err != nil {
		return nil, err
	}
	a.print.line("Logged Metrics:\n%s", text)
	return object{
		{"id", s.Doc.ID}, {"state_hash", s.Hash()}, {"metrics", metrics}, {"broken", showBroken(s.Config, serving.SectionMetrics)},
	}, nil
}

func showMetrics(m serving.MetricLogging) object {
	return append(showRecord(m), field{"metrics", sorted(m.Metrics, showRecord)})
}

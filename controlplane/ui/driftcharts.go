package ui

import (
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"clearmlserving/drift"
	"clearmlserving/operations"
)

// driftPrefix begins the ids of charts of variables that have a reference.
const driftPrefix = "drift:"

// mostBins is how many bins of a distribution are drawn, mostDrift how many variables with a reference.
const (
	mostBins  = 100
	mostDrift = 40
)

// watched are the variables of an endpoint that have a reference. A report that cannot be read is a problem of
// the part of the page about drift.
func (v *visit) watched(s *operations.Service, t target) []drift.VariableReport {
	report, err := v.driftReport(s.Doc.ID)
	if err != nil {
		return nil
	}
	var own []drift.VariableReport
	for _, one := range report.Variables {
		if one.Endpoint == t.endpoint && one.Version == t.version && len(own) < mostDrift {
			own = append(own, one)
		}
	}
	return own
}

// driftCharts are the evidence and the distance of all variables, and each variable beside its reference.
func driftCharts(reports []drift.VariableReport) []chart {
	byVariable := func(m model.Metric) string { return string(m["variable"]) }
	charts := []chart{
		{ID: "drift-evidence", Title: "Evidence of drift", Kind: kindLines, Hint: "there is drift from 1 on", lines: func(q asked) []query {
			one := func(metric string) string { return "max by (variable) (" + q.of(metric) + ")" }
			return []query{
				{expr: "clamp_min(" + one("drift_evidence") + " / " + one("drift_threshold") + ", 0)", name: byVariable},
				{expr: "vector(1)", name: named(limitLine), over: true},
			}
		}},
		{ID: "drift-psi", Title: "Distance from the reference", Kind: kindLines, Hint: "PSI; it decides nothing", lines: func(q asked) []query {
			return []query{{expr: "max by (variable) (" + q.of("drift_distance", `measure="psi"`) + ")", name: byVariable}}
		}},
	}
	for _, r := range reports {
		charts = append(charts, chart{
			ID: driftPrefix + r.Variable, Title: r.Variable, Unit: unitShare, Kind: kindHeat, Hint: driftHint(r), bins: r.Bins[:min(len(r.Bins), mostBins)],
			lines: func(q asked) []query {
				match := []string{"variable=" + strconv.Quote(r.Variable), "reference=" + strconv.Quote(r.ReferenceHash)}
				return []query{{expr: q.sum(q.increase("drift_values_total", match...), "bin"), name: func(m model.Metric) string { return string(m["bin"]) }}}
			},
		})
	}
	return charts
}

// driftHint says how a variable is.
func driftHint(r drift.VariableReport) string {
	switch r.Verdict {
	case drift.Drifting:
		return "drifts since " + r.Since.UTC().Format("2 Jan 15:04 MST")
	case drift.Steady:
		return "no drift"
	case drift.Waiting:
		return "too few values to decide yet"
	case drift.Absent:
		return "no request and no answer has had it yet"
	}
	return string(r.Verdict)
}

// beside puts lines that are named by the bins of a reference into the order of the bins, with the shares in
// the reference. A bin without values has none.
func beside(bins []drift.Bin, lines []line) []chartLine {
	all := make([]chartLine, len(bins))
	for i, b := range bins {
		all[i] = chartLine{Name: shortBin(b.Name), Values: numbers{}, Reference: &b.Reference}
		if at := slices.IndexFunc(lines, func(l line) bool { return l.Name == b.Name }); at >= 0 {
			all[i].Values = lines[at].Values
		}
	}
	return all
}

// shortBin is the name of a bin for an axis.
func shortBin(name string) string {
	for _, way := range []string{" <= x < ", " < x <= "} {
		if from, to, ok := strings.Cut(name, way); ok {
			return from + " – " + to
		}
	}
	return strings.NewReplacer("x >= ", "≥ ", "x <= ", "≤ ", "x < ", "< ", "x > ", "> ").Replace(name)
}

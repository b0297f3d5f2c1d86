package ui

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"clearmlserving/serving"
)

// variable is a logged variable of an endpoint: a defined one, or a number that user code collects.
type variable struct {
	name, kind string // scalar, enum, value, counter
}

// variablePrefix begins the ids of charts of variables.
const variablePrefix = "var:"

// The variables that a page shows are the first ones by name: at most this many, with this length of all
// their names.
const (
	mostVariables  = 60
	variablesBytes = 6 << 10
)

// variablesOf are the defined variables of a url.
func variablesOf(config serving.Service, at string) []variable {
	defined := config.MetricsFor(serving.CleanURL(at)).Metrics
	all := make([]variable, 0, len(defined))
	left := variablesBytes
	for _, name := range sortedKeys(defined) {
		if left -= len(name); left < 0 || len(all) == mostVariables {
			break
		}
		all = append(all, variable{name, defined[name].Type})
	}
	return all
}

// collected are the numbers that user code of an endpoint collects without a definition.
func (v *visit) collected(service string, t target, defined []variable) []variable {
	if v.p.opts.Series == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), sparkTimeout)
	defer cancel()
	q := asked{service: v.p.ofService(service), targets: []target{t}}
	found, err := v.p.opts.Series.Query(ctx, "count by (variable) (last_over_time("+q.of("variable_value")+"[1h]))", v.p.now())
	if err != nil {
		return nil // the charts say that nothing can be read
	}
	var all []variable
	for _, s := range found {
		name := string(s.Metric["variable"])
		if name != "" && !slices.ContainsFunc(defined, func(d variable) bool { return d.name == name }) {
			all = append(all, variable{name, "value"})
		}
	}
	slices.SortFunc(all, func(a, b variable) int { return cmp.Compare(a.name, b.name) })
	return all[:min(len(all), mostVariables)]
}

// chart shows the values of the variable over time.
func (one variable) chart() chart {
	c := chart{ID: variablePrefix + one.name, Title: serving.Shorten(one.name, 100)}
	ofOne := `variable=` + strconv.Quote(one.name)
	switch one.kind {
	case "scalar":
		c.Kind, c.Unit, c.Hint = kindHeat, unitShare, "share of each bin; at the right, of the whole time"
		c.lines = func(q asked) []query {
			return []query{{expr: q.sum(q.increase("variable_distribution_bucket", ofOne), "le"), name: byLabel("le")}}
		}
	case "enum":
		c.Kind, c.Unit, c.Hint = kindShares, unitShare, "share of each value"
		c.lines = func(q asked) []query {
			return []query{{expr: q.sum(q.increase("variable_values_total", ofOne), "value"), name: func(m model.Metric) string { return string(m["value"]) }}}
		}
	case "counter":
		c.Kind, c.Unit, c.Hint = kindLines, unitRate, "sum per second"
		c.lines = func(q asked) []query {
			return []query{{expr: q.sum(q.rate("variable_total", ofOne)), name: named(one.name)}}
		}
	default:
		c.Kind, c.Hint = kindLines, "last value"
		c.lines = func(q asked) []query {
			return []query{{expr: "avg(" + q.of("variable_value", ofOne) + ")", name: named(one.name)}}
		}
	}
	return c
}

// skippedChart counts the values that were not recorded.
func skippedChart() chart {
	return chart{ID: "skipped", Title: "Values not recorded", Unit: unitRate, Kind: kindLines, Hint: "missing, null, of another type, or too many", lines: func(q asked) []query {
		return []query{{expr: q.sum(q.rate("variables_skipped_total"), "variable", "reason") + " > 0", name: func(m model.Metric) string {
			return string(m["variable"]) + ": " + string(m["reason"])
		}}}
	}}
}

// increase is how much a counter grew.
func (q asked) increase(metric string, more ...string) string {
	return "increase(" + q.of(metric, more...) + "[" + q.span.window() + "])"
}

// binned turns the cumulative buckets of a distribution, named by their upper bounds, into bins from the
// lowest to the highest.
func binned(lines []line) []line {
	bound := func(l line) float64 {
		v, err := strconv.ParseFloat(l.Name, 64)
		if err != nil {
			return math.NaN()
		}
		return v
	}
	lines = slices.DeleteFunc(lines, func(l line) bool { return math.IsNaN(bound(l)) })
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(bound(a), bound(b)) })
	bins := make([]line, len(lines))
	for i, l := range lines {
		bins[i].Values = slices.Clone(l.Values)
		to := formatNumber(bound(l))
		switch {
		case i == 0:
			bins[i].Name = "≤ " + to
		case math.IsInf(bound(l), 1):
			bins[i].Name = "> " + formatNumber(bound(lines[i-1]))
		default:
			bins[i].Name = formatNumber(bound(lines[i-1])) + " – " + to
		}
		if i == 0 {
			continue
		}
		for at, below := range lines[i-1].Values {
			if !math.IsNaN(below) {
				bins[i].Values[at] = max(0, l.Values[at]-below)
			}
		}
	}
	return bins
}

// variableOf finds the variable of a chart; an unknown one is a number that user code has collected.
func variableOf(id string, known []variable) (variable, bool) {
	name, ok := strings.CutPrefix(id, variablePrefix)
	if !ok || name == "" {
		return variable{}, false
	}
	if i := slices.IndexFunc(known, func(v variable) bool { return v.name == name }); i >= 0 {
		return known[i], true
	}
	return variable{name, "value"}, true
}

package ui

import (
	"cmp"
	"context"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/serving"
)

// Series answers PromQL expressions. Its methods are those of timeseries.Querier.
type Series interface {
	Query(ctx context.Context, expr string, at time.Time) (model.Vector, error)
	QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (model.Matrix, error)
}

// span is the range of time of charts.
type span struct {
	From, To time.Time
	Step     time.Duration
	// Range is the name of a range that ends now, "" for one with a fixed end.
	Range string
}

// ranges are the ranges that end now.
func ranges() []timeRange {
	return []timeRange{
		{"15m", "15 m", 15 * time.Minute, 5 * time.Second},
		{"1h", "1 h", time.Hour, 15 * time.Second},
		{"6h", "6 h", 6 * time.Hour, 2 * time.Minute},
		{"24h", "24 h", 24 * time.Hour, 5 * time.Minute},
		{"7d", "7 d", 7 * 24 * time.Hour, 30 * time.Minute},
		{"30d", "30 d", 30 * 24 * time.Hour, 2 * time.Hour},
	}
}

type timeRange struct {
	Name, Label string
	Long, step  time.Duration
}

const (
	defaultRange = "1h"
	// chartPoints is about how many points a line has.
	chartPoints = 240
	leastStep   = time.Second
	leastSpan   = 30 * time.Second
	longestSpan = 366 * 24 * time.Hour
	// rateWindow is the least window of a rate: it has several samples of a counter.
	rateWindow = time.Minute
)

// spanOf reads the range of a query: ?range=6h, or ?from= and ?to= in seconds since 1970. What cannot
// be read is the default.
func spanOf(q url.Values, now time.Time) span {
	from, errFrom := strconv.ParseInt(q.Get("from"), 10, 64)
	to, errTo := strconv.ParseInt(q.Get("to"), 10, 64)
	if errFrom == nil && errTo == nil && from > 0 && to > from && to < math.MaxInt32 {
		s := span{From: time.Unix(from, 0), To: time.Unix(to, 0)}
		long := min(max(s.To.Sub(s.From), leastSpan), longestSpan)
		s.From = s.To.Add(-long)
		s.Step = stepOf(long)
		return s.aligned()
	}
	all := ranges()
	at := slices.IndexFunc(all, func(r timeRange) bool { return r.Name == q.Get("range") })
	if at < 0 {
		at = slices.IndexFunc(all, func(r timeRange) bool { return r.Name == defaultRange })
	}
	r := all[at]
	return span{From: now.Add(-r.Long), To: now, Step: r.step, Range: r.Name}.aligned()
}

// aligned moves the ends to multiples of the step, so that a chart that is read again has its points at the
// same times.
func (s span) aligned() span {
	s.To = s.To.Truncate(s.Step)
	s.From = s.From.Truncate(s.Step)
	return s
}

// stepOf is the step for a range of any length.
func stepOf(long time.Duration) time.Duration {
	want := long / chartPoints
	for _, step := range []time.Duration{
		leastStep, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	} {
		if step >= want {
			return step
		}
	}
	return 48 * time.Hour
}

// points is how many points a line of the range has.
func (s span) points() int { return int(s.To.Sub(s.From)/s.Step) + 1 }

// window is the window of rates: each point is the mean since the point before it, or of a minute.
func (s span) window() string { return promDuration(max(s.Step, rateWindow)) }

func promDuration(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

// target is an endpoint as metrics name it.
type target struct {
	url               string
	endpoint, version string
}

// targetOf is how metrics name a url: as in the record of the endpoint, else by a number at its end.
func targetOf(config serving.Service, at string) target {
	e, _ := recordOf(config, serving.CleanURL(at))
	if e.Version != "" {
		return target{at, string(serving.CleanURL(e.ServingURL)), e.Version}
	}
	if name := serving.NameOf(serving.EndpointURL(at)); name.Version != "" && e.EngineType == "" {
		return target{at, name.Endpoint, name.Version}
	}
	return target{at, at, ""}
}

// selector selects the series of some targets; service is a matcher, or "". Targets of several names need
// grouping by endpoint and version, since it may select more.
func selector(service string, targets []target, more ...string) string {
	parts := slices.Clone(more)
	if service != "" {
		parts = append(parts, service)
	}
	if len(targets) == 0 {
		return "{" + strings.Join(parts, ",") + "}"
	}
	parts = append(parts,
		"endpoint"+matching(targets, func(t target) string { return t.endpoint }),
		"version"+matching(targets, func(t target) string { return t.version }))
	return "{" + strings.Join(parts, ",") + "}"
}

func matching(targets []target, label func(target) string) string {
	var values []string
	for _, t := range targets {
		if v := label(t); !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	if len(values) == 1 {
		return "=" + strconv.Quote(values[0])
	}
	for i, v := range values {
		values[i] = regexp.QuoteMeta(v)
	}
	return "=~" + strconv.Quote(strings.Join(values, "|"))
}

// ofService matches the series of a service, "" matches all.
func (p *Pages) ofService(id string) string {
	if p.opts.ServiceLabel == "" {
		return ""
	}
	return p.opts.ServiceLabel + "=" + strconv.Quote(id)
}

// line is a line of a chart, with a value for each step; NaN where there is none.
type line struct {
	Name   string
	Series int // the colour
	Values []float64
}

// readLines evaluates an expression over the range. name gives the name of a series, "" to leave it out.
func readLines(ctx context.Context, series Series, s span, expr string, name func(model.Metric) string) ([]line, error) {
	found, err := series.QueryRange(ctx, expr, s.From, s.To, s.Step)
	if err != nil {
		return nil, err
	}
	var lines []line
	for _, stream := range found {
		called := name(stream.Metric)
		if called == "" {
			continue
		}
		l := line{Name: called, Values: make([]float64, s.points())}
		for i := range l.Values {
			l.Values[i] = math.NaN()
		}
		for _, p := range stream.Values {
			i := int(p.Timestamp.Time().Sub(s.From) / s.Step)
			if i >= 0 && i < len(l.Values) {
				l.Values[i] = float64(p.Value)
			}
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.Name, b.Name) })
	return lines, nil
}

// known says that the line has a value.
func (l line) known() bool {
	return slices.ContainsFunc(l.Values, func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) })
}

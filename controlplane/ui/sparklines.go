package ui

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
)

// spark is a small line without axes, with its newest value.
type spark struct {
	// Lines are the parts of the line between gaps, as the points of an SVG polyline.
	Lines []string
	// Last is the newest value; "" means that there is none.
	Last string
	// About says what the line shows, for those who do not see it.
	About string
}

// The size of a spark in its own units, and what it shows.
const (
	sparkWide, sparkTall = 100, 24
	sparkSpan, sparkStep = time.Hour, time.Minute
	sparkTimeout         = 5 * time.Second
)

// sparkOf draws a line. format writes its values.
func sparkOf(about string, values []float64, format func(float64) string) spark {
	most, last := 0.0, math.NaN()
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		most = max(most, v)
		if i >= len(values)-3 { // a scrape may be late
			last = v
		}
	}
	s := spark{About: about}
	var points []string // since the last gap
	flush := func() {
		if len(points) == 1 {
			points = append(points, points[0]) // a dot
		}
		if len(points) > 0 {
			s.Lines = append(s.Lines, strings.Join(points, " "))
		}
		points = nil
	}
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			flush()
			continue
		}
		y := float64(sparkTall - 1)
		if most > 0 {
			y = 1 + (1-max(v, 0)/most)*(sparkTall-2)
		}
		points = append(points, fmt.Sprintf("%.4g,%.3g", float64(i)*sparkWide/float64(max(1, len(values)-1)), y))
	}
	flush()
	if !math.IsNaN(last) {
		s.Last = format(last)
	}
	return s
}

// sparks fills in the small charts of the rows: the rate and the 99th percentile of the last hour. Rows
// without values, and a server without time series, have none.
func (v *visit) sparks(service string, rows []endpointRow, targets []target) error {
	if v.p.opts.Series == nil || len(rows) == 0 {
		return nil
	}
	now := v.p.now()
	within := span{From: now.Add(-sparkSpan), To: now, Step: sparkStep}.aligned()
	q := asked{service: v.p.ofService(service), targets: targets, span: within, by: []string{"endpoint", "version"}}
	place := map[string]int{}
	for i, row := range rows {
		place[row.URL] = i
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), sparkTimeout)
	defer cancel()
	for _, one := range []struct {
		expr   string
		about  string
		format func(float64) string
		into   func(*endpointRow) **spark
	}{
		{q.sum(q.rate("requests_total")), "requests per second in the last hour", formatRate, func(r *endpointRow) **spark { return &r.Rate }},
		{q.quantile(.99, "request_duration_seconds"), "99th percentile of the latency in the last hour", formatSeconds, func(r *endpointRow) **spark { return &r.P99 }},
	} {
		lines, err := readLines(ctx, v.p.opts.Series, within, one.expr, q.byTarget)
		if err != nil {
			return err
		}
		for _, l := range lines {
			drawn := sparkOf(one.about, l.Values, one.format)
			*one.into(&rows[place[l.Name]]) = &drawn
		}
	}
	return nil
}

// formatRate writes requests per second.
func formatRate(v float64) string {
	if v == 0 {
		return "0"
	}
	return threeDigits(v) + "/s"
}

// formatSeconds writes a short time.
func formatSeconds(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 1e-3:
		return threeDigits(v*1e6) + " µs"
	case v < 1:
		return threeDigits(v*1e3) + " ms"
	}
	return threeDigits(v) + " s"
}

// threeDigits writes a number without more digits than a glance takes in.
func threeDigits(v float64) string {
	if v >= 1000 {
		return formatCount(int64(math.Round(v)))
	}
	text := fmt.Sprintf("%.3g", v)
	if strings.Contains(text, "e") {
		return formatNumber(v)
	}
	return text
}

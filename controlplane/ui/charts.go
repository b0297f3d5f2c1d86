package ui

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"clearmlserving/clearml"
	"clearmlserving/drift"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// The kinds of charts, which the page's script draws.
const (
	kindLines  = "lines"
	kindStack  = "stack"
	kindShares = "shares" // a stack to 100 %
	kindHeat   = "heat"   // a row for each line: the bins of a distribution
)

// The units of charts. The script writes values with them.
const (
	unitRate    = "/s"
	unitSeconds = "s"
	unitBytes   = "bytes"
	unitTraffic = "bytes/s"
	unitCores   = "cores"
	unitShare   = "share"
	unitCount   = ""
)

// chart is a chart of time series.
type chart struct {
	ID, Title, Unit, Kind string
	// Hint says what the chart shows, where its title does not.
	Hint  string
	lines func(q asked) []query
	bins  []drift.Bin // of a heat map with a reference
}

// asked is what a chart is asked for.
type asked struct {
	service string // a matcher of the service, "" for all
	// targets are the endpoints; none: the series of all endpoints, and those of the machine.
	targets []target
	// within are further matchers.
	within []string
	span   span
	by     []string // labels that keep series apart beside those of the chart
}

// query is an expression that gives lines of a chart.
type query struct {
	expr string
	name func(model.Metric) string
	// over draws the lines above a stack.
	over bool
}

// of selects the series of a metric.
func (q asked) of(metric string, more ...string) string {
	return metricPrefix + metric + selector(q.service, q.targets, slices.Concat(more, q.within)...)
}

// rate is the rate of a counter.
func (q asked) rate(metric string, more ...string) string {
	return "rate(" + q.of(metric, more...) + "[" + q.span.window() + "])"
}

// over is a mean or another aggregate of a gauge over the window.
func (q asked) over(how, metric string) string {
	return how + "_over_time(" + q.of(metric) + "[" + q.span.window() + "])"
}

// sum adds up an expression by labels.
func (q asked) sum(expr string, by ...string) string {
	by = append(slices.Clone(q.by), by...)
	if len(by) == 0 {
		return "sum(" + expr + ")"
	}
	return "sum by (" + strings.Join(by, ", ") + ") (" + expr + ")"
}

// quantile is a quantile of a histogram, of a native one or a classic one.
func (q asked) quantile(of float64, metric string) string {
	text := strconv.FormatFloat(of, 'f', -1, 64)
	return fmt.Sprintf("histogram_quantile(%s, %s) or histogram_quantile(%s, %s)",
		text, q.sum(q.rate(metric)), text, q.sum(q.rate(metric+"_bucket"), "le"))
}

// mean is the mean of a histogram's values.
func (q asked) mean(metric string) string {
	return fmt.Sprintf("histogram_avg(%s) or %s / %s", q.sum(q.rate(metric)), q.sum(q.rate(metric+"_sum")), q.sum(q.rate(metric+"_count")))
}

const metricPrefix = "clearml_serving_"

// named gives every series the same name.
func named(name string) func(model.Metric) string {
	return func(model.Metric) string { return name }
}

// byLabel names a series by a label.
func byLabel(label model.LabelName) func(model.Metric) string {
	return func(m model.Metric) string { return strings.ReplaceAll(string(m[label]), "_", " ") }
}

// byTarget names a series by its target.
func (q asked) byTarget(m model.Metric) string {
	for _, t := range q.targets {
		if string(m["endpoint"]) == t.endpoint && string(m["version"]) == t.version {
			return t.url
		}
	}
	return ""
}

// errorsChart is the id of a chart of what is absent where all is well.
const errorsChart = "errors"

// endpointCharts are the charts of one endpoint.
func endpointCharts() []chart {
	return []chart{
		{ID: "rate", Title: "Requests", Unit: unitRate, Kind: kindStack, Hint: "by outcome", lines: func(q asked) []query {
			return []query{{expr: q.sum(q.rate("requests_total"), "outcome"), name: byLabel("outcome")}}
		}},
		{ID: errorsChart, Title: "Errors", Unit: unitRate, Kind: kindLines, Hint: "by kind", lines: func(q asked) []query {
			return []query{{expr: q.sum(q.rate("requests_total", `outcome!="answered"`), "outcome"), name: byLabel("outcome")}}
		}},
		{ID: "latency", Title: "Latency", Unit: unitSeconds, Kind: kindLines, lines: func(q asked) []query {
			return []query{
				{expr: q.quantile(.5, "request_duration_seconds"), name: named("p50")},
				{expr: q.quantile(.9, "request_duration_seconds"), name: named("p90")},
				{expr: q.quantile(.99, "request_duration_seconds"), name: named("p99")},
			}
		}},
		{ID: "split", Title: "Mean time of a request", Unit: unitSeconds, Kind: kindStack, Hint: "in the queue and at a worker", lines: func(q asked) []query {
			return []query{
				{expr: q.mean("request_queue_duration_seconds"), name: named("queue")},
				{expr: q.mean("request_worker_duration_seconds"), name: named("worker")},
			}
		}},
		{ID: "workers", Title: "Workers", Unit: unitCount, Kind: kindStack, Hint: "mean by state", lines: func(q asked) []query {
			return []query{
				{expr: q.sum(q.over("avg", "workers"), "state"), name: byLabel("state")},
				{expr: q.sum(q.of("workers_limit")), name: named(limitLine), over: true},
			}
		}},
		{ID: "queue", Title: "Requests in the model", Unit: unitCount, Kind: kindLines, lines: func(q asked) []query {
			return []query{
				{expr: q.sum(q.over("avg", "requests_in_progress")), name: named("in progress, mean")},
				{expr: q.sum(q.over("avg", "queued_requests")), name: named("queued, mean")},
				{expr: q.sum(q.over("max", "queued_requests")), name: named("queued, most")},
			}
		}},
		{ID: "memory", Title: "Memory", Unit: unitBytes, Kind: kindLines, Hint: "of the workers", lines: func(q asked) []query {
			return []query{{expr: q.sum(q.of("worker_memory_bytes")), name: named("memory")}}
		}},
		{ID: "cpu", Title: "CPU", Unit: unitCores, Kind: kindLines, Hint: "of the workers", lines: func(q asked) []query {
			return []query{{expr: q.sum(q.rate("worker_cpu_seconds_total")), name: named("cores")}}
		}},
	}
}

// batchChart is for endpoints that execute requests together.
func batchChart() chart {
	return chart{ID: "batch", Title: "Rows of a batch", Unit: unitCount, Kind: kindLines, lines: func(q asked) []query {
		return []query{
			{expr: q.mean("batch_rows"), name: named("mean")},
			{expr: q.quantile(.99, "batch_rows"), name: named("p99")},
			{expr: "max(" + q.of("batch_limit_rows") + ")", name: named(limitLine)},
		}
	}}
}

// batches reports whether an instance executes requests of an endpoint together.
func batches(at string, instances []instance) bool {
	return slices.ContainsFunc(instances, func(i instance) bool {
		return i.Alive() && slices.ContainsFunc(i.Report.Endpoints, func(e serving.EndpointReport) bool {
			return string(e.URL) == at && e.Model.Batching != nil
		})
	})
}

// comparedCharts are charts with a line for each target.
func comparedCharts() []chart {
	return []chart{
		{ID: "each-rate", Title: "Requests", Unit: unitRate, Kind: kindLines, lines: func(q asked) []query {
			return []query{{expr: q.each().sum(q.rate("requests_total")), name: q.byTarget}}
		}},
		{ID: "each-errors", Title: "Error rate", Unit: unitShare, Kind: kindLines, Hint: "requests without a good answer", lines: func(q asked) []query {
			return []query{{expr: q.each().sum(q.rate("requests_total", `outcome!="answered"`)) + " / " + q.each().sum(q.rate("requests_total")), name: q.byTarget}}
		}},
		quantileOfEach("each-p50", "Median latency", "request_duration_seconds", .5),
		quantileOfEach("each-p99", "p99 latency", "request_duration_seconds", .99),
	}
}

// canaryCharts are those of the requests to a canary, by the endpoint that answered them.
func canaryCharts() []chart {
	return []chart{
		{ID: "shares", Title: "Share of requests", Unit: unitShare, Kind: kindShares, lines: func(q asked) []query {
			return []query{{expr: q.each().sum(q.rate("canary_requests_total")), name: q.byTarget}}
		}},
		{ID: "each-rate", Title: "Requests", Unit: unitRate, Kind: kindLines, Hint: "through the canary", lines: func(q asked) []query {
			return []query{{expr: q.each().sum(q.rate("canary_requests_total")), name: q.byTarget}}
		}},
		{ID: "each-errors", Title: "Error rate", Unit: unitShare, Kind: kindLines, Hint: "requests without a good answer", lines: func(q asked) []query {
			return []query{{expr: q.each().sum(q.rate("canary_requests_total", `outcome!="answered"`)) + " / " + q.each().sum(q.rate("canary_requests_total")), name: q.byTarget}}
		}},
		quantileOfEach("each-p50", "Median latency", "canary_request_duration_seconds", .5),
		quantileOfEach("each-p90", "p90 latency", "canary_request_duration_seconds", .9),
		quantileOfEach("each-p99", "p99 latency", "canary_request_duration_seconds", .99),
	}
}

// quantileOfEach has a line with a quantile of the latency for each target.
func quantileOfEach(id, title, metric string, of float64) chart {
	return chart{ID: id, Title: title, Unit: unitSeconds, Kind: kindLines, lines: func(q asked) []query {
		return []query{{expr: q.each().quantile(of, metric), name: q.byTarget}}
	}}
}

// each keeps the targets apart.
func (q asked) each() asked {
	q.by = []string{"endpoint", "version"}
	return q
}

// machineGroups are the charts of an instance and of its machine.
func machineGroups(instance string) []chartGroup {
	within := []string{"instance=" + strconv.Quote(instance)}
	one := func(name, expr string) query { return query{expr: expr, name: named(name)} }
	share := func(q asked, free, all string) string {
		return "1 - max(" + q.of(free) + ") / max(" + q.of(all) + ")"
	}
	return []chartGroup{{"machine", "Machine", nil, within, []chart{
		{ID: "machine-cpu", Title: "CPU", Unit: unitShare, Kind: kindLines, Hint: "of all processors", lines: func(q asked) []query {
			return []query{
				one("used", "clamp_max(max("+q.rate("machine_cpu_seconds_total")+") / max("+q.of("machine_cpus")+"), 1)"),
				one("workers", q.sum(q.rate("worker_cpu_seconds_total"))+" / max("+q.of("machine_cpus")+")"),
			}
		}},
		{ID: "machine-memory", Title: "Memory", Unit: unitBytes, Kind: kindLines, lines: func(q asked) []query {
			return []query{
				one("used", "max("+q.of("machine_memory_bytes")+") - max("+q.of("machine_memory_available_bytes")+")"),
				one("workers", q.sum(q.of("worker_memory_bytes"))),
				{expr: "max(" + q.of("machine_memory_bytes") + ")", name: named(limitLine), over: true},
			}
		}},
		{ID: "machine-disk", Title: "Disk", Unit: unitShare, Kind: kindLines, Hint: "of the data folder", lines: func(q asked) []query {
			return []query{one("used", share(q, "machine_disk_free_bytes", "machine_disk_bytes"))}
		}},
		{ID: "machine-traffic", Title: "Network and disk", Unit: unitTraffic, Kind: kindLines, lines: func(q asked) []query {
			var all []query
			for name, metric := range map[string]string{"received": "network_received", "sent": "network_sent", "read": "disk_read", "written": "disk_written"} {
				all = append(all, one(name, "max("+q.rate("machine_"+metric+"_bytes_total")+")"))
			}
			return all
		}},
		{ID: "machine-rate", Title: "Requests", Unit: unitRate, Kind: kindLines, Hint: "of the instance, by outcome", lines: func(q asked) []query {
			return []query{{expr: q.sum(q.rate("requests_total"), "outcome") + " > 0", name: byLabel("outcome")}}
		}},
		{ID: "machine-p99", Title: "Latency", Unit: unitSeconds, Kind: kindLines, Hint: "of the instance", lines: func(q asked) []query {
			return []query{one("p50", q.quantile(.5, "request_duration_seconds")), one("p99", q.quantile(.99, "request_duration_seconds"))}
		}},
	}}}
}

// charted is the part of a page with charts.
type charted struct {
	// Source is the address of the values.
	Source string
	Span   span
	Groups []chartGroup
	// Missing says why there are no charts, "" if there are.
	Missing string
}

// chartGroup is some charts with a heading.
type chartGroup struct {
	ID, Title string
	Targets   []target
	Within    []string // matchers
	Charts    []chart
}

// Ranges are the ranges that a page offers.
func (charted) Ranges() []timeRange { return ranges() }

// noSeries is what pages say without time series.
const noSeries = "This server keeps no time series, so there are no charts."

func (v *visit) charted(source string, groups ...chartGroup) charted {
	c := charted{Source: source, Span: spanOf(v.r.URL.Query(), v.p.now()), Groups: groups}
	if v.p.opts.Series == nil {
		c.Missing = noSeries
	}
	return c
}

// shape is what the charts of a url are about.
type shape struct {
	target   target
	compared []target
	canary   bool
	charts   []chart
	// variables are the defined ones; collected are found in the time series.
	variables, collected []variable
	watched              []drift.VariableReport // have a reference
}

// mostCompared is how many versions are side by side: each has a colour of its own.
const mostCompared = seriesColours

// shapeOf finds the charts of a url: those of the endpoint, and those of the versions beside it or of the
// targets of a canary.
func shapeOf(s *operations.Service, at string, instances []instance) shape {
	sh := shape{target: targetOf(s.Config, at)}
	var beside []string
	rows := canaryRows(s.Config, instances)
	_, isRule := serving.LookUp(s.Config.Monitoring, at)
	if i := slices.IndexFunc(rows, func(r canaryRow) bool { return r.URL == at }); i >= 0 && !hasRecord(s.Config, at) {
		sh.canary = true
		for _, one := range rows[i].Shares {
			beside = append(beside, one.Endpoint)
		}
	} else {
		beside = siblings(s.Config, at)
	}
	for _, url := range beside[:min(len(beside), mostCompared)] {
		sh.compared = append(sh.compared, targetOf(s.Config, url))
	}
	if !sh.canary && !isRule {
		sh.variables = variablesOf(s.Config, at)
		sh.charts = endpointCharts()
		if batches(at, instances) {
			sh.charts = append(sh.charts, batchChart())
		}
		sh.charts = append(sh.charts, qualityCharts(s.Config, at)...)
	}
	return sh
}

// hasRecord reports whether the url is that of an endpoint, which may have the url of a canary.
func hasRecord(config serving.Service, at string) bool {
	_, static := serving.LookUp(config.Endpoints, at)
	_, made := serving.LookUp(config.MonitoringEndpoints, at)
	return static || made
}

// siblings are the versions of an endpoint's name, the newest first; nil without another one. The url of a
// monitoring rule is such a name.
func siblings(config serving.Service, at string) []string {
	name := cmp.Or(targetOf(config, at).endpoint, at)
	var urls []serving.EndpointURL
	for key := range config.Endpoints {
		if url := serving.CleanURL(key); targetOf(config, string(url)).endpoint == name {
			urls = append(urls, url)
		}
	}
	for key := range config.MonitoringEndpoints {
		if url := serving.CleanURL(key); targetOf(config, string(url)).endpoint == name {
			urls = append(urls, url)
		}
	}
	slices.Sort(urls)
	urls = slices.Compact(urls)
	slices.SortStableFunc(urls, newestFirst)
	if _, rule := serving.LookUp(config.Monitoring, at); len(urls) < 2 && !rule {
		return nil
	}
	all := make([]string, len(urls))
	for i, url := range urls {
		all[i] = string(url)
	}
	// The page's own endpoint is among those that are shown.
	if i := slices.Index(all, at); i >= mostCompared {
		all = append([]string{at}, slices.Delete(all, i, i+1)...)
	}
	return all
}

// groups are the headings of a page's charts.
func (sh shape) groups() []chartGroup {
	var groups []chartGroup
	if len(sh.charts) > 0 {
		groups = append(groups, chartGroup{"charts", "Traffic", []target{sh.target}, nil, sh.charts})
	}
	if len(sh.compared) > 0 {
		g := chartGroup{"versions", "Versions side by side", sh.compared, nil, comparedCharts()}
		if sh.canary {
			g.Within = []string{"canary=" + strconv.Quote(sh.target.url)}
			g.ID, g.Title, g.Charts = "targets", "Endpoints of the canary side by side", canaryCharts()
		}
		groups = append(groups, g)
	}
	if len(sh.watched) > 0 {
		groups = append(groups, chartGroup{"references", "Variables beside their reference", []target{sh.target}, nil, driftCharts(sh.watched)})
	}
	if of := slices.Concat(sh.variables, sh.collected); len(of) > 0 {
		g := chartGroup{"variables", "Variables", []target{sh.target}, nil, nil}
		for _, one := range of {
			g.Charts = append(g.Charts, one.chart())
		}
		if len(sh.variables) > 0 {
			g.Charts = append(g.Charts, skippedChart())
		}
		groups = append(groups, g)
	}
	return groups
}

// The bounds of an answer.
const (
	mostLines   = 12
	mostMarks   = 60
	longestMark = 200
	// chartsTimeout bounds reading all charts of an answer, chartsAtOnce how many are read together.
	chartsTimeout = 20 * time.Second
	chartsAtOnce  = 4
)

// chartData is a chart as the script gets it.
type chartData struct {
	ID    string      `json:"id"`
	Unit  string      `json:"unit"`
	Kind  string      `json:"kind"`
	Lines []chartLine `json:"lines"`
	// Note says what is missing.
	Note string `json:"note,omitempty"`
}

type chartLine struct {
	Name   string  `json:"name"`
	Series int     `json:"series"`
	Over   bool    `json:"over,omitempty"`
	Values numbers `json:"values"`
	// Reference is the share of the bin in the reference distribution, for a heat map.
	Reference *float64 `json:"reference,omitempty"`
}

// numbers are written with five digits; what is no number is null.
type numbers []float64

// zero reports whether no value differs from 0.
func (n numbers) zero() bool {
	return !slices.ContainsFunc(n, func(v float64) bool { return v != 0 && !math.IsNaN(v) })
}

// MarshalJSON implements json.Marshaler.
func (n numbers) MarshalJSON() ([]byte, error) {
	out := []byte{'['}
	for i, v := range n {
		if i > 0 {
			out = append(out, ',')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			out = append(out, "null"...)
		} else {
			out = strconv.AppendFloat(out, v, 'g', 5, 64)
		}
	}
	return append(out, ']'), nil
}

// chartsData is the answer to the script of a page with charts.
type chartsData struct {
	From   int64       `json:"from"`
	To     int64       `json:"to"`
	Step   int64       `json:"step"`
	Charts []chartData `json:"charts"`
	Marks  []mark      `json:"marks"`
}

// chartsJSON sends the values of charts of a url: ?endpoint= and ?show= for each chart.
func (p *Pages) chartsJSON(v *visit, s *operations.Service) error {
	if p.opts.Series == nil {
		return refusal{http.StatusNotFound, noSeries}
	}
	instances, err := v.instances(s.Doc.ID)
	if err != nil {
		return err
	}
	q := v.r.URL.Query()
	at := string(serving.CleanURL(q.Get("endpoint")))
	var sh shape
	groups := machineGroups(q.Get("instance"))
	if at != "" {
		sh = shapeOf(s, at, instances)
		for _, id := range q["show"] {
			if one, ok := variableOf(id, sh.variables); ok && len(sh.collected) < mostVariables && !slices.Contains(sh.variables, one) {
				sh.collected = append(sh.collected, one)
			}
		}
		if slices.ContainsFunc(q["show"], func(id string) bool { return strings.HasPrefix(id, "drift") }) {
			sh.watched = v.watched(s, sh.target)
		}
		groups = sh.groups()
	}
	span := spanOf(q, p.now())
	answer := chartsData{From: span.From.Unix(), To: span.To.Unix(), Step: int64(span.Step / time.Second)}
	known := map[string]func(context.Context) chartData{}
	for _, g := range groups {
		of := asked{service: p.ofService(s.Doc.ID), targets: g.Targets, within: g.Within, span: span}
		for _, c := range g.Charts {
			known[c.ID] = func(ctx context.Context) chartData { return readChart(ctx, p.opts.Series, c, of) }
		}
	}
	var read []func(context.Context) chartData
	for _, id := range q["show"] {
		if one := known[id]; one != nil {
			read = append(read, one)
			delete(known, id)
		}
	}
	answer.Charts = make([]chartData, len(read))
	ctx, cancel := context.WithTimeout(v.r.Context(), chartsTimeout)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(chartsAtOnce)
	for i, one := range read {
		group.Go(func() error {
			answer.Charts[i] = one(ctx)
			return nil
		})
	}
	_ = group.Wait() // a chart that fails says so
	if q.Get("marks") != "" && at != "" {
		if answer.Marks, err = v.marks(s, at, sh, span); err != nil {
			return err
		}
	}
	return v.sendJSON(answer)
}

// sendJSON answers with JSON.
func (v *visit) sendJSON(answer any) error {
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	_, _ = v.w.Write(text) // an error means that the browser is gone
	return nil
}

// readChart reads the lines of a chart. What cannot be read is said in its note.
func readChart(ctx context.Context, series Series, c chart, q asked) chartData {
	data := chartData{ID: c.ID, Unit: c.Unit, Kind: c.Kind, Lines: []chartLine{}}
	more, most := 0, mostLines
	if c.Kind == kindHeat {
		most = mostBins
	}
	for _, one := range c.lines(q) {
		lines, err := readLines(ctx, series, q.span, one.expr, one.name)
		if err != nil {
			data.Note = "It cannot be read: " + err.Error()
			return data
		}
		if c.bins != nil {
			data.Lines = beside(c.bins, lines)
			return data
		}
		if c.Kind == kindHeat {
			lines = binned(lines)
		}
		for _, l := range lines {
			switch {
			case c.Kind != kindHeat && !l.known():
			case len(data.Lines) == most:
				more++
			default:
				data.Lines = append(data.Lines, chartLine{Name: l.Name, Series: colourOf(l.Name, q.targets, len(data.Lines)), Over: one.over, Values: l.Values})
			}
		}
	}
	if c.Kind == kindHeat {
		return data
	}
	slices.SortStableFunc(data.Lines, func(a, b chartLine) int { return place(a.Name, q.targets) - place(b.Name, q.targets) })
	if c.Kind == kindStack || c.ID == errorsChart {
		data.Lines = withoutZero(data.Lines)
	}
	if c.ID == errorsChart && len(data.Lines) == 1 && data.Lines[0].Values.zero() {
		data.Lines, data.Note = []chartLine{}, "None in this time."
	}
	if more > 0 {
		data.Note = fmt.Sprintf("%d more lines are not shown.", more)
	}
	return data
}

// withoutZero leaves out the lines that are 0 all the time, but the first if there is no other.
func withoutZero(lines []chartLine) []chartLine {
	var kept []chartLine
	for _, l := range lines {
		if !l.Values.zero() {
			kept = append(kept, l)
		}
	}
	if len(kept) == 0 {
		return lines[:min(len(lines), 1)]
	}
	return kept
}

// known lines have an order and a colour of their own.
var knownLines = []struct { //nolint:gochecknoglobals // a constant table
	name   string
	series int
}{
	{"answered", 0},
	{"error", 3},
	{"timed out", 1},
	{"refused", 5},
	{"client error", 4},
	{"bad request", 7},
	{"p50", 0},
	{"p90", 1},
	{"p99", 3},
	{"queue", 1},
	{"worker", 0},
	{"busy", 0},
	{"calling", 4},
	{"idle", 2},
	{"leaving", 7},
	{"in progress, mean", 0},
	{"queued, mean", 1},
	{"queued, most", 3},
	{"mean", 0},
	{"used", 0},
	{"workers", 1},
	{"received", 0},
	{"sent", 1},
	{"read", 2},
	{"written", 3},
}

func place(name string, targets []target) int {
	if i := slices.IndexFunc(targets, func(t target) bool { return t.url == name }); i >= 0 {
		return i
	}
	for i, known := range knownLines {
		if known.name == name {
			return i
		}
	}
	if name == limitLine {
		return len(knownLines) + 1
	}
	return len(knownLines)
}

// limitLine is a line that the others are compared with. It comes last.
const limitLine = "limit"

func colourOf(name string, targets []target, i int) int {
	if at := slices.IndexFunc(targets, func(t target) bool { return t.url == name }); at >= 0 {
		return at % seriesColours
	}
	for _, known := range knownLines {
		if known.name == name {
			return known.series
		}
	}
	if name == limitLine {
		return seriesColours - 1
	}
	return i % seriesColours
}

// mark is an event of the history on the charts.
type mark struct {
	At   int64  `json:"at"`
	Text string `json:"text"`
	Link string `json:"link"`
	Kind string `json:"kind"` // good, bad, or plain
}

// marks are the events of a url within a range, the oldest first: revisions of it and of what is beside it,
// and changes of canaries, options and logged metrics.
func (v *visit) marks(s *operations.Service, at string, sh shape, within span) ([]mark, error) {
	marks := []mark{}
	add := func(t time.Time, kind, text, link string) {
		if t.Before(within.From) || t.After(within.To.Add(within.Step)) { // a range that ends now has been cut to a step
			return
		}
		marks = append(marks, mark{t.Unix(), serving.Shorten(text, longestMark), link, kind})
	}
	urls := []string{at}
	for _, t := range sh.compared {
		if t.url != at {
			urls = append(urls, t.url)
		}
	}
	for _, url := range urls {
		h, err := s.History(url)
		if err != nil {
			continue // it has none
		}
		prefix := ""
		if url != at || len(urls) > 1 {
			prefix = url + ": "
		}
		for _, r := range h.Revisions {
			text, kind := fmt.Sprintf("%srevision %d", prefix, r.Number), "good"
			if r.Of > 0 {
				text += fmt.Sprintf(" brings %d back", r.Of)
			}
			if r.By != "" {
				text += " by " + r.By
			}
			if r.Message != "" {
				text += ": " + r.Message
			}
			link := revisionLink(s.Doc.ID, url, r.Number)
			if r.State == serving.RevisionRefused {
				kind, text = "bad", text+" – refused: "+r.Reason
			}
			add(r.Time, kind, text, link)
		}
		if !h.Removed.IsZero() {
			add(h.Removed, "bad", prefix+"removed", endpointLink(s.Doc.ID, url))
		}
	}
	rollout, _ := serving.LookUp(s.Config.Rollouts, at)
	for _, e := range rollout.Events {
		kind, text := "plain", fmt.Sprintf("%s, share %s by %s", e.What, percent(e.Share), e.By)
		switch {
		case e.What == string(serving.RolloutRolledBack):
			kind = "bad"
		case e.What == string(serving.RolloutPromoted):
			kind = "good"
		}
		if e.Note != "" {
			text += ": " + e.Note
		}
		add(e.Time, kind, text, endpointLink(s.Doc.ID, at)+"#rollout")
	}
	edits, err := v.edits(s.Doc.ID)
	if err != nil && !errors.Is(err, clearml.ErrUnsupported) { // a server without a history has no edits
		return nil, err
	}
	for _, e := range edits {
		for _, text := range e.about(urls) {
			add(e.Created.Time, "plain", text+" by "+cmp.Or(e.User.Name, "another program"), withQuery("/services/"+s.Doc.ID+"/history", "edit", e.ID))
		}
	}
	if err := v.driftMarks(s, urls, add); err != nil {
		return nil, err
	}
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.At, b.At) })
	return marks[max(0, len(marks)-mostMarks):], nil
}

// about says what the edit did to some urls beside their revisions.
func (e configurationEdit) about(urls []string) []string {
	var said []string
	for _, step := range e.Sections {
		switch serving.Section(step.Section) {
		case serving.SectionCanary, serving.SectionOptions, serving.SectionMetrics:
		default:
			continue
		}
		for _, r := range step.records() {
			if slices.ContainsFunc(urls, func(url string) bool { return r.concerns(serving.Section(step.Section), url) }) {
				said = append(said, sectionNoun(step.Section)+" "+r.key+" "+r.what)
			}
		}
	}
	return said
}

// concerns reports whether the record is that of a url, or of a canary that leads to it.
func (r recordChange) concerns(section serving.Section, url string) bool {
	if prefix, all := strings.CutSuffix(r.key, "*"); string(serving.CleanURL(r.key)) == url || (all && strings.HasPrefix(url, prefix)) {
		return true
	}
	if section != serving.SectionCanary {
		return false
	}
	for _, text := range []json.RawMessage{r.before, r.after} {
		var canary struct {
			Targets []string `json:"load_endpoints"`
			Prefix  string   `json:"load_endpoint_prefix"`
		}
		if json.Unmarshal(text, &canary) != nil { // it was added or removed, or cannot be read
			continue
		}
		before, _ := cutLast(url)
		if slices.ContainsFunc(canary.Targets, func(t string) bool { return string(serving.CleanURL(t)) == url }) || (canary.Prefix != "" && string(serving.CleanURL(canary.Prefix)) == before) {
			return true
		}
	}
	return false
}

package statistics

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"

	"clearmlserving/serving"
)

// originalBuckets are the buckets of the original's _latency.
var originalBuckets = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5} //nolint:gochecknoglobals // a constant table

// originalEndpoint is what the original exposes of an endpoint.
type originalEndpoint struct {
	url       serving.EndpointURL
	created   time.Time
	latencies []uint64 // by the cells of seconds
	requests  float64
	variables map[string]*variable // with a definition
}

// OriginalMetric is one metric under the original's name.
type OriginalMetric struct {
	name, help, kind string
	series           []originalSeries
}

// originalSeries is one value; the name of its series is that of the metric with the suffix.
type originalSeries struct {
	suffix       string
	label, value string // "": no label
	number       float64
}

// originalMetrics are the metrics of the original's statistics container. Their names are made of
// url and variable. If two would have the same name, the one that was there first has it, and the
// others get a suffix.
//
// Differences from the original: the buckets of histograms are cumulative, so that Prometheus'
// functions and heat maps read them rightly; there is a _count without a label; an enum has the value
// "other". As in the original, _sum is the number of values, repeated for each bucket, because
// dashboards divide buckets by it.
func originalMetrics(endpoints []originalEndpoint) []OriginalMetric {
	slices.SortFunc(endpoints, func(a, b originalEndpoint) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.url, b.url))
	})
	var all []OriginalMetric
	taken := map[string]bool{}
	add := func(url serving.EndpointURL, variable string, m OriginalMetric) {
		m.name = originalName(string(url) + ":" + variable)
		free := func() bool {
			return !slices.ContainsFunc(m.series, func(s originalSeries) bool { return taken[m.name+s.suffix] })
		}
		if !free() {
			h := fnv.New32a()
			_, _ = h.Write([]byte(string(url) + "\x00" + variable)) // never fails
			m.name += fmt.Sprintf("_%08x", h.Sum32())
			if !free() {
				return
			}
		}
		for _, s := range m.series {
			taken[m.name+s.suffix] = true
		}
		all = append(all, m)
	}
	for _, e := range endpoints {
		add(e.url, "_latency", OriginalMetric{help: "Built in _latency", kind: isHistogram, series: originalBucketsOf(originalBuckets, seconds.cumulated(e.latencies, originalBuckets))})
		created := float64(e.created.UnixMilli()) / 1e3
		add(e.url, "_count", OriginalMetric{help: "Built in _count", kind: isCounter, series: []originalSeries{{suffix: "_total", number: e.requests}, {suffix: "_created", number: created}}})
		for _, name := range slices.Sorted(maps.Keys(e.variables)) {
			v := e.variables[name]
			m := OriginalMetric{help: "User defined metric " + v.Kind, kind: v.Kind}
			switch v.Kind {
			case serving.MetricScalar:
				m.kind, m.series = isHistogram, originalBucketsOf(v.Bounds, v.cumulated())
			case serving.MetricEnum:
				m.kind, m.series = isHistogram, originalWords(v.Words)
			case serving.MetricCounter:
				m.series = []originalSeries{{suffix: "_total", number: v.Sum}, {suffix: "_created", number: created}}
			default: // of a later version as well
				if v.Count == 0 {
					continue
				}
				m.kind, m.series = isGauge, []originalSeries{{number: v.Last}}
			}
			add(e.url, name, m)
		}
	}
	return all
}

// originalBucketsOf are the series of a histogram. The last count is that of all values.
func originalBucketsOf(bounds []float64, upTo []uint64) []originalSeries {
	total := float64(upTo[len(bounds)])
	series := make([]originalSeries, 0, 2*len(upTo)+1)
	for i, n := range upTo {
		le := "+Inf"
		if i < len(bounds) {
			le = pythonFloat(bounds[i])
		}
		series = append(series, originalSeries{"_bucket", "le", le, float64(n)}, originalSeries{"_sum", "le", le, total})
	}
	return append(series, originalSeries{suffix: "_count", number: total})
}

func originalWords(words map[string]uint64) []originalSeries {
	total := uint64(0)
	for _, n := range words {
		total += n
	}
	var series []originalSeries
	for _, word := range slices.Sorted(maps.Keys(words)) {
		series = append(series, originalSeries{"_bucket", "enum", word, float64(words[word])}, originalSeries{"_sum", "enum", word, float64(total)})
	}
	return append(series, originalSeries{suffix: "_count", number: float64(total)})
}

// cumulated are the counts up to each of these bounds, and of all values. Each bound must be that of
// a cell.
func (s *scale) cumulated(counts []uint64, bounds []float64) []uint64 {
	upTo := make([]uint64, 0, len(bounds)+1)
	sum, cell := uint64(0), 0
	for _, bound := range bounds {
		for last := s.cell(int64(bound/s.unit + 0.5)); cell <= last; cell++ {
			sum += counts[cell]
		}
		upTo = append(upTo, sum)
	}
	for ; cell < len(counts); cell++ {
		sum += counts[cell]
	}
	return append(upTo, sum)
}

// cumulated are the counts of a scalar up to each bound, and of all values.
func (v *variable) cumulated() []uint64 {
	upTo, sum := make([]uint64, len(v.Counts)), uint64(0)
	for i, n := range v.Counts {
		sum += n
		upTo[i] = sum
	}
	return upTo
}

// originalName is the original's name of a metric: characters that Prometheus refuses are
// replaced. Those that the original forgets, parentheses and a digit in front, too.
func originalName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == ':' {
			return r
		}
		return '_'
	}, name)
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}

// pythonFloat writes a float as prometheus_client for Python does.
func pythonFloat(f float64) string {
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if f == float64(int64(f)) && !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return text
}

// originals are the metrics under the original's names of a whole instance.
func (m *Metrics) originals(status serving.Status) []OriginalMetric {
	var endpoints []originalEndpoint
	m.samples.mu.Lock()
	defer m.samples.mu.Unlock()
	for url, t := range m.tables.Load().meters {
		if !t.planned || t.canary {
			continue
		}
		cells := m.sum(t)
		counts, _ := places.duration.of(cells)
		e := originalEndpoint{url: url, created: status.Started, latencies: counts, requests: float64(cells[serving.Answered]), variables: map[string]*variable{}}
		for name := range t.variables.Definitions {
			copied := *t.variables.All[name]
			copied.Counts, copied.Words = slices.Clone(copied.Counts), maps.Clone(copied.Words)
			e.variables[name] = &copied
		}
		endpoints = append(endpoints, e)
	}
	return originalMetrics(endpoints)
}

// Originals are the metrics of Aggregates under the original's names.
func (c AggregateCollector) Originals() []OriginalMetric {
	var endpoints []originalEndpoint
	for url, a := range c.All() {
		e := originalEndpoint{url: url, created: a.created, latencies: a.latencies, requests: a.requests, variables: map[string]*variable{}}
		for name, v := range a.variables {
			if v.defined && (!v.isLast() || c.Current(v.source)) {
				e.variables[name] = &v.variable
			}
		}
		endpoints = append(endpoints, e)
	}
	return originalMetrics(endpoints)
}

// withOriginals adds metrics to the page of a handler of promhttp, which must not compress. They are
// no metrics of the registry, because their histograms are not those of Prometheus.
func withOriginals(page http.Handler, metrics func() []OriginalMetric) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &originalPage{ResponseWriter: w, out: bufio.NewWriter(w), status: http.StatusOK}
		if acceptsGzip(r.Header) {
			w.Header().Set("Content-Encoding", "gzip")
			compressed := gzip.NewWriter(w)
			p.out = bufio.NewWriter(compressed)
			defer compressed.Close() //nolint:errcheck // the scraper has disconnected
		}
		defer p.out.Flush() //nolint:errcheck // the scraper has disconnected
		page.ServeHTTP(p, r)
		kind := w.Header().Get("Content-Type")
		open := strings.HasPrefix(kind, "application/openmetrics-text")
		if !open {
			_, _ = p.out.Write(p.last) // Flush returns the error
		}
		if p.status != http.StatusOK {
			return
		}
		for _, m := range metrics() {
			if open || strings.HasPrefix(kind, "text/") {
				m.writeText(p.out, open)
			} else if err := m.writeProtobuf(p.out); err != nil {
				return // the scraper has disconnected
			}
		}
		if open {
			_, _ = p.out.Write(p.last) // Flush returns the error
		}
	})
}

func acceptsGzip(header http.Header) bool {
	for part := range strings.SplitSeq(header.Get("Accept-Encoding"), ",") {
		if part, _, _ = strings.Cut(strings.TrimSpace(part), ";"); part == "gzip" {
			return true
		}
	}
	return false
}

// endOfPage ends a page in the format OpenMetrics.
const endOfPage = "# EOF\n"

// originalPage is the response of a scrape. It keeps back its end.
type originalPage struct {
	http.ResponseWriter

	out    *bufio.Writer
	last   []byte
	status int
}

// WriteHeader implements http.ResponseWriter.
func (p *originalPage) WriteHeader(status int) {
	p.status = status
	p.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (p *originalPage) Write(b []byte) (int, error) {
	p.last = append(p.last, b...)
	if n := len(p.last) - len(endOfPage); n > 0 {
		if _, err := p.out.Write(p.last[:n]); err != nil {
			return 0, err
		}
		p.last = append(p.last[:0], p.last[n:]...)
	}
	return len(b), nil
}

//nolint:gochecknoglobals // constant tables
var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `'`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// writeText writes the metric as prometheus_client for Python does. In the older format, the _created of a
// counter is a gauge of its own; open: in OpenMetrics it belongs to the counter. Flush returns the error.
func (m OriginalMetric) writeText(out *bufio.Writer, open bool) {
	head := func(name, kind string) {
		_, _ = fmt.Fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, escapeHelp.Replace(m.help), name, kind)
	}
	apart := m.kind == isCounter && !open
	if !apart {
		head(m.name, m.kind)
	}
	for _, s := range m.series {
		if apart {
			head(m.name+s.suffix, s.kind(m.kind))
		}
		_, _ = out.WriteString(m.name + s.suffix)
		if s.label != "" {
			_, _ = fmt.Fprintf(out, `{%s="%s"}`, s.label, escapeLabel.Replace(strings.ToValidUTF8(s.value, "\uFFFD")))
		}
		_, _ = fmt.Fprintf(out, " %s\n", pythonFloat(s.number))
	}
}

// kind is the kind of a series alone.
func (s originalSeries) kind(of string) string {
	if of == isGauge || s.suffix == "_created" {
		return isGauge
	}
	return isCounter
}

// writeProtobuf writes each series as a metric of its own: protobuf has no other form for them.
func (m OriginalMetric) writeProtobuf(out io.Writer) error {
	families := map[string]*dto.MetricFamily{}
	for _, s := range m.series {
		f := families[s.suffix]
		if f == nil {
			name, kind := m.name+s.suffix, dto.MetricType_COUNTER
			if s.kind(m.kind) == isGauge {
				kind = dto.MetricType_GAUGE
			}
			f = &dto.MetricFamily{Name: &name, Help: &m.help, Type: &kind}
			families[s.suffix] = f
		}
		one := &dto.Metric{}
		if s.label != "" {
			value := strings.ToValidUTF8(s.value, "\uFFFD")
			one.Label = []*dto.LabelPair{{Name: &s.label, Value: &value}}
		}
		if f.GetType() == dto.MetricType_GAUGE {
			one.Gauge = &dto.Gauge{Value: &s.number}
		} else {
			one.Counter = &dto.Counter{Value: &s.number}
		}
		f.Metric = append(f.Metric, one)
	}
	for _, suffix := range slices.Sorted(maps.Keys(families)) {
		if _, err := protodelim.MarshalTo(out, families[suffix]); err != nil {
			return err
		}
	}
	return nil
}

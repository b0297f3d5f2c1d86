package statistics

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"clearmlserving/serving"
)

// collector creates the metrics of one scrape.
type collector struct {
	m      *Metrics
	status func() serving.Status
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, s := range sections() {
		for _, f := range s.families {
			out <- f.desc
		}
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	c.m.samples.read()
	s := scrape{out: out, meters: *c.m.meters.Load()}
	status := c.status()
	s.instance(status)
	s.requests(status)
	for _, e := range status.Endpoints {
		s.endpoint(e)
	}
	s.copies(status)
	for url, t := range s.meters {
		s.times(url, t)
	}
	c.m.samples.mu.Lock()
	defer c.m.samples.mu.Unlock()
	for url, t := range s.meters {
		s.variables(url, t.variables)
		s.watched(url, &t.variables.watched)
	}
	s.add(samplesDropped, float64(c.m.samples.dropped.Load()))
	s.add(samplesBroken, float64(c.m.samples.broken))
}

type scrape struct {
	out    chan<- prometheus.Metric
	meters map[serving.EndpointURL]*meter
}

// add exposes a value of a family.
func (s scrape) add(f *family, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if f.kind == isCounter {
		kind = prometheus.CounterValue
	}
	for i, label := range labels {
		labels[i] = strings.ToValidUTF8(label, "\uFFFD")
	}
	s.out <- prometheus.MustNewConstMetric(f.desc, kind, value, labels...)
}

// of exposes a value of an endpoint's family.
func (s scrape) of(f *family, url serving.EndpointURL, value float64, labels ...string) {
	endpoint, version := s.labels(url)
	s.add(f, value, append([]string{endpoint, version}, labels...)...)
}

func (s scrape) labels(url serving.EndpointURL) (endpoint, version string) {
	if t, ok := s.meters[url]; ok {
		return t.endpoint, t.version
	}
	return split(url)
}

func (s scrape) instance(status serving.Status) {
	s.add(instanceStart, float64(status.Started.UnixNano())/1e9)
	s.add(synced, oneIf(status.Synced && status.SourceError == ""))
	s.add(problems, float64(len(status.Problems)))
	s.add(keysRefused, float64(status.Access.Refused))
	if w := status.Workers; w != nil {
		s.add(memoryBudget, float64(w.Budget))
		s.add(memoryTaken, float64(w.Taken))
		s.add(memoryShort, oneIf(w.Short || w.Exceeded))
		s.add(endedEarly, float64(w.EndedEarly))
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// requests exposes the counts of endpoints and canaries. A canary may have the url of an endpoint.
func (s scrape) requests(status serving.Status) {
	counts := map[serving.EndpointURL]serving.Counts{}
	for _, e := range status.Endpoints {
		counts[e.URL] = e.Counts
	}
	for _, c := range status.Canaries {
		both := counts[c.URL]
		both.Add(c.Counts)
		counts[c.URL] = both
	}
	for url, c := range counts {
		failed := c.Errors + c.TimedOut + c.Refused + c.ClientErrors + c.BadRequests
		s.of(requestsTotal, url, float64(c.Requests-min(failed, c.Requests)), "answered")
		s.of(requestsTotal, url, float64(c.Errors), "error")
		s.of(requestsTotal, url, float64(c.TimedOut), "timed_out")
		s.of(requestsTotal, url, float64(c.Refused), "refused")
		s.of(requestsTotal, url, float64(c.ClientErrors), "client_error")
		s.of(requestsTotal, url, float64(c.BadRequests), "bad_request")
	}
}

func (s scrape) endpoint(e serving.EndpointReport) {
	s.of(requestsInProgress, e.URL, float64(e.InUse))
	s.of(endpointReady, e.URL, oneIf(e.State == serving.StateReady))
	s.of(endpointInfo, e.URL, 1, e.Engine, string(e.ModelID), strconv.Itoa(e.Revision))
	s.of(queuedRequest, e.URL, float64(e.Model.Queued))
	s.of(queueLimit, e.URL, float64(e.Model.MaxQueue))
	s.of(workersLimit, e.URL, float64(e.Model.MaxWorkers))
	s.of(restarts, e.URL, float64(e.Model.Restarts))
	states := map[string]int{"idle": 0, "busy": 0, "calling": 0, "leaving": 0}
	for _, w := range e.Model.Workers {
		states[w.State]++
	}
	for state, n := range states {
		s.of(workers, e.URL, float64(n), state)
	}
	if b := e.Model.Batching; b != nil {
		s.of(batchMax, e.URL, float64(b.Limit))
		s.batches(e.URL, b)
	}
}

// batches exposes the sizes of batches, which are counted by powers of two.
func (s scrape) batches(url serving.EndpointURL, b *serving.BatchingReport) {
	sum := float64(b.Rows)
	h := &dto.Histogram{SampleCount: &b.Batches, SampleSum: &sum}
	upTo := uint64(0)
	for i, n := range b.Sizes[:len(b.Sizes)-1] {
		upTo += n
		bound, cumulated := float64(int(1)<<i), upTo
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: &cumulated})
	}
	s.histogram(batchRows, url, h)
}

// histogram exposes a histogram of an endpoint's family.
func (s scrape) histogram(f *family, url serving.EndpointURL, h *dto.Histogram, labels ...string) {
	endpoint, version := s.labels(url)
	for i, label := range labels {
		labels[i] = strings.ToValidUTF8(label, "\uFFFD")
	}
	s.out <- &histogramMetric{f.desc, prometheus.MakeLabelPairs(f.desc, append([]string{endpoint, version}, labels...)), h}
}

func (s scrape) copies(status serving.Status) {
	for _, r := range status.Recordings {
		s.of(recordedRequests, r.URL, float64(r.Recorded), "recorded")
		s.of(recordedRequests, r.URL, float64(r.Dropped), "dropped")
		s.of(recordedRequests, r.URL, float64(r.Skipped), "skipped")
	}
	for _, r := range status.Shadows {
		to := string(r.To)
		s.of(shadowRequests, r.From, float64(r.Equal), to, "equal")
		s.of(shadowRequests, r.From, float64(r.Different), to, "different")
		s.of(shadowRequests, r.From, float64(r.Errors), to, "error")
		s.of(shadowRequests, r.From, float64(r.Dropped), to, "dropped")
		judged := r.Equal + r.Different + r.Errors
		s.of(shadowRequests, r.From, float64(r.Shadowed-min(judged, r.Shadowed)), to, "not_compared")
	}
}

// times exposes the histograms of an endpoint.
func (s scrape) times(url serving.EndpointURL, t *meter) {
	s.histogram(requestDuration, url, t.duration.encode())
	s.histogram(queueDuration, url, t.queued.encode())
	s.histogram(workerDuration, url, t.worked.encode())
	s.histogram(streamDuration, url, t.streamed.encode())
	s.histogram(requestSize, url, t.requestBytes.encode())
	s.histogram(responseSize, url, t.answerBytes.encode())
}

// variables exposes the variables of an endpoint. samples.mu is held.
func (s scrape) variables(url serving.EndpointURL, v *variables) {
	s.of(variableSamples, url, float64(v.samples))
	for _, name := range slices.Sorted(maps.Keys(v.all)) {
		one := v.all[name]
		for reason, n := range one.skipped {
			if n > 0 {
				s.of(variablesSkipped, url, float64(n), name, skipReason(reason).String())
			}
		}
		switch one.kind {
		case serving.MetricCounter:
			s.of(variableSum, url, one.sum, name)
		case serving.MetricScalar:
			s.histogram(variableScalar, url, one.encode(), name)
		case serving.MetricEnum:
			for word, n := range one.words {
				s.of(variableWords, url, float64(n), name, word)
			}
		default:
			if one.count > 0 {
				s.of(variableValue, url, one.last, name)
			}
		}
	}
	if v.excess > 0 {
		s.of(variablesSkipped, url, float64(v.excess), "", skippedLimit.String())
	}
}

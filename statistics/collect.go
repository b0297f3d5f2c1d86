package statistics

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	c.m.samples.mu.Lock()
	c.m.read()
	c.m.samples.mu.Unlock()
	tables := c.m.tables.Load()
	s := scrape{m: c.m, out: out, meters: tables.meters}
	status := c.status()
	s.instance(status)
	for _, e := range status.Endpoints {
		s.endpoint(e)
	}
	s.addresses(status.Endpoints)
	s.copies(status)
	for _, c := range status.Canaries {
		if c.Rollout != nil {
			s.rollout(c.URL, *c.Rollout)
		}
	}
	s.machine()
	for _, t := range tables.meters {
		if t.planned {
			s.requests(t)
		}
	}
	for r, t := range tables.canaries {
		if t.planned {
			s.canary(r, t)
		}
	}
	s.add(countersKept, oneIf(c.m.kept()))
	if f := c.m.forwarder; f != nil {
		s.forwarding(f.Forwarding())
	}
	c.m.samples.mu.Lock()
	defer c.m.samples.mu.Unlock()
	for url, t := range s.meters {
		if t.planned && !t.canary {
			s.variables(url, t.variables)
			s.watched(url, &t.variables.Watched)
		}
	}
	s.add(samplesDropped, float64(c.m.samples.dropped.Load()))
	s.add(samplesBroken, float64(c.m.samples.broken))
}

type scrape struct {
	m      *Metrics
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

// outcomes are the values of the label, in the order of serving.Outcome.
//
//nolint:gochecknoglobals // a constant table
var outcomes = [serving.Outcomes]string{"answered", "error", "timed_out", "refused", "client_error", "bad_request"}

// requests exposes what was recorded of an endpoint's requests.
func (s scrape) requests(t *meter) {
	cells := s.m.sum(t)
	for i, outcome := range outcomes {
		s.add(requestsTotal, float64(cells[i]), t.endpoint, t.version, outcome)
	}
	if t.canary {
		return
	}
	for _, h := range []struct {
		f     *family
		place histogram
	}{
		{requestDuration, places.duration},
		{queueDuration, places.queued},
		{workerDuration, places.worked},
		{streamDuration, places.streamed},
		{requestSize, places.requestBytes},
		{responseSize, places.answerBytes},
	} {
		encoded := h.place.encode(cells)
		if h.f == requestDuration {
			t.exemplars.add(encoded)
		}
		s.histogram(h.f, encoded, t.endpoint, t.version)
	}
}

// add adds the exemplars to a histogram.
func (e *exemplars) add(h *dto.Histogram) {
	for i := range e {
		one := e[i].Load()
		if one == nil {
			continue
		}
		name := "trace_id"
		shown := &dto.Exemplar{Label: []*dto.LabelPair{{Name: &name, Value: &one.trace}}, Value: &one.value, Timestamp: timestamppb.New(one.at)}
		h.Exemplars = append(h.Exemplars, shown) // of the native histogram
		if i == len(h.Bucket) {
			count, infinite := h.GetSampleCount(), math.Inf(1)
			h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: &count, UpperBound: &infinite})
		}
		h.Bucket[i].Exemplar = shown
	}
}

// canary exposes what was recorded of an endpoint's requests through a canary.
func (s scrape) canary(r route, t *meter) {
	cells := s.m.sum(t)
	for i, outcome := range outcomes {
		s.add(canaryRequests, float64(cells[i]), t.endpoint, t.version, string(r.canary), outcome)
	}
	s.histogram(canaryDuration, places.duration.encode(cells), t.endpoint, t.version, string(r.canary))
}

func (s scrape) endpoint(e serving.EndpointReport) {
	s.of(requestsInProgress, e.URL, float64(e.InUse))
	if e.State != serving.StateUnloaded { // nothing is wrong with it
		s.of(endpointReady, e.URL, oneIf(e.State == serving.StateReady))
	}
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
	if t := e.Model.Tokens; t != nil {
		s.tokens(e.URL, t)
	}
	if b := e.Model.Batching; b != nil {
		s.of(batchMax, e.URL, float64(b.Limit))
		s.batches(e.URL, b)
	}
}

// addresses exposes the addresses of engines, which several endpoints may share.
func (s scrape) addresses(endpoints []serving.EndpointReport) {
	type key struct{ engine, address string }
	sums := map[key]serving.AddressReport{}
	counted := map[uint64]int{} // the pools, with the endpoint whose report counts
	for i, e := range endpoints {
		for _, a := range e.Model.Addresses {
			if first, known := counted[a.Pool]; a.Pool != 0 && known && first != i {
				continue
			}
			counted[a.Pool] = i
			k := key{e.Engine, a.Address}
			sum, known := sums[k]
			if !known || a.State != serving.AddressHealthy {
				sum.State = a.State
			}
			sum.Outstanding, sum.Answered, sum.Failed = sum.Outstanding+a.Outstanding, sum.Answered+a.Answered, sum.Failed+a.Failed
			sums[k] = sum
		}
	}
	for k, a := range sums {
		s.add(addressHealthy, oneIf(a.State == serving.AddressHealthy), k.engine, k.address)
		s.add(addressOutstanding, float64(a.Outstanding), k.engine, k.address)
		s.add(addressAnswered, float64(a.Answered), k.engine, k.address)
		s.add(addressFailed, float64(a.Failed), k.engine, k.address)
	}
}

// tokens exposes what a language model has used and how fast it was.
func (s scrape) tokens(url serving.EndpointURL, t *serving.TokensReport) {
	s.of(tokenUsage, url, float64(t.Prompt), "input")
	s.of(tokenUsage, url, float64(t.Completion), "output")
	endpoint, version := s.labels(url)
	s.histogram(firstToken, timesOf(t.First), endpoint, version)
	s.histogram(betweenTokens, timesOf(t.Between), endpoint, version)
}

func timesOf(r serving.TimesReport) *dto.Histogram {
	h := &dto.Histogram{SampleSum: &r.Seconds}
	upTo := uint64(0)
	for i, n := range r.Counts {
		upTo += n
		if i < len(r.Bounds) {
			cumulated := upTo
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &r.Bounds[i], CumulativeCount: &cumulated})
		}
	}
	h.SampleCount = &upTo
	return h
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
	endpoint, version := s.labels(url)
	s.histogram(batchRows, h, endpoint, version)
}

// histogram exposes a histogram.
func (s scrape) histogram(f *family, h *dto.Histogram, labels ...string) {
	for i, label := range labels {
		labels[i] = strings.ToValidUTF8(label, "\uFFFD")
	}
	s.out <- &histogramMetric{f.desc, prometheus.MakeLabelPairs(f.desc, labels), h}
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

// forwarding exposes what became of statistics for another process, once there are any.
func (s scrape) forwarding(f Forwarding) {
	if !f.Active && f.Waiting == 0 && f.Sent == 0 {
		return
	}
	s.add(forwardedSent, float64(f.Sent))
	for reason, n := range f.Lost {
		s.add(forwardedLost, float64(n), reason)
	}
	s.add(forwardedWaiting, float64(f.Waiting))
	s.add(forwardedStored, float64(f.Stored))
}

// rollout exposes the steps of a canary.
func (s scrape) rollout(url serving.EndpointURL, r serving.RolloutReport) {
	to := string(r.Candidate)
	s.of(canaryShare, url, r.Share, to)
	for _, phase := range serving.RolloutPhases() {
		s.of(canaryPhase, url, oneIf(r.Phase == phase), to, string(phase))
	}
	s.of(canaryEvidence, url, r.Evidence, to, "all")
	for rule, evidence := range r.Rules {
		s.of(canaryEvidence, url, evidence, to, rule)
	}
	s.of(canaryLimit, url, r.Limit, to)
	for _, verdict := range serving.RolloutVerdicts() {
		s.of(canaryVerdict, url, oneIf(r.Verdict == verdict), to, verdict)
	}
	s.of(canaryDecides, url, oneIf(r.Decides), to)
}

// variables exposes the variables of an endpoint. samples.mu is held.
func (s scrape) variables(url serving.EndpointURL, v *variables) {
	s.of(variableSamples, url, float64(v.Samples))
	for _, name := range slices.Sorted(maps.Keys(v.All)) {
		one := v.All[name]
		for reason, n := range one.Skipped {
			if n > 0 {
				s.of(variablesSkipped, url, float64(n), name, skipReason(reason).String())
			}
		}
		switch one.Kind {
		case serving.MetricCounter:
			s.of(variableSum, url, one.Sum, name)
		case serving.MetricScalar:
			endpoint, version := s.labels(url)
			s.histogram(variableScalar, one.encode(), endpoint, version, name)
		case serving.MetricEnum:
			for word, n := range one.Words {
				s.of(variableWords, url, float64(n), name, word)
			}
		default:
			if one.Count > 0 {
				s.of(variableValue, url, one.Last, name)
			}
		}
	}
	if v.Excess > 0 {
		s.of(variablesSkipped, url, float64(v.Excess), "", skippedLimit.String())
	}
}

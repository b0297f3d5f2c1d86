package watch

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/drift"
)

// FromSeries makes a reference of what an endpoint's instances have counted between two times. Variables of
// the present reference, which may be nil, keep its bins. Others have the buckets or words of metrics add,
// as far as they were logged so. notes say what is not used.
func FromSeries(ctx context.Context, series Querier, service, endpoint, version string, present *drift.Reference, from, to time.Time) (r *drift.Reference, notes []string, err error) {
	q := query{ctx: ctx, series: series, at: to, over: to.Sub(from).Truncate(time.Second), labels: selectorOf(service, endpoint, version)}
	if q.over < time.Minute {
		return nil, nil, fmt.Errorf("the time from %s to %s is too short: a minute is the least", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	r = &drift.Reference{Variables: map[string]*drift.Variable{}}
	skipped := q.counts(`clearml_serving_variables_skipped_total`, "reason")
	missing := func(name string) uint64 { return skipped[name]["missing"] + skipped[name]["null"] }
	put := func(name string, v *drift.Variable, err error) {
		if err != nil {
			notes = append(notes, fmt.Sprintf("variable '%s': %v: not used", name, err))
			return
		}
		if values := v.Rows() - v.Counts[len(v.Counts)-1]; values < minRows {
			notes = append(notes, fmt.Sprintf("variable '%s': %d values in that time, a reference needs %d: not used", name, values, minRows))
			return
		}
		r.Variables[name] = v
	}
	for name, buckets := range q.counts(`clearml_serving_variable_distribution_bucket`, "le") {
		edges, counts, err := bucketsOf(buckets)
		if err != nil {
			put(name, nil, err)
			continue
		}
		v, err := drift.FromCounts(drift.Number, edges, true, nil, append(counts, missing(name)))
		put(name, v, err)
	}
	for name, found := range q.counts(`clearml_serving_variable_values_total`, "value") {
		other := found["other"]
		delete(found, "other")
		words := slices.Sorted(maps.Keys(found))
		var counts []uint64
		for _, w := range words {
			counts = append(counts, found[w])
		}
		v, err := drift.FromCounts(drift.Category, nil, false, words, append(counts, other, missing(name)))
		put(name, v, err)
	}
	if present != nil {
		for name, v := range present.Variables {
			one := q
			one.labels += fmt.Sprintf(",variable=%s,reference=%s", quote(name), quote(v.Hash()))
			bins := one.counts(counters, "bin")[name]
			if len(bins) == 0 {
				q.err = first(q.err, one.err)
				continue
			}
			var counts []uint64
			for _, bin := range v.Bins() {
				counts = append(counts, bins[bin])
			}
			accepted, err := v.Accept(counts)
			put(name, accepted, err)
		}
	}
	if q.err != nil {
		return nil, nil, q.err
	}
	slices.Sort(notes)
	if len(r.Variables) == 0 {
		return nil, notes, fmt.Errorf("nothing was counted from %s to %s that makes a reference", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return r, notes, nil
}

// minRows is how many values make a reference.
const minRows = 500

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func quote(text string) string { return strconv.Quote(text) }

// selectorOf selects the series of an endpoint. Instances that another Prometheus scrapes may have no label for
// the service.
func selectorOf(service, endpoint, version string) string {
	return fmt.Sprintf(`endpoint=%s,version=%s,service=~"|%s"`, quote(endpoint), quote(version), service)
}

// query reads what counters have grown by.
type query struct {
	ctx    context.Context //nolint:containedctx // one call of FromSeries
	series Querier
	at     time.Time
	over   time.Duration
	labels string
	err    error
}

// counts returns the growth of counters by variable and another label, over all instances.
func (q *query) counts(name, label string) map[string]map[string]uint64 {
	all := map[string]map[string]uint64{}
	if q.err != nil {
		return all
	}
	expr := fmt.Sprintf("sum by (variable, %s) (increase(%s{%s}[%ds]))", label, name, q.labels, int(q.over.Seconds()))
	vector, err := q.series.Query(q.ctx, expr, q.at)
	if err != nil {
		q.err = fmt.Errorf("read the counts: %w", err)
		return all
	}
	for _, sample := range vector {
		a, b := string(sample.Metric["variable"]), string(sample.Metric[model.LabelName(label)])
		if all[a] == nil {
			all[a] = map[string]uint64{}
		}
		if v := math.Round(float64(sample.Value)); v > 0 && v < 1<<53 {
			all[a][b] = uint64(v)
		} else {
			all[a][b] = 0
		}
	}
	return all
}

// bucketsOf turns cumulative buckets into edges and counts.
func bucketsOf(buckets map[string]uint64) (edges []float64, counts []uint64, err error) {
	type bucket struct {
		upTo  float64
		count uint64
	}
	var sorted []bucket
	for text, n := range buckets {
		bound, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("bucket %q: %w", text, err)
		}
		sorted = append(sorted, bucket{bound, n})
	}
	slices.SortFunc(sorted, func(a, b bucket) int {
		if a.upTo < b.upTo {
			return -1
		}
		return 1
	})
	before := uint64(0)
	for _, b := range sorted {
		if !math.IsInf(b.upTo, 1) {
			edges = append(edges, b.upTo)
		}
		counts = append(counts, max(b.count, before)-before)
		before = max(b.count, before)
	}
	if len(counts) != len(edges)+1 {
		return nil, nil, fmt.Errorf("the histogram has no bucket +Inf")
	}
	return edges, counts, nil
}

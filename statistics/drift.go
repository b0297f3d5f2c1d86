package statistics

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"clearmlserving/drift"
	"clearmlserving/serving"
)

// watched counts the values of an endpoint's variables by the bins of the reference. samples.mu
// guards it.
type watched struct {
	reference json.RawMessage
	ignore    []string
	all       map[string]*watchedVariable
}

type watchedVariable struct {
	of     *drift.Variable
	hash   string
	bins   []string
	counts *drift.Counts
}

// watch sets the reference of an endpoint's variables. The counts of a variable stay unless its bins
// have changed. samples.mu is held.
func (m *Metrics) watch(v *variables, e serving.PlannedEndpoint) {
	w, reference, settings := &v.watched, e.Reference, e.Drift
	if !bytes.Equal(w.reference, reference) || !slices.Equal(w.ignore, settings.Ignore) {
		m.read() // by the bins before
		next := map[string]*watchedVariable{}
		if r, err := drift.Decode(reference); err == nil { // else there is none, or the plan says why
			for name, of := range r.Variables {
				if !settings.Watches(name) {
					continue
				}
				next[name] = &watchedVariable{of: of, hash: of.Hash(), bins: of.Bins(), counts: drift.NewCounts(of)}
				if before := w.all[name]; before != nil && before.hash == next[name].hash {
					next[name].counts = before.counts
				}
			}
		}
		*w = watched{reference, settings.Ignore, next}
	}
	if len(w.all) > 0 {
		v.defined.Store(true)
	}
}

// record counts the values of a sample.
func (w *watched) record(values map[string]any) {
	for name, one := range w.all {
		left := maxElements
		one.add(values[name], &left) // a missing value is nil
	}
}

// add counts a value, or all elements of a list.
func (w *watchedVariable) add(value any, left *int) {
	if list, ok := value.([]any); ok {
		for _, element := range list {
			w.add(element, left)
		}
		return
	}
	if *left > 0 {
		*left--
		w.counts.Add(w.of, value)
	}
}

// watched exposes the counts of an endpoint's variables by the bins of the reference. samples.mu is held.
func (s scrape) watched(url serving.EndpointURL, w *watched) {
	for _, name := range slices.Sorted(maps.Keys(w.all)) {
		one := w.all[name]
		for i, n := range one.counts.Bins {
			s.of(driftValues, url, float64(n), name, one.hash, one.bins[i])
		}
		missing := one.counts.Bins[len(one.counts.Bins)-1]
		s.of(driftUnexpected, url, float64(missing-min(one.counts.Type, missing)), name, "missing")
		s.of(driftUnexpected, url, float64(one.counts.Type), name, "type")
		if one.of.Kind == drift.Category {
			s.of(driftUnexpected, url, float64(one.counts.New), name, "new_category")
		} else {
			s.of(driftUnexpected, url, float64(one.counts.Below), name, "below")
			s.of(driftUnexpected, url, float64(one.counts.Above), name, "above")
		}
	}
}

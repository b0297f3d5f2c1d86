package statistics

import (
	"bytes"
	"maps"
	"slices"

	"clearmlserving/drift"
	"clearmlserving/serving"
)

// watched counts the values of an endpoint's variables by the bins of the reference. samples.mu
// guards it. The exported fields are in checkpoints.
type watched struct {
	Reference []byte
	Ignore    []string
	Counts    map[string]*drift.Counts
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
	w := &v.Watched
	if !bytes.Equal(w.Reference, e.Reference) || !slices.Equal(w.Ignore, e.Drift.Ignore) {
		m.read() // by the bins before
		*w = newWatched(e.Reference, e.Drift.Ignore, func(name, hash string) *drift.Counts {
			if before := w.all[name]; before != nil && before.hash == hash {
				return before.counts
			}
			return nil
		})
		m.samples.dirty = true
		m.checkpoint() // later samples must not be read by the bins before
	}
	v.defined.Store(len(v.Definitions) > 0 || len(w.all) > 0)
}

// newWatched watches the variables of a reference, with the counts that there are.
func newWatched(reference []byte, ignore []string, before func(name, hash string) *drift.Counts) watched {
	w := watched{reference, ignore, map[string]*drift.Counts{}, map[string]*watchedVariable{}}
	r, err := drift.Decode(reference)
	if err != nil { // there is none, or the plan says why
		return w
	}
	settings := serving.DriftSettings{Ignore: ignore}
	for name, of := range r.Variables {
		if !settings.Watches(name) {
			continue
		}
		one := &watchedVariable{of: of, hash: of.Hash(), bins: of.Bins(), counts: drift.NewCounts(of)}
		if counts := before(name, one.hash); counts != nil && len(counts.Bins) == len(one.counts.Bins) {
			one.counts = counts
		}
		w.all[name], w.Counts[name] = one, one.counts
	}
	return w
}

// restored continues with what a checkpoint has.
func (w watched) restored() watched {
	return newWatched(w.Reference, w.Ignore, func(name, _ string) *drift.Counts { return w.Counts[name] })
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

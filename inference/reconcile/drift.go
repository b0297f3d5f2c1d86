package reconcile

import (
	"fmt"
	"maps"
	"slices"

	"clearmlserving/drift"
	"clearmlserving/serving"
)

// references sets the references of endpoints that have none of their own: those of their models. One
// that cannot be used is a problem, and does not affect the endpoint otherwise.
func (s *State) references(plan *serving.Plan) {
	for _, url := range slices.Sorted(maps.Keys(plan.Endpoints)) {
		e := plan.Endpoints[url]
		whose := "of its settings"
		if e.Reference == nil {
			text := s.Models[e.ModelID].Reference
			if text == "" {
				continue
			}
			e.Reference, whose = []byte(text), fmt.Sprintf("of model %s", e.ModelID)
		}
		var err error
		if len(e.Reference) > serving.MaxReference {
			err = fmt.Errorf("reference: it has %d bytes, at most %d are read", len(e.Reference), serving.MaxReference)
		} else {
			_, err = drift.Decode(e.Reference)
		}
		if err != nil {
			e.Reference = nil
			plan.Problems = append(plan.Problems, serving.Problem{
				Section: serving.SectionDrift, Key: string(url), Text: fmt.Sprintf("the reference %s cannot be used, no drift is watched: %v", whose, err),
			})
		}
		plan.Endpoints[url] = e
	}
}

// loggedVariables are the variables that the worker selects: the defined ones and those of the
// reference.
func loggedVariables(e serving.PlannedEndpoint) []string {
	names := slices.Sorted(maps.Keys(e.Metrics.Metrics))
	if e.Reference == nil {
		return names
	}
	reference, err := drift.Decode(e.Reference)
	if err != nil {
		return names // references has said why
	}
	for _, name := range reference.Names() {
		if e.Drift.Watches(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

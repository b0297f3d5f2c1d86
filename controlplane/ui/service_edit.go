package ui

import (
	"cmp"
	"maps"
	"slices"

	"clearmlserving/operations"
)

// openService reads a serving service with the rights of the visitor.
func (v *visit) openService(id string) (*operations.Service, error) {
	return operations.Open(v.r.Context(), v.api, id)
}

// openServices opens every service that lists show.
func (v *visit) openServices() ([]*operations.Service, error) {
	listed, err := v.api.LoadServices(v.r.Context())
	if err != nil {
		return nil, err
	}
	opened := make([]*operations.Service, len(listed))
	for i := range listed {
		opened[i] = operations.Of(v.api, &listed[i])
	}
	return opened, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

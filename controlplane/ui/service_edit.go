package ui

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"clearmlserving/operations"
)

// openService reads a serving service with the rights of the visitor.
func (v *visit) openService(id string) (*operations.Service, error) {
	s, err := operations.Open(v.r.Context(), v.api, id)
	if err == nil {
		s.Author = operations.Author{Name: v.user.Name, Message: strings.TrimSpace(v.r.PostForm.Get("message"))}
	}
	return s, err
}

// ofService is a handler for the pages and forms of one service, which it reads.
func ofService(h func(*visit, *operations.Service) error) handler {
	return func(v *visit) error {
		s, err := v.openService(v.id())
		if err != nil {
			return err
		}
		return h(v, s)
	}
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

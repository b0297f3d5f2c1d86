package ui

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// openedService is a serving service as it was read, with its configuration.
type openedService struct {
	api    *clearml.Client
	doc    *clearml.Service
	config serving.Service
}

func (v *visit) openService(id string) (*openedService, error) {
	s := &openedService{api: v.api}
	return s, s.read(v.r.Context(), id)
}

// openServices opens every service that lists show.
func (v *visit) openServices() ([]*openedService, error) {
	listed, err := v.api.LoadServices(v.r.Context())
	if err != nil {
		return nil, err
	}
	opened := make([]*openedService, len(listed))
	for i := range listed {
		opened[i] = &openedService{api: v.api}
		opened[i].take(&listed[i])
	}
	return opened, nil
}

func (s *openedService) read(ctx context.Context, id string) error {
	doc, err := s.api.LoadService(ctx, id)
	if err != nil {
		return err
	}
	s.take(doc)
	return nil
}

// take reads the configuration in a service's document.
func (s *openedService) take(doc *clearml.Service) {
	sections, unreadable := doc.Sections()
	s.doc, s.config = doc, serving.Decode(sections, doc.General)
	for _, section := range sortedKeys(unreadable) {
		s.config.Broken = append(s.config.Broken, serving.BrokenRecord{Section: section, Err: fmt.Errorf("the section cannot be read: %w", unreadable[section])})
	}
}

// maxConflicts bounds how often a change is made again after somebody else's.
const maxConflicts = 20

// edit changes one section and stores it. When somebody else has stored the section in
// between, the change is made again on what is there, so nothing is lost. change must
// have no other effect than on its argument.
func (s *openedService) edit(ctx context.Context, change func(*serving.Service) (serving.Section, error)) error {
	for attempt := 1; ; attempt++ {
		section, err := change(&s.config)
		if err != nil {
			return err
		}
		text, err := s.config.Encode(section)
		if err != nil {
			return err
		}
		err = s.api.SaveSection(ctx, s.doc, section, text)
		if !errors.Is(err, clearml.ErrConflict) || attempt == maxConflicts {
			return err
		}
		if err := s.read(ctx, s.doc.ID); err != nil {
			return err
		}
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

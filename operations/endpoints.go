package operations

import (
	"context"
	"errors"
	"fmt"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// AddEndpoint stores an endpoint and enters its model on the service.
func (s *Service) AddEndpoint(ctx context.Context, e serving.Endpoint) error {
	err := s.edit(ctx, deployment{url: e.URL()}, func(c *serving.Service) ([]serving.Section, error) {
		_, err := c.AddEndpoint(e)
		return []serving.Section{serving.SectionEndpoints}, err
	})
	if err != nil {
		return err
	}
	return s.linkModel(ctx, e)
}

// AddMonitoring stores an auto-updated endpoint.
func (s *Service) AddMonitoring(ctx context.Context, m serving.Monitoring) error {
	return s.edit(ctx, deployment{url: serving.CleanURL(m.BaseServingURL)}, func(c *serving.Service) ([]serving.Section, error) {
		_, err := c.AddMonitoring(m)
		return []serving.Section{serving.SectionMonitoring}, err
	})
}

// linkModel enters the model of an endpoint on the service.
func (s *Service) linkModel(ctx context.Context, e serving.Endpoint) error {
	if e.ModelID == "" {
		return nil
	}
	err := s.Client.AddTaskModel(ctx, s.Doc.ID, clearml.ModelInput, string(e.URL()), string(e.ModelID))
	if err != nil && !errors.Is(err, clearml.ErrNotFound) { // a model may come later
		return fmt.Errorf("link model %s to the serving service: %w", e.ModelID, err)
	}
	return nil
}

// Remove takes away the endpoint, else the monitoring, else the canary of a url, and
// the model of an endpoint off the service. The kind is set as soon as the record is
// gone, also when the rest fails.
func (s *Service) Remove(ctx context.Context, url string) (kind serving.Removed, err error) {
	var before serving.Endpoint
	var removed serving.Removed
	err = s.edit(ctx, deployment{}, func(c *serving.Service) (sections []serving.Section, err error) {
		var readable bool
		var section serving.Section
		if before, readable = serving.LookUp(c.Endpoints, url); !readable {
			before = serving.Endpoint{ServingURL: url}
		}
		if removed, section, err = c.Remove(url); err != nil {
			return nil, err
		}
		if removed == serving.RemovedCanary && c.ForgetRollout(url) {
			return []serving.Section{section, serving.SectionRollouts}, nil
		}
		return []serving.Section{section}, nil
	})
	if err != nil {
		return "", err
	}
	if removed == serving.RemovedEndpoint {
		err = s.unlinkModel(ctx, before)
	}
	return removed, err
}

// unlinkModel takes an endpoint's model off the service. The original enters models
// under the url without version; such an entry is removed with the last endpoint of
// that url.
func (s *Service) unlinkModel(ctx context.Context, e serving.Endpoint) error {
	names := []string{string(e.URL())}
	shared := false
	for _, other := range s.Config.Endpoints {
		shared = shared || serving.CleanURL(other.ServingURL) == serving.CleanURL(e.ServingURL)
	}
	if legacy := string(serving.CleanURL(e.ServingURL)); !shared && legacy != names[0] {
		names = append(names, legacy)
	}
	if err := s.Client.DeleteTaskModels(ctx, s.Doc.ID, clearml.ModelInput, names); err != nil {
		return fmt.Errorf("unlink the model of '%s' from the serving service: %w", e.URL(), err)
	}
	return nil
}

// SameApartFromCode tells whether new code may take the place of the old under the same
// artifact. Else the code gets an artifact of its own, so that no instance ever runs the
// new code with the old model.
func SameApartFromCode(a, b serving.Endpoint) bool {
	a.Unknown, b.Unknown = nil, nil
	return serving.Content{Endpoint: a}.Same(serving.Content{Endpoint: b})
}

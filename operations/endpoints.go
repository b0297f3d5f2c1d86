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
	err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
		_, err := c.AddEndpoint(e)
		return serving.SectionEndpoints, err
	})
	if err != nil || e.ModelID == "" {
		return err
	}
	err = s.Client.AddTaskModel(ctx, s.Doc.ID, clearml.ModelInput, string(e.URL()), string(e.ModelID))
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
	err = s.Edit(ctx, func(c *serving.Service) (section serving.Section, err error) {
		var readable bool
		if before, readable = serving.LookUp(c.Endpoints, url); !readable {
			before = serving.Endpoint{ServingURL: url}
		}
		removed, section, err = c.Remove(url)
		return section, err
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

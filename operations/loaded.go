package operations

import (
	"context"

	"clearmlserving/serving"
)

// SetLoaded takes a name into service or out of it, on all instances, and returns the URLs of its endpoints; by says who
// asked for it.
func (s *Service) SetLoaded(ctx context.Context, name serving.EndpointURL, load bool, by string) (urls []serving.EndpointURL, err error) {
	now := s.Client.ServerTime()
	err = s.edit(ctx, deployment{}, func(c *serving.Service) ([]serving.Section, error) {
		var err error
		urls, err = c.SetLoaded(name, load, by, now)
		return []serving.Section{serving.SectionOptions}, err
	})
	return urls, err
}

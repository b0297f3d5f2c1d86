package operations

import (
	"context"

	"clearmlserving/serving"
)

// SetCanary stores a canary, with steps if r is not nil. Steps of before end.
func (s *Service) SetCanary(ctx context.Context, c serving.Canary, r *serving.Rollout) error {
	return s.edit(ctx, deployment{}, func(config *serving.Service) ([]serving.Section, error) {
		sections := []serving.Section{serving.SectionCanary}
		if config.ForgetRollout(c.Endpoint) || r != nil {
			sections = append(sections, serving.SectionRollouts)
		}
		_, err := config.SetCanary(c, r, s.Author.Name, s.Client.ServerTime())
		return sections, err
	})
}

// MoveRollout applies a decision to the steps of a canary. moved is false if another decision came
// first.
func (s *Service) MoveRollout(ctx context.Context, url serving.EndpointURL, m serving.RolloutMove) (moved bool, err error) {
	now := s.Client.ServerTime()
	err = s.edit(ctx, deployment{}, func(config *serving.Service) ([]serving.Section, error) {
		var err error
		if moved, err = config.MoveRollout(url, m, now); err != nil || !moved {
			return nil, err
		}
		return []serving.Section{serving.SectionCanary, serving.SectionRollouts}, nil
	})
	return moved && err == nil, err
}

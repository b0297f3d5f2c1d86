package inference

import (
	"maps"

	"clearmlserving/serving"
)

// followTools keeps the URLs that a plan offers to agents.
func (s *Service) followTools(plan serving.Plan) {
	next := map[serving.EndpointURL]serving.Tool{}
	for url, o := range plan.Options {
		if o.Tool != nil {
			next[url] = *o.Tool
		}
	}
	same := func(a, b serving.Tool) bool { return a.Name == b.Name && a.Description == b.Description }
	if before := s.tools.Load(); before == nil || !maps.EqualFunc(*before, next, same) {
		s.tools.Store(&next)
	}
}

// Tools are the URLs that are offered to agents. The map is not changed; another one is returned after a change.
func (s *Service) Tools() *map[serving.EndpointURL]serving.Tool { return s.tools.Load() }

// Opens reports whether a key is valid for an endpoint. Nothing is counted.
func (s *Service) Opens(key string) func(serving.EndpointURL) bool { return s.gate.opener(key) }

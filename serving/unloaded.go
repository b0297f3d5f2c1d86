package serving

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ErrNotLoadable is the cause if a name cannot be loaded and unloaded by itself.
var ErrNotLoadable = errors.New("cannot be loaded and unloaded by itself")

// Unloaded takes an endpoint out of service on all instances, until it is loaded again. Its configuration stays.
type Unloaded struct {
	By      string    `record:"by"`
	Since   time.Time `record:"since"`
	Unknown map[string]json.RawMessage
}

// Reason says why the endpoint does not answer.
func (u *Unloaded) Reason() string {
	text := "it was unloaded"
	if u.By != "" {
		text += " by " + u.By
	}
	if !u.Since.IsZero() {
		text += " at " + u.Since.UTC().Format(time.RFC3339)
	}
	return text
}

// unloaded is set for endpoints that are out of service.
func (s Service) unloaded(url EndpointURL, e PlannedEndpoint) *Unloaded {
	if own := s.optionsOf(url).Unloaded; own != nil || e.Monitoring == "" {
		return own
	}
	return s.optionsOf(CleanURL(e.Monitoring)).Unloaded
}

// SetLoaded takes a name into service or out of it: an endpoint, all versions of an auto-update rule, or, if there is
// neither, the endpoints that are versions of the name. It returns the URLs of the endpoints.
func (s *Service) SetLoaded(name EndpointURL, load bool, by string, now time.Time) ([]EndpointURL, error) {
	set, urls, err := s.loadable(name)
	if err != nil {
		return nil, err
	}
	for _, url := range set {
		if err := s.SetOptions(string(url), func(o *EndpointOptions) {
			switch {
			case load:
				o.Unloaded = nil
			case o.Unloaded == nil:
				o.Unloaded = &Unloaded{By: by, Since: now.UTC().Truncate(time.Second)}
			}
		}); err != nil {
			return nil, err
		}
	}
	if load {
		for _, url := range urls {
			for key := range s.Monitoring {
				if base := CleanURL(key); strings.HasPrefix(string(url), string(base)+"/") && s.optionsOf(base).Unloaded != nil {
					return nil, fmt.Errorf("a version of '%s' %w: load '%s'", base, ErrNotLoadable, base)
				}
			}
		}
	}
	return urls, nil
}

// loadable returns the URLs whose options say whether a name is loaded, and those of its endpoints.
func (s *Service) loadable(name EndpointURL) (set, urls []EndpointURL, err error) {
	key := string(name)
	_, static := existing(s.Endpoints, key)
	_, made := existing(s.MonitoringEndpoints, key)
	if static || made {
		return []EndpointURL{name}, []EndpointURL{name}, nil
	}
	for _, keys := range [][]string{slices.Sorted(maps.Keys(s.Endpoints)), slices.Sorted(maps.Keys(s.MonitoringEndpoints))} {
		for _, key := range keys {
			url := CleanURL(key)
			version, below := strings.CutPrefix(string(url), string(name)+"/")
			if below && version != "" && strings.Trim(version, "0123456789") == "" {
				urls = append(urls, url)
			}
		}
	}
	_, monitoring := existing(s.Monitoring, key)
	_, canary := existing(s.Canaries, key)
	switch {
	case monitoring:
		return append([]EndpointURL{name}, urls...), urls, nil
	case canary:
		return nil, nil, fmt.Errorf("canary '%s' %w: load and unload the endpoints that it chooses among", name, ErrNotLoadable)
	case len(urls) == 0:
		return nil, nil, fmt.Errorf("endpoint '%s': %w", name, ErrNotFound)
	}
	return urls, urls, nil
}

package serving

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrNotFound is returned by edits that name a record which does not exist.
var ErrNotFound = errors.New("not found")

// AddEndpoint stores an endpoint under its URL and reports whether it replaced one.
func (s *Service) AddEndpoint(e Endpoint) (replaced bool, err error) {
	if err := e.Validate(); err != nil {
		return false, err
	}
	after := *s
	after.Endpoints = cloned(s.Endpoints)
	old, _ := existing(after.Endpoints, string(e.URL()))
	delete(after.Endpoints, old)
	after.Endpoints[string(e.URL())] = e
	if err := after.checkGraphs(e.URL()); err != nil {
		return false, err
	}
	_, replaced = store(s, SectionEndpoints, s.Endpoints, string(e.URL()), e)
	return replaced, nil
}

// store stores a record, and returns the one that it replaces.
func store[T any](s *Service, section Section, records map[string]T, key string, record T) (before T, replaced bool) {
	old, replaced := existing(records, key)
	before = records[old]
	delete(records, old)
	records[key] = record
	s.forget(section, key)
	return before, replaced
}

// AddMonitoring stores a monitoring under its base URL and reports whether it replaced one.
func (s *Service) AddMonitoring(m Monitoring) (replaced bool, err error) {
	if err := m.Validate(); err != nil {
		return false, err
	}
	_, replaced = store(s, SectionMonitoring, s.Monitoring, string(CleanURL(m.BaseServingURL)), m)
	return replaced, nil
}

// AddCanary stores a canary under its url and tells whether one was replaced. Fields of
// other products in the replaced one are kept.
func (s *Service) AddCanary(c Canary) (replaced bool, err error) {
	if err := c.Validate(); err != nil {
		return false, err
	}
	key := string(CleanURL(c.Endpoint))
	if s.optionsOf(EndpointURL(key)).Golden != nil && !s.isEndpoint(key) {
		return false, fmt.Errorf("canary '%s': the name has golden samples, and a canary has no model to judge: take them off with: clearml-serving model golden --endpoint %s --off", key, key)
	}
	old, replaced := existing(s.Canaries, key)
	if c.Unknown == nil {
		c.Unknown = s.Canaries[old].Unknown
	}
	after := *s
	after.Canaries = cloned(s.Canaries)
	delete(after.Canaries, old)
	after.Canaries[key] = c
	if err := after.checkGraphs(EndpointURL(key)); err != nil {
		return false, err
	}
	delete(s.Canaries, old)
	s.Canaries[key] = c
	s.forget(SectionCanary, key)
	return replaced, nil
}

// AddMetrics merges variables into the logged variables of an endpoint and reports whether a
// definition existed. A nil frequency keeps the stored one.
func (s *Service) AddMetrics(m MetricLogging) (updated bool, err error) {
	if err := m.Validate(); err != nil {
		return false, err
	}
	key := string(CleanURL(m.Endpoint))
	if !s.canLog(key) {
		return false, fmt.Errorf("Metric logging '%s' references a nonexistent endpoint", key)
	}
	if before, ok := LookUp(s.Metrics, key); ok {
		merged := maps.Clone(before.Metrics)
		maps.Copy(merged, m.Metrics)
		before.Metrics, before.LogFrequency = merged, cmp.Or(m.LogFrequency, before.LogFrequency)
		m = before
	}
	m.Endpoint = key
	_, updated = store(s, SectionMetrics, s.Metrics, key, m)
	return updated, nil
}

// canLog reports whether metrics may be defined for the URL: an endpoint, one made by monitoring,
// or a prefix that ends in "*".
func (s *Service) canLog(key string) bool {
	if strings.HasSuffix(key, "*") {
		return true
	}
	if _, static := existing(s.Endpoints, key); static {
		return true
	}
	if _, monitored := existing(s.MonitoringEndpoints, key); monitored {
		return true
	}
	base, _, _ := cutLast(key)
	_, monitored := existing(s.Monitoring, base)
	return monitored
}

// Removed is the kind of record that Remove removed.
type Removed string

// The kinds in the order in which Remove looks for them.
const (
	RemovedEndpoint   Removed = "static endpoint"
	RemovedMonitoring Removed = "model monitoring endpoint"
	RemovedCanary     Removed = "model canary endpoint"
)

// Remove removes the static endpoint, else the monitoring, else the canary of that URL, including
// broken records. One call removes one record.
func (s *Service) Remove(url string) (Removed, Section, error) {
	key := string(CleanURL(url))
	for _, kind := range []struct {
		removed Removed
		section Section
		drop    func() bool
	}{
		{RemovedEndpoint, SectionEndpoints, func() bool { return drop(s.Endpoints, key) }},
		{RemovedMonitoring, SectionMonitoring, func() bool { return drop(s.Monitoring, key) }},
		{RemovedCanary, SectionCanary, func() bool { return drop(s.Canaries, key) }},
	} {
		if kind.drop() || s.forget(kind.section, key) {
			return kind.removed, kind.section, nil
		}
	}
	return "", "", fmt.Errorf("Could not find base endpoint URL: %s: %w", url, ErrNotFound) //nolint:staticcheck // the original's words
}

func drop[T any](records map[string]T, key string) (found bool) {
	old, found := existing(records, key)
	delete(records, old)
	return found
}

// RemoveMetrics removes the named variables of an endpoint's definition, or the whole definition if
// none is named. Nothing changes on an error.
func (s *Service) RemoveMetrics(endpoint string, variables []string) error {
	key := string(CleanURL(endpoint))
	old, ok := existing(s.Metrics, key)
	if !ok {
		if len(variables) == 0 && s.forget(SectionMetrics, key) {
			return nil
		}
		return fmt.Errorf("Could not remove metric endpoint %s: %w", endpoint, ErrNotFound) //nolint:staticcheck // the original's words
	}
	if len(variables) == 0 {
		delete(s.Metrics, old)
		return nil
	}
	m := s.Metrics[old]
	left := maps.Clone(m.Metrics)
	for _, name := range variables {
		if _, ok := left[name]; !ok {
			return fmt.Errorf("Could not remove metric %s from endpoint %s: %w", name, endpoint, ErrNotFound) //nolint:staticcheck // the original's words
		}
		delete(left, name)
	}
	m.Metrics = left
	s.Metrics[old] = m
	return nil
}

// forget drops a broken record of that key and reports whether there was one.
func (s *Service) forget(section Section, key string) bool {
	before := len(s.Broken)
	s.Broken = slices.DeleteFunc(s.Broken, func(b BrokenRecord) bool {
		return b.Section == section && b.Key != "" && string(CleanURL(b.Key)) == key
	})
	return len(s.Broken) < before
}

// LookUp returns the record of a URL, which other products may have stored with slashes around.
func LookUp[T any](records map[string]T, url string) (T, bool) {
	key, ok := existing(records, url)
	return records[key], ok
}

// existing returns the stored key for the same URL: other products may have stored it with slashes
// around.
func existing[T any](records map[string]T, key string) (string, bool) {
	if _, ok := records[key]; ok {
		return key, true
	}
	for stored := range records {
		if CleanURL(stored) == CleanURL(key) {
			return stored, true
		}
	}
	return key, false
}

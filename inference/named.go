package inference

import (
	"slices"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// firstVersion is what protocols in which every model has a version call the one of an endpoint without.
const firstVersion = "1"

// Named is the endpoint of a model by its name and version, "" for none.
func (s *Service) Named(name, version string) serving.EndpointURL {
	url := serving.CleanURL(name)
	if version == "" {
		return url
	}
	versioned := serving.JoinURL(name, version)
	if version == firstVersion && !s.router.Knows(versioned) && s.router.Knows(url) {
		return url
	}
	return versioned
}

// VersionOf is the version of a model by what it was asked for and who answered.
func VersionOf(name, version string, origin []engine.Header) string {
	if version != "" {
		return version
	}
	for _, h := range origin {
		if h.Name == "X-Clearml-Endpoint" {
			if v, ok := strings.CutPrefix(h.Value, string(serving.CleanURL(name))+"/"); ok {
				return v
			}
		}
	}
	return firstVersion
}

// Versions are those of a model that the head's key opens.
func (s *Service) Versions(h Head) []string {
	name, urls := s.router.Near(h.Endpoint)
	opens := s.gate.opener(h.Key)
	var versions []string
	if s.router.Knows(h.Endpoint) {
		versions = append(versions, firstVersion)
	}
	for _, url := range urls {
		version, ok := strings.CutPrefix(string(url), string(h.Endpoint)+"/")
		if name == h.Endpoint && ok && opens(url) && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	return versions
}

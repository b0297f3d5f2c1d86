package serving_test

import (
	"testing"

	"clearmlserving/serving"
)

func TestADigestMovesOnlyWithItsOwnURL(t *testing.T) {
	service := func() serving.Service {
		return serving.Service{
			Endpoints: map[string]serving.Endpoint{
				"/a/1": {EngineType: "custom", ServingURL: "a", Version: "1", PreprocessArtifact: "code_a"},
				"b":    {EngineType: "custom", ServingURL: "b", PreprocessArtifact: "code_b"},
			},
			Monitoring: map[string]serving.Monitoring{"auto": {BaseServingURL: "auto", EngineType: "sklearn"}},
			Canaries:   map[string]serving.Canary{"can": {Endpoint: "can", Weights: []float64{1}, LoadEndpoints: []string{"b"}}},
		}
	}
	hashes := func() map[string]string { return map[string]string{"code_a": "1", "code_b": "1"} }
	before := service().Digests(hashes())
	if len(before) != 4 {
		t.Fatalf("4 urls are configured, got digests %v", before)
	}
	for name, c := range map[string]struct {
		change func(*serving.Service, map[string]string)
		moves  serving.EndpointURL // "": none
	}{
		"an endpoint": {func(s *serving.Service, _ map[string]string) {
			s.Endpoints["b"] = serving.Endpoint{EngineType: "sklearn", ServingURL: "b"}
		}, "b"},
		"an endpoint's code": {func(_ *serving.Service, h map[string]string) { h["code_a"] = "2" }, "a/1"},
		"a canary":           {func(s *serving.Service, _ map[string]string) { s.Canaries["can"] = serving.Canary{Endpoint: "can"} }, "can"},
		"a monitoring": {func(s *serving.Service, _ map[string]string) {
			s.Monitoring["auto"] = serving.Monitoring{MaxVersions: 2}
		}, "auto"},
		"options of an url": {func(s *serving.Service, _ map[string]string) {
			s.Options = map[string]serving.EndpointOptions{"b": {Record: &serving.Record{Share: 1}}}
		}, "b"},
		"an unused artifact":   {func(_ *serving.Service, h map[string]string) { h["other"] = "2" }, ""},
		"what is written back": {func(s *serving.Service, _ map[string]string) { s.Versions = serving.Versions{"auto": {"m": 1}} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := service(), hashes()
			c.change(&s, h)
			for url, digest := range s.Digests(h) {
				if moved := digest != before[url]; moved != (url == c.moves) {
					t.Errorf("digest of %q moved: %v", url, moved)
				}
			}
		})
	}
	s := service()
	delete(s.Endpoints, "b")
	if d, ok := s.Digests(hashes())["b"]; ok {
		t.Errorf("a removed endpoint still has digest %s", d)
	}
}

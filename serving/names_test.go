package serving_test

import (
	"testing"

	"clearmlserving/serving"
)

func TestNamesOfEndpoints(t *testing.T) {
	plan := serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{
		"a/b/1": {Endpoint: serving.Endpoint{ServingURL: "/a/b/", Version: "1"}},
		"c/2":   {Endpoint: serving.Endpoint{ServingURL: "c/2"}},
		"d/v1":  {Endpoint: serving.Endpoint{ServingURL: "d", Version: "v1"}},
	}}
	names := plan.Names()
	for url, want := range map[serving.EndpointURL]serving.Name{
		"a/b/1": {"a/b", "1"}, "c/2": {"c/2", ""}, "d/v1": {"d", "v1"},
		// not planned
		"a/b/07": {"a/b", "07"}, "e": {"e", ""}, "e/": {"e/", ""}, "/3": {"/3", ""}, "e/v1": {"e/v1", ""}, "": {},
	} {
		if got := names.Of(url); got != want {
			t.Errorf("%q: %+v, want %+v", url, got, want)
		}
	}
}

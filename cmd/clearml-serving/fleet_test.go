package main

import (
	"testing"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
)

func TestTheTableOfEndpointsShowsWarningsOfThoseThatAnswer(t *testing.T) {
	for want, model := range map[string]engine.Status{
		"":                       {},
		"warning: a":             {Warnings: []string{"a"}},
		"no worker; warning: a":  {Reason: "no worker\nmore", Warnings: []string{"a"}},
		"warning: a; warning: b": {Warnings: []string{"a", "b"}},
	} {
		f := fleet{instances: []liveState{{Status: inference.Status{Status: reconcile.Status{
			Endpoints: []reconcile.EndpointStatus{{URL: "m", State: "ready", Model: model}},
		}}}}}
		if got := f.of("m"); got.note != want || got.state != "ready" {
			t.Errorf("%+v, not %q", got, want)
		}
	}
}

package main

import (
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/inference/instance"
	"clearmlserving/serving"
)

func TestTheTableOfEndpointsShowsWarningsOfThoseThatAnswer(t *testing.T) {
	for want, model := range map[string]serving.ModelReport{
		"":                       {},
		"warning: a":             {Warnings: []string{"a"}},
		"no worker; warning: a":  {Reason: "no worker\nmore", Warnings: []string{"a"}},
		"warning: a; warning: b": {Warnings: []string{"a", "b"}},
	} {
		f := fleet{instances: []liveState{{InstanceReport: serving.InstanceReport{Status: serving.Status{
			Endpoints: []serving.EndpointReport{{URL: "m", State: "ready", Model: model}},
		}}}}}
		if got := f.of("m"); got.note != want || got.state != "ready" {
			t.Errorf("%+v, not %q", got, want)
		}
	}
}

func TestTheFleetIsTheInstancesThatAreAlive(t *testing.T) {
	now := time.Now()
	report := `{"instance":"h:1","serve_url":"http://h:1"}`
	f := aliveOf([]clearml.Instance{
		{TaskID: "alive", Seen: now.Add(-serving.AliveFor), Report: report},
		{TaskID: "lost", Seen: now.Add(-serving.AliveFor - time.Second), Report: report},
		{TaskID: "without a report", Seen: now},
		{TaskID: "lost without a report"},
		{TaskID: "gone", Seen: now.Add(-time.Hour), Report: `{"instance":"h:2"}`},
	}, now)
	if len(f.lost) != 1 || f.lost[0].Name != "h:2" {
		t.Errorf("lost are %+v", f.lost)
	}
	if len(f.instances) != 1 || f.instances[0].Name != "h:1" || len(f.silent) != 1 || f.silent[0] != "without a report" {
		t.Errorf("instances %+v, silent %v", f.instances, f.silent)
	}
}

func TestAnInstanceIsAliveAfterThreeLostPings(t *testing.T) {
	if serving.AliveFor < 4*instance.PingEvery {
		t.Errorf("an instance counts as alive for %s and pings every %s", serving.AliveFor, instance.PingEvery)
	}
}

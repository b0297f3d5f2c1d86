package main

import (
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/inference/instance"
	"clearmlserving/operations"
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

// A process that holds models for the instances is told of only where it hinders, and is waited for.
func TestWhoHoldsModelsIsNoInstanceThatAnswers(t *testing.T) {
	url := []serving.EndpointURL{"m"}
	service := &operations.Service{Doc: &clearml.Service{}}
	serves := func(e ...serving.EndpointReport) liveState {
		return liveState{InstanceReport: serving.InstanceReport{Name: "a:1", Status: serving.Status{StateHash: service.Hash(), Endpoints: e}}}
	}
	holds := func(e ...serving.EndpointReport) liveState {
		l := serves(e...)
		l.Name, l.Role = "b:1", "triton"
		return l
	}
	report := func(state serving.State, attempts int) serving.EndpointReport {
		e := serving.EndpointReport{URL: "m", Engine: "triton", State: state}
		if attempts > 0 {
			e.Failure = &serving.LoadFailure{Step: "load", Reason: "why " + string(state), Attempts: attempts}
		}
		return e
	}
	other := serving.EndpointReport{URL: "other", State: serving.StateReady}
	for name, tc := range map[string]struct {
		instances []liveState
		state     string
		note      string
		done      bool
		err       string
	}{
		"both are ready":        {[]liveState{serves(report("ready", 0)), holds(report("ready", 0))}, "ready", "", true, ""},
		"it has none of these":  {[]liveState{serves(report("ready", 0)), holds(other)}, "ready", "", true, ""},
		"it loads":              {[]liveState{serves(report("failed", 9)), holds(report("loading", 0))}, "failed", "a:1: failed, load: why failed; b:1 (triton): loading", false, ""},
		"it has just loaded":    {[]liveState{serves(report("failed", 1)), holds(report("ready", 0))}, "failed", "a:1: failed, load: why failed", false, ""},
		"it loaded long ago":    {[]liveState{serves(report("failed", 9)), holds(report("ready", 0))}, "failed", "a:1: failed, load: why failed", false, "why failed"},
		"it cannot load":        {[]liveState{serves(report("ready", 0)), holds(report("updating", 1))}, "ready", "b:1 (triton): updating; load: why updating", false, "b:1: endpoint 'm': load: why updating"},
		"there is no such role": {[]liveState{serves(report("failed", 1))}, "failed", "load: why failed", false, "why failed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fleet{instances: tc.instances}
			row := f.of("m")
			if row.state != tc.state || row.note != tc.note {
				t.Errorf("state %q, note %q", row.state, row.note)
			}
			done, _, err := f.serve(service, url)
			if done != tc.done || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("done %v, %v", done, err)
			}
			if len(f.answering()) != 1 {
				t.Errorf("answering: %+v", f.answering())
			}
		})
	}
	behind := holds(report("ready", 0))
	behind.StateHash = "another"
	if done, reason, err := (fleet{instances: []liveState{serves(report("failed", 9)), behind}}).serve(service, url); done || err != nil || reason == "" {
		t.Errorf("it has not taken in the change: %v, %q, %v", done, reason, err)
	}
}

package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestTheTableOfEndpointsCountsApartWhatHadNoGoodAnswer(t *testing.T) {
	live := func(name string, reports ...serving.EndpointReport) liveState {
		return liveState{InstanceReport: serving.InstanceReport{Name: name, Status: serving.Status{
			Endpoints: reports, Canaries: []serving.CanaryReport{{URL: "split", Shares: map[serving.EndpointURL]float64{"m": 1}}},
		}}}
	}
	f := fleet{instances: []liveState{
		live("a", serving.EndpointReport{URL: "m", State: serving.StateReady, Counts: serving.Counts{Requests: 30, Errors: 1, ClientErrors: 4, MeanMS: 1}}),
		live("b", serving.EndpointReport{URL: "m", State: serving.StateFailed, Counts: serving.Counts{Requests: 10, Errors: 2, BadRequests: 3, MeanMS: 5}}),
	}}
	heading, cells := endpointTable([]listRow{{f.of("m"), []string{"/m", "static", "custom", ""}}, {f.of("new"), []string{"/new", "static", "custom", ""}}, {f.ofCanary("split"), []string{"/split", "canary", "", ""}}})
	want := [][]string{
		{"ENDPOINT", "KIND", "ENGINE", "MODEL", "STATE", "REQUESTS", "ERRORS", "CLIENT ERRORS", "BAD REQUESTS", "MEAN", "NOTE"},
		{"/m", "static", "custom", "", "ready 1/2", "40", "3", "4", "3", "2.00 ms", "b: failed"},
		{"/new", "static", "custom", "", "not served 2/2", "", "", "", "", "", "a: not served; b: not served"},
		{"/split", "canary", "", "", "ready 2/2", "", "", "", "", "", ""},
	}
	for i, row := range append([][]string{heading}, cells...) {
		if fmt.Sprintf("%q", row) != fmt.Sprintf("%q", want[i]) {
			t.Errorf("got  %q\nwant %q", row, want[i])
		}
	}
}

func TestStatesThatAreNotAsTheyShouldBeAreColouredOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := printer{out: &out, err: &out, color: true}
	p.table([]string{"ENDPOINT", "STATE", "NOTE"}, [][]string{{"/failed", "failed", "failed to load"}, {"/m", "ready", ""}, {"/n", "failed 0/2", ""}, {"/o", "", ""}})
	text := out.String()
	if strings.Count(text, "\x1b[31m") != 2 || !strings.Contains(text, "\x1b[31mfailed\x1b[0m      failed to load") || !strings.Contains(text, "\x1b[31mfailed 0/2\x1b[0m\n") {
		t.Errorf("%q", text)
	}
	out.Reset()
	p.color = false
	p.table([]string{"A", "STATE"}, [][]string{{"", "failed"}, {"x", ""}})
	if out.String() != "A  STATE\n   failed\nx\n" {
		t.Errorf("%q", out.String())
	}
}

func TestTheAgeOfCountsIsThatOfTheOldestReport(t *testing.T) {
	now := time.Now()
	f := fleet{instances: []liveState{
		{InstanceReport: serving.InstanceReport{Reported: now.Add(-9 * time.Second)}, seen: now},
		{seen: now.Add(-3 * time.Second)},
	}}
	if got := f.reported(); !got.Equal(now.Add(-9 * time.Second)) {
		t.Errorf("%s ago", now.Sub(got))
	}
	if got := (fleet{instances: []liveState{{}}}).reported(); !got.IsZero() {
		t.Errorf("an instance that was asked directly: %s", got)
	}
}

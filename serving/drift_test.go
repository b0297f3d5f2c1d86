package serving_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/serving"
)

func TestDriftSettingsAreThoseOfTheMostSpecificRecord(t *testing.T) {
	s := serving.Decode(map[serving.Section]json.RawMessage{serving.SectionDrift: json.RawMessage(`{
		"*":   {"endpoint":"*","false_alarms":2,"days":7,"min_psi":0.05},
		"m/*": {"endpoint":"m/*","min_psi":0.02,"ignore":["x"]},
		"m/1": {"endpoint":"m/1","min_psi":0,"reference":{"a":1}}
	}`)}, nil)
	if len(s.Broken) > 0 {
		t.Fatal(s.Broken)
	}
	number := func(f float64) *float64 { return &f }
	for url, want := range map[serving.EndpointURL]serving.DriftSettings{
		"m/1": {Endpoint: "m/1", FalseAlarms: number(2), Days: number(7), MinPSI: number(0), Ignore: []string{"x"}, Reference: json.RawMessage(`{"a":1}`)},
		"m/2": {Endpoint: "m/2", FalseAlarms: number(2), Days: number(7), MinPSI: number(0.02), Ignore: []string{"x"}},
		"n":   {Endpoint: "n", FalseAlarms: number(2), Days: number(7), MinPSI: number(0.05)},
	} {
		got := s.DriftFor(url)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(url, d)
		}
		if got.Watches("x") == (got.Ignore != nil) || !got.Watches("y") {
			t.Error(url, got.Ignore)
		}
	}
	if d := (serving.DriftSettings{Ignore: []string{"*"}}); d.Watches("x") {
		t.Error("everything is ignored")
	}
}

func TestDriftSettingsAreSetAndReset(t *testing.T) {
	s := serving.Decode(map[serving.Section]json.RawMessage{
		serving.SectionEndpoints: json.RawMessage(`{"m/1":{"engine_type":"custom","serving_url":"m","version":"1"}}`),
		serving.SectionDrift:     json.RawMessage(`{"m/1":7}`),
	}, nil)
	ten := 10.0
	set := func(d *serving.DriftSettings) { d.Days = &ten }
	if err := s.SetDrift("/m/1", set); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDrift("*", set); err != nil {
		t.Fatal(err)
	}
	if text, err := s.Encode(serving.SectionDrift); err != nil || text != `{"*":{"days":10,"endpoint":"*"},"m/1":{"days":10,"endpoint":"m/1"}}` {
		t.Error(text, err)
	}
	if err := s.SetDrift("other", set); err == nil || !strings.Contains(err.Error(), "no endpoint 'other'") {
		t.Error(err)
	}
	zero := 0.0
	if err := s.SetDrift("m/1", func(d *serving.DriftSettings) { d.Days = &zero }); err == nil || !strings.Contains(err.Error(), "days") {
		t.Error(err)
	}
	if err := s.SetDrift("m/1", func(d *serving.DriftSettings) { *d = serving.DriftSettings{} }); err != nil {
		t.Fatal(err)
	}
	if _, still := s.Drift["m/1"]; still {
		t.Error("empty settings are stored")
	}
}

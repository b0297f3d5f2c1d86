package ui

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"clearmlserving/drift"
)

// drifty is shop with a report about the variables of wine/2.
func drifty(t *testing.T) scripted {
	t.Helper()
	report := drift.Report{
		At: noon(), Problem: "the counts of the instances cannot be read: refused",
		Variables: []drift.VariableReport{
			{Endpoint: "wine", Version: "2", Variable: "alcohol", Kind: drift.Number, Verdict: drift.Steady, Rows: 12345, LiveRows: 900, Evidence: 0.25, Threshold: 12.75, Bins: []drift.Bin{{Name: "x < 1", Reference: 0.5, Live: 0.25}, {Name: "x >= 1", Reference: 0.5, Live: 0.75}}},
			{Endpoint: "wine", Version: "2", Variable: "colour <b>", Kind: drift.Category, Verdict: drift.Drifting, Since: noon().Add(-time.Hour), LiveRows: 900, Distances: drift.Distances{PSI: 1.25, Noise: 0.02}, Evidence: 44, Threshold: 12.75, ChanceDays: 1e9},
			{Endpoint: "wine", Version: "2", Variable: "row", Kind: drift.Number, Verdict: drift.Absent},
			{Endpoint: "wine", Version: "1", Variable: "other", Verdict: drift.Steady},
		},
		Events: []drift.Event{{At: noon().Add(-10 * time.Minute), Endpoint: "wine", Version: "2", Variable: "colour", Began: true, PSI: 1.25}, {At: noon().Add(-5 * time.Minute), Endpoint: "plain", Variable: "z"}},
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	api := shop()
	for call, answer := range api {
		api[call] = strings.ReplaceAll(answer, `"configuration":{`, `"configuration":{"serving_instance":{"name":"serving_instance","value":`+quoteFact(string(text))+`},`)
	}
	return api
}

func TestTheDriftOfAnEndpointIsOnItsPage(t *testing.T) {
	p := newPages(t, Options{API: drifty(t), Now: noon})
	for _, path := range []string{"/services/s/endpoints/wine/2", "/services/s/endpoints/wine/2?part=drift"} {
		page := ask(t, p, "GET", path, "").Body.String()
		_, section, ok := strings.Cut(page, `id="drift"`)
		section, _, _ = strings.Cut(section, "</section>")
		if !ok || strings.Index(section, "colour") > strings.Index(section, "alcohol") {
			t.Fatalf("what drifts is not first: %s", section)
		}
		for _, want := range []string{
			"colour &lt;b&gt;", `<span class="badge bad">drift</span>`, `<span class="badge good">steady</span>`, `<span class="badge ">absent</span>`, "1.25", "44.0 of 12.8",
			"less than once in ten years", "cannot be read: refused", "<title>x &lt; 1: 50 % in the reference, now 25 %</title>", `y="10" width="18.75" height="20"`,
		} {
			if !strings.Contains(section, want) {
				t.Errorf("%s lacks %q: %s", path, want, section)
			}
		}
		if strings.Contains(section, "other") {
			t.Errorf("the variable of another endpoint is there: %s", section)
		}
	}
	if page := ask(t, p, "GET", "/services/s/endpoints/plain", "").Body.String(); strings.Contains(page, `id="drift"`) {
		t.Error("an endpoint without references has the section")
	}
	p = newPages(t, Options{API: shop(), Now: noon})
	if page := ask(t, p, "GET", "/services/s/endpoints/wine/2", "").Body.String(); strings.Contains(page, `id="drift"`) {
		t.Error("without a report the section is there")
	}
}

func TestBeginningAndEndOfDriftAreMarksOnTheCharts(t *testing.T) {
	p := newPages(t, Options{API: drifty(t), Series: answers{}, Now: noon})
	text := ask(t, p, "GET", "/services/s/charts.json?marks=1&endpoint=wine/2", "").Body.String()
	if !strings.Contains(text, "drift of colour began: PSI 1.2") || strings.Contains(text, "drift of z") || !strings.Contains(text, `/services/s/endpoints/wine/2#drift`) {
		t.Error(text)
	}
}

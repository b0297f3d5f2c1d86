package ui

import (
	"strings"
	"testing"

	"clearmlserving/serving"
)

func TestTheAddressesOfAnEngineAreATable(t *testing.T) {
	page := newPages(t, Options{API: guest(), Now: noon}).templates["endpoint"]
	var live liveState
	live.Instance = "here:8080"
	live.Model.Addresses = []serving.AddressReport{
		{Address: "gpu1:8001", State: serving.AddressHealthy, Since: noon(), Outstanding: 3, Answered: 1234},
		{Address: "gpu2:8001", State: serving.AddressEjected, Since: noon(), Failed: 5, Reason: "it has not answered a <probe>"},
	}
	var out strings.Builder
	if err := page.ExecuteTemplate(&out, "addresses", []any{[]liveState{live}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"gpu1:8001", `badge good">healthy<`, "gpu2:8001", `badge bad">ejected<`, `data-label="Outstanding">3<`, "it has not answered a &lt;probe&gt;", "here:8080"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing: %s", want, out.String())
		}
	}
}

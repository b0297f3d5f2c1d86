package instance

import (
	"slices"
	"strings"
	"testing"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
)

func TestAReportHoldsTheWarningsOfEndpointsInBrief(t *testing.T) {
	many := slices.Repeat([]string{strings.Repeat("w", 600)}, 7)
	report := Report{Status: inference.Status{Status: reconcile.Status{Endpoints: []reconcile.EndpointStatus{{URL: "m", Model: engine.Status{Warnings: many}}}}}}
	text, err := report.Text()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseReport(text)
	if err != nil {
		t.Fatal(err)
	}
	got := read.Endpoints[0].Model.Warnings
	if len(got) != 5 || len(got[0]) > 510 || !strings.HasPrefix(got[0], "www") || len(many[0]) != 600 {
		t.Errorf("%d warnings: %q", len(got), got)
	}
}

func TestWhatWorkersTakeIsNoNewsButThatMemoryIsShortIs(t *testing.T) {
	calm := Report{Status: inference.Status{Workers: &inference.WorkersMemory{Budget: 1 << 30, Taken: 5}}}
	standing := func(change func(*inference.WorkersMemory)) string {
		t.Helper()
		memory := *calm.Workers
		change(&memory)
		report := calm
		report.Workers = &memory
		text, err := report.standing()
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := report.Text(); err != nil || !strings.Contains(stored, `"workers_memory":{"budget":1073741824,`) {
			t.Errorf("stored is %s (%v)", stored, err)
		}
		return text
	}
	before := standing(func(*inference.WorkersMemory) {})
	if standing(func(m *inference.WorkersMemory) { m.Taken, m.EndedEarly = 7, 3 }) != before {
		t.Error("a few bytes more are news")
	}
	for name, change := range map[string]func(*inference.WorkersMemory){
		"short":      func(m *inference.WorkersMemory) { m.Short = true },
		"exceeded":   func(m *inference.WorkersMemory) { m.Exceeded = true },
		"unmeasured": func(m *inference.WorkersMemory) { m.Unmeasured = true },
	} {
		if standing(change) == before {
			t.Errorf("%s is no news", name)
		}
	}
}

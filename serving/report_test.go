package serving_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestAReportHoldsTheWarningsOfEndpointsInBrief(t *testing.T) {
	many := slices.Repeat([]string{strings.Repeat("w", 600)}, 7)
	report := serving.InstanceReport{Status: serving.Status{Endpoints: []serving.EndpointReport{{URL: "m", Model: serving.ModelReport{Warnings: many}}}}}
	text, err := report.Text()
	if err != nil {
		t.Fatal(err)
	}
	read, err := serving.ParseReport(text)
	if err != nil {
		t.Fatal(err)
	}
	got := read.Endpoints[0].Model.Warnings
	if len(got) != 5 || len(got[0]) > 510 || !strings.HasPrefix(got[0], "www") || len(many[0]) != 600 {
		t.Errorf("%d warnings: %q", len(got), got)
	}
}

func TestWhatWorkersTakeIsNoNewsButThatMemoryIsShortIs(t *testing.T) {
	calm := serving.InstanceReport{Status: serving.Status{Workers: &serving.MemoryReport{Budget: 1 << 30, Taken: 5}}}
	standing := func(change func(*serving.MemoryReport)) string {
		t.Helper()
		memory := *calm.Workers
		change(&memory)
		report := calm
		report.Workers = &memory
		text, err := report.Standing()
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := report.Text(); err != nil || !strings.Contains(stored, `"workers_memory":{"budget":1073741824,`) {
			t.Errorf("stored is %s (%v)", stored, err)
		}
		return text
	}
	before := standing(func(*serving.MemoryReport) {})
	if standing(func(m *serving.MemoryReport) { m.Taken, m.EndedEarly = 7, 3 }) != before {
		t.Error("a few bytes more are news")
	}
	for name, change := range map[string]func(*serving.MemoryReport){
		"short":      func(m *serving.MemoryReport) { m.Short = true },
		"exceeded":   func(m *serving.MemoryReport) { m.Exceeded = true },
		"unmeasured": func(m *serving.MemoryReport) { m.Unmeasured = true },
	} {
		if standing(change) == before {
			t.Errorf("%s is no news", name)
		}
	}
}

// Each ping of an instance is a write to the service's task.
func TestThatTheServiceWasPingedIsNoNews(t *testing.T) {
	report := serving.InstanceReport{Status: serving.Status{StateHash: "h"}}
	before, err := report.Standing()
	if err != nil {
		t.Fatal(err)
	}
	report.StateChanged = time.Unix(1e9, 0)
	if after, err := report.Standing(); err != nil || after != before {
		t.Errorf("%s after %s (%v)", after, before, err)
	}
	text, err := report.Text()
	if err != nil {
		t.Fatal(err)
	}
	if read, err := serving.ParseReport(text); err != nil || !read.StateChanged.Equal(report.StateChanged) {
		t.Errorf("read %+v (%v)", read, err)
	}
}

func TestCountsOfSeveralInstancesAreAddedUp(t *testing.T) {
	sum := serving.Counts{Requests: 3, Errors: 1, MeanMS: 2, PerSecond: 1.5, P95MS: 7}
	sum.Add(serving.Counts{Requests: 1, Refused: 1, MeanMS: 6, PerSecond: 2, P95MS: 5})
	if want := (serving.Counts{Requests: 4, Errors: 1, Refused: 1, MeanMS: 3, PerSecond: 3.5, P95MS: 7}); sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
}

func TestAReportIsReadBackAndBounded(t *testing.T) {
	long := strings.Repeat("é", 2000)
	report := serving.InstanceReport{Name: "host:1", Status: serving.Status{ServiceID: "S", Endpoints: []serving.EndpointReport{
		{URL: "m", State: "failed", Counts: serving.Counts{Requests: 7}, Failure: &serving.LoadFailure{Step: "load", Reason: long, Traceback: long}},
	}}}
	text, err := report.Text()
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 1000 {
		t.Errorf("the report of one endpoint has %d bytes", len(text))
	}
	back, err := serving.ParseReport(text)
	if err != nil || back.Name != "host:1" || back.ServiceID != "S" || back.Endpoints[0].Requests != 7 || !strings.HasSuffix(back.Endpoints[0].Failure.Reason, "é…") {
		t.Errorf("read back %+v, %v", back, err)
	}
	if report.Endpoints[0].Failure.Reason != long {
		t.Error("writing the report has changed it")
	}
	if _, err := serving.ParseReport("{"); err == nil {
		t.Error("half a report was read")
	}
}

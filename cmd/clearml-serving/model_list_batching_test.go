package main

import (
	"bytes"
	"strings"
	"testing"

	"clearmlserving/serving"
)

func TestWhatBatchingDecidesIsShownForEachEndpointThatBatches(t *testing.T) {
	live := func(name string) liveState {
		return liveState{InstanceReport: serving.InstanceReport{Name: name, Status: serving.Status{Endpoints: []serving.EndpointReport{
			{URL: "plain"},
			{URL: "new", Model: serving.ModelReport{Batching: &serving.BatchingReport{MaxRows: 8, Limit: 8, LimitedBy: "max_batch_size"}}},
			{URL: "old/1", Model: serving.ModelReport{Batching: &serving.BatchingReport{
				MaxRows: 64, Batches: 12, LastRows: 9, LastRequests: 3, MeanRows: 4.25, PerRowUS: 3.14, PerBatchUS: 250, Limit: 40, LimitedBy: "deadline",
			}}},
		}}}}
	}
	show := func(instances ...liveState) []string {
		var out bytes.Buffer
		a := &app{print: printer{out: &out, err: &out}}
		a.printBatching(fleet{instances: instances})
		var lines []string
		for line := range strings.Lines(out.String()) {
			if words := strings.Join(strings.Fields(line), " "); words != "" {
				lines = append(lines, words)
			}
		}
		return lines
	}
	want := []string{
		"BATCHING OF BATCHES LAST ROWS OF REQUESTS MEAN ROWS TAKES LIMIT SET BY",
		"/new 0 0.0 8 max_batch_size",
		"/old/1 12 9 of 3 4.2 250 us + 3.1 us a row 40 deadline",
	}
	if got := show(live("a")); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if got := strings.Join(show(live("a"), live("b")), "\n"); !strings.Contains(got, "/old/1 on b 12") {
		t.Errorf("which instance it is remains untold:\n%s", got)
	}
	if got := show(liveState{}); len(got) != 0 {
		t.Errorf("nothing batches, and it says %q", got)
	}
}

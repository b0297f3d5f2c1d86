package rest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"clearmlserving/inference"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// An instance that never got a good form of a section serves the rest, reports the
// problem, and answers no url as unknown.
func TestAnUnreadableSectionIsToldAndNothingIs404(t *testing.T) {
	base := start(t, func(o *options) {
		state := o.Source.(fixedSource).state
		state.Models = map[serving.ModelID]reconcile.Model{}
		state.Unreadable = map[serving.Section]string{serving.SectionCanary: "line 1: expected }"}
		state.Sections[serving.SectionMonitoring] = json.RawMessage(`{"auto":null}`)
	}, "echo")
	if resp, body := post(t, base+"/serve/echo", "1"); resp.StatusCode != http.StatusOK {
		t.Errorf("the rest: %d %s", resp.StatusCode, body)
	}
	for path, says := range map[string]string{
		"/serve/split": "configuration section \"canary\"", "/serve/auto": "model_monitoring",
	} {
		if resp, body := post(t, base+path, "1"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), says) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	var ready inference.Readiness
	resp, body := get(t, base+"/readyz")
	if err := json.Unmarshal([]byte(body), &ready); err != nil || resp.StatusCode != http.StatusOK || !ready.Ready {
		t.Fatalf("%d %s (%v)", resp.StatusCode, body, err)
	}
	if len(ready.Problems) != 2 || !strings.Contains(strings.Join(ready.Problems, "\n"), "canary") || !strings.Contains(strings.Join(ready.Problems, "\n"), `model_monitoring "auto"`) {
		t.Errorf("problems: %q", ready.Problems)
	}
	if resp, body := get(t, base+"/readyz?endpoint=split"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

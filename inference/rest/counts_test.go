package rest_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// counted returns the counts of each endpoint and canary, without times.
func counted(s serving.Status) map[serving.EndpointURL]serving.Counts {
	all := map[serving.EndpointURL]serving.Counts{}
	for _, e := range s.Endpoints {
		all[e.URL] = e.Counts
	}
	for _, c := range s.Canaries {
		all[c.URL] = c.Counts
	}
	for url, c := range all {
		c.MeanMS = 0
		all[url] = c
	}
	return all
}

func TestEachRequestIsCountedByWhatBecameOfIt(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) { eachRequestIsCounted(t, post) })
	t.Run("HTTP/2", func(t *testing.T) {
		client := client2(t)
		eachRequestIsCounted(t, func(t *testing.T, url, body string, headers ...string) (*http.Response, string) {
			t.Helper()
			return ask2(t, client, url, body, headers...)
		})
	})
}

func eachRequestIsCounted(t *testing.T, post func(t *testing.T, url, body string, headers ...string) (*http.Response, string)) {
	t.Helper()
	recorder := &countingRecorder{}
	base := start(t, func(o *options) {
		o.Recorder = recorder
		o.Source.(fixedSource).state.Sections[serving.SectionCanary] = json.RawMessage(
			`{"split":{"endpoint":"split","weights":[1],"load_endpoints":["answers"]},"empty":{"endpoint":"empty","weights":[1],"load_endpoints":["badcode"]}}`)
	}, "answers", "slow", "busy", "died", "away", "cut", "panics", "badcode")
	header := func(name, value string) []string { return []string{name, value} }
	for _, tc := range []struct {
		path, body string
		headers    []string
		status     int
	}{
		{"answers", "200", nil, 200},
		{"answers", "404", nil, 404},
		{"answers", "422", nil, 422},
		{"answers", "429", nil, 429}, // a 429 of user code is not a refusal by a limit
		{"answers", "500", nil, 500},
		{"answers", "503", nil, 503},
		{"answers", "no JSON", nil, 422},
		{"answers", "200", header("X-Request-Timeout", "soon"), 400},
		{"answers", "200", header("Content-Encoding", "gzip"), 400},
		{"answers", "200", header("Content-Encoding", "zip"), 415},
		{"answers", strings.Repeat("1", 1<<20+1), nil, 413},
		{"split", "200", nil, 200},
		{"split", strings.Repeat("1", 1<<20+1), nil, 413},
		{"empty", "200", nil, 503},
		{"slow", "", nil, 504},
		{"busy", "", nil, 429},
		{"died", "", nil, 500},
		{"away", "", nil, 503},
		{"cut", "", nil, 200},
		{"panics", "", nil, 500},
		{"panics", "no answer", nil, 500},
		{"badcode", "", nil, 503},
		{"badcode", "", nil, 503},
		{"nobody", "", nil, 404},
	} {
		if resp, body := post(t, base+"/serve/"+tc.path, tc.body, tc.headers...); resp.StatusCode != tc.status {
			t.Errorf("%s %.20s %v: %d %s, want %d", tc.path, tc.body, tc.headers, resp.StatusCode, body, tc.status)
		}
	}
	if resp, _ := get(t, base+"/serve/answers"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", resp.StatusCode)
	}
	want := map[serving.EndpointURL]serving.Counts{
		"answers": {Requests: 13, Errors: 2, ClientErrors: 3, BadRequests: 6},
		"split":   {Requests: 1, BadRequests: 1},
		"empty":   {Requests: 1, Errors: 1},
		"slow":    {Requests: 1, TimedOut: 1},
		"busy":    {Requests: 1, Refused: 1},
		"died":    {Requests: 1, Errors: 1},
		"away":    {Requests: 1, Errors: 1},
		"cut":     {Requests: 1, Errors: 1},
		"panics":  {Requests: 2, Errors: 2},
		"badcode": {Requests: 2, Errors: 2},
	}
	status := until(t, base, func(s serving.Status) bool { return counted(s)["cut"].Errors == 1 }) // detected when it is sent
	got := counted(status)
	for url, w := range want {
		if got[url] != w {
			t.Errorf("%s: %+v, want %+v", url, got[url], w)
		}
	}
	want["split > answers"] = serving.Counts{Requests: 1} // the one through the canary
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	if !maps.Equal(recorder.counts, want) {
		t.Errorf("recorded %+v, want %+v", recorder.counts, want)
	}
	for _, e := range status.Endpoints {
		if e.URL == "slow" && e.MeanMS < 250 || e.URL == "badcode" && e.MeanMS != 0 {
			t.Errorf("%s: a mean of %f ms", e.URL, e.MeanMS)
		}
	}
}

func TestAShadowCopyIsNoRequestOfItsTarget(t *testing.T) {
	base := start(t, withOptions("", map[string]any{"x": map[string]any{"shadow": map[string]any{"to": "answers", "share": 1}}}), "x", "answers")
	for range 9 {
		post(t, base+"/serve/x", "500")
	}
	post(t, base+"/serve/answers", "200")
	status := until(t, base, func(s serving.Status) bool { return s.Shadows[0].Errors == 9 })
	if got, want := counted(status)["answers"], (serving.Counts{Requests: 1, Copies: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := counted(status)["x"], (serving.Counts{Requests: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestACanaryThatCanAnswerIsReady(t *testing.T) {
	base := start(t, func(o *options) {
		o.Source.(fixedSource).state.Sections[serving.SectionCanary] = json.RawMessage(
			`{"split":{"endpoint":"split","weights":[1],"load_endpoints":["echo"]},"empty":{"endpoint":"empty","weights":[1],"load_endpoints":["badcode"]}}`)
	}, "echo", "badcode")
	for url, want := range map[string]int{"split": 200, "empty": 503, "nobody": 404} {
		resp, body := get(t, base+"/readyz?endpoint="+url)
		if resp.StatusCode != want || want == 503 && !strings.Contains(body, "NameError: x") {
			t.Errorf("%s: %d %s", url, resp.StatusCode, body)
		}
	}
}

// turningSource returns a second configuration on demand.
type turningSource struct {
	first, second *reconcile.State
	turned        chan struct{}
}

func (s turningSource) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	select {
	case <-s.turned:
		return s.second, nil
	default:
		return s.first, nil
	}
}

func TestCountsGoOnWhenANewVersionGoesLive(t *testing.T) {
	turned := make(chan struct{})
	base := start(t, func(o *options) {
		first := o.Source.(fixedSource).state
		second := *first
		second.Sections = maps.Clone(first.Sections)
		second.Sections[serving.SectionOptions] = json.RawMessage(`{"answers":{"limits":{"max_queue":7}}}`)
		o.Source, o.Poll = turningSource{first, &second, turned}, 10*time.Millisecond
	}, "answers")
	post(t, base+"/serve/answers", "404")
	before := until(t, base, func(serving.Status) bool { return true }).StateHash
	close(turned)
	until(t, base, func(s serving.Status) bool {
		return s.StateHash != before && s.Endpoints[0].State == serving.StateReady
	})
	post(t, base+"/serve/answers", "200")
	status := until(t, base, func(serving.Status) bool { return true })
	if got, want := counted(status)["answers"], (serving.Counts{Requests: 2, ClientErrors: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// slowLoader loads one endpoint only after its release.
type slowLoader struct {
	fakePython

	let chan struct{}
}

func (l *slowLoader) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if spec.URL == "late" {
		select {
		case <-l.let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.fakePython.Load(ctx, spec)
}

func TestAnInstanceStaysReadyWhileAnotherEndpointLoads(t *testing.T) {
	loader := &slowLoader{let: make(chan struct{})}
	turned := make(chan struct{})
	base := start(t, func(o *options) {
		first := o.Source.(fixedSource).state
		second := *first
		second.Sections = map[serving.Section]json.RawMessage{serving.SectionEndpoints: json.RawMessage(
			`{"echo":{"engine_type":"custom","serving_url":"echo","version":""},"late":{"engine_type":"custom","serving_url":"late","version":""}}`)}
		o.Python, o.Source, o.Poll = loader, turningSource{first, &second, turned}, 10*time.Millisecond
	}, "echo")
	close(turned)
	until(t, base, func(s serving.Status) bool { return len(s.Endpoints) == 2 })
	resp, body := get(t, base+"/readyz")
	var ready inference.Readiness
	if err := json.Unmarshal([]byte(body), &ready); err != nil || resp.StatusCode != http.StatusOK || len(ready.NotReady) != 1 || ready.NotReady[0].Endpoint != "late" {
		t.Errorf("%d %s (%v)", resp.StatusCode, body, err)
	}
	if resp, body := get(t, base+"/readyz?endpoint=late"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the endpoint itself: %d %s", resp.StatusCode, body)
	}
	close(loader.let)
	until(t, base, func(s serving.Status) bool { return s.Endpoints[1].State == serving.StateReady })
}

package rest_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// withOptions sets options of endpoints, and a folder for recordings.
func withOptions(dir string, of map[string]any) func(*options) {
	return func(o *options) {
		o.RecordingsDir = dir
		state := o.Source.(fixedSource).state
		state.Sections[serving.SectionOptions], _ = json.Marshal(of)
		state.Sections[serving.SectionCanary] = json.RawMessage(`{"c":{"endpoint":"c","weights":[1],"load_endpoints":["echo"]}}`)
		state.Models = map[serving.ModelID]reconcile.Model{}
	}
}

// until polls the status until the condition holds.
func until(t *testing.T, base string, holds func(serving.Status) bool) serving.Status {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		var status serving.Status
		_, body := get(t, base+"/status")
		if err := json.Unmarshal([]byte(body), &status); err != nil {
			t.Fatal(err)
		}
		if holds(status) {
			return status
		}
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", body)
		}
	}
}

func TestRequestsAreRecordedWithTheirAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recordings")
	base := start(t, withOptions(dir, map[string]any{
		"c": map[string]any{"record": map[string]any{"share": 1}}, "died": map[string]any{"record": map[string]any{}},
		"ask": map[string]any{"record": map[string]any{}}, "stream": map[string]any{"record": map[string]any{}},
		"a/b/c": map[string]any{"record": map[string]any{"redact": []string{"secret"}}},
	}), "echo", "echo/1", "a/b/c", "died", "ask", "stream", "x")
	post(t, base+"/serve/c", "\xff", "Content-Type", "image/x")
	post(t, base+"/serve/echo", "not through the canary")
	post(t, base+"/serve/died", `{"x":1}`, "Content-Type", "application/json")
	post(t, base+"/serve/ask", "in")
	post(t, base+"/serve/stream", "")
	post(t, base+"/serve/a/b/c", "no JSON, so nothing could be redacted")
	post(t, base+"/serve/x", "nobody asked for it")
	status := until(t, base, func(s serving.Status) bool {
		recorded := uint64(0)
		for _, r := range s.Recordings {
			recorded += r.Recorded + r.Skipped
		}
		return recorded == 5
	})
	if len(status.Recordings) != 5 {
		t.Errorf("recordings: %+v", status.Recordings)
	}
	for _, r := range status.Recordings {
		if skipped := r.URL == "stream" || r.URL == "a/b/c"; (r.Skipped == 1) != skipped || r.Dropped != 0 || r.Problem != "" {
			t.Errorf("%+v", r)
		}
	}
	for file, want := range map[string]serving.Exchange{
		"c.jsonl":    {Endpoint: "c", AnsweredBy: "echo", ContentType: "image/x", Body: []byte("\xff"), Status: 200, AnswerType: "application/json", Answer: []byte("echo|image/x|\xff")},
		"died.jsonl": {Endpoint: "died", ContentType: "application/json", Body: []byte(`{"x":1}`), Status: 500, AnswerType: "application/json", Answer: []byte(`{"detail":"worker of 'died' was killed by signal 9"}`)},
		"ask.jsonl":  {Endpoint: "ask", Body: []byte("in"), Status: 200, AnswerType: "application/json", Answer: []byte("echo/1|text/x|in")},
	} {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := serving.ParseExchanges(data)
		if err != nil || len(got) != 1 || time.Since(got[0].Time) > time.Minute {
			t.Errorf("%s: %v, %v", file, got, err)
			continue
		}
		got[0].Time = time.Time{}
		if fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s:\n got %+v\nwant %+v", file, got[0], want)
		}
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
}

func TestShadowTrafficIsComparedAndNeverSeen(t *testing.T) {
	shadow := func(to string) map[string]any {
		return map[string]any{"shadow": map[string]any{"to": to, "share": 1}}
	}
	base := start(t, withOptions("", map[string]any{
		"x": shadow("y"), "echo": shadow("echo/1"), "busy": shadow("nowhere"), "y": shadow("died"), "echo/1": shadow("c"), "shows": shadow("shows/2"),
	}), "x", "y", "echo", "echo/1", "busy", "died", "shows", "shows/2")
	for range 5 {
		if resp, body := post(t, base+"/serve/x", "1"); resp.StatusCode != 200 || body != "null" {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	if resp, body := post(t, base+"/serve/echo", "1"); body != "echo||1" || resp.Header.Get("X-Clearml-Endpoint") != "echo" {
		t.Errorf("%v %s", resp.Header, body)
	}
	if resp, _ := post(t, base+"/serve/busy", "1"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d", resp.StatusCode)
	}
	if _, body := post(t, base+"/serve/shows?a=b", "1", "X-A", "7"); !strings.Contains(body, `?a=b 127.0.0.1`) {
		t.Error(body)
	}
	status := until(t, base, func(s serving.Status) bool {
		sent := uint64(0)
		for _, p := range s.Shadows {
			sent += p.Equal + p.Different + p.Errors
		}
		return sent == 8
	})
	want := map[string]serving.ShadowReport{
		"x": {Shadowed: 5, Equal: 5}, "echo": {Shadowed: 1, Different: 1}, "busy": {Shadowed: 1, Errors: 1},
		"shows": {Shadowed: 1, Equal: 1}, // the copy has the client's request
		"y":     {}, "echo/1": {},        // a copy is not copied again
	}
	for _, got := range status.Shadows {
		w := want[string(got.From)]
		w.From, w.To, w.Share = got.From, got.To, 1
		if got != w {
			t.Errorf("got %+v, want %+v", got, w)
		}
	}
	if len(status.Shadows) != len(want) {
		t.Errorf("%d pairs", len(status.Shadows))
	}
}

// TestShadowTrafficIsTheShareThatWasAskedFor checks the share within 5 standard
// deviations of its binomial: a correct one fails about once in a million runs.
func TestShadowTrafficIsTheShareThatWasAskedFor(t *testing.T) {
	const requests, share = 1000, 0.3
	options := map[string]any{"x": map[string]any{"shadow": map[string]any{"to": "y", "share": share}}}
	base := start(t, withOptions("", options), "x", "y")
	for range requests {
		if resp, _ := post(t, base+"/serve/x", "1"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.StatusCode)
		}
	}
	bound := 5 * math.Sqrt(requests*share*(1-share))
	taken := func(s serving.Status) float64 { return float64(s.Shadows[0].Shadowed + s.Shadows[0].Dropped) }
	status := until(t, base, func(s serving.Status) bool {
		return len(s.Shadows) == 1 && taken(s) >= requests*share-bound
	})
	if n := taken(status); n > requests*share+bound {
		t.Errorf("%v of %d requests were copied, want %v ± %.0f", n, requests, requests*share, bound)
	}
}

func TestASlowShadowDelaysNobodyAndIsDropped(t *testing.T) {
	of := map[string]any{"x": map[string]any{"shadow": map[string]any{"to": "held"}}, "echo": map[string]any{"shadow": map[string]any{"to": "c"}}}
	python := &fakePython{release: make(chan struct{})}
	follow := withOptions("", of)
	base := start(t, func(o *options) {
		follow(o)
		o.Python, o.RequestTimeout = python, time.Hour
	}, "x", "held", "echo")
	const requests = 150
	for range requests { // all of them are answered, but no copy is
		if resp, body := post(t, base+"/serve/x", "1"); resp.StatusCode != 200 || body != "null" {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	post(t, base+"/serve/echo", "1")
	status := until(t, base, func(s serving.Status) bool { // a slow pair does not delay another
		return len(s.Shadows) == 2 && s.Shadows[0].Equal == 1
	})
	dropped := status.Shadows[1].Dropped
	if p := status.Shadows[1]; p.Shadowed != 0 || dropped < requests-100 || dropped > requests-60 {
		t.Errorf("%+v", p)
	}
	close(python.release)
	until(t, base, func(s serving.Status) bool { return s.Shadows[1].Equal == requests-dropped })
}

func TestARecordingIsARingThatSurvivesWhatOthersDo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "echo.jsonl")
	if err := os.WriteFile(file, []byte(`{"body":"old","answer":"old"}`+"\n"+`{"body":"cut by a cra`), 0o600); err != nil {
		t.Fatal(err)
	}
	base := start(t, withOptions(dir, map[string]any{"echo": map[string]any{"record": map[string]any{"max": 8}}}), "echo")
	sent := 0
	send := func(n int) []string {
		t.Helper()
		for range n {
			sent++
			post(t, base+"/serve/echo", fmt.Sprint(sent))
		}
		until(t, base, func(s serving.Status) bool { return s.Recordings[0].Recorded == uint64(sent) })
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all, err := serving.ParseExchanges(data)
		if err != nil {
			t.Fatal(err)
		}
		var bodies []string
		for _, e := range all {
			bodies = append(bodies, string(e.Body))
		}
		if len(bodies) > 8 || bodies[len(bodies)-1] != fmt.Sprint(sent) {
			t.Errorf("after %d: %v", sent, bodies)
		}
		return bodies
	}
	if got := strings.Join(send(2), " "); got != "old 1 2" {
		t.Errorf("a cut line, then two: %s", got)
	}
	send(5)
	if got := send(1); got[0] == "old" {
		t.Errorf("the oldest stayed: %v", got)
	}
	send(30)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(send(1), " "); got != fmt.Sprint(sent) {
		t.Errorf("after the file was taken away: %s", got)
	}
}

func TestARecordingThatCannotBeWrittenIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recordings")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	base := start(t, withOptions(dir, map[string]any{"x": map[string]any{"record": map[string]any{}}}), "x")
	if resp, _ := post(t, base+"/serve/x", "1"); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
	until(t, base, func(s serving.Status) bool { return s.Recordings[0].Dropped == 1 && s.Recordings[0].Problem != "" })
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	post(t, base+"/serve/x", "1")
	until(t, base, func(s serving.Status) bool { return s.Recordings[0].Recorded == 1 && s.Recordings[0].Problem == "" })
}

package inference_test

import (
	"bytes"
	"encoding/json"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// observer notes the bodies of the copies that it gets.
type observer struct {
	share func(serving.EndpointOptions) bool

	most int64 // bytes of a copy that it takes, 0: any

	mu     sync.Mutex // guards bodies
	bodies []string
}

func (o *observer) Share(options serving.EndpointOptions) float64 {
	if o.share(options) {
		return 1
	}
	return 0
}

func (o *observer) Admits(_ serving.EndpointURL, size int64) bool {
	return o.most == 0 || size <= o.most
}

func (o *observer) Observe(e serving.Observed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bodies = append(o.bodies, string(e.Body))
}

func TestObserversGetWhatTheCanaryOrTheEndpointNames(t *testing.T) {
	feedback := &observer{share: func(o serving.EndpointOptions) bool { return o.Feedback != nil }}
	log := &observer{share: func(o serving.EndpointOptions) bool { return o.Log != nil }}
	canaries := fixedSource{&reconcile.State{Sections: map[serving.Section]json.RawMessage{serving.SectionCanary: json.RawMessage(
		`{"both":{"endpoint":"both","weights":[1],"load_endpoints":["echo"]},"none":{"endpoint":"none","weights":[1],"load_endpoints":["echo"]}}`,
	)}}}
	s := core(t, inference.Options{Source: canaries, Observers: []inference.Observer{feedback, log}}, nil,
		`{"echo":{"request_log":{"share":1}},"both":{"feedback":{"task":"regression"}}}`, "echo", "busy")
	for _, url := range []string{"echo", "both", "none"} {
		if resp, failure := ask(t, s, url, engine.Request{Body: []byte(url)}); failure != nil || resp.Status != 200 {
			t.Errorf("%s: %+v %v", url, resp, failure)
		}
	}
	if _, failure := ask(t, s, "busy", engine.Request{Body: []byte("busy")}); failure == nil { // it has no options
		t.Error("a busy endpoint answers")
	}
	if want := []string{"both"}; !slices.Equal(feedback.bodies, want) {
		t.Errorf("feedback of %q, want %q", feedback.bodies, want)
	}
	if want := []string{"echo", "both", "none"}; !slices.Equal(log.bodies, want) {
		t.Errorf("a log of %q, want %q", log.bodies, want)
	}
}

// Requests with tensors are compared with tensors, and observed as the JSON that they would be.
func TestCopiesOfRequestsWithTensors(t *testing.T) {
	log := &observer{share: func(o serving.EndpointOptions) bool { return o.Log != nil }}
	s := core(t, inference.Options{Observers: []inference.Observer{log}}, nil,
		`{"echo":{"request_log":{"share":1},"shadow":{"to":"other","share":1}}}`, "echo", "other")
	x := engine.Tensor{Name: "x", Datatype: engine.Int8, Shape: []int64{3}, Data: []byte{1, 0, 255}}
	resp, failure := ask(t, s, "echo", engine.Request{Tensors: []engine.Tensor{x}})
	if failure != nil || resp.Status != 200 || !slices.Equal(resp.Tensors[0].Data, []byte{2, 0, 254}) {
		t.Fatalf("%+v %v", resp, failure)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if report := s.Status().Shadows; len(report) == 1 && report[0].Shadowed == 1 {
			if report[0].Equal != 1 || report[0].Errors != 0 {
				t.Errorf("%+v", report[0])
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", s.Status().Shadows)
		}
	}
	if want := []string{`{"x":[1,0,-1]}`}; !slices.Equal(log.bodies, want) {
		t.Errorf("observed %q, want %q", log.bodies, want)
	}
}

// As JSON, tensors may be many times larger: it is not written for copies that nobody takes.
func TestTensorsThatAreTooLargeAreNotCopiedAsJSON(t *testing.T) {
	log := &observer{share: func(o serving.EndpointOptions) bool { return o.Log != nil }, most: 1 << 20}
	s := core(t, inference.Options{Observers: []inference.Observer{log}}, nil,
		`{"echo":{"request_log":{"share":1},"shadow":{"to":"other","share":1}}}`, "echo", "other")
	const size = 20 << 20 // more than the shadow's copies may have
	x := engine.Tensor{Name: "x", Datatype: engine.Int8, Shape: []int64{size}, Data: bytes.Repeat([]byte{0x80}, size)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	resp, failure := ask(t, s, "echo", engine.Request{Tensors: []engine.Tensor{x}})
	runtime.ReadMemStats(&after)
	if failure != nil || resp.Status != 200 {
		t.Fatalf("%+v %v", resp, failure)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 3*size { // the answer has one
		t.Errorf("a request of %d bytes has taken %d", size, used)
	}
	if report := s.Status().Shadows; len(report) != 1 || report[0].Dropped != 1 || len(log.bodies) != 0 {
		t.Errorf("%+v, %d observed", report, len(log.bodies))
	}
}

// The route of the OpenAI API tells what a body means: a copy without it would be another request.
func TestCopiesKeepTheRouteOfTheirRequests(t *testing.T) {
	s := core(t, inference.Options{}, nil, `{"routed":{"shadow":{"to":"routed2","share":1}}}`, "routed", "routed2")
	if resp, failure := ask(t, s, "routed", engine.Request{Body: []byte(`{"input":"a"}`), ContentType: "application/json", Route: "v1/responses"}); failure != nil || string(resp.Body) != `"v1/responses"` {
		t.Fatalf("%+v %v", resp, failure)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		report := s.Status().Shadows
		if len(report) == 1 && report[0].Shadowed == 1 {
			if report[0].Equal != 1 {
				t.Errorf("%+v", report[0])
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", report)
		}
	}
}

// A stream is observed, and sent to the shadow, whatever the form of its request.
func TestStreamsForTensorsAreCopied(t *testing.T) {
	log := &observer{share: func(o serving.EndpointOptions) bool { return o.Log != nil }}
	s := core(t, inference.Options{Observers: []inference.Observer{log}}, nil,
		`{"streams":{"request_log":{"share":1},"shadow":{"to":"other","share":1}}}`, "streams", "other")
	x := engine.Tensor{Name: "x", Datatype: engine.Int8, Shape: []int64{2}, Data: []byte{1, 2}}
	if resp, failure := ask(t, s, "streams", engine.Request{Tensors: []engine.Tensor{x}}); failure != nil || resp.Status != 200 {
		t.Fatalf("%+v %v", resp, failure)
	}
	if want := []string{`{"x":[1,2]}`}; !slices.Equal(log.bodies, want) {
		t.Errorf("observed %q, want %q", log.bodies, want)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		report := s.Status().Shadows
		if len(report) == 1 && report[0].Shadowed == 1 && report[0].Dropped+report[0].Errors+report[0].Different == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", report)
		}
	}
}

package inference_test

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// edited is a service that is edited, and what a Control of it has done.
type edited struct {
	mu       sync.Mutex
	sections map[serving.Section]json.RawMessage
	by       []string

	rung chan struct{}
}

// Load implements reconcile.Source.
func (e *edited) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &reconcile.State{ServiceID: "S", Sections: maps.Clone(e.sections), Artifacts: map[string]reconcile.Artifact{"py_code_broken": {URI: "x"}}}, nil
}

// Next implements reconcile.Changes.
func (e *edited) Next(ctx context.Context) error {
	select {
	case <-e.rung:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *edited) edit(change func(*serving.Service) (serving.Section, error)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := serving.Decode(e.sections, nil)
	section, err := change(&s)
	if err != nil {
		return err
	}
	text, err := s.Encode(section)
	if err != nil {
		return err
	}
	e.sections[section] = json.RawMessage(text)
	e.rung <- struct{}{}
	return nil
}

// control is an inference.Control.
func (e *edited) control(_ context.Context, id string, name serving.EndpointURL, load bool, by string) (urls []serving.EndpointURL, err error) {
	err = e.edit(func(s *serving.Service) (serving.Section, error) {
		urls, err = s.SetLoaded(name, load, id+" "+by, time.Now())
		return serving.SectionOptions, err
	})
	if err == nil {
		e.by = append(e.by, by)
	}
	return urls, err
}

// changeable runs a core whose service can be edited.
func changeable(t *testing.T, exposed bool, access string) (*inference.Service, *edited) {
	t.Helper()
	endpoints := `{"echo":{"engine_type":"vllm","serving_url":"echo"},"streams/1":{"engine_type":"vllm","serving_url":"streams","version":"1"},
		"streams/2":{"engine_type":"vllm","serving_url":"streams","version":"2"},"broken":{"engine_type":"vllm","serving_url":"broken","preprocess_artifact":"py_code_broken"}}`
	canaries := `{"split":{"endpoint":"split","weights":[0.5,0.5],"load_endpoints":["echo","streams/2"]}}`
	e := &edited{rung: make(chan struct{}, 10), sections: map[serving.Section]json.RawMessage{
		serving.SectionEndpoints: json.RawMessage(endpoints), serving.SectionCanary: json.RawMessage(canaries), serving.SectionAccess: json.RawMessage(access),
	}}
	loaded := make(ready, 1)
	s := inference.New(inference.Options{
		Engines: []inference.Engine{{Kinds: []string{"vllm"}, Loader: newToyEngine()}}, Followers: []reconcile.Follower{loaded},
		Source: e, Changes: e, Files: noFiles{}, Exposed: exposed, Control: e.control,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-loaded:
	case <-time.After(patience):
		t.Fatal("never ready")
	}
	return s, e
}

const allowed = `{"service":{"required":false,"model_control":true}}`

func TestClientsUnloadAndLoadModels(t *testing.T) {
	s, e := changeable(t, false, allowed)
	change := func(name string, load bool) *inference.Failure {
		return s.RepositoryChange(t.Context(), inference.Head{Endpoint: serving.EndpointURL(name)}, load)
	}
	answers := func(url string) bool {
		_, failure := ask(t, s, url, engine.Request{Body: []byte("x")})
		return failure == nil
	}
	if failure := change("echo", false); failure != nil {
		t.Fatal(failure.Text)
	}
	_, failure := ask(t, s, "echo", engine.Request{})
	if failure == nil || failure.Kind != inference.KindNotReady || !strings.Contains(failure.Text, "it was unloaded by S a client at ") || failure.RetryAfter != 0 {
		t.Errorf("%+v", failure)
	}
	if r, known := s.Readiness("echo"); !known || r.Ready {
		t.Errorf("%+v", r)
	}
	if r, _ := s.Readiness(""); !r.Ready {
		t.Errorf("the instance: %+v", r)
	}
	for range 50 { // the canary chooses the other one
		if !answers("split") {
			t.Fatal("it chooses what is unloaded")
		}
	}
	for _, m := range s.ModelIndex(false) {
		if m.Name == "echo" && (m.State != "UNAVAILABLE" || !strings.Contains(m.Reason, "unloaded")) {
			t.Errorf("%+v", m)
		}
	}
	if failure := change("echo", false); failure != nil { // again
		t.Error(failure.Text)
	}
	if failure := change("echo", true); failure != nil || !answers("echo") {
		t.Errorf("loaded: %+v", failure)
	}
	if failure := change("echo", true); failure != nil { // it is loaded
		t.Error(failure.Text)
	}
	// A name with versions only stands for all of them.
	if failure := change("streams", false); failure != nil || answers("streams/1") || answers("streams/2") {
		t.Errorf("versions: %+v", failure)
	}
	if failure := change("streams/2", true); failure != nil || answers("streams/1") || !answers("streams/2") {
		t.Errorf("one version: %+v", failure)
	}
	if failure := change("streams", true); failure != nil || !answers("streams/1") {
		t.Errorf("versions: %+v", failure)
	}
	for name, want := range map[string]struct {
		kind inference.FailureKind
		text string
	}{
		"broken": {inference.KindNotReady, "failed to load model 'broken': its code has a fault"},
		"nobody": {inference.KindUnknownEndpoint, "'nobody' not found"},
		"split":  {inference.KindBadRequest, "canary 'split' cannot be loaded and unloaded by itself"},
	} {
		if failure := change(name, true); failure == nil || failure.Kind != want.kind || !strings.Contains(failure.Text, want.text) {
			t.Errorf("%s: %+v", name, failure)
		}
	}
	// The right ends with the setting.
	if err := e.edit(func(s *serving.Service) (serving.Section, error) {
		s.AllowModelControl(false)
		return serving.SectionAccess, nil
	}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); s.AuthorizeControl(inference.Head{Endpoint: "echo"}) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still allowed")
		}
	}
}

func TestModelsAreChangedByThoseWhoMay(t *testing.T) {
	keys := map[string]string{}
	records := map[string]any{"service": map[string]any{"required": true, "model_control": true}}
	for name, more := range map[string]map[string]any{
		"all": {"model_control": true}, "reader": {}, "other": {"model_control": true, "endpoints": []string{"streams"}}, "own": {"model_control": true, "endpoints": []string{"echo"}},
	} {
		secret, _ := serving.NewAccessKey()
		more["sha256"] = serving.DigestOf(secret).String()
		keys[name], records[name] = secret, more
	}
	text, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	s, e := changeable(t, true, string(text))
	for name, want := range map[string]struct {
		kind inference.FailureKind
		text string
	}{
		"nobody": {inference.KindUnauthenticated, "Not authenticated"}, "reader": {inference.KindForbidden, "auth create --model-control"},
		"other": {inference.KindForbidden, "The key other is for other endpoints"},
	} {
		failure := s.RepositoryChange(t.Context(), inference.Head{Endpoint: "echo", Key: keys[name]}, false)
		if failure == nil || failure.Kind != want.kind || !strings.Contains(failure.Text, want.text) {
			t.Errorf("%s: %+v", name, failure)
		}
	}
	for _, name := range []string{"all", "own"} {
		for _, load := range []bool{false, true} {
			if failure := s.RepositoryChange(t.Context(), inference.Head{Endpoint: "echo", Key: keys[name]}, load); failure != nil {
				t.Errorf("%s: %+v", name, failure)
			}
		}
	}
	if got := strings.Join(e.by, ","); got != "key all,key all,key own,key own" {
		t.Error(got)
	}
	for name, tc := range map[string]struct {
		access  string
		exposed bool
		text    string
	}{
		"off":              {`{}`, false, "config --model-control on"},
		"no keys, exposed": {allowed, true, "config --auth on"},
	} {
		s, e := changeable(t, tc.exposed, tc.access)
		failure := s.RepositoryChange(t.Context(), inference.Head{Endpoint: "echo"}, false)
		if failure == nil || failure.Kind != inference.KindForbidden || !strings.Contains(failure.Text, tc.text) || e.by != nil {
			t.Errorf("%s: %+v", name, failure)
		}
	}
}

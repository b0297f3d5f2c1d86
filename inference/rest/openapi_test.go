package rest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// describedPaths are the paths of endpoints in a document.
func describedPaths(t *testing.T, body string) (paths []string, endpoints []serving.EndpointURL) {
	t.Helper()
	var document struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]struct {
			Post struct {
				About struct {
					URL serving.EndpointURL `json:"url"`
				} `json:"x-clearml-endpoint"`
			} `json:"post"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Fatalf("no document: %.300s (%v)", body, err)
	}
	for path, item := range document.Paths {
		if item.Post.About.URL != "" {
			paths, endpoints = append(paths, path), append(endpoints, item.Post.About.URL)
		}
	}
	slices.Sort(paths)
	slices.Sort(endpoints)
	return paths, endpoints
}

func TestTheDocumentHasEveryEndpointAtAPathThatAnswers(t *testing.T) {
	names := []string{"echo", "echo/1", "a/b/c", "a/ü%", "a b", `quote"'<b>`, "{x}", "q?a=b#c", "badcode", `back\slash`, "日本/1"}
	base := start(t, nil, names...)
	resp, body := get(t, base+"/openapi.json")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	paths, endpoints := describedPaths(t, body)
	want := make([]serving.EndpointURL, 0, len(names))
	for _, name := range names {
		want = append(want, serving.EndpointURL(name))
	}
	slices.Sort(want)
	if !slices.Equal(endpoints, want) {
		t.Errorf("the document has %q", endpoints)
	}
	for _, path := range paths {
		wanted := http.StatusOK
		if path == "/serve/badcode" {
			wanted = http.StatusServiceUnavailable
		}
		if strings.ContainsAny(path, "{}?#\"") {
			t.Errorf("%s is a template, or ends early", path)
		}
		if resp, answer := post(t, base+path, "1", "Content-Type", "application/json"); resp.StatusCode != wanted {
			t.Errorf("%s: %d %s", path, resp.StatusCode, answer)
		}
	}
	if _, body := get(t, base+"/openapi.json?endpoint=echo"); body == "" {
		t.Error("nothing about echo")
	} else if _, endpoints := describedPaths(t, body); !slices.Equal(endpoints, []serving.EndpointURL{"echo", "echo/1"}) {
		t.Errorf("about echo: %q", endpoints)
	}
	if resp, body := get(t, base+"/openapi.json?endpoint=nobody"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("about nobody: %d %s", resp.StatusCode, body)
	}
	if resp, _ := post(t, base+"/openapi.json", ""); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", resp.StatusCode, resp.Header)
	}
}

func TestTheDocumentIsOnlyForHoldersOfAKey(t *testing.T) {
	keys := newKeyRing()
	all, echo := keys.add("all", time.Time{}), keys.add("echo", time.Time{}, "echo")
	base := start(t, keys.with(t, nil), "echo", "echo/1", "a/b/c")
	for _, tc := range []struct {
		query, key string
		status     int
		names      []serving.EndpointURL
	}{
		{"", "", 401, nil},
		{"", echo, 403, nil},
		{"", all, 200, []serving.EndpointURL{"a/b/c", "echo", "echo/1"}},
		{"?endpoint=echo", "", 401, nil},
		{"?endpoint=nobody", "", 401, nil},
		{"?endpoint=echo", echo, 200, []serving.EndpointURL{"echo", "echo/1"}},
		{"?endpoint=a/b/c", echo, 403, nil},
		{"?endpoint=nobody", echo, 403, nil},
		{"?endpoint=nobody", all, 404, nil},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/openapi.json"+tc.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.key != "" {
			req.Header.Set("Authorization", "Bearer "+tc.key)
		}
		resp, body := do(t, req)
		if resp.StatusCode != tc.status {
			t.Errorf("%q with key %.8q: %d %s", tc.query, tc.key, resp.StatusCode, body)
			continue
		}
		if tc.names == nil {
			if strings.Contains(body, "a/b/c") || strings.Contains(body, "echo/1") {
				t.Errorf("%q with key %.8q: the refusal names an endpoint: %s", tc.query, tc.key, body)
			}
			continue
		}
		if _, endpoints := describedPaths(t, body); !slices.Equal(endpoints, tc.names) {
			t.Errorf("%q with key %.8q: %q", tc.query, tc.key, endpoints)
		}
		if !strings.Contains(body, `"security":[{"key":[]}]`) || !strings.Contains(body, `"x-keys-required":true`) {
			t.Errorf("the document does not say that a key is needed: %.300s", body)
		}
	}
}

// Signature implements engine.Signed.
func (m *fakeModel) Signature() engine.Signature {
	if !strings.HasPrefix(string(m.url), "table/") {
		return engine.Signature{}
	}
	return engine.Signature{Table: true, Inputs: []engine.TensorSpec{{Name: "a", Datatype: engine.FP64, Shape: []int64{-1}}}, Example: []byte(`{"a":1}`), Source: engine.SourceModel}
}

// States change without a change of the configuration, so a document is not kept for long.
func TestTheDocumentFollowsTheConfiguration(t *testing.T) {
	changes := make(chan struct{}, 1)
	source := &editedSource{}
	base := start(t, func(o *options) {
		source.set(o.Source.(fixedSource).state) //nolint:forcetypeassert // start made it
		o.Source, o.Changes = source, ring(changes)
	}, "echo")
	describes := func() []serving.EndpointURL {
		_, body := get(t, base+"/openapi.json")
		_, endpoints := describedPaths(t, body)
		return endpoints
	}
	if got := describes(); !slices.Equal(got, []serving.EndpointURL{"echo"}) {
		t.Fatalf("%q", got)
	}
	source.edit(serving.SectionEndpoints, []byte(`{"echo": {"engine_type": "custom", "serving_url": "echo"}, "ask": {"engine_type": "custom", "serving_url": "ask"}}`))
	changes <- struct{}{}
	for end := time.Now().Add(patience); len(describes()) != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the document never has the new endpoint")
		}
	}
}

func TestThePageIsSelfContainedAndTellsNothing(t *testing.T) {
	keys := newKeyRing()
	keys.add("all", time.Time{})
	base := start(t, keys.with(t, nil), "echo", "secret-name")
	size := 0
	for path, kind := range map[string]string{"/docs": "text/html", "/docs.js": "text/javascript", "/docs.css": "text/css", "/docs.svg": "image/svg+xml"} {
		resp, body := get(t, base+path)
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || body == "" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: policy %q", path, policy)
		}
		for _, foreign := range []string{"http://", "https://", "secret-name", "innerHTML", "eval(", "localStorage", "sessionStorage", " style=", " onclick"} {
			if path != "/docs.svg" && strings.Contains(body, foreign) { // it has the name of its namespace
				t.Errorf("%s has %s", path, foreign)
			}
		}
		if resp, _ := post(t, base+path, ""); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, resp.StatusCode)
		}
		size += len(body)
	}
	if size > 100_000 {
		t.Errorf("the page has %d bytes", size)
	}
}

func TestACanaryHasTheSignatureThatItsTargetsShare(t *testing.T) {
	base := start(t, func(o *options) {
		state := o.Source.(fixedSource).state //nolint:forcetypeassert // start made it
		state.Sections[serving.SectionCanary] = json.RawMessage(`{
			"alike": {"endpoint": "alike", "weights": [1, 1], "load_endpoints": ["table/1", "table/2"]},
			"apart": {"endpoint": "apart", "weights": [1, 1], "load_endpoints": ["table/1", "echo"]},
			"empty": {"endpoint": "empty", "weights": [1], "load_endpoints": ["nobody"]}}`)
	}, "table/1", "table/2", "echo")
	_, body := get(t, base+"/openapi.json")
	var document struct {
		Paths map[string]struct {
			Post struct {
				Body struct {
					Required bool `json:"required"`
					Content  map[string]struct {
						Example json.RawMessage `json:"example"`
					} `json:"content"`
				} `json:"requestBody"`
				About struct {
					State  string             `json:"state"`
					Canary map[string]float64 `json:"canary"`
				} `json:"x-clearml-endpoint"`
			} `json:"post"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &document); err != nil {
		t.Fatal(err)
	}
	for path, typed := range map[string]bool{"/serve/table/1": true, "/serve/alike": true, "/serve/apart": false, "/serve/empty": false} {
		op := document.Paths[path].Post
		if op.Body.Required != typed || (op.Body.Content["application/json"].Example != nil) != typed {
			t.Errorf("%s: %+v", path, op)
		}
	}
	if got := document.Paths["/serve/empty"].Post.About; got.State != "failed" {
		t.Errorf("a canary without targets is %s", got.State)
	}
	if got := document.Paths["/serve/alike"].Post.About; got.State != "ready" || len(got.Canary) != 2 {
		t.Errorf("a canary is %+v", got)
	}
}

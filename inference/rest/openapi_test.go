package rest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

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

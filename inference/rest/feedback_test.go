package rest_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

// fakeFeedback answers with what it was asked.
type fakeFeedback struct{}

func (fakeFeedback) Take(endpoint serving.EndpointURL, body []byte) (int, []byte) {
	if string(body) == "full" {
		return http.StatusServiceUnavailable, serving.Detail("full")
	}
	return http.StatusOK, fmt.Appendf(nil, "took %s %s", endpoint, body)
}

func (fakeFeedback) Show(endpoint serving.EndpointURL, query string) (int, string, []byte) {
	return http.StatusOK, "text/plain", fmt.Appendf(nil, "shows %s %s", endpoint, query)
}

func (fakeFeedback) Verify(header string) error {
	if header == "good" {
		return nil
	}
	return errors.New("forged")
}

func (fakeFeedback) TakeOver(header string, endpoint serving.EndpointURL, body []byte) (int, []byte) {
	return http.StatusOK, fmt.Appendf(nil, "took over %s %s %s", header, endpoint, body)
}

func TestFeedbackNeedsTheKeyAndTheEndpointThatRequestsNeed(t *testing.T) {
	keys := newKeyRing()
	all, echo := keys.add("all", time.Time{}), keys.add("echo", time.Time{}, "echo")
	base := start(t, keys.with(t, func(o *options) { o.Feedback = fakeFeedback{} }), "echo", "echo/1", "other", "badcode")
	for _, tc := range []struct {
		name, method, path, key, peer string
		status                        int
		want                          string
	}{
		{"no key", "POST", "echo", "", "", 401, "as Bearer token"},
		{"no key, endpoint unknown", "POST", "nobody", "", "", 401, "as Bearer token"},
		{"no key, to read", "GET", "echo", "", "", 401, "as Bearer token"},
		{"a key for all", "POST", "echo", all, "", 200, "took echo body"},
		{"a key for the endpoint", "POST", "echo/1", echo, "", 200, "took echo/1 body"},
		{"a version in the query", "POST", "echo?version=1", all, "", 200, "took echo/1 body"},
		{"a key for another endpoint", "POST", "other", echo, "", 403, "for other endpoints"},
		{"a key for another endpoint, to read", "GET", "other", echo, "", 403, "for other endpoints"},
		{"an unknown endpoint", "POST", "nobody", all, "", 404, "'nobody' not found"},
		{"an unknown endpoint, to read", "GET", "nobody", all, "", 404, "'nobody' not found"},
		{"no endpoint", "POST", "", all, "", 404, "not found"},
		{"an endpoint that is not ready", "POST", "badcode", all, "", 200, "took badcode body"},
		{"to read", "GET", "echo?rows=7", all, "", 200, "shows echo rows=7"},
		{"another method", "DELETE", "echo", all, "", 405, "Method Not Allowed"},
		{"an instance", "POST", "echo", "", "good", 200, "took over good echo body"},
		{"an instance about a removed endpoint", "POST", "gone", "", "good", 200, "took over good gone body"},
		{"an instance, to read", "GET", "echo", "", "good", 405, ""},
		{"no instance", "POST", "echo", all, "bad", 403, "X-Clearml-Serving-Peer is not valid: forged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, base+"/feedback/"+tc.path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			if tc.key != "" {
				req.Header.Set("Authorization", "Bearer "+tc.key)
			}
			if tc.peer != "" {
				req.Header.Set("X-Clearml-Serving-Peer", tc.peer)
			}
			if resp, body := do(t, req); resp.StatusCode != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%d %s, want %d with %q", resp.StatusCode, body, tc.status, tc.want)
			}
		})
	}
}

func TestFeedbackHasTheBodyLimitOfRequests(t *testing.T) {
	base := start(t, func(o *options) { o.Feedback = fakeFeedback{} }, "echo")
	if resp, body := post(t, base+"/feedback/echo", strings.Repeat("x", 1<<20+1)); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %.100s", resp.StatusCode, body)
	}
	if resp, _ := post(t, base+"/feedback/echo", "full"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a store that cannot be written: %d %v", resp.StatusCode, resp.Header)
	}
}

func TestWithoutAStoreThereIsNoFeedback(t *testing.T) {
	base := start(t, nil, "echo")
	if resp, _ := post(t, base+"/feedback/echo", "body"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d", resp.StatusCode)
	}
}

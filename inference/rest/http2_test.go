package rest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ask2 sends a request in HTTP/2 without TLS.
func ask2(t *testing.T, client *http.Client, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		text = append(text, []byte("!"+err.Error())...)
	}
	if resp.ProtoMajor != 2 {
		t.Errorf("%s is answered in %s", url, resp.Proto)
	}
	return resp, string(text)
}

func client2(t *testing.T) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestRequestsAreAnsweredInHTTP2AsInHTTP1(t *testing.T) {
	keys := newKeyRing()
	all, other := keys.add("all", time.Time{}), keys.add("other", time.Time{}, "x")
	base := start(t, keys.with(t, func(o *options) { o.Origins = []string{"https://app.example"} }), "echo", "a/b/c", "slow", "busy", "died", "stream", "cut", "panics", "held", "shows")
	client := client2(t)
	for name, tc := range map[string]struct {
		path, body string
		headers    []string
		status     int
		want       string
	}{
		"an endpoint":       {"echo", "x", []string{"Content-Type", "a/b"}, 200, "echo|a/b|x"},
		"a longer one":      {"a/b/c", "x", nil, 200, "a/b/c||x"},
		"an unknown one":    {"echo/9", "x", nil, 404, "of 'echo' there are: 'echo'"},
		"its deadline":      {"slow", "x", nil, 504, "its limit is 300ms"},
		"the client's":      {"held", "x", []string{"X-Request-Timeout", "0.05"}, 504, "its limit is 50ms"},
		"overload":          {"busy", "x", nil, 429, "is full"},
		"a death":           {"died", "x", nil, 500, "signal 9"},
		"a stream":          {"stream", "x", nil, 200, "one,two,three"},
		"a stream cut":      {"cut", "x", nil, 200, "one,!stream error"},
		"a panic":           {"panics", "x", nil, 500, "Internal Server Error"},
		"too large":         {"echo", strings.Repeat("x", 2<<20), nil, 413, "limit of 1048576"},
		"another key":       {"echo", "x", []string{"Authorization", "Bearer " + other}, 403, "is for other endpoints"},
		"no key":            {"echo", "x", []string{"Authorization", ""}, 401, "Not authenticated"},
		"what code may see": {"shows?a=b", "x", []string{"X-A", "1"}, 200, `POST /serve/shows ?a=b 127.0.0.1`},
	} {
		headers := append([]string{"Authorization", "Bearer " + all, "Origin", "https://app.example"}, tc.headers...)
		resp, body := ask2(t, client, base+"/serve/"+tc.path, tc.body, headers...)
		if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) || strings.Contains(body, all) {
			t.Errorf("%s: %d %.200s", name, resp.StatusCode, body)
		}
		byListener := name == "too large" || name == "a panic" // the listener does not handle origins
		if (resp.Header.Get("Access-Control-Allow-Origin") == "" && !byListener) || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: header %v", name, resp.Header)
		}
		if tc.status == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: header %v", name, resp.Header)
		}
	}
}

func TestAClientThatLeavesIsNoErrorOfTheServerInHTTP2(t *testing.T) {
	python := &fakePython{release: make(chan struct{})}
	s, addr, _ := running(t, options{Python: python}, "held")
	client := client2(t)
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/serve/held", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		left <- err
	}()
	for s.Status().Endpoints[0].InUse == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for end := time.Now().Add(patience); s.Status().Endpoints[0].InUse > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the request goes on although its client has left")
		}
	}
	if e := s.Status().Endpoints[0]; e.Errors != 0 || e.Requests != 0 {
		t.Errorf("%d requests, %d errors", e.Requests, e.Errors)
	}
}

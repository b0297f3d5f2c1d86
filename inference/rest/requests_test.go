package rest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/recurring"
)

// answerTo sends a raw request and returns the answer's text.
func answerTo(t *testing.T, base, raw string) string {
	t.Helper()
	c := dial(t, strings.TrimPrefix(base, "http://"))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheRootAnswersBalancers(t *testing.T) {
	keys := newKeyRing()
	keys.add("all", time.Time{})
	base := start(t, keys.with(t, nil), "echo")
	resp, body := get(t, base+"/")
	if resp.StatusCode != http.StatusOK || body != "{\n  \"ready\": true,\n  \"service\": \"clearml-serving\"\n}\n" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := get(t, base+"/?x=1"); resp.StatusCode != http.StatusOK {
		t.Errorf("with a query: %d", resp.StatusCode)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, base+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, _ := do(t, req); resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	if resp, _ := post(t, base+"/", ""); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
	if resp, _ := get(t, base+"/index.html"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %d", resp.StatusCode)
	}
}

func TestAnotherMethodIsToldWhichOneToUse(t *testing.T) {
	base := start(t, nil, "echo")
	for _, path := range []string{"/serve/echo", "/serve/nobody"} {
		resp, body := get(t, base+path)
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" || !strings.Contains(body, "Method Not Allowed: an endpoint takes POST") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

func TestErrorsAreTextAndNotEscapedForPages(t *testing.T) {
	base := start(t, nil, "echo")
	resp, body := get(t, base+"/readyz?endpoint=a%3Cb")
	if !strings.Contains(body, "a<b") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body = post(t, base+"/serve/a%3Cb", "{}"); !strings.Contains(body, "a<b") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestAnUnknownVersionNamesThoseThereAre(t *testing.T) {
	urls := []string{"diabetes/1", "diabetes/2", "diabetes/10", "x", "y/1", "y/1/deep", "badcode", "badcode/2", "asksshows"}
	for n := range 25 {
		urls = append(urls, fmt.Sprintf("many/%d", n+1))
	}
	base := start(t, nil, urls...)
	for path, says := range map[string]string{
		"diabetes":           "; of 'diabetes' there are: 'diabetes/1', 'diabetes/2', 'diabetes/10'\"",
		"diabetes/9":         "; of 'diabetes' there are: 'diabetes/1', 'diabetes/2', 'diabetes/10'\"",
		"diabetes?version=9": "; of 'diabetes' there are: 'diabetes/1', 'diabetes/2', 'diabetes/10'\"",
		"x/9":                "; of 'x' there are: 'x'\"",
		"y":                  "; of 'y' there are: 'y/1'\"",
		"badcode/1":          "; of 'badcode' there are: 'badcode', 'badcode/2'\"",
		"diab":               "endpoint 'diab' not found\"",
		"diabetes1":          "endpoint 'diabetes1' not found\"",
		"nobody":             "endpoint 'nobody' not found\"",
		"nobody/1":           "endpoint 'nobody/1' not found\"",
		"many":               "'many/20' and 5 more\"",
	} {
		resp, body := post(t, base+"/serve/"+path, "1")
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, says) || !strings.Contains(body, "Error processing request, endpoint was not found: Model inference endpoint '") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	// send_request gets the same.
	if resp, body := post(t, base+"/serve/asksshows", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestAnUnknownVersionNamesOnlyWhatTheKeyOpens(t *testing.T) {
	keys := newKeyRing()
	all, one, other := keys.add("all", time.Time{}), keys.add("one", time.Time{}, "m/1", "m/9"), keys.add("other", time.Time{}, "other")
	base := start(t, keys.with(t, nil), "m/1", "m/2", "other")
	for _, tc := range []struct {
		path, key, says string
		status          int
	}{
		{"m/9", all, "'m/1', 'm/2'\"", 404},
		{"m", all, "'m/1', 'm/2'\"", 404},
		{"m/9", one, "of 'm' there are: 'm/1'\"", 404},
		{"m/9", other, "is for other endpoints", 403},
		{"other/9", other, "of 'other' there are: 'other'\"", 404},
		{"m", one, "is for other endpoints", 403},
		{"m/9", "", "Not authenticated", 401},
	} {
		var headers []string
		if tc.key != "" {
			headers = []string{"Authorization", "Bearer " + tc.key}
		}
		resp, body := post(t, base+"/serve/"+tc.path, "1", headers...)
		if resp.StatusCode != tc.status || !strings.Contains(body, tc.says) || (tc.key != all && strings.Contains(body, "m/2")) {
			t.Errorf("%s: %d %s", tc.path, resp.StatusCode, body)
		}
	}
}

func TestCodeMaySeeHowTheClientAsked(t *testing.T) {
	base := start(t, nil, "shows", "asksshows")
	for name, tc := range map[string]struct{ fields, want string }{
		"everything": {
			"X-A: 1\r\nx-a: 2\r\nContent-Type: a/b\r\nAuthorization: Basic bWU6\r\n",
			`POST /serve/shows ?x=1 127.0.0.1 [{"Host" "h"} {"X-A" "1"} {"x-a" "2"} {"Content-Type" "a/b"} {"Authorization" "Basic bWU6"} {"Content-Length" "1"} {"Connection" "close"}]`,
		},
		"no key of ours":       {"Authorization: Bearer csk_abc\r\n", `[{"Host" "h"} {"Content-Length"`},
		"none without scheme":  {"Authorization: csk_abc\r\n", `[{"Host" "h"} {"Content-Length"`},
		"none in other fields": {"X-Api-Key: csk_abc\r\n", `[{"Host" "h"} {"Content-Length"`},
		"another's key":        {"Authorization: Bearer abc\r\n", `{"Authorization" "Bearer abc"}`},
		"no proxy's":           {"Proxy-Authorization: Basic bWU6\r\n", `[{"Host" "h"} {"Content-Length"`},
		"no session of ours":   {"Cookie: a=b; clearml_token_basic=secret; c=d\r\n", `{"Cookie" "a=b; c=d"}`},
		"nothing but sessions": {"cookie: clearml_token_basic=secret\r\n", `[{"Host" "h"} {"Content-Length"`},
		"other cookies":        {"Cookie: a=b;c=d\r\n", `{"Cookie" "a=b;c=d"}`},
	} {
		got := answerTo(t, base, "POST /serve/shows?x=1 HTTP/1.1\r\nHost: h\r\n"+tc.fields+"Content-Length: 1\r\nConnection: close\r\n\r\n1")
		if !strings.Contains(got, tc.want) || strings.Contains(got, "secret") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if _, got := post(t, base+"/serve/asksshows", ""); got != "nobody" {
		t.Errorf("send_request: %s", got)
	}
}

func TestAKeyOfTheServiceIsNeverShown(t *testing.T) {
	keys := newKeyRing()
	all := keys.add("all", time.Time{})
	base := start(t, keys.with(t, nil), "shows")
	if resp, body := post(t, base+"/serve/shows", "1", "Authorization", "Bearer "+all); resp.StatusCode != http.StatusOK || strings.Contains(body, "Authorization") || strings.Contains(body, all) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestALogOfFailuresKeepsTheIDsOfTheirRequests(t *testing.T) {
	var log bytes.Buffer
	summary := recurring.NewHandler(slog.NewTextHandler(&log, nil))
	_, addr, stop := running(t, options{Python: &fakePython{}, core: core{Logger: slog.New(summary)}}, "busy", "echo")
	c := dial(t, addr)
	answers := bufio.NewReader(c)
	for i, url := range []string{"busy", "busy", "echo"} { // the last one is in the memory of the one before
		if _, err := fmt.Fprintf(c, "POST /serve/%s HTTP/1.1\r\nHost: a\r\nX-Request-Id: request-%d\r\nContent-Length: 0\r\n\r\n", url, i); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Body.Close() != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	summary.Flush()
	if text := log.String(); !strings.Contains(text, "request_id=request-0") || !strings.Contains(text, "request_id=request-1") {
		t.Error(text)
	}
}

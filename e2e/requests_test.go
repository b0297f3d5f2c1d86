//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// echoes is code that answers with the request as user code gets it.
const echoes = `
from clearml_serving_worker import HTTPException, Response


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None, request=None):
        if isinstance(body, dict) and "image" in body:
            return [[f.filename, f.content_type, len(f.data)] for f in body.getlist("image")] + [body.get("lang")]
        if body == {"raise": 1}:
            raise HTTPException(402, "pay first", headers={"X-Why": "test"})
        if body == {"png": 1}:
            return Response(b"\x89PNG\x00", content_type="image/png")
        if body == {"nan": 1}:
            return [float("nan"), float("inf"), 1.5]
        kind = type(body).__name__
        if isinstance(body, bytes):
            body = body.decode("latin-1")
        return {"is": kind, "body": body, "query": request.query, "a": request.headers.get("x-a"), "key": request.headers.get("authorization"), "client": request.client}

    def process(self, data, state, collect_custom_statistics_fn=None):
        return data
`

// TestRequestsThatPeopleReallySend sends requests with curl and Python's requests, over HTTP/1.1
// and HTTP/2.
func TestRequestsThatPeopleReallySend(t *testing.T) {
	s := install(t)
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	code := writeCode(t, s, "preprocess.py", echoes)
	for _, version := range []string{"1", "2"} {
		s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "shows", "--version", version, "--preprocess", code, "--aux-config", "nan_as_null="+map[string]string{"1": "true", "2": "false"}[version], "--wait")
	}
	image := filepath.Join(s.dir, "a.png")
	if err := os.WriteFile(image, []byte("\x89PNG\r\n\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := s.urls["serve"] + "/serve/shows"
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"JSON without a header":       {[]string{at + "/1", "-d", `{"x": 1}`}, []string{`"is":"dict","body":{"x":1}`, "200 application/json"}},
		"JSON with one":               {[]string{at + "/1?q=a&q=b", "-H", "Content-Type: application/json", "-H", "X-A: 7", "-d", `[1]`}, []string{`{"is":"list","body":[1],"query":{"q":["a","b"]},"a":"7","key":null,"client":"127.0.0.1"}`}},
		"a key is not shown":          {[]string{at + "/1", "-H", "Authorization: Bearer csk_x", "-d", `[1]`}, []string{`"key":null`}},
		"another's is":                {[]string{at + "/1", "-H", "Authorization: Bearer other", "-d", `[1]`}, []string{`"key":"Bearer other"`}},
		"no content type, no JSON":    {[]string{at + "/1", "-H", "Content-Type:", "-d", `hello`}, []string{"send that header", "422 application/json"}},
		"a form":                      {[]string{at + "/1", "-d", `a=1`}, []string{`"is":"bytes","body":"a=1"`}},
		"a file and a field":          {[]string{at + "/1", "-F", "image=@" + image, "-F", "lang=de"}, []string{`[["a.png","image/png",7],"de"]`, "200"}},
		"two files":                   {[]string{at + "/1", "-F", "image=@" + image, "-F", "image=@" + image + ";type=x/y;filename=ü b.png"}, []string{`[["a.png","image/png",7],["ü b.png","x/y",7],null]`, "200"}},
		"a status of its own":         {[]string{at + "/1", "-i", "-d", `{"raise": 1}`}, []string{"402", `{"detail":"pay first"}`, "X-Why: test"}},
		"bytes":                       {[]string{at + "/1", "-d", `{"png": 1}`}, []string{"\x89PNG\x00", "200 image/png"}},
		"NaN as null":                 {[]string{at + "/1", "-d", `{"nan": 1}`}, []string{"[null,null,1.5]", "200"}},
		"NaN":                         {[]string{at + "/2", "-d", `{"nan": 1}`}, []string{"answer[0] is NaN", "nan_as_null=true", "500"}},
		"no version":                  {[]string{at, "-d", `{}`}, []string{"of 'shows' there are: 'shows/1', 'shows/2'", "404"}},
		"an unknown version":          {[]string{at + "/3", "-d", `{}`}, []string{"of 'shows' there are: 'shows/1', 'shows/2'", "404"}},
		"GET of an endpoint":          {[]string{at + "/1"}, []string{"an endpoint takes POST", "405"}},
		"a balancer":                  {[]string{s.urls["serve"] + "/"}, []string{`"ready": true`, "200 application/json"}},
		"HTTP/2":                      {[]string{"--http2-prior-knowledge", at + "/1", "-d", `{"x": 1}`}, []string{`"is":"dict","body":{"x":1}`, "200 application/json 2"}},
		"a file over HTTP/2":          {[]string{"--http2-prior-knowledge", at + "/1", "-F", "image=@" + image}, []string{`[["a.png","image/png",7],null]`, " 2"}},
		"a status of its own, HTTP/2": {[]string{"--http2-prior-knowledge", at + "/1", "-i", "-d", `{"raise": 1}`}, []string{"HTTP/2 402", "x-why: test"}},
		"an upgrade that is ignored":  {[]string{"--http2", at + "/1", "-d", `{"x": 1}`}, []string{`"body":{"x":1}`, "200 application/json 1.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--silent", "--show-error", "--max-time", "120", "-w", "\n%{http_code} %{content_type} %{http_version}"}, tc.args...)
			got := s.command(t, nil, "curl", args...)
			for _, want := range tc.want {
				if !strings.Contains(strings.ReplaceAll(got.out, ", ", ","), strings.ReplaceAll(want, ", ", ",")) {
					t.Errorf("%s is not in %s %s", want, got.out, got.err)
				}
			}
		})
	}
	script := filepath.Join(s.dir, "client.py")
	if err := os.WriteFile(script, []byte(fmt.Sprintf(`
import io
import requests

at = %q
print(requests.post(at, json={"x": 1}, params={"q": "a"}, headers={"X-A": "7"}).json())
print(requests.post(at, data={"x": 1}).json()["body"])
print(requests.post(at, files={"image": ("grün.bin", io.BytesIO(b"12345"), "a/b")}, data={"lang": "de"}).json())
answer = requests.post(at, json={"raise": 1})
print(answer.status_code, answer.headers["X-Why"], answer.json())
`, at+"/1")), 0o600); err != nil {
		t.Fatal(err)
	}
	got := s.python(t, pythonSDK2, script)
	for _, want := range []string{
		"{'is': 'dict', 'body': {'x': 1}, 'query': {'q': ['a']}, 'a': '7', 'key': None, 'client': '127.0.0.1'}",
		"x=1\n", "[['grün.bin', 'a/b', 5], 'de']", "402 test {'detail': 'pay first'}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

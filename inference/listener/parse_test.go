package listener

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// TestSmugglingCorpus has heads that servers are known to parse differently. Each
// must be refused, so that the service and a proxy in front see the same request.
func TestSmugglingCorpus(t *testing.T) {
	for name, raw := range map[string]string{
		"both framings":                     "POST / HTTP/1.1|Host: a|Content-Length: 3|Transfer-Encoding: chunked||",
		"two lengths":                       "POST / HTTP/1.1|Host: a|Content-Length: 3|Content-Length: 4||",
		"the same length twice":             "POST / HTTP/1.1|Host: a|Content-Length: 3|Content-Length: 3||",
		"a list of lengths":                 "POST / HTTP/1.1|Host: a|Content-Length: 3, 3||",
		"a signed length":                   "POST / HTTP/1.1|Host: a|Content-Length: +3||",
		"a negative length":                 "POST / HTTP/1.1|Host: a|Content-Length: -3||",
		"a hexadecimal length":              "POST / HTTP/1.1|Host: a|Content-Length: 0x3||",
		"an empty length":                   "POST / HTTP/1.1|Host: a|Content-Length: ||",
		"a length beyond 63 bits":           "POST / HTTP/1.1|Host: a|Content-Length: 99999999999999999999||",
		"a blank before the colon":          "POST / HTTP/1.1|Host: a|Content-Length : 3||",
		"a folded line":                     "POST / HTTP/1.1|Host: a|X: b| c||",
		"a folded framing":                  "POST / HTTP/1.1|Host: a|Transfer-Encoding:| chunked||",
		"an encoding hidden by a tab":       "POST / HTTP/1.1|Host: a|Transfer-Encoding: \x0bchunked||",
		"an unknown encoding":               "POST / HTTP/1.1|Host: a|Transfer-Encoding: xchunked||",
		"two encodings in one":              "POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked||",
		"the encoding twice":                "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: chunked||",
		"identity":                          "POST / HTTP/1.1|Host: a|Transfer-Encoding: identity||",
		"chunked in HTTP/1.0":               "POST / HTTP/1.0|Transfer-Encoding: chunked||",
		"a bare line feed":                  "POST / HTTP/1.1|Host: a\nX: b||",
		"a bare carriage return":            "POST / HTTP/1.1|Host: a\rX: b||",
		"NUL in a value":                    "POST / HTTP/1.1|Host: a|X: b\x00c||",
		"NUL in a name":                     "POST / HTTP/1.1|Host: a|X\x00: b||",
		"no host":                           "POST / HTTP/1.1||",
		"two hosts":                         "POST / HTTP/1.1|Host: a|Host: b||",
		"no colon":                          "POST / HTTP/1.1|Host: a|nonsense||",
		"no name":                           "POST / HTTP/1.1|Host: a|: x||",
		"two blanks in the request line":    "POST  / HTTP/1.1|Host: a||",
		"a blank in the target":             "POST /a b HTTP/1.1|Host: a||",
		"a control character in the target": "POST /a\x01 HTTP/1.1|Host: a||",
		"a fragment":                        "POST /a#b HTTP/1.1|Host: a||",
		"a bad escape":                      "POST /%zz HTTP/1.1|Host: a||",
		"no target":                         "POST HTTP/1.1|Host: a||",
		"a target that is no path":          "POST serve/a HTTP/1.1|Host: a||",
		"another scheme":                    "POST ftp://a/b HTTP/1.1|Host: a||",
		"another version":                   "POST / HTTP/2.0|Host: a||",
		"the preface of HTTP/2":             "PRI * HTTP/2.0||",
		"a lower-case version":              "POST / http/1.1|Host: a||",
		"a blank in the method":             " POST / HTTP/1.1|Host: a||",
		"another expectation":               "POST / HTTP/1.1|Host: a|Expect: 200-ok||",
		"an empty head":                     "||",
	} {
		t.Run(name, func(t *testing.T) {
			var h head
			if err := h.parse([]byte(strings.ReplaceAll(raw, "|", "\r\n"))); err == nil {
				t.Errorf("accepted as %+v", h)
			} else if err.status < 400 || err.text == "" {
				t.Errorf("error %+v", err)
			}
		})
	}
}

func TestHeadsAreRead(t *testing.T) {
	var h head
	raw := "POST /serve/a%2Fb/%C3%BC?version=1&x=%20 HTTP/1.1\r\nhost: x\r\nContent-TYPE:\tapplication/json \r\nContent-Length: 12\r\nConnection: foo, Close\r\nX-Empty:\r\nExpect: 100-Continue\r\n\r\n"
	if err := h.parse([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	if h.method != "POST" || h.path != "/serve/a/b/ü" || h.query != "version=1&x=%20" || h.length != 12 || !h.close || !h.expects || h.minor != 1 {
		t.Errorf("got %+v", h)
	}
	if h.get("content-type") != "application/json" || h.get("X-Empty") != "" || len(h.fields) != 6 {
		t.Errorf("fields %q", h.fields)
	}
	for raw, want := range map[string]bool{
		"GET / HTTP/1.0\r\n\r\n": true, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n": false, "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n": false,
	} {
		if err := h.parse([]byte(raw)); err != nil || h.close != want || h.path != "/" {
			t.Errorf("%q: %+v %v", raw, h, err)
		}
	}
}

func TestHeadEndIsFoundHoweverItArrives(t *testing.T) {
	whole := []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest")
	for cut := range whole {
		got := headEnd(whole[:cut], 0)
		if again := headEnd(whole, cut); got < 0 && again != len(whole)-4 {
			t.Fatalf("cut at %d: %d", cut, again)
		}
	}
}

// FuzzParseHead compares with the standard library, which must parse every accepted head as
// the same request.
func FuzzParseHead(f *testing.F) {
	f.Add([]byte("POST /serve/a?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("GET http://h/p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		end := headEnd(raw, 0)
		if end < 0 {
			return
		}
		var h head
		if err := h.parse(raw[:end]); err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw[:end])))
		if err != nil {
			t.Skip() // it refuses more, such as odd hosts
		}
		if r.URL.Path == "" {
			r.URL.Path = "/" // of an absolute target without a path
		}
		if r.Method != h.method || r.URL.Path != h.path || r.URL.RawQuery != h.query || r.ContentLength != h.length {
			t.Fatalf("%q: ours %q %q %q %d, theirs %q %q %q %d", raw[:end], h.method, h.path, h.query, h.length, r.Method, r.URL.Path, r.URL.RawQuery, r.ContentLength)
		}
	})
}

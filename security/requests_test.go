package security_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// bait is a server that counts connections. There should be none.
func bait(t *testing.T) (url string, hits *atomic.Int64) {
	t.Helper()
	hits = &atomic.Int64{}
	l := open(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "http://" + l.Addr().String(), hits
}

// settled connects to the bait and waits for the answer. Connections are accepted in order, so
// all earlier ones, and this one, are counted then.
func settled(t *testing.T, url string) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the server has closed it
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
}

// CVE-2023-43654 (TorchServe): the management listener needed no credentials, and the
// server fetched a URL in a request. Here no URL of a request is fetched, with or without a key or
// credentials.
func TestCVE202343654_NoURLOfARequestIsFetched(t *testing.T) {
	w := newWorld(t)
	url, hits := bait(t)
	for _, key := range []string{"", w.key} {
		for _, tc := range []struct{ method, path, body string }{
			{"POST", "/serve/echo?url=" + url + "&version=" + url, `{"url":"` + url + `","model":"` + url + `"}`},
			{"POST", "/serve/" + url, ""},
			{"POST", "/models?url=" + url + "/evil.mar", ""},
			{"POST", "/v2/repository/models/x/load", `{"parameters":{"url":"` + url + `"}}`},
			{"POST", "/serve/echo", "--b\r\nContent-Disposition: form-data; name=\"x\"\r\nLocation: " + url + "\r\n\r\n\r\n--b--"},
		} {
			w.ask(t, tc.method, w.serve+tc.path, tc.body, map[string]string{
				"Authorization": "Bearer " + key, "X-Forwarded-Host": strings.TrimPrefix(url, "http://"), "Referer": url, "Forwarded": "host=" + url,
			})
		}
		send(t, w.serve, "POST "+url+"/x HTTP/1.1\r\nHost: "+strings.TrimPrefix(url, "http://")+"\r\nAuthorization: Bearer "+key+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		send(t, w.serve, "CONNECT "+strings.TrimPrefix(url, "http://")+" HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	calls := map[string]string{
		"models.create":                 `{"uri":"` + url + `/m","name":"m","framework":"x","ready":true}`,
		"models.add_or_update_metadata": `{"model":"x","metadata":[{"key":"u","type":"str","value":"` + url + `"}]}`,
		"tasks.create":                  `{"name":"t","type":"training","script":{"repository":"` + url + `","requirements":{"pip":"x @ ` + url + `"}}}`,
		"projects.create":               `{"name":"p","description":"","default_output_destination":"` + url + `"}`,
		"auth.login":                    `{"redirect":"` + url + `"}`,
	}
	for call, body := range calls {
		w.ask(t, "POST", w.api+"/"+call, body, w.basic())
	}
	w.ask(t, "GET", w.files+"/"+url, "", w.basic())
	w.ask(t, "PUT", w.files+"/x", "x", merge(w.basic(), "X-Amz-Copy-Source", url))
	w.alive(t)
	w.stop() // waits for the work of the requests
	settled(t, url)
	if n := hits.Load(); n != 1 {
		t.Errorf("%d connections were made to an address in a request", n-1)
	}
}

func merge(header map[string]string, name, value string) map[string]string {
	header[name] = value
	return header
}

// CVE-2025-27520 (BentoML) and CVE-2025-32444 (vLLM): bytes of a socket were
// unpickled, which executes code. Nothing here unpickles data of a client: the data
// plane forwards the bytes, and the protocol with workers consists of lengths, numbers
// and JSON (package worker tests its reader).
func TestCVE202527520_NothingOfASocketIsUnpickled(t *testing.T) {
	w := newWorld(t)
	flag := filepath.Join(t.TempDir(), "executed")
	pickles := []string{
		"cos\nsystem\n(S'touch " + flag + "'\ntR.",
		"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x06touch " + flag + "\x94\x85\x94R\x94.",
	}
	for _, payload := range pickles {
		for _, kind := range []string{"application/vnd.bentoml+pickle", "application/octet-stream", "application/x-pickle", "application/python-pickle", "application/json", ""} {
			header := map[string]string{"Authorization": "Bearer " + w.key, "Content-Type": kind, "Payload-Container": "pickle", "Args-Number": "1"}
			if status, body := w.ask(t, "POST", w.serve+"/serve/echo", payload, header); status != http.StatusOK || body != payload {
				t.Errorf("%s: %d %q", kind, status, body)
			}
			for _, url := range []string{w.api + "/tasks.get_all", w.files + "/"} {
				if status, _ := w.ask(t, "POST", url, payload, merge(w.basic(), "Content-Type", kind)); status >= 500 {
					t.Errorf("%s to %s: %d", kind, url, status)
				}
			}
		}
	}
	if _, err := os.Stat(flag); err == nil {
		t.Error("a pickle was executed")
	}
	w.alive(t)
}

// The worker runtime may use pickle only to load models (the frameworks' file format).
// The modules that use sockets must not import it.
func TestTheWireOfWorkersKnowsNoPickle(t *testing.T) {
	files, err := filepath.Glob("../worker/runtime/*.py")
	if err != nil || len(files) < 10 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			code := strings.TrimSpace(line)
			for _, word := range []string{"import pickle", "from pickle", "import marshal", "import shelve", "import dill", "import cloudpickle", "import multiprocessing", "from multiprocessing", "eval(", " exec("} {
				if strings.Contains(code, word) && !strings.HasPrefix(code, "#") && filepath.Base(file) != "engines.py" && !strings.Contains(code, "importlib") {
					t.Errorf("%s:%d: %s", file, i+1, code)
				}
			}
		}
	}
}

// Bytes that are two requests for a proxy and one for the service, or the reverse: each
// ambiguous framing is refused and the connection closed.
func TestAmbiguousFramingIsRefused(t *testing.T) {
	w := newWorld(t)
	auth := "Authorization: Bearer " + w.key + "\r\n"
	hidden := "POST /serve/fails HTTP/1.1\r\nHost: a\r\n" + auth + "Content-Length: 0\r\n\r\n"
	for name, head := range map[string]string{
		"both lengths":        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
		"two lengths":         "Content-Length: 0\r\nContent-Length: 4\r\n",
		"a list of lengths":   "Content-Length: 0, 4\r\n",
		"a signed length":     "Content-Length: +0\r\n",
		"a padded encoding":   "Transfer-Encoding: xchunked\r\n",
		"two encodings":       "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"a blank before":      "Transfer-Encoding : chunked\r\n",
		"a folded line":       "X: a\r\n Transfer-Encoding: chunked\r\n",
		"a bare line feed":    "X: a\nTransfer-Encoding: chunked\r\n",
		"a bare return":       "X: a\rTransfer-Encoding: chunked\r\n",
		"a NUL":               "X: a\x00b\r\n",
		"two hosts":           "Host: b\r\n",
		"vertical tab":        "Transfer-Encoding:\x0bchunked\r\n",
		"an underscored twin": "Content_Length: 4\r\nContent-Length: 0\r\nContent-Length: 0\r\n",
	} {
		got := send(t, w.serve, "POST /serve/echo HTTP/1.1\r\nHost: a\r\n"+auth+head+"\r\n"+hidden)
		if strings.Count(got, "HTTP/1.1 ") != 1 || strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	w.alive(t)
}

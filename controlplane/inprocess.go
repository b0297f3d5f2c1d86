package controlplane

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// inProcess passes the requests of the web pages to the handlers of this process, with the
// same checks and answers as over a socket. Answers are held in memory, so it is for calls
// and uploads; browsers download files themselves.
type inProcess struct {
	calls, files http.Handler
	filesURL     string // requests below it go to files
}

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	inner := r.Clone(r.Context())
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	handler := t.calls
	if path, isFile := strings.CutPrefix(r.URL.String(), t.filesURL+"/"); isFile {
		handler = t.files
		below, err := url.Parse("/" + path)
		if err != nil {
			return nil, err
		}
		inner.URL = below
	}
	inner.Host, inner.RequestURI = r.URL.Host, inner.URL.RequestURI()
	answer := &kept{header: http.Header{}}
	handler.ServeHTTP(answer, inner)
	_ = inner.Body.Close() // a transport always closes the body
	answer.status = cmp.Or(answer.status, http.StatusOK)
	return &http.Response{
		Status: http.StatusText(answer.status), StatusCode: answer.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: answer.header, Body: io.NopCloser(&answer.body), ContentLength: int64(answer.body.Len()), Request: r,
	}, nil
}

// kept is an answer in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header { return k.header }

func (k *kept) WriteHeader(status int) {
	k.status = cmp.Or(k.status, status)
}

func (k *kept) Write(p []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	return k.body.Write(p)
}

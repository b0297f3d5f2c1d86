package rest_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"clearmlserving/tracing"
	"clearmlserving/tracing/tracingtest"
)

func TestSpansKeepTheTextsOfTheirRequest(t *testing.T) {
	to := tracingtest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	tracer, err := tracing.New(t.Context(), "1.2", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	base := start(t, func(o *options) { o.front.Tracer = tracer }, "echo", "echo/1")
	c := dial(t, strings.TrimPrefix(base, "http://"))
	answers := bufio.NewReader(c)
	for i, path := range []string{"/serve/echo", "/serve/echo/1"} { // one connection, whose memory is reused
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nX-Request-Id: request-%d\r\n"+
			"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333%d-01\r\ntracestate: vendor=state%d\r\nContent-Length: 0\r\n\r\n", path, i, i, i)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status, err)
		}
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range to.Spans() {
		if id, ok := s.Attributes["clearml.request_id"]; ok {
			got[s.Name] = strings.Join([]string{s.Attributes["http.request.method"], s.Attributes["url.path"], id, s.State}, " ")
		}
	}
	for i, path := range []string{"/serve/echo", "/serve/echo/1"} {
		if want := fmt.Sprintf("POST %s request-%d vendor=state%d", path, i, i); got["POST "+path] != want {
			t.Errorf("%q, want %q", got["POST "+path], want)
		}
	}
}

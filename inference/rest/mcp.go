package rest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/mcp"
)

// mcpPath is where agents find the tools.
const mcpPath = "/mcp"

// maxMessage bounds a message of an agent.
const maxMessage = 16 << 20

// mcpMessage is the admission of a message of an agent.
type mcpMessage struct{}

// routeMCP admits a message by its head: its origin and its key. Without tools, there is nothing.
func (f *Front) routeMCP(h *listener.Head) *listener.Response {
	if !f.mcpOrigin(h) {
		return detail(http.StatusForbidden, "Requests of web pages of this origin are not allowed: name it with --cors-origin")
	}
	if refused := f.core.Recognize(head(h, "")); refused != nil {
		return refuse(refused)
	}
	switch {
	case !f.tools.Offers():
		return detail(http.StatusNotFound, "No endpoint is offered to agents: clearml-serving model tool --endpoint NAME does it")
	case h.Method != http.MethodPost:
		return notAllowed(http.MethodPost, ": there are no sessions; a client that wants to be told of changes asks subscriptions/listen")
	}
	h.Admitted = mcpMessage{}
	return nil
}

// mcpOrigin checks the origin of a web page, so that no other site can use a browser to reach this service, also not by a
// name that resolves to this machine.
func (f *Front) mcpOrigin(h *listener.Head) bool {
	origin := h.Header("Origin")
	if origin == "" {
		return true
	}
	if slices.Contains(f.origins, "*") || slices.Contains(f.origins, origin) {
		return true
	}
	parsed, err := url.Parse(origin)
	if err != nil {
		return false
	}
	name := parsed.Hostname()
	return name == "localhost" || net.ParseIP(name).IsLoopback()
}

// mcpHeaders are the fields of a request that the protocol knows.
var mcpHeaders = []string{"Accept", "Authorization", "Mcp-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name", "Last-Event-Id", "Traceparent", "Tracestate"} //nolint:gochecknoglobals // a constant table

// answerMCP answers a message. The SDK writes to a http.ResponseWriter: an answer that it does not flush is whole, any other
// is a stream.
func (f *Front) answerMCP(ctx context.Context, r *listener.Request) *listener.Response {
	own, cancel := context.WithCancel(f.mcpContext) //nolint:contextcheck // it ends with the front, and with ctx
	stop := context.AfterFunc(ctx, cancel)
	end := func() {
		stop()
		cancel()
	}
	req, err := http.NewRequestWithContext(own, r.Method, mcpPath, io.NopCloser(bytes.NewReader(bytes.Clone(r.Body[:min(len(r.Body), maxMessage+1)]))))
	if err != nil {
		end()
		return detail(http.StatusBadRequest, err.Error())
	}
	req.Header.Set("Content-Type", strings.Clone(r.ContentType))
	req.Header.Set(mcp.RequestID, strings.Clone(r.ID))
	for _, name := range mcpHeaders {
		if value := r.Header(name); value != "" {
			req.Header.Set(name, strings.Clone(value))
		}
	}
	w := &mcpWriter{header: http.Header{}, flushed: make(chan struct{}), pieces: make(chan []byte), ended: make(chan struct{}), stop: own.Done(), end: end}
	go func() { // it ends with own, at the latest when the answer is closed
		defer close(w.ended)
		defer func() {
			if p := recover(); p != nil {
				f.o.Logger.Error("handler panicked", "path", mcpPath, "panic", p, "stack", string(debug.Stack()))
				w.WriteHeader(http.StatusInternalServerError) // unless it has answered
			}
		}()
		f.tools.ServeHTTP(w, req)
	}()
	select {
	case <-w.ended:
		end()
		return w.response(bytes.Clone(w.whole.Bytes()), nil)
	case <-w.flushed:
		return w.response(nil, w)
	}
}

// mcpWriter is a http.ResponseWriter, and the stream of what is written after the first flush.
type mcpWriter struct {
	header  http.Header
	status  int
	whole   bytes.Buffer // before the first flush
	flushed chan struct{}
	streams bool
	pieces  chan []byte
	ended   chan struct{} // closed when the handler has returned
	stop    <-chan struct{}
	end     func()
	once    sync.Once
}

// Header implements http.ResponseWriter.
func (w *mcpWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *mcpWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *mcpWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.streams {
		return w.whole.Write(b)
	}
	return len(b), w.send(bytes.Clone(b))
}

// Flush implements http.Flusher.
func (w *mcpWriter) Flush() {
	if w.streams {
		return
	}
	w.WriteHeader(http.StatusOK)
	w.streams = true
	close(w.flushed)
	if w.whole.Len() > 0 {
		_ = w.send(bytes.Clone(w.whole.Bytes())) // the handler sees its end by its context
	}
}

func (w *mcpWriter) send(piece []byte) error {
	select {
	case w.pieces <- piece:
		return nil
	case <-w.stop:
		return context.Canceled
	}
}

// response is what the handler has written, with a body or a stream. It is called after the end or the first flush.
func (w *mcpWriter) response(body []byte, stream engine.Stream) *listener.Response {
	resp := &listener.Response{Response: engine.Response{Status: max(w.status, http.StatusOK), ContentType: w.header.Get("Content-Type"), Body: body, Stream: stream}}
	for _, name := range slices.Sorted(maps.Keys(w.header)) {
		if name != "Content-Type" && name != "Content-Length" && name != "Connection" {
			resp.Header = append(resp.Header, engine.Header{Name: name, Value: w.header.Get(name)})
		}
	}
	if stream != nil {
		resp.Done = func() { _ = w.Close() }
	}
	return resp
}

// Next implements engine.Stream.
func (w *mcpWriter) Next(ctx context.Context) ([]byte, error) {
	select {
	case piece := <-w.pieces:
		return piece, nil
	case <-w.ended:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close implements engine.Stream.
func (w *mcpWriter) Close() error {
	w.once.Do(w.end)
	<-w.ended
	return nil
}

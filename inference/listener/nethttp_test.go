package listener

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// HTTP is the same listener on the standard library's server, for comparison with Lean
// in behaviour and speed.
type HTTP struct {
	o      Options
	server *http.Server
}

// NewHTTP prepares a server; Serve starts it.
func NewHTTP(o Options) *HTTP {
	o = o.withDefaults()
	h := &HTTP{o: o}
	h.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return h
}

// Serve accepts connections until Shutdown is called, after which it returns nil.
func (h *HTTP) Serve(l net.Listener) error {
	err := h.server.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, finishes running requests until ctx ends,
// then closes the remaining connections.
func (h *HTTP) Shutdown(ctx context.Context) error {
	h.server.SetKeepAlivesEnabled(false)
	err := h.server.Shutdown(ctx)
	if err != nil {
		return errors.Join(err, h.server.Close())
	}
	return nil
}

// exchange is the reused memory of one request.
type exchange struct {
	request Request
	body    bytes.Buffer
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }} //nolint:gochecknoglobals // a pool is shared by design

// maxPooledBody prevents that one large request keeps its memory forever.
const maxPooledBody = 1 << 20

func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, _ := exchanges.Get().(*exchange)
	resp := h.answer(w, r, x)
	h.write(w, r, resp, x.request.ID)
	if resp.Done != nil {
		resp.Done()
	}
	// After a cancelled request a model may still read the body, so it is not reused.
	if r.Context().Err() == nil && x.body.Cap() <= maxPooledBody {
		x.body.Reset()
		x.request = Request{}
		exchanges.Put(x)
	}
}

func (h *HTTP) answer(w http.ResponseWriter, r *http.Request, x *exchange) *Response {
	x.request = Request{
		Head: Head{
			Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery,
			ContentType: r.Header.Get("Content-Type"), ID: requestID(r.Header.Get("X-Request-Id")),
			Header: r.Header.Get,
		},
	}
	if resp := h.o.Handler.Admit(&x.request.Head); resp != nil {
		return resp
	}
	if err := h.read(w, r, x); err != nil {
		var bad *bodyError
		if !errors.As(err, &bad) { // the client stalled or disconnected while sending
			bad = &bodyError{http.StatusBadRequest, "The request body could not be read: " + err.Error()}
		}
		w.Header().Set("Connection", "close") // the rest of the body is not read
		return bad.response()
	}
	return h.o.Handler.Answer(r.Context(), &x.request)
}

func (h *HTTP) read(w http.ResponseWriter, r *http.Request, x *exchange) error {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	from := io.Reader(r.Body)
	if r.ContentLength < 0 || r.ContentLength > 4<<10 { // small bodies arrived with the headers
		control := http.NewResponseController(w)
		defer func() { _ = control.SetReadDeadline(time.Time{}) }() // fails only if there is no deadline
		from = &patientReader{from: r.Body, control: control, patience: h.o.BodyTimeout}
	}
	if err := readBody(&x.body, from, r.ContentLength, h.o.MaxBody); err != nil {
		return err
	}
	x.request.Body = x.body.Bytes()
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" {
		body, err := decompress(x.request.Body, encoding, h.o.MaxBody)
		if err != nil {
			return err
		}
		x.request.Body = body
	}
	return nil
}

// patientReader sets a deadline for each read: a slow client may continue
// as long as bytes arrive.
type patientReader struct {
	from     io.Reader
	control  *http.ResponseController
	patience time.Duration
}

func (p *patientReader) Read(b []byte) (int, error) {
	if err := p.control.SetReadDeadline(time.Now().Add(p.patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.from.Read(b)
}

func (h *HTTP) write(w http.ResponseWriter, r *http.Request, resp *Response, id string) {
	header := w.Header()
	for _, f := range resp.Header {
		header.Add(f.Name, f.Value)
	}
	if resp.ContentType != "" {
		header["Content-Type"] = []string{resp.ContentType}
	}
	header["X-Request-Id"] = []string{id}
	if resp.Stream != nil {
		h.stream(w, r, resp)
		return
	}
	if h.o.CompressFrom >= 0 && len(resp.Body) >= h.o.CompressFrom && header.Get("Content-Encoding") == "" && compressible(resp.ContentType) {
		header.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.writeGzip(w, resp)
			return
		}
	}
	header["Content-Length"] = []string{strconv.Itoa(len(resp.Body))}
	w.WriteHeader(resp.Status)
	if _, err := w.Write(resp.Body); err != nil {
		h.o.Logger.Debug("client disconnected", "request_id", id, "err", err)
	}
}

func (h *HTTP) writeGzip(w http.ResponseWriter, resp *Response) {
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(resp.Status)
	z, _ := gzipWriters.Get().(*gzip.Writer)
	z.Reset(w)
	_, err := z.Write(resp.Body)
	if err = errors.Join(err, z.Close()); err != nil {
		h.o.Logger.Debug("client disconnected", "err", err)
	}
	z.Reset(io.Discard)
	gzipWriters.Put(z)
}

// stream sends pieces as they come. An error in the middle closes the connection,
// so that the client does not treat a partial answer as complete.
func (h *HTTP) stream(w http.ResponseWriter, r *http.Request, resp *Response) {
	defer func() {
		if err := resp.Stream.Close(); err != nil {
			h.o.Logger.Debug("stream close", "err", err)
		}
	}()
	w.WriteHeader(resp.Status)
	control := http.NewResponseController(w)
	for {
		piece, err := resp.Stream.Next(r.Context())
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			if _, err = w.Write(piece); err == nil {
				err = control.Flush()
			}
		}
		if err != nil {
			h.o.Logger.Debug("stream ended early", "err", err)
			if resp.Done != nil {
				resp.Done()
				resp.Done = nil
			}
			panic(http.ErrAbortHandler) // the documented way to abort a response
		}
	}
}

// requestID keeps the client's id if it can be logged, else creates one.
func requestID(given string) string {
	if given != "" && len(given) <= maxRequestID && printable(given) {
		return given
	}
	var id [16]byte
	makeRequestID(&id)
	return string(id[:])
}

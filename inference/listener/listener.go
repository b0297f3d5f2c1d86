// Package listener converts HTTP/1.1 and HTTP/2 to the data plane's own requests, and its responses
// back. It owns reading, limiting and decompressing bodies and compressing answers. It is the
// only package that sees the client's HTTP, so that another implementation can replace it; it does
// not route.
package listener

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"clearmlserving/inference/engine"
)

// Head is the part of a request before its body. Its texts are valid until the response has been
// written.
type Head struct {
	Method      string
	Path        string // decoded once
	RawQuery    string
	ContentType string
	ID          string // the client's X-Request-Id, or one made here
	Header      func(name string) string
	// Client describes the client, with the header fields that the Handler shows.
	Client func() engine.Client
	// Admitted is set by Handler.Admit for its own use.
	Admitted any
}

// Request is an admitted head with its body. It is valid until the handler's response has been
// written.
type Request struct {
	Head
	Body []byte      // decompressed
	Loan engine.Loan // the memory of Body; nil: the listener's own
}

// Response is the answer to a Request.
type Response struct {
	engine.Response
	// Done is called once, after the last byte has been written or the response has been given up.
	Done func()
}

// Handler answers requests in two steps, so that no body is read and no memory is used for a
// refused request. It is called from many goroutines.
type Handler interface {
	// Admit decides by the head alone. It returns a response if the head is enough for one (a
	// refusal, an answer that needs no body), or nil to admit the request: only then is its body
	// read.
	Admit(h *Head) *Response
	// Shown returns the value of a header field as user code may see it; false hides the field. It
	// is called for requests to code that wants to see them.
	Shown(name, value string) (string, bool)
	// Lend returns memory for the body of an admitted request; nil: the listener uses its own. It
	// is called for bodies of engine.LendFrom bytes and more.
	Lend(h *Head, size int) engine.Loan
	// Refused is called for an admitted request whose body is refused, with the status of the answer.
	Refused(h *Head, status int)
	// Answer answers an admitted request. ctx ends when the client has disconnected, when the
	// server gives up, and at the latest after the response has been written.
	Answer(ctx context.Context, r *Request) *Response
}

// Refuser is a Handler that refuses bodies in the form of the request's protocol.
type Refuser interface {
	// Refusal is the answer to an admitted request whose body is refused, nil for the listener's own form.
	Refusal(h *Head, status int, text string) *Response
}

// Options of a listener. The zero value of a limit means its default.
type Options struct {
	Handler Handler
	// MaxBody bounds a request's body, as sent and after decompression. Default 256 MiB.
	MaxBody int64
	// MaxBodies bounds the bytes of all bodies held at the same time. If large responses use more
	// than that, clients that do not read theirs are cut sooner. Default 8 times MaxBody.
	MaxBodies int64
	// MaxConns bounds the open connections. 0: only the machine's limit.
	MaxConns int
	// MaxHeader bounds the request line and headers. Default 64 KiB.
	MaxHeader int
	// HeaderTimeout bounds the arrival of the headers. Default 10 s.
	HeaderTimeout time.Duration
	// BodyTimeout bounds the pauses of a body. It is also the window in which a body must arrive
	// with at least minBodyRate. Default 30 s.
	BodyTimeout time.Duration
	// IdleTimeout bounds a kept-alive connection without a request. Default 2 min.
	IdleTimeout time.Duration
	// CompressFrom is the size from which answers are compressed if the client accepts it. Default
	// 16 KiB; negative: never.
	CompressFrom int
	Logger       *slog.Logger
}

const (
	defaultMaxBody      = 256 << 20
	defaultMaxHeader    = 64 << 10
	defaultCompressFrom = 16 << 10
)

func (o Options) withDefaults() Options {
	o.MaxBody = cmp.Or(o.MaxBody, defaultMaxBody)
	o.MaxBodies = cmp.Or(o.MaxBodies, 8*o.MaxBody)
	o.MaxHeader = cmp.Or(o.MaxHeader, defaultMaxHeader)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 10*time.Second)
	o.BodyTimeout = cmp.Or(o.BodyTimeout, 30*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 2*time.Minute)
	o.CompressFrom = cmp.Or(o.CompressFrom, defaultCompressFrom)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

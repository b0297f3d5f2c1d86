// Package engine is the contract between the data plane and engines, which compute
// answers: a Loader creates the Model of an endpoint, a Model answers requests. It
// owns the data plane's request and response, so that only fronts depend on the
// client's protocol. It never does I/O.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// Request is one question to a model: an unchanged body, or tensors.
type Request struct {
	// ID names the request in logs and for user code.
	ID string
	// Body is the payload, already decompressed. It is only valid until Infer
	// has returned: a Model that needs it longer copies it.
	Body []byte
	// Tensors, if not nil, are the payload instead of Body and ContentType.
	Tensors []Tensor
	// TensorsAs tells what Tensors are together: the request's parameter content_type of MLServer,
	// such as "pd" for the columns of a table. "": nothing is told.
	TensorsAs string
	// Parameters are those of a request with Tensors that the protocol does not define, as a JSON
	// object. nil: none.
	Parameters []byte
	// Outputs are the names of the wanted tensors, nil: those that the model always returns. A Model may
	// return others too, which the front omits, and not all of them.
	Outputs []string
	// Streams: the front sends each piece of a streamed answer as an answer with tensors. Otherwise a
	// request with tensors has one answer.
	Streams bool
	// Renames: an only tensor is the only input of the model, whatever its name is.
	Renames bool
	// Loan is the memory of Body, or of the data of Tensors, if a Lender has lent it.
	Loan Loan
	// ContentType is the client's, "" if it sent none.
	ContentType string
	// Route is the path of a request in the OpenAI API, such as "v1/chat/completions", whose model is this
	// endpoint. "": the request is none of that API. A Model that does not know it answers the body.
	Route string
	// Client describes the client's request, for a Model that passes it to user code. It is valid until
	// Infer has returned. nil: the request does not come directly from a client.
	Client func() Client
	// Depth counts the nested calls between endpoints, 0 for a client's request.
	Depth int
	// Sampled requests the statistics variables in Response.Stats.
	Sampled bool
	// Span is the span of the request, nil: it is not traced. A Model adds spans below it.
	Span *tracing.Span
}

// Header is one header field.
type Header struct{ Name, Value string }

// Client describes a client's request.
type Client struct {
	Method, Path, Query string
	// Address is the source address of the connection, without a port.
	Address string
	// Header omits fields that give access to this service.
	Header []Header
}

// Clone copies all texts.
func (c Client) Clone() Client {
	c.Method, c.Path, c.Query, c.Address = strings.Clone(c.Method), strings.Clone(c.Path), strings.Clone(c.Query), strings.Clone(c.Address)
	c.Header = slices.Clone(c.Header)
	for i, h := range c.Header {
		c.Header[i] = Header{strings.Clone(h.Name), strings.Clone(h.Value)}
	}
	return c
}

// Response is a model's answer, in exactly one of Body, Tensors and Stream.
type Response struct {
	Status      int
	ContentType string
	Header      []Header
	Body        []byte
	// Tensors are the answer to a request with tensors, unless Status is an error: then Body has its
	// text. TensorsAs tells what they are together, as that of a Request.
	Tensors   []Tensor
	TensorsAs string
	// Stats is a JSON object of the endpoint's logged variables, nil if not sampled.
	Stats []byte
	// Stream, if not nil, yields the body in pieces. PieceTensors, if not nil, reads a piece, which is then an
	// answer with tensors.
	Stream       Stream
	PieceTensors func(piece []byte) ([]Tensor, error)
	// Unread: the engine could not parse the request, so user code did not get it.
	Unread bool
	// Queued is the time before a worker got the request.
	Queued time.Duration
}

// Stream is a body that is produced while it is sent. One goroutine uses it.
type Stream interface {
	// Next returns the next piece, valid until the following call, or io.EOF.
	Next(ctx context.Context) ([]byte, error)
	// Close ends the stream early or after EOF; it may be called more than once.
	Close() error
}

// LateStats is a stream whose logged variables are known at its end, instead of those of its Response.
type LateStats interface {
	Stream
	// Stats is called by the goroutine that uses the stream, when it reads no more of it.
	Stats() []byte
}

// ReadAll reads a stream to its end and closes it. A body of more than limit bytes is an
// error of KindTooLarge.
func ReadAll(ctx context.Context, stream Stream, limit int64) (body []byte, err error) {
	defer func() { err = errors.Join(err, stream.Close()) }()
	for {
		piece, err := stream.Next(ctx)
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read streamed answer: %w", err)
		}
		if int64(len(body)+len(piece)) > limit {
			return nil, &Error{Kind: KindTooLarge, Text: fmt.Sprintf("the streamed answer is larger than %d bytes", limit)}
		}
		body = append(body, piece...)
	}
}

// Model answers requests for one endpoint.
type Model interface {
	// Infer may be called from many goroutines. It observes the deadline
	// of ctx. An error of user code is a Response; an error is the engine's, of type
	// *Error if it has a kind.
	Infer(ctx context.Context, req *Request) (*Response, error)
	// Status describes the model for operators. It is safe at any time.
	Status() serving.ModelReport
	// Close releases all resources of the model. It is called once, after the
	// last Infer has returned; ctx bounds a graceful end.
	Close(ctx context.Context) error
}

// Lender is a Model with memory for large bodies that it can read in place:
// a body that is received into it need not be copied to the model.
type Lender interface {
	// Lend returns memory for a body of size bytes, nil if there is none. The model
	// may be closed before the memory is released. It is safe at any time.
	Lend(size int) Loan
}

// VariableSetter is a Model whose statistics variables can change while it serves.
type VariableSetter interface {
	// SetVariables replaces the names of the variables that sampled requests report.
	SetVariables(names []string) error
}

// Speaker is a Model that answers requests with a Route.
type Speaker interface {
	// Speaks reports whether the Model answers any of them.
	Speaks() bool
}

// LendFrom is the size from which a body is received into a Lender's memory; copying
// smaller ones is as fast.
const LendFrom = 256 << 10

// Loan is memory of a Lender. It must not be used after Release.
type Loan interface {
	Bytes() []byte
	Release()
}

// Spec is everything that a Loader needs to create a model. Files are local.
type Spec struct {
	URL      serving.EndpointURL
	Endpoint serving.Endpoint
	// CodePath is the preprocess code, a file or a folder, "" for none.
	CodePath string
	// CodeName is the name of the artifact that the code came from.
	CodeName string
	// ModelPath is the model's file or folder, "" if the endpoint has no model.
	ModelPath string
	// Framework is the library that the model was made with, as its record says, "" if it does not.
	Framework string
	// Variables are the names of the endpoint's logged statistics variables.
	Variables []string
	// Restore restores CodePath and ModelPath if they are missing or truncated; with
	// distrust it also compares their content, because a load has failed. A Model calls it
	// before it reads them again. nil: they cannot be restored.
	Restore func(ctx context.Context, distrust bool) error
	// Limits bound the endpoint's resources, nil: the instance's limits.
	Limits *serving.Limits
	// Recorded returns golden samples and recorded requests of the endpoint, for engines that compare answers. nil: there are none.
	Recorded func() []serving.Exchange
	// Parameters are the settings of the service that the endpoint's engine reads.
	Parameters serving.Parameters
}

// Loader creates models of one kind of endpoint.
type Loader interface {
	// Load returns when the model can answer. ctx is cancelled if the
	// endpoint changes meanwhile. It may be called for many endpoints concurrently.
	Load(ctx context.Context, spec Spec) (Model, error)
}

// Preparer is a Loader that may have to create something on this machine before it
// loads, like a Python environment. It is called separately, because that can take
// minutes, in which other endpoints' loads go on.
type Preparer interface {
	// Prepare returns when everything for Load exists. Its errors are those of Load.
	Prepare(ctx context.Context, spec Spec) error
}

// Runner is a Loader with background work, such as the supervision of processes.
type Runner interface {
	Loader
	// Run works until ctx ends, which is after the last model has been closed.
	// send_request calls of user code go to caller. It is called once; Load may
	// be called before it.
	Run(ctx context.Context, caller Caller) error
}

// Kind classifies an engine's error for the caller.
type Kind int

// The kinds of an Error; package inference maps them to its Failure.
const (
	KindInternal    Kind = iota // the client cannot correct it
	KindOverloaded              // try again later
	KindDeadline                // the time limit has passed
	KindDied                    // the process died while it worked on this request
	KindUnavailable             // no process can answer now
	KindTooLarge                // the request exceeds the engine's limits
	KindBadRequest              // the engine does not support such a request
	KindLoop                    // calls between endpoints are nested too deep
)

// Error is an engine's failure to answer, as opposed to an error answer of user
// code.
type Error struct {
	Kind       Kind
	Endpoint   serving.EndpointURL
	Text       string
	RetryAfter time.Duration // for KindOverloaded and KindUnavailable, 0: unknown
	// Fallback is the endpoint that is to answer instead, "" for none. The Model has sent nothing.
	Fallback serving.EndpointURL
	Err      error
}

func (e *Error) Error() string {
	text := e.Text
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// LoadError is the reason why a model could not be created, with the traceback of user code.
type LoadError struct {
	Text      string
	Cause     string // Text without the name of the code, "" if Text has no name
	Traceback string // trimmed to user code, "" if there is none
	UserCode  bool   // a fault of user code
	Final     bool   // every attempt fails, on every machine, until the endpoint changes
	// Within bounds the time until the next attempt, as of a load that waits for a server beside this
	// instance. 0: no bound.
	Within time.Duration
	Err    error
}

func (e *LoadError) Error() string { return e.Text }

func (e *LoadError) Unwrap() error { return e.Err }

// Caller answers the send_request calls of user code.
type Caller interface {
	// Call may be called from many goroutines. A failed call is a
	// Response with an error status; an error means that ctx has ended.
	Call(ctx context.Context, c Call) (*Response, error)
}

// Call is a send_request of user code to another endpoint.
type Call struct {
	From        serving.EndpointURL
	Endpoint    string
	Version     string
	ID          string
	Body        []byte
	ContentType string
	Depth       int
	Traceparent string // of the span that calls, "" for none
}

// Asker is a Caller for models that are made of other endpoints. That of a Runner is one.
type Asker interface {
	Caller
	// Ask asks an endpoint as a client does, but without a key. It may be called from many goroutines. The
	// arguments may be reused after it has returned. An error of the endpoint's user code is a Response; a question without an answer
	// of the model is an *Error. whole asks for an answer without a Stream; else the caller closes that.
	Ask(ctx context.Context, url serving.EndpointURL, req *Request, whole bool) (*Response, error)
	// Signature describes what the model of a url takes and answers; it is empty if that is not known. depth is
	// that of a Composed which asks, plus one.
	Signature(url serving.EndpointURL, depth int) Signature
	// Targets are the endpoints that a canary chooses among, else the url itself.
	Targets(url serving.EndpointURL) []serving.EndpointURL
	// Obstacle is the reason why no model can answer a url now, nil if one can.
	Obstacle(url serving.EndpointURL) error
}

// Composed is a Model whose signature is made of those of others, so that it may change while it serves.
type Composed interface {
	Signed
	// SignatureAt is the Signature for another Composed, which is nested in depth others.
	SignatureAt(depth int) Signature
}

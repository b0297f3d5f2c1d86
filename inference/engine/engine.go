// Package engine holds the contract between the data plane and whatever computes
// answers: a Loader makes a Model of an endpoint, a Model answers requests. It
// owns the data plane's own request and response, so that nothing behind the
// listener knows the client's protocol. It never does I/O.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"clearmlserving/serving"
)

// Request is one question to a model: a body, which travels untouched, or tensors.
type Request struct {
	// ID names the request in logs and towards user code.
	ID string
	// Body is the payload, already decompressed. It is only valid until Infer
	// has returned: a Model that needs it longer copies it.
	Body []byte
	// Tensors, when not nil, are the payload in the place of Body and ContentType. A
	// Model that takes none fails with NoTensors.
	Tensors []Tensor
	// Loan is where Body lies, if a Lender has lent that memory.
	Loan Loan
	// ContentType is the client's, "" when it sent none.
	ContentType string
	// Client tells how the client asked, for a Model that shows it to user code. It is valid until
	// Infer has returned. nil: no client has sent the request itself.
	Client func() Client
	// Depth counts the send_request calls that led here, 0 for a client's request.
	Depth int
	// Sampled asks for the statistics variables in Response.Stats.
	Sampled bool
}

// Header is one header field.
type Header struct{ Name, Value string }

// Client is how a client asked.
type Client struct {
	Method, Path, Query string
	// Address is the one that the connection comes from, without a port.
	Address string
	// Header has no field that gives access to this service.
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

// Response is a model's answer. Exactly one of Body, Tensors and Stream carries it.
type Response struct {
	Status      int
	ContentType string
	Header      []Header
	Body        []byte
	// Tensors are the answer to a request with tensors, of a Model that has them.
	Tensors []Tensor
	// Stats is a JSON object of the endpoint's logged variables, nil when not sampled.
	Stats []byte
	// Stream, when not nil, yields the body piece by piece.
	Stream Stream
	// Unread: user code has not seen the request, which the engine could not read.
	Unread bool
	// Queued is how long the request waited before a worker had it.
	Queued time.Duration
}

// Stream is a body that is made while it is sent. One goroutine uses it.
type Stream interface {
	// Next returns the next piece, valid until the following call, or io.EOF.
	Next(ctx context.Context) ([]byte, error)
	// Close ends the stream early or after EOF; it may be called more than once.
	Close() error
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
	// Infer may be called from many goroutines at once. It honours the deadline
	// of ctx. A user's error is a Response; an error is the engine's own, of type
	// *Error whenever it has a kind.
	Infer(ctx context.Context, req *Request) (*Response, error)
	// Status describes the model for people. It is safe at any time.
	Status() serving.ModelReport
	// Close releases everything the model holds. It is called once, after the
	// last Infer has returned; ctx bounds how long it may take to be polite.
	Close(ctx context.Context) error
}

// Lender is a Model that has memory for large bodies which it reads where they lie:
// a body that is received into it needs not be sent on.
type Lender interface {
	// Lend returns memory for a body of size bytes, nil if there is none. The model
	// may be closed before the memory is given back. It is safe at any time.
	Lend(size int) Loan
}

// VariableSetter is a Model whose statistics variables can change while it serves.
type VariableSetter interface {
	// SetVariables replaces the names of the variables that sampled requests report.
	SetVariables(names []string) error
}

// LendFrom is the size from which a body is received into a Lender's memory; smaller
// ones are copied as quickly.
const LendFrom = 256 << 10

// Loan is memory of a Lender, not touched after its Release.
type Loan interface {
	Bytes() []byte
	Release()
}

// Spec is everything a Loader needs to make a model: files are local by now.
type Spec struct {
	URL      serving.EndpointURL
	Endpoint serving.Endpoint
	// CodePath is the preprocess code, a file or a folder, "" for none.
	CodePath string
	// CodeName is the name of the artifact that the code came from.
	CodeName string
	// ModelPath is the model's file or folder, "" when the endpoint has no model.
	ModelPath string
	// Variables are the names of the statistics variables the endpoint logs.
	Variables []string
	// Restore brings CodePath and ModelPath back if they are missing or cut short; with
	// distrust their content is compared, since a load has failed. A Model calls it
	// before it reads them again. nil: they cannot be brought back.
	Restore func(ctx context.Context, distrust bool) error
	// Limits bound what the endpoint takes, nil: as the instance has it.
	Limits *serving.Limits
}

// Loader makes models of one kind of endpoint.
type Loader interface {
	// Load returns only when the model can answer. It is cancelled by ctx when
	// the endpoint changes meanwhile; it may be called for many endpoints at once.
	Load(ctx context.Context, spec Spec) (Model, error)
}

// Preparer is a Loader that may have to make something on this machine before it
// loads, like a Python environment. It is asked apart, because that can take
// minutes in which other endpoints' loads go on.
type Preparer interface {
	// Prepare returns when Load finds everything made. Its errors are Load's.
	Prepare(ctx context.Context, spec Spec) error
}

// Runner is a Loader with work of its own, like the ownership of processes.
type Runner interface {
	Loader
	// Run works until ctx ends, which is after the last model has been closed. Calls
	// that user code makes with send_request go to caller. It is called once; Load may
	// be called before it.
	Run(ctx context.Context, caller Caller) error
}

// Kind says what a caller does about an engine's error.
type Kind int

// The kinds of an Error; package inference maps them to its Failure.
const (
	KindInternal    Kind = iota // nothing the client can do
	KindOverloaded              // try again later
	KindDeadline                // the time allowed has passed
	KindDied                    // the process died while it worked on this request
	KindUnavailable             // no process can answer now
	KindTooLarge                // the request does not fit the engine's limits
	KindBadRequest              // the engine cannot take such a request
)

// Error is an engine's own failure to answer, as opposed to an answer of user
// code that says something went wrong.
type Error struct {
	Kind       Kind
	Endpoint   serving.EndpointURL
	Text       string
	RetryAfter time.Duration // for KindOverloaded and KindUnavailable, 0: unknown
	Err        error
}

func (e *Error) Error() string {
	text := e.Text
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// NoTensors is the failure of a Model that takes bodies only.
func NoTensors(url serving.EndpointURL) *Error {
	return &Error{Kind: KindBadRequest, Endpoint: url, Text: fmt.Sprintf("endpoint '%s' takes no tensors: send a body", url)}
}

// LoadError says why a model could not be made, with the user's own traceback.
type LoadError struct {
	Text      string
	Cause     string // Text without the name of the code, "" where it does not name it
	Traceback string // trimmed to user code, "" when there is none
	UserCode  bool   // the user's own code is at fault
	Final     bool   // every attempt fails, on every machine, until the endpoint changes
	Err       error
}

func (e *LoadError) Error() string { return e.Text }

func (e *LoadError) Unwrap() error { return e.Err }

// Detail makes the body of an error as every client of the original knows it.
func Detail(text string) []byte {
	b, err := json.Marshal(map[string]string{"detail": text})
	if err != nil { // a string always encodes
		return []byte(`{"detail":"unknown error"}`)
	}
	return b
}

// Caller answers the send_request calls of user code.
type Caller interface {
	// Call may be called from many goroutines. What went wrong on the way is a
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
}

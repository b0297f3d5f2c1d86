package inference

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// FailureKind is the reason why a question has no answer of the model. Each front maps it to a
// code of its protocol.
type FailureKind int

// The kinds of a Failure.
const (
	KindInternal        FailureKind = iota // the client cannot correct it
	KindUnknownEndpoint                    // the url is not configured
	KindNotReady                           // configured, but no model can answer now
	KindBadRequest                         // the question cannot be understood
	KindUnauthenticated                    // no key, or an invalid one
	KindForbidden                          // a valid key, but for other endpoints
	KindOverloaded                         // try again later
	KindDeadline                           // the time limit has passed
	KindTooLarge                           // the question or the answer exceeds a limit
	KindDied                               // the process died while it worked on this question
	KindLoopDetected                       // calls between endpoints are nested too deep
	KindClientLeft                         // the client disconnected before its answer
)

// statuses are the HTTP statuses of failures in send_request calls and recordings, as in the
// original.
var statuses = [...]int{ //nolint:gochecknoglobals // a constant table
	KindInternal:        http.StatusInternalServerError,
	KindUnknownEndpoint: http.StatusNotFound,
	KindNotReady:        http.StatusServiceUnavailable,
	KindBadRequest:      http.StatusBadRequest,
	KindUnauthenticated: http.StatusUnauthorized,
	KindForbidden:       http.StatusForbidden,
	KindOverloaded:      http.StatusTooManyRequests,
	KindDeadline:        http.StatusGatewayTimeout,
	KindTooLarge:        http.StatusRequestEntityTooLarge,
	KindDied:            http.StatusInternalServerError,
	KindLoopDetected:    http.StatusLoopDetected,
	KindClientLeft:      499, // as in nginx: not an error of the server
}

// KindOf is the kind of the failure of a question that a front or an engine refuses with err.
func KindOf(err error) FailureKind { return kindOfError(err) }

// kindOfError is the kind of the failure of a model without an answer.
func kindOfError(err error) FailureKind {
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return KindDeadline
		}
		return KindInternal
	}
	return engineKinds[failed.Kind]
}

// engineKinds are the kinds of engines' errors.
var engineKinds = map[engine.Kind]FailureKind{ //nolint:gochecknoglobals // a constant table
	engine.KindInternal:    KindInternal,
	engine.KindOverloaded:  KindOverloaded,
	engine.KindDeadline:    KindDeadline,
	engine.KindUnavailable: KindNotReady,
	engine.KindTooLarge:    KindTooLarge,
	engine.KindDied:        KindDied,
	engine.KindBadRequest:  KindBadRequest,
	engine.KindLoop:        KindLoopDetected,
}

// outcome is the statistics' outcome of a request with this failure.
func (k FailureKind) outcome() router.Outcome {
	switch k {
	case KindDeadline:
		return router.TimedOut
	case KindOverloaded:
		return router.Refused
	case KindBadRequest, KindTooLarge:
		return router.BadRequests
	}
	return router.Errors
}

// Failure is the reason why a question has no answer of the model, for the client.
type Failure struct {
	Kind FailureKind
	Text string
	// RetryAfter is the time until a retry makes sense, 0: unknown.
	RetryAfter time.Duration
	// Challenge describes the required credentials, in the form of RFC 6750; only with
	// KindUnauthenticated and KindForbidden.
	Challenge string
	// Origin names the endpoint and the model that failed, nil if none was reached.
	Origin []engine.Header
}

func (f *Failure) Error() string { return f.Text }

// ModelText is Text for clients of the Open Inference Protocol, as theirs expect an unknown model to be named.
func (f *Failure) ModelText() string {
	if f.Kind != KindUnknownEndpoint {
		return f.Text
	}
	return "Request for unknown model: " + f.Text
}

// Response is the failure in the form for HTTP clients and user code: a status,
// the text as JSON, and headers.
func (f *Failure) Response() *engine.Response {
	resp := &engine.Response{Status: statuses[f.Kind], ContentType: jsonType, Body: serving.Detail(f.Text), Header: slices.Clip(f.Origin)}
	if f.RetryAfter > 0 {
		seconds := max(1, int(f.RetryAfter.Round(time.Second)/time.Second))
		resp.Header = append(resp.Header, engine.Header{Name: "Retry-After", Value: strconv.Itoa(seconds)})
	}
	if f.Challenge != "" {
		resp.Header = append(resp.Header, engine.Header{Name: "WWW-Authenticate", Value: f.Challenge})
	}
	return resp
}

const jsonType = "application/json"

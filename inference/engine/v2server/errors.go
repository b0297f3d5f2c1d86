package v2server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/serving"
)

// Refusal is an error that a server has answered, in its own words.
type Refusal struct {
	Code codes.Code
	Text string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s (%s)", r.Text, r.Code) }

// mostRefusal bounds the text of a server's error.
const mostRefusal = 2000

// refusal is a server's error. Of a traceback of Python it has the last line, which says what is wrong.
func refusal(code codes.Code, text string) *Refusal {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "Traceback (most recent call last)") {
		text = text[strings.LastIndexByte(text, '\n')+1:]
	}
	return &Refusal{Code: code, Text: serving.Shorten(text, mostRefusal)}
}

// Garbage is an answer that is not what the protocol says.
type Garbage struct{ Err error }

func (g *Garbage) Error() string { return "its answer is not usable: " + g.Err.Error() }

func (g *Garbage) Unwrap() error { return g.Err }

// codeOf is the code of gRPC for a status of HTTP.
func codeOf(status int) codes.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusRequestEntityTooLarge:
		return codes.OutOfRange
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	}
	return codes.Internal
}

// failure is an error as the data plane knows it.
func (m *model) failure(err error) error {
	at := func(kind engine.Kind, format string, args ...any) *engine.Error {
		return &engine.Error{Kind: kind, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': ", m.url) + fmt.Sprintf(format, args...)}
	}
	if garbage, ok := errors.AsType[*Garbage](err); ok { // also of an error about the client's tensors
		return at(engine.KindInternal, "%s: %s", m.name, garbage)
	}
	if failed, ok := errors.AsType[*engine.Error](err); ok {
		if failed.Endpoint == "" {
			named := *failed
			named.Endpoint, named.Text = m.url, fmt.Sprintf("endpoint '%s': %s", m.url, failed.Text)
			return &named
		}
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return at(engine.KindDeadline, "%s has not answered within the time limit", m.name)
	}
	if errors.Is(err, context.Canceled) {
		return &engine.Error{Endpoint: m.url, Text: "the request was cancelled", Err: err}
	}
	if refused, ok := errors.AsType[*Refusal](err); ok {
		text := strings.TrimSpace(refused.Text)
		switch refused.Code { //nolint:exhaustive // others are the server's fault
		case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
			return at(engine.KindBadRequest, "%s refuses the request: %s", m.name, text)
		case codes.ResourceExhausted:
			e := at(engine.KindOverloaded, "%s is overloaded: %s", m.name, text)
			e.RetryAfter = remote.RetryIn
			return e
		case codes.NotFound, codes.Unavailable:
			e := at(engine.KindUnavailable, "%s cannot answer: %s", m.name, text)
			e.RetryAfter = remote.RetryIn
			return e
		case codes.DeadlineExceeded:
			return at(engine.KindDeadline, "%s has not answered within the time limit: %s", m.name, text)
		}
		return at(engine.KindInternal, "%s failed: %s", m.name, refused)
	}
	if remote.Begun(err) {
		return at(engine.KindDied, "%s has not answered: the connection ended while it worked on the request: %s", m.name, err)
	}
	e := at(engine.KindUnavailable, "%s cannot be reached: %s", m.name, err)
	e.RetryAfter = remote.RetryIn
	return e
}

package grpcfront

import (
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

// failureCodes are the codes of failures.
var failureCodes = [...]codes.Code{ //nolint:gochecknoglobals // a constant table
	inference.KindInternal:        codes.Internal,
	inference.KindUnknownEndpoint: codes.NotFound,
	inference.KindNotReady:        codes.Unavailable,
	inference.KindBadRequest:      codes.InvalidArgument,
	inference.KindUnauthenticated: codes.Unauthenticated,
	inference.KindForbidden:       codes.PermissionDenied,
	inference.KindOverloaded:      codes.ResourceExhausted,
	inference.KindDeadline:        codes.DeadlineExceeded,
	inference.KindTooLarge:        codes.ResourceExhausted,
	inference.KindDied:            codes.Internal, // not UNAVAILABLE, which clients repeat unasked
	inference.KindLoopDetected:    codes.FailedPrecondition,
	inference.KindClientLeft:      codes.Canceled,
}

// statusOf is a failure as gRPC tells it.
func statusOf(f *inference.Failure) *status.Status {
	return status.New(failureCodes[f.Kind], valid(f.Text))
}

// valid makes a text one that a status may have.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// bodyCodes are the codes of the HTTP statuses of answers of user code.
var bodyCodes = map[int]codes.Code{ //nolint:gochecknoglobals // a constant table
	http.StatusBadRequest: codes.InvalidArgument, http.StatusUnprocessableEntity: codes.InvalidArgument, http.StatusUnsupportedMediaType: codes.InvalidArgument,
	http.StatusUnauthorized: codes.Unauthenticated, http.StatusForbidden: codes.PermissionDenied, http.StatusNotFound: codes.NotFound,
	http.StatusConflict: codes.Aborted, http.StatusPreconditionFailed: codes.FailedPrecondition, http.StatusRequestEntityTooLarge: codes.ResourceExhausted,
	http.StatusTooManyRequests: codes.ResourceExhausted, http.StatusNotImplemented: codes.Unimplemented, http.StatusServiceUnavailable: codes.Unavailable,
	http.StatusGatewayTimeout: codes.DeadlineExceeded,
}

// mostText bounds the text of an answer of user code in a status.
const mostText = 4 << 10

// answerStatus is an error answer of user code as gRPC tells it.
func answerStatus(answer *engine.Response) *status.Status {
	code, ok := bodyCodes[answer.Status]
	switch {
	case ok:
	case answer.Status >= http.StatusInternalServerError:
		code = codes.Internal
	case answer.Status >= http.StatusBadRequest:
		code = codes.InvalidArgument
	default:
		code = codes.Unknown
	}
	text := v2.ErrorText(answer.Body[:min(len(answer.Body), mostText)])
	if text == "" {
		text = fmt.Sprintf("the endpoint answered with status %d", answer.Status)
	}
	return status.New(code, valid(text[:min(len(text), mostText)]))
}

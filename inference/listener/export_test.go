package listener

import (
	"context"
	"time"

	"clearmlserving/inference/engine"
)

// AnswerFunc is a handler that admits everything.
type AnswerFunc func(ctx context.Context, r *Request) *Response

func (AnswerFunc) Admit(*Head) *Response       { return nil }
func (AnswerFunc) Lend(*Head, int) engine.Loan { return nil }

// Refused implements Handler.
func (AnswerFunc) Refused(*Head, int) {}

func (AnswerFunc) Shown(name, value string) (string, bool) { return value, name != "Secret" }

func (f AnswerFunc) Answer(ctx context.Context, r *Request) *Response { return f(ctx, r) }

// WithTimeout is the method of a handler's context, for any context.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if r, ok := ctx.(*requestContext); ok {
		return r.WithTimeout(d)
	}
	return context.WithTimeout(ctx, d)
}

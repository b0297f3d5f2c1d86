package listener

import (
	"context"

	"clearmlserving/inference/engine"
)

// AnswerFunc is a handler that admits everything.
type AnswerFunc func(ctx context.Context, r *Request) *Response

func (AnswerFunc) Admit(*Head) *Response       { return nil }
func (AnswerFunc) Lend(*Head, int) engine.Loan { return nil }

func (f AnswerFunc) Answer(ctx context.Context, r *Request) *Response { return f(ctx, r) }

package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Body is the content of an answer with exactly length bytes, -1 if unknown. It returns no more,
// and an answer that ends earlier ends with a transient error. ctx is the context of the request:
// its end is distinguished from an interruption.
func Body(ctx context.Context, url string, answer io.ReadCloser, length int64) io.ReadCloser {
	return &body{ctx: ctx, answer: answer, url: url, left: length}
}

type body struct {
	ctx    context.Context //nolint:containedctx // distinguishes a cancelled read from an interruption; lives as long as the answer
	answer io.ReadCloser
	url    string
	left   int64 // -1: unknown
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.answer.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && b.left <= 0:
		return n, io.EOF
	case b.ctx.Err() != nil:
		return n, context.Cause(b.ctx)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, &Error{Op: "read", URL: b.url, Transient: true, Err: fmt.Errorf("the connection was cut: %w", err)}
}

func (b *body) Close() error { return b.answer.Close() }

// CheckPart checks that an answer is the requested part: now is the state in the answer, from and
// to are its bytes. It returns the number of bytes to come.
func CheckPart(part Part, now Object, from, to int64) (length int64, err error) {
	if part.Of.Validated() && !part.Of.Same(now) {
		return 0, ErrChanged
	}
	if from != part.Offset || (part.Length > 0 && to-from > part.Length) {
		return 0, fmt.Errorf("the server answers with bytes %d-%d, asked were those from %d: %w", from, to, part.Offset, ErrNoRanges)
	}
	length = part.Length
	if length == 0 {
		length = now.Size - from
	}
	if to-from != length {
		return 0, fmt.Errorf("bytes %d-%d are asked of %d: %w", from, from+length, now.Size, ErrChanged)
	}
	return length, nil
}

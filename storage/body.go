package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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
	return n, &Error{Op: "read", URL: b.url, Transient: true, Err: fmt.Errorf("the content ended early: %w", err)}
}

func (b *body) Close() error { return b.answer.Close() }

// CheckAnswer checks that an answer is the requested part. now is the state in the answer, with the
// answer's length as its size, and contentRange is its Content-Range, "" if it is the whole file.
// It returns the state of the whole file and the number of bytes to come, -1 if unknown.
func CheckAnswer(part Part, now Object, contentRange string) (Object, int64, error) {
	if contentRange == "" {
		switch {
		case part.Of.Validated() && !part.Of.Same(now):
			return now, 0, ErrChanged
		case !part.Whole():
			return now, 0, ErrNoRanges
		}
		return now, now.Size, nil
	}
	from, to, total, ok := parseContentRange(contentRange)
	if !ok {
		return now, 0, fmt.Errorf("the server answers with the range %q: %w", contentRange, ErrNoRanges)
	}
	now.Size = total
	if part.Of.Validated() && !part.Of.Same(now) {
		return now, 0, ErrChanged
	}
	if from != part.Offset || (part.Length > 0 && to-from > part.Length) {
		return now, 0, fmt.Errorf("the server answers with bytes %d-%d, requested were those from %d: %w", from, to, part.Offset, ErrNoRanges)
	}
	length := cmp.Or(part.Length, total-from)
	if to-from != length {
		return now, 0, fmt.Errorf("bytes %d-%d were requested of %d: %w", from, from+length, total, ErrChanged)
	}
	return now, length, nil
}

// parseContentRange reads "bytes first-last/total"; to is one past last.
func parseContentRange(field string) (from, to, total int64, ok bool) {
	field, ok = strings.CutPrefix(strings.TrimSpace(field), "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, size, _ := strings.Cut(field, "/")
	first, last, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	total, err3 := strconv.ParseInt(size, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || from < 0 || to < from || to >= total {
		return 0, 0, 0, false
	}
	return from, to + 1, total, true
}

package engine_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"clearmlserving/inference/engine"
)

// pieces is a stream that returns its pieces in one buffer, and then err.
type pieces struct {
	left   []string
	err    error
	buf    []byte
	closed bool
}

func (p *pieces) Next(context.Context) ([]byte, error) {
	if len(p.left) == 0 {
		return nil, p.err
	}
	p.buf, p.left = append(p.buf[:0], p.left[0]...), p.left[1:]
	return p.buf, nil
}

func (p *pieces) Close() error { p.closed = true; return nil }

func TestAStreamIsReadWholeUpToALimit(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		end   error
		limit int64
		want  string
		kind  engine.Kind
		err   error
	}{
		{end: io.EOF, limit: 6, want: "abcdef"},
		{end: io.EOF, limit: 5, kind: engine.KindTooLarge},
		{end: broken, limit: 6, err: broken},
	} {
		stream := &pieces{left: []string{"ab", "cd", "ef"}, err: c.end}
		got, err := engine.ReadAll(t.Context(), stream, c.limit)
		var engineErr *engine.Error
		switch {
		case string(got) != c.want || !stream.closed:
			t.Errorf("%v, limit %d: read %q, want %q; closed %t", c.end, c.limit, got, c.want, stream.closed)
		case c.want != "" && err == nil, c.err != nil && errors.Is(err, c.err):
		case errors.As(err, &engineErr) && engineErr.Kind == c.kind && c.kind == engine.KindTooLarge:
		default:
			t.Errorf("%v, limit %d: error %v", c.end, c.limit, err)
		}
	}
}

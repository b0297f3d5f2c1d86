package grpcfront

import (
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// broken is a stream whose messages a decoder cannot stand.
type broken struct {
	grpc.ServerStream

	codec codec
}

func (b broken) RecvMsg(m any) error {
	if err := b.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer("some bytes")}, m); err != nil {
		return err
	}
	panic("boom")
}

func TestADecoderThatPanicsInAStreamCostsTheCall(t *testing.T) {
	f := &Front{o: Options{Logger: slog.New(slog.DiscardHandler)}}
	c := newCodec(1 << 20)
	got := <-f.requests(t.Context(), broken{codec: c})
	if status.Code(got.err) != codes.Internal {
		t.Errorf("%v", got.err)
	}
	if n := c.held.Load(); n != 0 {
		t.Errorf("%d bytes of its message count as held", n)
	}
}

package grpcfront

import (
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/engine"
)

// codec reads requests and writes encoded answers by hand, and leaves other messages to protobuf.
type codec struct {
	others  encoding.CodecV2
	maxBody int64
	held    *atomic.Int64 // bytes of the messages of requests that are being answered
}

// maxBodies is how many messages of the largest size may be held at the same time, as in the front for
// HTTP clients.
const maxBodies = 8

const tooMany = "Too many large requests at the same time: try again later"

func newCodec(maxBody int64) codec {
	return codec{encoding.GetCodecV2(protocodec.Name), maxBody, new(atomic.Int64)}
}

// incoming is a message of protobuf, or what is wrong with it: an error of the codec would be told with
// the code of an error of the server.
type incoming struct {
	message proto.Message
	broken  error
}

// encoded is an answer in its form on the wire.
type encoded struct{ data mem.BufferSlice }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return e.data, nil
	}
	return c.others.Marshal(v)
}

// Unmarshal implements encoding.CodecV2. A request holds the message until its release; what is wrong
// with it is in the request, so that its handler answers in the words of the protocol.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*request)
	if !ok {
		m, ok := v.(*incoming)
		if !ok { // of the services of gRPC
			return c.others.Unmarshal(data, v)
		}
		m.broken = c.others.Unmarshal(data, m.message)
		return nil
	}
	r.release()
	r.held, r.size = c.held, int64(data.Len())
	if c.held.Add(r.size) > maxBodies*c.maxBody {
		if data.Len() > 0 { // a key may be for this endpoint only, and the endpoint counts the request
			r.model, r.version = nameIn(data[0].ReadOnlyData())
		}
		r.broken = &engine.Error{Kind: engine.KindOverloaded, Text: tooMany}
		return nil
	}
	r.limit = c.maxBody
	if r.size >= engine.LendFrom { // it is put together where its model can read it
		data.Ref()
		r.pieces = slices.Clone(data)
		return nil
	}
	r.message = data.MaterializeToBuffer(mem.DefaultBufferPool())
	r.read(r.message.ReadOnlyData())
	return nil
}

// Name implements encoding.CodecV2.
func (codec) Name() string { return protocodec.Name }

package grpcfront

import (
	"bytes"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/v2/wire"
)

// response is a ModelInferResponse, or the ModelStreamInferResponse around one. Data is always raw, as in
// Triton's answers.
type response struct {
	model, version, id string
	contentType        string // of the outputs together, "" if nothing is told
	outputs            []engine.Tensor

	stream bool // it is a message of ModelStreamInfer
	final  bool // the last message about a request; only in a stream
	failed string
}

// copyUpTo is the size of data that is copied behind its header: a buffer of its own costs more.
const copyUpTo = 4 << 10

// marshal writes the message. Large data of tensors is not copied, unless it is borrowed; send makes a
// buffer of it.
func (r *response) marshal(borrowed func([]byte) bool, send func([]byte) mem.Buffer) mem.BufferSlice {
	head := make([]byte, 0, 128+64*len(r.outputs))
	head = wire.AppendText(head, 1, r.model)
	head = wire.AppendText(head, 2, r.version)
	head = wire.AppendText(head, 3, r.id)
	if r.contentType != "" {
		head = wire.AppendParameter(head, "content_type", r.contentType)
	}
	if r.stream {
		head = wire.AppendParameter(head, "triton_final_response", r.final)
	}
	for i := range r.outputs {
		head = wire.AppendTensor(head, &r.outputs[i])
	}
	var out mem.BufferSlice
	for i := range r.outputs {
		data := r.outputs[i].Data
		head = protowire.AppendTag(head, 6, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(data)))
		if len(data) <= copyUpTo {
			head = append(head, data...)
			continue
		}
		if borrowed(data) {
			data = bytes.Clone(data)
		}
		out = append(out, mem.SliceBuffer(head), send(data))
		head = nil
	}
	if len(head) > 0 {
		out = append(out, mem.SliceBuffer(head))
	}
	if !r.stream {
		return out
	}
	var outer []byte
	outer = wire.AppendText(outer, 1, r.failed)
	outer = protowire.AppendTag(outer, 2, protowire.BytesType)
	outer = protowire.AppendVarint(outer, uint64(out.Len())) //nolint:gosec // a length
	return append(mem.BufferSlice{mem.SliceBuffer(outer)}, out...)
}

package grpcfront

import (
	"bytes"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
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
	head = appendText(head, 1, r.model)
	head = appendText(head, 2, r.version)
	head = appendText(head, 3, r.id)
	if r.contentType != "" {
		head = appendParameter(head, 4, "content_type", r.contentType)
	}
	if r.stream {
		head = appendFlag(head, 4, "triton_final_response", r.final)
	}
	for i := range r.outputs {
		t := &r.outputs[i]
		shape := 0
		for _, d := range t.Shape {
			shape += protowire.SizeVarint(uint64(d)) //nolint:gosec // not negative
		}
		size := sizeText(t.Name) + sizeText(string(t.Datatype))
		if len(t.Shape) > 0 {
			size += 1 + protowire.SizeBytes(shape)
		}
		var parameter []byte
		if t.ContentType != "" {
			parameter = appendParameter(nil, 4, "content_type", t.ContentType)
		}
		size += len(parameter)
		head = protowire.AppendTag(head, 5, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(size)) //nolint:gosec // a length
		head = appendText(head, 1, t.Name)
		head = appendText(head, 2, string(t.Datatype))
		if len(t.Shape) > 0 {
			head = protowire.AppendTag(head, 3, protowire.BytesType)
			head = protowire.AppendVarint(head, uint64(shape)) //nolint:gosec // a length
			for _, d := range t.Shape {
				head = protowire.AppendVarint(head, uint64(d)) //nolint:gosec // not negative
			}
		}
		head = append(head, parameter...)
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
	outer = appendText(outer, 1, r.failed)
	outer = protowire.AppendTag(outer, 2, protowire.BytesType)
	outer = protowire.AppendVarint(outer, uint64(out.Len())) //nolint:gosec // a length
	return append(mem.BufferSlice{mem.SliceBuffer(outer)}, out...)
}

func sizeText(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

func appendText(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// appendParameter appends an entry of a map of parameters.
func appendParameter(b []byte, number protowire.Number, name, value string) []byte {
	choice := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), value)
	return appendEntry(b, number, name, choice)
}

func appendFlag(b []byte, number protowire.Number, name string, value bool) []byte {
	return appendEntry(b, number, name, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), protowire.EncodeBool(value)))
}

func appendEntry(b []byte, number protowire.Number, name string, choice []byte) []byte {
	entry := appendText(nil, 1, name)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), choice)
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), entry)
}

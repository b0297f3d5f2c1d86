package grpcfront

import (
	"encoding/binary"
	"slices"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
)

// response is a ModelInferResponse, or the ModelStreamInferResponse around one.
type response struct {
	model, version, id string
	contentType        string // of the outputs together, "" if nothing is told
	outputs            []engine.Tensor
	// typed: data in typed contents, as far as its datatype has them.
	typed bool

	stream bool // it is a message of ModelStreamInfer
	final  bool // the last message about a request; only in a stream
	failed string
}

// copyUpTo is the size of data that is copied behind its header: a buffer of its own costs more.
const copyUpTo = 4 << 10

// marshal writes the message. Large data of tensors is not copied, unless it is borrowed.
func (r *response) marshal(borrowed func([]byte) bool) mem.BufferSlice {
	typed := r.typed && !slices.ContainsFunc(r.outputs, func(t engine.Tensor) bool { return contentFields[t.Datatype] == 0 })
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
		var contents []byte
		if typed {
			contents = appendContents(nil, t)
		}
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
		if typed {
			size += 1 + protowire.SizeBytes(len(contents))
		}
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
		if typed {
			head = protowire.AppendTag(head, 5, protowire.BytesType)
			head = protowire.AppendBytes(head, contents)
		}
	}
	var out mem.BufferSlice
	if !typed {
		for i := range r.outputs {
			data := r.outputs[i].Data
			head = protowire.AppendTag(head, 6, protowire.BytesType)
			head = protowire.AppendVarint(head, uint64(len(data)))
			if len(data) <= copyUpTo || borrowed(data) {
				head = append(head, data...)
				continue
			}
			out = append(out, mem.SliceBuffer(head), mem.SliceBuffer(data))
			head = nil
		}
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

// appendContents appends the InferTensorContents of a tensor, whose data has been checked.
func appendContents(b []byte, t *engine.Tensor) []byte {
	number, data := contentFields[t.Datatype], t.Data
	if t.Datatype == engine.Bytes {
		for len(data) >= 4 {
			size := binary.LittleEndian.Uint32(data)
			b = protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), data[4:4+size])
			data = data[4+size:]
		}
		return b
	}
	if len(data) == 0 {
		return b
	}
	packed := data
	switch t.Datatype {
	case engine.FP32, engine.FP64, engine.Bool:
	default:
		packed = make([]byte, 0, len(data))
		for size := t.Datatype.Size(); len(data) > 0; data = data[size:] {
			packed = protowire.AppendVarint(packed, element(t.Datatype, data))
		}
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), packed)
}

// element is the first integer of data as protobuf writes it.
func element(d engine.Datatype, data []byte) uint64 {
	switch d {
	case engine.Int8:
		return uint64(int64(int8(data[0]))) //nolint:gosec // protobuf extends the sign
	case engine.Int16:
		return uint64(int64(int16(binary.LittleEndian.Uint16(data)))) //nolint:gosec // the same
	case engine.Int32:
		return uint64(int64(int32(binary.LittleEndian.Uint32(data)))) //nolint:gosec // the same
	case engine.Uint8:
		return uint64(data[0])
	case engine.Uint16:
		return uint64(binary.LittleEndian.Uint16(data))
	case engine.Uint32:
		return uint64(binary.LittleEndian.Uint32(data))
	}
	return binary.LittleEndian.Uint64(data) // INT64 and UINT64
}

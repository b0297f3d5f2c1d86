package v2server

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/inference/v2/wire"
)

// The messages of inference are written and read by hand: the data of tensors is copied once, and not converted.

// codec writes requests and reads answers by hand, and leaves other messages to protobuf.
type codec struct{ others encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// Name implements encoding.CodecV2.
func (codec) Name() string { return protocodec.Name }

// Marshal implements encoding.CodecV2. gRPC may hold the message after the request has ended: it is a copy.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	q, ok := v.(*question)
	if !ok {
		return c.others.Marshal(v)
	}
	size := q.size()
	if mem.IsBelowBufferPoolingThreshold(size) {
		return mem.BufferSlice{mem.SliceBuffer(q.marshal(make([]byte, 0, size)))}, nil
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	*buffer = q.marshal((*buffer)[:0])
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch a := v.(type) {
	case *answer:
		a.broken = a.parse(data.Materialize()) // in the words of the protocol
		return nil
	case *piece:
		a.message = data.Materialize()
		return nil
	}
	return c.others.Unmarshal(data, v)
}

// question is a ModelInferRequest.
type question struct {
	model, version, id string
	contentType        string // of the inputs together
	parameters         []byte // a JSON object
	inputs             []engine.Tensor
	outputs            []string

	encoded []byte // the parameters on the wire
}

// prepare converts the parameters.
func (q *question) prepare() error {
	if q.contentType != "" {
		q.encoded = wire.AppendParameter(nil, "content_type", q.contentType)
	}
	if q.parameters == nil {
		return nil
	}
	var object map[string]any
	if err := json.Unmarshal(q.parameters, &object); err != nil {
		return fmt.Errorf("the parameters of the request: %w", err)
	}
	for name, value := range object {
		switch name {
		case "content_type", "binary_data_output", "triton_enable_empty_final_response":
		default:
			q.encoded = wire.AppendParameter(q.encoded, name, value)
		}
	}
	return nil
}

// size is the size of the message.
func (q *question) size() int {
	size := wire.SizeText(q.model) + wire.SizeText(q.version) + wire.SizeText(q.id) + len(q.encoded)
	for i := range q.inputs {
		size += wire.SizeTensor(&q.inputs[i]) + 1 + protowire.SizeBytes(len(q.inputs[i].Data))
	}
	for _, name := range q.outputs {
		size += 1 + protowire.SizeBytes(wire.SizeText(name))
	}
	return size
}

// marshal appends the message.
func (q *question) marshal(b []byte) []byte {
	b = wire.AppendText(b, 1, q.model)
	b = wire.AppendText(b, 2, q.version)
	b = wire.AppendText(b, 3, q.id)
	b = append(b, q.encoded...)
	for i := range q.inputs {
		b = wire.AppendTensor(b, &q.inputs[i])
	}
	for _, name := range q.outputs {
		b = protowire.AppendTag(b, 6, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(wire.SizeText(name))) //nolint:gosec // a length
		b = wire.AppendText(b, 1, name)
	}
	for i := range q.inputs {
		b = protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), q.inputs[i].Data)
	}
	return b
}

// answer is a ModelInferResponse. Its tensors lie in the message.
type answer struct {
	outputs     []engine.Tensor
	contentType string
	final       bool  // the last message about a request of a stream
	broken      error // what is wrong with the message, nil if nothing
}

// parse reads a message and checks its tensors.
func (a *answer) parse(b []byte) error {
	var raw [][]byte
	var contents map[int][]byte // the typed data of outputs
	dimensions := make([]int64, 0, 4)
	for len(b) > 0 {
		number, kind, value, _, rest, err := wire.Field(b)
		if err != nil {
			return err
		}
		b = rest
		if number > 6 {
			continue // of a newer protocol
		}
		if kind != protowire.BytesType {
			return wire.ErrBroken
		}
		switch number {
		case 4:
			err = a.parameter(value)
		case 5:
			if len(a.outputs) == wire.MaxTensors {
				return fmt.Errorf("the answer has more than %d outputs", wire.MaxTensors)
			}
			var t engine.Tensor
			var typed []byte
			if t, typed, dimensions, err = wire.Tensor(value, dimensions, nil); typed != nil {
				if contents == nil {
					contents = map[int][]byte{}
				}
				contents[len(a.outputs)] = typed
			}
			a.outputs = append(a.outputs, t)
		case 6:
			if len(raw) == wire.MaxTensors {
				return fmt.Errorf("the answer has more than %d raw_output_contents", wire.MaxTensors)
			}
			raw = append(raw, value)
		}
		if err != nil {
			return err
		}
	}
	if len(raw) > 0 && len(raw) != len(a.outputs) {
		return fmt.Errorf("the answer has %d raw_output_contents for %d outputs", len(raw), len(a.outputs))
	}
	for i := range a.outputs {
		t := &a.outputs[i]
		if t.Datatype.Size() == 0 && t.Datatype != engine.Bytes {
			return fmt.Errorf("output '%s': its datatype %.40q is not known", t.Name, t.Datatype)
		}
		if raw != nil {
			t.Data = raw[i]
		} else if typed := contents[i]; typed != nil {
			var err error
			// The message is bounded, and an element takes a byte of it and eight bytes as data at most.
			if t.Data, err = wire.TypedData(t, typed, math.MaxInt64); err != nil {
				return fmt.Errorf("output '%s': %w", t.Name, err)
			}
		}
		if err := v2.CheckData(t); err != nil {
			return fmt.Errorf("output '%s': %w", t.Name, err)
		}
	}
	if i := v2.Duplicate(len(a.outputs), func(i int) string { return a.outputs[i].Name }); i >= 0 {
		return fmt.Errorf("the answer has two outputs with the name '%s'", a.outputs[i].Name)
	}
	return nil
}

// parameter reads a parameter of the answer.
func (a *answer) parameter(b []byte) error {
	p, err := wire.ParameterOf(b)
	if err != nil {
		return err
	}
	switch p.Name {
	case "content_type":
		a.contentType, _ = p.Value.(string)
	case "triton_final_response":
		a.final, _ = p.Value.(bool)
	}
	return nil
}

// piece is a ModelStreamInferResponse, unread.
type piece struct{ message []byte }

// refusal is the server's error in a piece, nil if it has an answer, which is not read.
func (p *piece) refusal() error {
	for b := p.message; len(b) > 0; {
		number, _, value, _, rest, err := wire.Field(b)
		if err != nil {
			return remote.Broken(&Garbage{err})
		}
		if b = rest; number == 1 && len(value) > 0 {
			return refusal(codes.Internal, strings.ToValidUTF8(string(value), "\uFFFD"))
		}
	}
	return nil
}

// open is the answer in a piece, or the server's error.
func (p *piece) open() (a answer, failed string, err error) {
	b := p.message
	for len(b) > 0 {
		number, kind, value, _, rest, err := wire.Field(b)
		if err != nil {
			return a, "", err
		}
		b = rest
		if number <= 2 && kind != protowire.BytesType {
			return a, "", wire.ErrBroken
		}
		switch number {
		case 1:
			if failed, err = wire.Text(value); err != nil {
				return a, "", err
			}
		case 2:
			if err = a.parse(value); err != nil {
				return a, "", err
			}
		}
	}
	return a, failed, nil
}

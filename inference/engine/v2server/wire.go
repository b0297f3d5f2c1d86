package v2server

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/inference/grpcfront/pb"
	v2 "clearmlserving/inference/v2"
)

// The messages of inference are written and read by hand: the data of tensors is copied once, and not converted.

// Limits before allocation: a part of a message takes as little as two bytes on the wire.
const (
	maxTensors = 16384
	maxRank    = engine.MaxRank
)

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
		q.encoded = appendParameter(nil, "content_type", q.contentType)
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
			q.encoded = appendParameter(q.encoded, name, value)
		}
	}
	return nil
}

// appendParameter appends an entry of the parameters. Values without a form in protobuf are left out.
func appendParameter(b []byte, name string, value any) []byte {
	var choice []byte
	switch v := value.(type) {
	case bool:
		choice = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), protowire.EncodeBool(v))
	case string:
		choice = protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), v)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			choice = protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), uint64(int64(v))) //nolint:gosec // its bits
		} else {
			choice = protowire.AppendFixed64(protowire.AppendTag(nil, 4, protowire.Fixed64Type), math.Float64bits(v))
		}
	default:
		return b
	}
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), choice)
	return protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), entry)
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

func shapeSize(shape []int64) (size int) {
	for _, d := range shape {
		size += protowire.SizeVarint(uint64(d)) //nolint:gosec // not negative
	}
	return size
}

// inputSize is the size of an input's message.
func inputSize(t *engine.Tensor) int {
	size := sizeText(t.Name) + sizeText(string(t.Datatype))
	if len(t.Shape) > 0 {
		size += 1 + protowire.SizeBytes(shapeSize(t.Shape))
	}
	if t.ContentType != "" {
		size += len(appendParameter(nil, "content_type", t.ContentType))
	}
	return size
}

// size is the size of the message.
func (q *question) size() int {
	size := sizeText(q.model) + sizeText(q.version) + sizeText(q.id) + len(q.encoded)
	for i := range q.inputs {
		size += 1 + protowire.SizeBytes(inputSize(&q.inputs[i])) + 1 + protowire.SizeBytes(len(q.inputs[i].Data))
	}
	for _, name := range q.outputs {
		size += 1 + protowire.SizeBytes(sizeText(name))
	}
	return size
}

// marshal appends the message.
func (q *question) marshal(b []byte) []byte {
	b = appendText(b, 1, q.model)
	b = appendText(b, 2, q.version)
	b = appendText(b, 3, q.id)
	b = append(b, q.encoded...)
	for i := range q.inputs {
		t := &q.inputs[i]
		b = protowire.AppendTag(b, 5, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(inputSize(t))) //nolint:gosec // a length
		b = appendText(b, 1, t.Name)
		b = appendText(b, 2, string(t.Datatype))
		if len(t.Shape) > 0 {
			b = protowire.AppendTag(b, 3, protowire.BytesType)
			b = protowire.AppendVarint(b, uint64(shapeSize(t.Shape))) //nolint:gosec // a length
			for _, d := range t.Shape {
				b = protowire.AppendVarint(b, uint64(d)) //nolint:gosec // not negative
			}
		}
		if t.ContentType != "" {
			b = appendParameter(b, "content_type", t.ContentType)
		}
	}
	for _, name := range q.outputs {
		b = protowire.AppendTag(b, 6, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeText(name))) //nolint:gosec // a length
		b = appendText(b, 1, name)
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

var errWire = errors.New("the message is no ModelInferResponse: its protobuf is broken")

// field reads the next field of b: its value in bytes or, of a scalar, as number.
func field(b []byte) (number protowire.Number, kind protowire.Type, value []byte, scalar uint64, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, 0, nil, 0, nil, errWire
	}
	b = b[n:]
	switch kind {
	case protowire.BytesType:
		value, n = protowire.ConsumeBytes(b)
	case protowire.VarintType:
		scalar, n = protowire.ConsumeVarint(b)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(b)
		scalar = uint64(v)
	case protowire.Fixed64Type:
		scalar, n = protowire.ConsumeFixed64(b)
	default:
		return 0, 0, nil, 0, nil, errWire
	}
	if n < 0 {
		return 0, 0, nil, 0, nil, errWire
	}
	return number, kind, value, scalar, b[n:], nil
}

func text(value []byte) (string, error) {
	if !utf8.Valid(value) {
		return "", errWire
	}
	return string(value), nil
}

// parse reads a message and checks its tensors.
func (a *answer) parse(b []byte) error {
	var raw [][]byte
	var contents map[int][]byte // the typed data of outputs
	for len(b) > 0 {
		number, kind, value, _, rest, err := field(b)
		if err != nil {
			return err
		}
		b = rest
		if number > 6 {
			continue // of a newer protocol
		}
		if kind != protowire.BytesType {
			return errWire
		}
		switch number {
		case 4:
			err = a.parameter(value)
		case 5:
			if len(a.outputs) == maxTensors {
				return fmt.Errorf("the answer has more than %d outputs", maxTensors)
			}
			var t engine.Tensor
			var typed []byte
			if t, typed, err = output(value); typed != nil {
				if contents == nil {
					contents = map[int][]byte{}
				}
				contents[len(a.outputs)] = typed
			}
			a.outputs = append(a.outputs, t)
		case 6:
			if len(raw) == maxTensors {
				return fmt.Errorf("the answer has more than %d raw_output_contents", maxTensors)
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
			if t.Data, err = typedData(t, typed); err != nil {
				return fmt.Errorf("output '%s': %w", t.Name, err)
			}
		}
		if err := v2.CheckData(t); err != nil {
			return fmt.Errorf("output '%s': %w", t.Name, err)
		}
		for j := range i {
			if a.outputs[j].Name == t.Name && i < 64 { // of more, the last one counts
				return fmt.Errorf("the answer has two outputs with the name '%s'", t.Name)
			}
		}
	}
	return nil
}

// output reads an output, and its typed contents.
func output(b []byte) (t engine.Tensor, contents []byte, err error) {
	t.Shape = make([]int64, 0, 4)
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := field(b)
		if err != nil {
			return t, nil, err
		}
		b = rest
		if number != 3 && number <= 5 && kind != protowire.BytesType {
			return t, nil, errWire
		}
		switch number {
		case 1:
			t.Name, err = text(value)
		case 2:
			t.Datatype, err = datatype(value)
		case 3:
			t.Shape, err = dimensions(t.Shape, kind, value, scalar)
		case 4:
			name, content, err := parameter(value)
			if err != nil {
				return t, nil, err
			}
			if name == "content_type" {
				t.ContentType, _ = content.(string)
			}
		case 5:
			if len(value) > 0 {
				contents = value
			}
		}
		if err != nil {
			return t, nil, err
		}
	}
	return t, contents, nil
}

// datatypes are the names on the wire, so that they need not be allocated.
var datatypes = map[string]engine.Datatype{ //nolint:gochecknoglobals // a constant table
	"BOOL": engine.Bool, "UINT8": engine.Uint8, "UINT16": engine.Uint16, "UINT32": engine.Uint32, "UINT64": engine.Uint64,
	"INT8": engine.Int8, "INT16": engine.Int16, "INT32": engine.Int32, "INT64": engine.Int64,
	"FP16": engine.FP16, "BF16": engine.BF16, "FP32": engine.FP32, "FP64": engine.FP64, "BYTES": engine.Bytes,
}

func datatype(name []byte) (engine.Datatype, error) {
	if d, ok := datatypes[string(name)]; ok {
		return d, nil
	}
	unknown, err := text(name[:min(len(name), 32)])
	return engine.Datatype(unknown), err // parse refuses it
}

func dimensions(shape []int64, kind protowire.Type, packed []byte, scalar uint64) ([]int64, error) {
	if kind == protowire.VarintType {
		packed = protowire.AppendVarint(nil, scalar)
	} else if kind != protowire.BytesType {
		return shape, errWire
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return shape, errWire
		}
		if len(shape) == maxRank {
			return shape, fmt.Errorf("a shape has more than %d dimensions", maxRank)
		}
		shape = append(shape, int64(v)) //nolint:gosec // negative numbers are refused with the shape
		packed = packed[n:]
	}
	return shape, nil
}

// parameter reads one entry of a map of parameters: a bool or a text, nil for others.
func parameter(b []byte) (name string, value any, err error) {
	for len(b) > 0 {
		number, kind, content, _, rest, err := field(b)
		if err != nil {
			return "", nil, err
		}
		b = rest
		if number > 2 {
			continue
		}
		if kind != protowire.BytesType {
			return "", nil, errWire
		}
		if number == 1 {
			if name, err = text(content); err != nil {
				return "", nil, err
			}
			continue
		}
		for len(content) > 0 {
			number, _, choice, scalar, rest, err := field(content)
			if err != nil {
				return "", nil, err
			}
			content = rest
			switch number {
			case 1:
				value = scalar != 0
			case 3:
				value = string(choice)
			}
		}
	}
	return name, value, nil
}

// parameter reads a parameter of the answer.
func (a *answer) parameter(b []byte) error {
	name, value, err := parameter(b)
	if err != nil {
		return err
	}
	switch name {
	case "content_type":
		a.contentType, _ = value.(string)
	case "triton_final_response":
		a.final, _ = value.(bool)
	}
	return nil
}

// typedData is the data of an output from its typed contents, as some servers send them.
func typedData(t *engine.Tensor, message []byte) ([]byte, error) {
	var c pb.InferTensorContents
	if err := proto.Unmarshal(message, &c); err != nil {
		return nil, errWire
	}
	var b []byte
	switch t.Datatype {
	case engine.Bool:
		for _, v := range c.BoolContents {
			b = append(b, byte(protowire.EncodeBool(v))) //nolint:gosec // 0 or 1
		}
	case engine.Int8:
		for _, v := range c.IntContents {
			b = append(b, byte(v)) //nolint:gosec // its bits
		}
	case engine.Int16:
		for _, v := range c.IntContents {
			b = binary.LittleEndian.AppendUint16(b, uint16(v)) //nolint:gosec // its bits
		}
	case engine.Int32:
		for _, v := range c.IntContents {
			b = binary.LittleEndian.AppendUint32(b, uint32(v)) //nolint:gosec // its bits
		}
	case engine.Int64:
		for _, v := range c.Int64Contents {
			b = binary.LittleEndian.AppendUint64(b, uint64(v)) //nolint:gosec // its bits
		}
	case engine.Uint8:
		for _, v := range c.UintContents {
			b = append(b, byte(v)) //nolint:gosec // its bits
		}
	case engine.Uint16:
		for _, v := range c.UintContents {
			b = binary.LittleEndian.AppendUint16(b, uint16(v)) //nolint:gosec // its bits
		}
	case engine.Uint32:
		for _, v := range c.UintContents {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
	case engine.Uint64:
		for _, v := range c.Uint64Contents {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	case engine.FP32:
		b = slices.Grow(b, 4*len(c.Fp32Contents))
		for _, v := range c.Fp32Contents {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	case engine.FP64:
		b = slices.Grow(b, 8*len(c.Fp64Contents))
		for _, v := range c.Fp64Contents {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	case engine.Bytes:
		for _, v := range c.BytesContents {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...) //nolint:gosec // a message has less than 4 GiB
		}
	default:
		return nil, fmt.Errorf("%s has no typed contents", t.Datatype)
	}
	return b, nil
}

// piece is a ModelStreamInferResponse, unread.
type piece struct{ message []byte }

// refusal is the server's error in a piece, nil if it has an answer, which is not read.
func (p *piece) refusal() error {
	for b := p.message; len(b) > 0; {
		number, _, value, _, rest, err := field(b)
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
		number, kind, value, _, rest, err := field(b)
		if err != nil {
			return a, "", err
		}
		b = rest
		if number <= 2 && kind != protowire.BytesType {
			return a, "", errWire
		}
		switch number {
		case 1:
			if failed, err = text(value); err != nil {
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

// Package wire reads and writes what the messages of the Open Inference Protocol over gRPC have in common: tensors,
// parameters and typed contents. It is written by hand, so that the data of tensors is neither copied nor converted
// where the wire already has the form of engine.Tensor.
package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
)

// MaxTensors bounds the tensors of a message before they are allocated: one takes as little as two bytes on the wire,
// and a table may have many columns.
const MaxTensors = 16384

var (
	// ErrBroken is a message that is not what protobuf writes.
	ErrBroken = errors.New("its protobuf is broken")

	errText = errors.New("a text in the message is not valid UTF-8")
	errRank = fmt.Errorf("a shape has more than %d dimensions", engine.MaxRank)
)

// Field reads the next field of b: its value in bytes or, of a scalar, as number.
func Field(b []byte) (number protowire.Number, kind protowire.Type, value []byte, scalar uint64, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 || number > protowire.MaxValidNumber {
		return 0, 0, nil, 0, nil, ErrBroken
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
	default: // groups are of proto2
		return 0, 0, nil, 0, nil, ErrBroken
	}
	if n < 0 {
		return 0, 0, nil, 0, nil, ErrBroken
	}
	return number, kind, value, scalar, b[n:], nil
}

// Text is the text of a field.
func Text(value []byte) (string, error) {
	if !utf8.Valid(value) {
		return "", errText
	}
	return string(value), nil
}

// Tensor reads an input of a request, or an output of an answer. Its shape is appended to dimensions, which it returns;
// contents are its typed data as on the wire, nil for none. other gets the names of parameters that a tensor does not
// keep; nil: they do not matter.
func Tensor(b []byte, dimensions []int64, other func(name string) error) (t engine.Tensor, contents []byte, all []int64, err error) {
	first := len(dimensions)
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := Field(b)
		if err != nil {
			return t, nil, dimensions, err
		}
		b = rest
		if number != 3 && number <= 5 && kind != protowire.BytesType {
			return t, nil, dimensions, ErrBroken
		}
		switch number {
		case 1:
			t.Name, err = Text(value)
		case 2:
			t.Datatype, err = datatype(value)
		case 3:
			dimensions, err = appendDimensions(dimensions, first, kind, value, scalar)
		case 4:
			err = tensorParameter(&t, value, other)
		case 5:
			switch {
			case contents != nil:
				err = fmt.Errorf("tensor '%s' has two contents", t.Name)
			case len(value) > 0: // MLServer's clients send empty ones beside raw data
				contents = slices.Clip(value)
			}
		}
		if err != nil {
			return t, nil, dimensions, err
		}
	}
	t.Shape = dimensions[first:len(dimensions):len(dimensions)]
	return t, contents, dimensions, nil
}

func tensorParameter(t *engine.Tensor, b []byte, other func(name string) error) error {
	p, err := ParameterOf(b)
	switch {
	case err != nil:
		return err
	case p.Name == "content_type":
		t.ContentType, _ = p.Value.(string)
	case other != nil:
		return other(p.Name)
	}
	return nil
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
	unknown, err := Text(name)
	return engine.Datatype(unknown[:min(len(unknown), 32)]), err // the reader of the message refuses it
}

// appendDimensions adds to the dimensions of the tensor whose own begin at first.
func appendDimensions(list []int64, first int, kind protowire.Type, packed []byte, scalar uint64) ([]int64, error) {
	if kind == protowire.VarintType {
		return appendDimension(list, first, scalar)
	}
	if kind != protowire.BytesType {
		return list, ErrBroken
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return list, ErrBroken
		}
		var err error
		if list, err = appendDimension(list, first, v); err != nil {
			return list, err
		}
		packed = packed[n:]
	}
	return list, nil
}

func appendDimension(list []int64, first int, d uint64) ([]int64, error) {
	if len(list)-first == engine.MaxRank {
		return list, errRank
	}
	return append(list, int64(d)), nil //nolint:gosec // negative numbers are refused with the shape
}

// Parameter is one entry of a map of parameters.
type Parameter struct {
	Name  string
	Value any // bool, int64, string, float64 or uint64; nil without one
}

// ParameterOf reads one entry of a map.
func ParameterOf(b []byte) (p Parameter, err error) {
	for len(b) > 0 {
		number, kind, value, _, rest, err := Field(b)
		if err != nil {
			return p, err
		}
		b = rest
		if number > 2 {
			continue
		}
		if kind != protowire.BytesType {
			return p, ErrBroken
		}
		if number == 1 {
			p.Name, err = Text(value)
		} else {
			p.Value, err = choice(value)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// choice reads an InferParameter, nil without a value.
func choice(b []byte) (any, error) {
	var v any
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := Field(b)
		if err != nil {
			return nil, err
		}
		b = rest
		want := protowire.VarintType
		switch number {
		case 1, 2, 5:
		case 3:
			want = protowire.BytesType
		case 4:
			want = protowire.Fixed64Type
		default:
			continue
		}
		if kind != want {
			return nil, ErrBroken
		}
		switch number {
		case 1:
			v = scalar != 0
		case 2:
			v = int64(scalar)
		case 3:
			if v, err = Text(value); err != nil {
				return nil, err
			}
		case 4:
			v = math.Float64frombits(scalar)
		case 5:
			v = scalar
		}
	}
	return v, nil
}

// SizeText is the size of what AppendText appends, for a field below 16.
func SizeText(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

// AppendText appends a text as a field, if it is not "".
func AppendText(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

// AppendParameter appends an entry of the parameters, which are field 4 of messages and of tensors. Values without a
// form in protobuf are left out.
func AppendParameter(b []byte, name string, value any) []byte {
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
	entry := AppendText(nil, 1, name)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), choice)
	return protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), entry)
}

func sizeShape(shape []int64) (size int) {
	for _, d := range shape {
		size += protowire.SizeVarint(uint64(d)) //nolint:gosec // not negative
	}
	return size
}

// sizeTensor is the size of the message of a tensor whose shape has that size, with its parameter.
func sizeTensor(t *engine.Tensor, shape int) (size int, parameter []byte) {
	size = SizeText(t.Name) + SizeText(string(t.Datatype))
	if len(t.Shape) > 0 {
		size += 1 + protowire.SizeBytes(shape)
	}
	if t.ContentType != "" {
		parameter = AppendParameter(nil, "content_type", t.ContentType)
	}
	return size + len(parameter), parameter
}

// SizeTensor is the size of what AppendTensor appends.
func SizeTensor(t *engine.Tensor) int {
	size, _ := sizeTensor(t, sizeShape(t.Shape))
	return 1 + protowire.SizeBytes(size)
}

// AppendTensor appends a tensor without its data, as field 5: an input of a request, an output of an answer.
func AppendTensor(b []byte, t *engine.Tensor) []byte {
	shape := sizeShape(t.Shape)
	size, parameter := sizeTensor(t, shape)
	b = protowire.AppendTag(b, 5, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size)) //nolint:gosec // a length
	b = AppendText(b, 1, t.Name)
	b = AppendText(b, 2, string(t.Datatype))
	if len(t.Shape) > 0 {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(shape)) //nolint:gosec // a length
		for _, d := range t.Shape {
			b = protowire.AppendVarint(b, uint64(d)) //nolint:gosec // not negative
		}
	}
	return append(b, parameter...)
}

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
)

// contentFields are the fields of InferTensorContents.
var contentFields = map[engine.Datatype]protowire.Number{ //nolint:gochecknoglobals // a constant table
	engine.Bool: 1, engine.Int8: 2, engine.Int16: 2, engine.Int32: 2, engine.Int64: 3, engine.Uint8: 4, engine.Uint16: 4, engine.Uint32: 4,
	engine.Uint64: 5, engine.FP32: 6, engine.FP64: 7, engine.Bytes: 8,
}

var contentNames = [...]string{1: "bool_contents", 2: "int_contents", 3: "int64_contents", 4: "uint_contents", 5: "uint64_contents", 6: "fp32_contents", 7: "fp64_contents", 8: "bytes_contents"} //nolint:gochecknoglobals // a constant table

// TypedData is the data of a tensor from its contents b, of at most limit bytes.
func TypedData(t *engine.Tensor, b []byte, limit int64) ([]byte, error) {
	want, ok := contentFields[t.Datatype]
	if !ok {
		return nil, ErrUntyped
	}
	count, err := engine.Elements(t.Shape)
	if err != nil {
		return nil, err
	}
	size := t.Datatype.Size()
	if size == 0 {
		size = 4
	}
	if count > int64(len(b)) { // an element has a byte at least
		return nil, fmt.Errorf("its contents have fewer elements than its shape %s", engine.Shape(t.Shape))
	}
	if count > limit/size {
		return nil, ErrLimit
	}
	var data []byte
	seen := int64(0)
	for len(b) > 0 {
		number, kind, value, scalar, rest, err := Field(b)
		if err != nil {
			return nil, err
		}
		if number > 8 {
			b = rest
			continue
		}
		if number != want {
			return nil, fmt.Errorf("its datatype %s needs %s, not %s", t.Datatype, contentNames[want], contentNames[number])
		}
		if kind == protowire.BytesType && len(rest) == 0 && seen == 0 && inPlace(t.Datatype, value, count) {
			return value, nil
		}
		b = rest
		if data == nil {
			data = make([]byte, 0, count*size)
		}
		a := appender{datatype: t.Datatype, data: data, left: count - seen, limit: limit}
		if err := a.add(kind, value, scalar); err != nil {
			return nil, err
		}
		data, seen = a.data, count-a.left
	}
	if seen < count {
		return nil, fmt.Errorf("its contents have %d elements, but its shape %s has %d", seen, engine.Shape(t.Shape), count)
	}
	return data, nil
}

// inPlace reports whether the packed value is already the data of a tensor.
func inPlace(d engine.Datatype, packed []byte, count int64) bool {
	switch d {
	case engine.FP32, engine.FP64:
		return int64(len(packed)) == count*d.Size()
	case engine.Bool, engine.Uint8:
		if int64(len(packed)) != count {
			return false
		}
		for _, v := range packed {
			if v >= 0x80 || d == engine.Bool && v > 1 {
				return false
			}
		}
		return true
	}
	return false
}

// appender makes the data of a tensor of the fields of its contents.
type appender struct {
	datatype engine.Datatype
	data     []byte
	left     int64 // elements that the shape still has
	limit    int64
}

func (a *appender) add(kind protowire.Type, value []byte, scalar uint64) error {
	if a.datatype == engine.Bytes {
		if kind != protowire.BytesType {
			return ErrBroken
		}
		if int64(len(a.data)+4+len(value)) > a.limit {
			return ErrLimit
		}
		if a.left--; a.left < 0 {
			return errManyElements
		}
		a.data = binary.LittleEndian.AppendUint32(a.data, uint32(len(value))) //nolint:gosec // a message has less than 4 GiB
		a.data = append(a.data, value...)
		return nil
	}
	want, width := protowire.VarintType, 0
	switch a.datatype {
	case engine.FP32:
		want, width = protowire.Fixed32Type, 4
	case engine.FP64:
		want, width = protowire.Fixed64Type, 8
	}
	switch kind {
	case want:
		return a.scalar(scalar)
	case protowire.BytesType:
	default:
		return ErrBroken
	}
	if width > 0 {
		if len(value)%width != 0 {
			return ErrBroken
		}
		if a.left -= int64(len(value) / width); a.left < 0 {
			return errManyElements
		}
		a.data = append(a.data, value...)
		return nil
	}
	for len(value) > 0 {
		v, n := protowire.ConsumeVarint(value)
		if n < 0 {
			return ErrBroken
		}
		if err := a.scalar(v); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}

func (a *appender) scalar(v uint64) error {
	if a.left--; a.left < 0 {
		return errManyElements
	}
	switch a.datatype {
	case engine.Bool:
		bit := byte(0)
		if v != 0 {
			bit = 1
		}
		a.data = append(a.data, bit)
	case engine.Int8, engine.Int16, engine.Int32: // sent as int32
		return a.integer(int64(int32(v)), v) //nolint:gosec // as protobuf reads an int32
	case engine.Uint8, engine.Uint16, engine.Uint32:
		v = uint64(uint32(v)) //nolint:gosec // as protobuf reads a uint32
		if size := a.datatype.Size(); size < 4 && v>>(8*size) != 0 {
			return fmt.Errorf("its element %d is out of the range of %s", v, a.datatype)
		}
		a.put(v)
	case engine.FP32:
		a.data = binary.LittleEndian.AppendUint32(a.data, uint32(v)) //nolint:gosec // fixed32
	default: // INT64, UINT64, FP64
		a.data = binary.LittleEndian.AppendUint64(a.data, v)
	}
	return nil
}

func (a *appender) integer(i int64, v uint64) error {
	if size := a.datatype.Size(); size < 4 && (i < -1<<(8*size-1) || i >= 1<<(8*size-1)) {
		return fmt.Errorf("its element %d is out of the range of %s", i, a.datatype)
	}
	a.put(v)
	return nil
}

// put appends the lower bytes of v.
func (a *appender) put(v uint64) {
	switch a.datatype.Size() {
	case 1:
		a.data = append(a.data, byte(v)) //nolint:gosec // checked
	case 2:
		a.data = binary.LittleEndian.AppendUint16(a.data, uint16(v)) //nolint:gosec // checked
	default:
		a.data = binary.LittleEndian.AppendUint32(a.data, uint32(v)) //nolint:gosec // checked
	}
}

var (
	// ErrUntyped is a datatype whose data is always raw.
	ErrUntyped = errors.New("its datatype has no typed contents")
	// ErrLimit is more data than the limit.
	ErrLimit = errors.New("the limit is exceeded")

	errManyElements = errors.New("its contents have more elements than its shape")
)

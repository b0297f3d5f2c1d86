package v2

import (
	"encoding/binary"
	"fmt"
	"math"

	"clearmlserving/inference/engine"
)

// class is the kind of numbers of a datatype.
type class int

const (
	classNone class = iota
	classSigned
	classUnsigned
	classFloat
)

func classOf(d engine.Datatype) class {
	switch d {
	case engine.Int8, engine.Int16, engine.Int32, engine.Int64:
		return classSigned
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
		return classUnsigned
	case engine.FP32, engine.FP64:
		return classFloat
	}
	return classNone
}

// convert returns t in another datatype of numbers. It fails if the datatype cannot hold what t's can, except that
// integers become the other integers and floats that hold their values.
func convert(t *engine.Tensor, to engine.Datatype) (engine.Tensor, error) {
	from, into := classOf(t.Datatype), classOf(to)
	if from == classNone || into == classNone || from == classFloat && (into != classFloat || to.Size() < t.Datatype.Size()) {
		return engine.Tensor{}, fmt.Errorf("its datatype is %s, but the model takes %s", t.Datatype, to)
	}
	size, width := int(t.Datatype.Size()), int(to.Size())
	out := *t
	out.Datatype = to
	out.Data = make([]byte, len(t.Data)/size*width)
	for i := 0; i*size < len(t.Data); i++ {
		cell := out.Data[i*width : (i+1)*width]
		if from == classFloat { // FP32 to FP64
			binary.LittleEndian.PutUint64(cell, math.Float64bits(float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[i*size:])))))
			continue
		}
		negative, magnitude := integer(t.Datatype, t.Data[i*size:])
		if !putInteger(cell, into, negative, magnitude) {
			sign := ""
			if negative {
				sign = "-"
			}
			return engine.Tensor{}, fmt.Errorf("its element %d is %s%d, which is out of the range of the model's %s", i, sign, magnitude, to)
		}
	}
	return out, nil
}

// integer reads an integer as a sign and a magnitude.
func integer(d engine.Datatype, b []byte) (negative bool, magnitude uint64) {
	var v int64
	switch d {
	case engine.Uint8:
		return false, uint64(b[0])
	case engine.Uint16:
		return false, uint64(binary.LittleEndian.Uint16(b))
	case engine.Uint32:
		return false, uint64(binary.LittleEndian.Uint32(b))
	case engine.Uint64:
		return false, binary.LittleEndian.Uint64(b)
	case engine.Int8:
		v = int64(int8(b[0]))
	case engine.Int16:
		v = int64(int16(binary.LittleEndian.Uint16(b)))
	case engine.Int32:
		v = int64(int32(binary.LittleEndian.Uint32(b)))
	default:
		v = int64(binary.LittleEndian.Uint64(b))
	}
	if v < 0 {
		return true, -uint64(v)
	}
	return false, uint64(v)
}

// putInteger writes an integer into a cell, and reports whether the cell holds it exactly.
func putInteger(cell []byte, into class, negative bool, magnitude uint64) bool {
	bits := 8 * len(cell)
	value := magnitude
	if negative {
		value = -magnitude
	}
	switch into {
	case classFloat:
		f := float64(magnitude)
		whole := uint64(1) << 53
		if len(cell) == 4 {
			whole = 1 << 24
		}
		if magnitude > whole {
			return false
		}
		if negative {
			f = -f
		}
		if value = math.Float64bits(f); len(cell) == 4 {
			value = uint64(math.Float32bits(float32(f)))
		}
	case classUnsigned:
		if negative || magnitude > math.MaxUint64>>(64-bits) {
			return false
		}
	default:
		most := uint64(1)<<(bits-1) - 1
		if negative {
			most++
		}
		if magnitude > most {
			return false
		}
	}
	switch len(cell) {
	case 1:
		cell[0] = byte(value)
	case 2:
		binary.LittleEndian.PutUint16(cell, uint16(value))
	case 4:
		binary.LittleEndian.PutUint32(cell, uint32(value))
	default:
		binary.LittleEndian.PutUint64(cell, value)
	}
	return true
}

package engine

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
)

// MaxRank bounds the dimensions of a tensor, as NumPy does.
const MaxRank = 64

// Elements is the number of elements of a shape. It fails for negative dimensions, and if the product
// of the others overflows.
func Elements(shape []int64) (int64, error) {
	if len(shape) > MaxRank {
		return 0, fmt.Errorf("its shape has %d dimensions, more than %d", len(shape), MaxRank)
	}
	n, empty := int64(1), false
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("its shape %s has a negative dimension", Shape(shape))
		}
		if d == 0 {
			empty = true
			continue
		}
		high, low := bits.Mul64(uint64(n), uint64(d))
		if high > 0 || low > math.MaxInt64 {
			return 0, fmt.Errorf("its shape %s has too many elements", Shape(shape))
		}
		n = int64(low)
	}
	if empty {
		return 0, nil
	}
	return n, nil
}

// Shape is a shape for an error text.
func Shape(shape []int64) string {
	b := []byte{'['}
	for i, d := range shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	return string(append(b, ']'))
}

// Check checks that the data is as the datatype and the shape say.
func (t *Tensor) Check() error {
	n, err := Elements(t.Shape)
	if err != nil {
		return err
	}
	size, have := t.Datatype.Size(), int64(len(t.Data))
	if size > 0 {
		if n > math.MaxInt64/size || n*size != have {
			return fmt.Errorf("it has %d bytes of data, but its shape %s of %s takes %s", have, Shape(t.Shape), t.Datatype, product(n, size))
		}
		return nil
	}
	if t.Datatype != Bytes {
		return fmt.Errorf("its datatype %.40q is unknown", t.Datatype)
	}
	rest := t.Data
	for i := range n {
		if len(rest) < 4 {
			return fmt.Errorf("its data ends after %d elements, but its shape %s has %d", i, Shape(t.Shape), n)
		}
		length := binary.LittleEndian.Uint32(rest)
		if rest = rest[4:]; uint64(length) > uint64(len(rest)) {
			return fmt.Errorf("its element %d has %d bytes, but only %d are left", i, length, len(rest))
		}
		rest = rest[length:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("it has %d bytes after the last of its %d elements", len(rest), n)
	}
	return nil
}

func product(n, size int64) string {
	if n > math.MaxInt64/size {
		return "far more"
	}
	return strconv.FormatInt(n*size, 10)
}

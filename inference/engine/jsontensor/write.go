package jsontensor

import (
	"math"
	"slices"
	"strconv"
)

// AppendFloat appends a finite number as Python writes it: the shortest digits that are the same
// number, always with a point or an exponent.
func AppendFloat(b []byte, value float64) []byte {
	size := math.Abs(value)
	if size != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.AppendFloat(b, value, 'e', -1, 64)
	}
	if whole := int64(value); size < 1<<53 && float64(whole) == value && (whole != 0 || !math.Signbit(value)) {
		return append(strconv.AppendInt(b, whole, 10), '.', '0')
	}
	from := len(b)
	b = strconv.AppendFloat(b, value, 'f', -1, 64)
	if slices.Contains(b[from:], '.') {
		return b
	}
	return append(b, '.', '0')
}

const hexDigits = "0123456789abcdef"

// AppendText appends a text of valid UTF-8 in quotes as Python writes it.
func AppendText[T string | []byte](b []byte, text T) []byte {
	b = append(b, '"')
	from := 0
	for i := range len(text) {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(b, text[from:]...), '"')
}

// AppendFloats appends numbers of a shape as nested lists. All are finite.
func AppendFloats(b []byte, values []float64, shape ...int) []byte {
	if len(shape) == 0 {
		return AppendFloat(b, values[0])
	}
	b = append(b, '[')
	size := 1
	for _, n := range shape[1:] {
		size *= n
	}
	for i := range shape[0] {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendFloats(b, values[i*size:(i+1)*size], shape[1:]...)
	}
	return append(b, ']')
}

// Finite reports whether no value is NaN or infinite, which JSON cannot say.
func Finite(values []float64) bool {
	for _, v := range values {
		if v-v != 0 {
			return false
		}
	}
	return true
}

package ui

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

// vector is a list of values as Plotly writes them: numbers, texts, or packed bytes.
// Labels holds every value as a text; Numbers holds them too when each is a number, with
// NaN for the missing ones.
type vector struct {
	Labels  []string
	Numbers []float64
}

// Texts are the values as texts.
func (v vector) Texts() []string { return v.Labels }

// maxValues bounds what is drawn of one list.
const maxValues = 100_000

// packed is a list in Plotly's binary form.
type packed struct {
	Kind  string `json:"dtype"`
	Bytes string `json:"bdata"`
}

// UnmarshalJSON never fails: what is no list is empty, and a text is a list of one.
func (v *vector) UnmarshalJSON(text []byte) error {
	*v = vector{}
	var single string
	if json.Unmarshal(text, &single) == nil {
		v.Labels = []string{single}
		return nil
	}
	var list []any
	if json.Unmarshal(text, &list) != nil {
		v.Numbers = unpack(text)
		for _, f := range v.Numbers {
			v.Labels = append(v.Labels, formatNumber(f))
		}
		return nil
	}
	numeric := true
	numbers := make([]float64, 0, min(len(list), maxValues))
	for _, item := range list[:min(len(list), maxValues)] {
		label := ""
		f := math.NaN()
		switch item := item.(type) {
		case float64:
			f, label = item, formatNumber(item)
		case string:
			label = item
			parsed, err := strconv.ParseFloat(item, 64)
			numeric = numeric && err == nil
			f = parsed
		case bool:
			label, numeric = strconv.FormatBool(item), false
		case nil:
		default:
			text, err := json.Marshal(item)
			if err == nil {
				label = string(text)
			}
			numeric = false
		}
		v.Labels = append(v.Labels, strings.TrimSpace(label))
		numbers = append(numbers, f)
	}
	if numeric {
		v.Numbers = numbers
	}
	return nil
}

// unpack reads a list in binary form; what is none is empty.
func unpack(text []byte) []float64 {
	var p packed
	if json.Unmarshal(text, &p) != nil || p.Bytes == "" {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(p.Bytes)
	if err != nil {
		return nil
	}
	size, read := reader(p.Kind)
	if size == 0 {
		return nil
	}
	numbers := make([]float64, 0, min(len(data)/size, maxValues))
	for at := 0; at+size <= len(data) && len(numbers) < maxValues; at += size {
		numbers = append(numbers, read(data[at:]))
	}
	return numbers
}

// reader returns how long one value of a kind is, and what reads it.
func reader(kind string) (size int, read func([]byte) float64) {
	le := binary.LittleEndian
	switch kind {
	case "f8", "float64":
		return 8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }
	case "f4", "float32":
		return 4, func(b []byte) float64 { return float64(math.Float32frombits(le.Uint32(b))) }
	case "i4", "int32":
		return 4, func(b []byte) float64 { return float64(int32(le.Uint32(b))) } //nolint:gosec // the bits of a signed number
	case "u4", "uint32":
		return 4, func(b []byte) float64 { return float64(le.Uint32(b)) }
	case "i2", "int16":
		return 2, func(b []byte) float64 { return float64(int16(le.Uint16(b))) } //nolint:gosec // the bits of a signed number
	case "u2", "uint16":
		return 2, func(b []byte) float64 { return float64(le.Uint16(b)) }
	case "i1", "int8":
		return 1, func(b []byte) float64 { return float64(int8(b[0])) } //nolint:gosec // the bits of a signed number
	case "u1", "uint8":
		return 1, func(b []byte) float64 { return float64(b[0]) }
	}
	return 0, nil
}

// matrix is a list of lists of numbers.
type matrix [][]float64

// UnmarshalJSON never fails: what is no matrix is empty.
func (m *matrix) UnmarshalJSON(text []byte) error {
	*m = nil
	var rows []vector
	if json.Unmarshal(text, &rows) == nil {
		for _, row := range rows {
			*m = append(*m, row.Numbers)
		}
		return nil
	}
	var shape struct {
		Shape string `json:"shape"`
	}
	_ = json.Unmarshal(text, &shape) // without a shape there is no matrix
	_, width, _ := strings.Cut(shape.Shape, ",")
	if n, err := strconv.Atoi(strings.TrimSpace(width)); err == nil && n > 0 {
		*m = slices.Collect(slices.Chunk(unpack(text), n))
	}
	return nil
}

package jsontensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"clearmlserving/inference/engine"
)

// AnswerError is a value without a form in JSON.
type AnswerError struct{ Text string }

func (e *AnswerError) Error() string { return e.Text }

// AppendTensor appends a tensor as nested lists, with the digits that Python writes for the elements of
// a NumPy array. NaN and infinite numbers are an *AnswerError, or null if nanAsNull.
func AppendTensor(b []byte, t *engine.Tensor, nanAsNull bool) ([]byte, error) {
	p := printer{b: b, data: t.Data, kind: t.Datatype, size: int(t.Datatype.Size()), null: nanAsNull}
	if p.size == 0 && p.kind != engine.Bytes {
		return b, &AnswerError{fmt.Sprintf("output '%s' is of type %s, which has no form in JSON", t.Name, t.Datatype)}
	}
	if emptyLists(t.Shape) > mostEmptyLists {
		return b, &AnswerError{fmt.Sprintf("output '%s' of shape %v is of too many empty lists", t.Name, t.Shape)}
	}
	if err := p.nested(t.Shape); err != nil {
		return b, &AnswerError{fmt.Sprintf("output '%s': %v", t.Name, err)}
	}
	return p.b, nil
}

// mostEmptyLists bounds the lists of a tensor without elements, which no data bounds.
const mostEmptyLists = 1 << 20

// emptyLists is the number of innermost lists of a tensor without elements, if it is not above the bound; 0
// for others.
func emptyLists(shape []int64) int64 {
	zero := slices.Index(shape, 0)
	if zero < 0 {
		return 0
	}
	lists := int64(1)
	for _, n := range shape[:zero] {
		if lists *= min(n, mostEmptyLists+1); lists > mostEmptyLists {
			break
		}
	}
	return lists
}

type printer struct {
	b, data []byte
	kind    engine.Datatype
	size    int
	null    bool
}

func (p *printer) nested(shape []int64) error {
	if len(shape) == 0 {
		return p.one()
	}
	p.b = append(p.b, '[')
	for i := range shape[0] {
		if i > 0 {
			p.b = append(p.b, ',')
		}
		if err := p.nested(shape[1:]); err != nil {
			return err
		}
	}
	p.b = append(p.b, ']')
	return nil
}

var errShort = fmt.Errorf("its data is shorter than its shape")

func (p *printer) one() error {
	if p.kind == engine.Bytes {
		return p.text()
	}
	if len(p.data) < p.size {
		return errShort
	}
	d := p.data
	p.data = d[p.size:]
	le := binary.LittleEndian
	switch p.kind {
	case engine.FP32:
		return p.float(float64(math.Float32frombits(le.Uint32(d))))
	case engine.FP64:
		return p.float(math.Float64frombits(le.Uint64(d)))
	case engine.FP16:
		return p.float(Float16(le.Uint16(d)))
	case engine.BF16:
		return p.float(float64(math.Float32frombits(uint32(le.Uint16(d)) << 16)))
	case engine.Int64:
		p.b = strconv.AppendInt(p.b, int64(le.Uint64(d)), 10) //nolint:gosec // its bits
	case engine.Int32:
		p.b = strconv.AppendInt(p.b, int64(int32(le.Uint32(d))), 10) //nolint:gosec // its bits
	case engine.Int16:
		p.b = strconv.AppendInt(p.b, int64(int16(le.Uint16(d))), 10) //nolint:gosec // its bits
	case engine.Int8:
		p.b = strconv.AppendInt(p.b, int64(int8(d[0])), 10) //nolint:gosec // its bits
	case engine.Uint64:
		p.b = strconv.AppendUint(p.b, le.Uint64(d), 10)
	case engine.Uint32:
		p.b = strconv.AppendUint(p.b, uint64(le.Uint32(d)), 10)
	case engine.Uint16:
		p.b = strconv.AppendUint(p.b, uint64(le.Uint16(d)), 10)
	case engine.Uint8:
		p.b = strconv.AppendUint(p.b, uint64(d[0]), 10)
	case engine.Bool:
		p.b = strconv.AppendBool(p.b, d[0] != 0)
	case engine.Bytes:
	}
	return nil
}

func (p *printer) text() error {
	if len(p.data) < 4 || uint64(len(p.data)-4) < uint64(binary.LittleEndian.Uint32(p.data)) {
		return errShort
	}
	n := int(binary.LittleEndian.Uint32(p.data))
	text := p.data[4 : 4+n]
	p.data = p.data[4+n:]
	if !utf8.Valid(text) {
		return fmt.Errorf("a text is not valid UTF-8: ask for the tensor in binary form")
	}
	p.b = AppendText(p.b, string(text))
	return nil
}

func (p *printer) float(v float64) error {
	if v-v == 0 {
		p.b = AppendFloat(p.b, v)
		return nil
	}
	if !p.null {
		name := "NaN"
		if !math.IsNaN(v) {
			name = "an infinite number"
		}
		return fmt.Errorf("a value is %s, which JSON cannot say: set --aux-config nan_as_null=true for the endpoint", name)
	}
	p.b = append(p.b, "null"...)
	return nil
}

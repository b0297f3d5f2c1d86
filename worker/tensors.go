package worker

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Value is what user code takes or gives: tensors, or a body. The data is not copied.
type Value struct {
	// Tensors are the arrays, and Layout how the Python value held them.
	Tensors []Tensor
	Layout  Layout
	// As tells what the tensors are together, and Outputs which of the answer's are wanted; both
	// are of requests and answers with tensors.
	As      string
	Outputs []string
	// ContentType is application/json or application/octet-stream; it is unused with
	// Tensors.
	ContentType string
	Body        []byte
}

// Tensor is one array, little-endian and in row-major order.
type Tensor struct {
	// Name is the key in a dict of arrays.
	Name string
	// DType is numpy's name of the type, such as "<f4", or Elements or BF16.
	DType string
	// ContentType tells what the elements stand for, as that of engine.Tensor.
	ContentType string
	Shape       []int64
	Data        []byte
}

// Types without a name in numpy.
const (
	Elements = "|O" // of any length, each after its length as four bytes
	BF16     = "bf16"
)

// Layout is how a Python value holds its arrays.
type Layout uint8

// The layouts.
const (
	OneArray Layout = iota
	DictOfArrays
	ListOfArrays
)

// contentTensors marks a body of tensors. runtime/tensors.py mirrors this file and
// describes the format: change both together.
const contentTensors = "application/x-tensors"

// encode appends the value to b, and returns its content type too.
func (v *Value) encode(b []byte) (contentType string, body []byte) {
	if v.Tensors == nil {
		return v.ContentType, append(b, v.Body...)
	}
	size := len(b) + v.headSize()
	for _, t := range v.Tensors {
		size += len(t.Data)
	}
	b = v.appendHead(append(make([]byte, 0, size), b...))
	for _, t := range v.Tensors {
		b = append(b, t.Data...)
	}
	return contentTensors, b
}

// encodeLent is encode for tensors whose data lies in l.
func (v *Value) encodeLent(l *Loan) []byte {
	b := v.appendHead(make([]byte, 0, v.headSize()+8*len(v.Tensors)))
	for _, t := range v.Tensors {
		at, _ := l.offsetOf(t.Data) // it is in l
		b = binary.LittleEndian.AppendUint64(b, uint64(l.offset+int64(at)))
	}
	return b
}

func (v *Value) dataSize() (size int) {
	for _, t := range v.Tensors {
		size += len(t.Data)
	}
	return size
}

// copyTo is v with its data in l, which has room for it.
func (v *Value) copyTo(l *Loan) *Value {
	copied := *v
	copied.Tensors = slices.Clone(v.Tensors)
	memory := l.Bytes()
	for i := range copied.Tensors {
		t := &copied.Tensors[i]
		n := copy(memory, t.Data)
		t.Data, memory = memory[:n:n], memory[n:]
	}
	return &copied
}

// takeTensors moves the tensors of an answer from its body.
func (r *Response) takeTensors() error {
	if r.ContentType != contentTensors || r.ErrorKind != "" || r.Stream != nil {
		return nil
	}
	v, err := parseValue(r.ContentType, r.Body)
	if err != nil {
		return err
	}
	r.Tensors, r.Body, r.ContentType = &v, nil, ""
	return nil
}

// liesIn reports whether all data lies in l.
func (v *Value) liesIn(l *Loan) bool {
	for _, t := range v.Tensors {
		if _, ok := l.offsetOf(t.Data); !ok {
			return false
		}
	}
	return true
}

const (
	mostTensors    = math.MaxUint16
	mostDimensions = math.MaxUint8
	mostName       = math.MaxUint16
	mostType       = math.MaxUint8
)

// Check returns an error if the tensors cannot be sent.
func (v *Value) Check() error {
	if len(v.Tensors) > mostTensors || len(v.Outputs) > mostTensors {
		return fmt.Errorf("%d tensors and %d outputs: at most %d are possible", len(v.Tensors), len(v.Outputs), mostTensors)
	}
	for _, t := range v.Tensors {
		if len(t.Name) > mostName || len(t.Shape) > mostDimensions {
			return fmt.Errorf("tensor %.40q has %d dimensions, and a name of %d bytes: at most %d and %d are possible", t.Name, len(t.Shape), len(t.Name), mostDimensions, mostName)
		}
	}
	for _, name := range v.Outputs {
		if len(name) > mostName {
			return fmt.Errorf("output %.40q has a name of %d bytes: at most %d are possible", name, len(name), mostName)
		}
	}
	return nil
}

func (v *Value) headSize() int {
	size := 6 + len(v.As)
	for _, name := range v.Outputs {
		size += 2 + len(name)
	}
	for _, t := range v.Tensors {
		size += 13 + len(t.Name) + len(t.DType) + len(t.ContentType) + 8*len(t.Shape)
	}
	return size
}

// appendHead appends all but the data. A content type of no known length has no meaning, and is left out.
func (v *Value) appendHead(b []byte) []byte {
	as := v.As
	if len(as) > mostType {
		as = ""
	}
	b = binary.LittleEndian.AppendUint16(append(b, byte(v.Layout)), uint16(len(v.Tensors)))
	b = binary.LittleEndian.AppendUint16(append(b, byte(len(as))), uint16(len(v.Outputs)))
	b = append(b, as...)
	for _, name := range v.Outputs {
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(name))), name...)
	}
	for _, t := range v.Tensors {
		contentType := t.ContentType
		if len(contentType) > mostType {
			contentType = ""
		}
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(t.Name))), byte(len(t.DType)), byte(len(contentType)), byte(len(t.Shape)))
		b = append(append(append(b, t.Name...), t.DType...), contentType...)
		for _, n := range t.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(len(t.Data)))
	}
	return b
}

// parseValue reads a value that the worker has made; its data lies in body.
func parseValue(contentType string, body []byte) (Value, error) {
	if contentType != contentTensors {
		return Value{ContentType: contentType, Body: body}, nil
	}
	bad := func() (Value, error) { return Value{}, fmt.Errorf("%w: tensors cut short", errFrame) }
	if len(body) < 6 {
		return bad()
	}
	v := Value{Layout: Layout(body[0])}
	count, nAs, outputs := int(binary.LittleEndian.Uint16(body[1:])), int(body[3]), int(binary.LittleEndian.Uint16(body[4:]))
	b := body[6:]
	if nAs+2*outputs+13*count > len(b) {
		return bad()
	}
	v.As, b = string(b[:nAs]), b[nAs:]
	for range outputs {
		if len(b) < 2 {
			return bad()
		}
		n := int(binary.LittleEndian.Uint16(b))
		if b = b[2:]; len(b) < n {
			return bad()
		}
		v.Outputs, b = append(v.Outputs, string(b[:n])), b[n:]
	}
	v.Tensors = make([]Tensor, count)
	sizes := make([]uint64, count)
	for i := range v.Tensors {
		if len(b) < 5 {
			return bad()
		}
		n, d, c, dims := int(binary.LittleEndian.Uint16(b)), int(b[2]), int(b[3]), int(b[4])
		if b = b[5:]; len(b) < n+d+c+8*(dims+1) {
			return bad()
		}
		t := &v.Tensors[i]
		t.Name, t.DType, t.ContentType, t.Shape = string(b[:n]), string(b[n:n+d]), string(b[n+d:n+d+c]), make([]int64, dims)
		b = b[n+d+c:]
		for j := range t.Shape {
			t.Shape[j] = int64(binary.LittleEndian.Uint64(b[8*j:]))
		}
		sizes[i] = binary.LittleEndian.Uint64(b[8*dims:])
		b = b[8*(dims+1):]
	}
	for i, size := range sizes {
		if size > uint64(len(b)) {
			return bad()
		}
		v.Tensors[i].Data, b = b[:size:size], b[size:]
	}
	if len(b) > 0 {
		return Value{}, fmt.Errorf("%w: %d bytes behind the tensors", errFrame, len(b))
	}
	return v, nil
}

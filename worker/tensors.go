package worker

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Value is the result of preprocess and the argument of postprocess: tensors if it
// consists of numpy arrays, otherwise a body. The data is not copied.
type Value struct {
	// Tensors are the arrays, and Layout how the Python value held them.
	Tensors []Tensor
	Layout  Layout
	// ContentType is application/json or application/octet-stream; it is unused with
	// Tensors.
	ContentType string
	Body        []byte
}

// Tensor is one array, little-endian and in row-major order.
type Tensor struct {
	// Name is the key in a dict of arrays.
	Name string
	// DType is numpy's name of the type, such as "<f4".
	DType string
	Shape []int64
	Data  []byte
}

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
	size := len(b) + 3
	for _, t := range v.Tensors {
		size += 12 + len(t.Name) + len(t.DType) + 8*len(t.Shape) + len(t.Data)
	}
	b = append(make([]byte, 0, size), b...)
	b = binary.LittleEndian.AppendUint16(append(b, byte(v.Layout)), uint16(len(v.Tensors)))
	for _, t := range v.Tensors {
		name, dtype := t.Name[:min(len(t.Name), math.MaxUint16)], t.DType[:min(len(t.DType), math.MaxUint8)]
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(name))), byte(len(dtype)), byte(len(t.Shape)))
		b = append(append(b, name...), dtype...)
		for _, n := range t.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(len(t.Data)))
	}
	for _, t := range v.Tensors {
		b = append(b, t.Data...)
	}
	return contentTensors, b
}

// parseValue reads a value that the worker has made; its data lies in body.
func parseValue(contentType string, body []byte) (Value, error) {
	if contentType != contentTensors {
		return Value{ContentType: contentType, Body: body}, nil
	}
	bad := func() (Value, error) { return Value{}, fmt.Errorf("%w: tensors cut short", errFrame) }
	if len(body) < 3 {
		return bad()
	}
	v := Value{Layout: Layout(body[0])}
	count, b := int(binary.LittleEndian.Uint16(body[1:])), body[3:]
	if count*12 > len(b) {
		return bad()
	}
	v.Tensors = make([]Tensor, count)
	sizes := make([]uint64, count)
	for i := range v.Tensors {
		if len(b) < 4 {
			return bad()
		}
		n, d, dims := int(binary.LittleEndian.Uint16(b)), int(b[2]), int(b[3])
		if b = b[4:]; len(b) < n+d+8*(dims+1) {
			return bad()
		}
		t := &v.Tensors[i]
		t.Name, t.DType, t.Shape = string(b[:n]), string(b[n:n+d]), make([]int64, dims)
		b = b[n+d:]
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

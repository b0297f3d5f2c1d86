package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"clearmlserving/inference/engine"
)

// rowsOf is the number of rows of a request: the common first dimension of all its
// tensors. It is 0 for tensors that cannot be stacked, such as rows without elements: their number
// is as large as the client says.
func rowsOf(tensors []engine.Tensor) int64 {
	rows := int64(0)
	for i, t := range tensors {
		if len(t.Shape) == 0 || i > 0 && t.Shape[0] != rows || slices.Contains(t.Shape[1:], 0) {
			return 0
		}
		rows = t.Shape[0]
	}
	return rows
}

// stackable reports whether two requests can be computed as one: their tensors have the
// same names, types, and dimensions except the rows.
func stackable(a, b []engine.Tensor) bool {
	return rowsOf(a) > 0 && rowsOf(b) > 0 && slices.EqualFunc(a, b, func(x, y engine.Tensor) bool {
		return x.Name == y.Name && x.Datatype == y.Datatype && slices.Equal(x.Shape[1:], y.Shape[1:])
	})
}

// stack concatenates the rows of stackable requests.
func stack(requests [][]engine.Tensor) []engine.Tensor {
	if len(requests) == 1 {
		return requests[0]
	}
	stacked := slices.Clone(requests[0])
	for i := range stacked {
		t := &stacked[i]
		t.Shape, t.Data = slices.Clone(t.Shape), nil
		t.Shape[0] = 0
		size := 0
		for _, r := range requests {
			t.Shape[0] += r[i].Shape[0]
			size += len(r[i].Data)
		}
		t.Data = make([]byte, 0, size)
		for _, r := range requests {
			t.Data = append(t.Data, r[i].Data...)
		}
	}
	return stacked
}

// unstack splits computed tensors into the rows of each request.
func unstack(tensors []engine.Tensor, rows []int64) ([][]engine.Tensor, error) {
	parts := make([][]engine.Tensor, len(rows))
	for _, t := range tensors {
		all := int64(0)
		for _, n := range rows {
			all += n
		}
		if len(t.Shape) == 0 || t.Shape[0] != all {
			return nil, fmt.Errorf("output %q has the shape %v for %d rows", t.Name, t.Shape, all)
		}
		for i, n := range rows {
			size, err := sizeOfRows(t, n)
			if err != nil {
				return nil, err
			}
			part := t
			part.Shape, part.Data = slices.Clone(t.Shape), t.Data[:size:size]
			part.Shape[0], t.Data = n, t.Data[size:]
			parts[i] = append(parts[i], part)
		}
	}
	return parts, nil
}

// sizeOfRows is the number of bytes of the first rows of t.
func sizeOfRows(t engine.Tensor, rows int64) (int, error) {
	elements := rows
	for _, n := range t.Shape[1:] {
		elements *= n
	}
	if size := t.Datatype.Size(); size > 0 {
		if elements*size > int64(len(t.Data)) {
			return 0, shortOutput(t)
		}
		return int(elements * size), nil
	}
	at := 0
	for range elements {
		if at+4 > len(t.Data) {
			return 0, shortOutput(t)
		}
		if at += 4 + int(binary.LittleEndian.Uint32(t.Data[at:])); at > len(t.Data) {
			return 0, shortOutput(t)
		}
	}
	return at, nil
}

var errShort = errors.New("its data is shorter than its shape")

func shortOutput(t engine.Tensor) error { return fmt.Errorf("output %q: %w", t.Name, errShort) }

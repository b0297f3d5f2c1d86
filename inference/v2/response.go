package v2

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
)

// Response is the answer to an inference request.
type Response struct {
	Model, Version, ID string
	// ContentType is what the outputs are together, "" if nothing is told.
	ContentType string
	Outputs     []engine.Tensor
}

// Select returns the outputs that the client asks for, in its order, with their classes in place of the
// elements if it asks for those. It fails if the answer does not have one.
func (r *Request) Select(outputs []engine.Tensor) ([]engine.Tensor, error) {
	if len(r.Outputs) == 0 {
		return outputs, nil
	}
	chosen := make([]engine.Tensor, 0, len(r.Outputs))
	for _, o := range r.Outputs {
		i := slices.IndexFunc(outputs, func(t engine.Tensor) bool { return t.Name == o.Name })
		if i < 0 {
			var names []string
			for _, t := range outputs {
				names = append(names, t.Name)
			}
			return nil, badRequest("the model has no output '%s'; it has %s", o.Name, quoted(names))
		}
		t := outputs[i]
		if o.Classes > 0 {
			var err error
			if t, err = classes(&t, o.Classes); err != nil {
				return nil, badRequest("output '%s': %v", o.Name, err)
			}
		}
		chosen = append(chosen, t)
	}
	return chosen, nil
}

// binary reports whether the client wants an output as binary data. i is its index in what Select returned.
func (r *Request) binary(i int) bool {
	if len(r.Outputs) == 0 {
		return r.BinaryOutput
	}
	return r.Outputs[i].Binary
}

// Append appends the body of the answer to a request. r.Outputs are those of Select, and have been checked
// (CheckData). header is the length of its JSON if binary data follows, else WholeBody. It fails if an
// output has no form in JSON.
func (r *Response) Append(dst []byte, to *Request) (body []byte, header int, err error) {
	start := len(dst)
	dst = slices.Grow(dst, r.size(to))
	dst = append(dst, `{"model_name":`...)
	dst = jsontensor.AppendText(dst, r.Model)
	if r.Version != "" {
		dst = append(dst, `,"model_version":`...)
		dst = jsontensor.AppendText(dst, r.Version)
	}
	if r.ID != "" {
		dst = append(dst, `,"id":`...)
		dst = jsontensor.AppendText(dst, r.ID)
	}
	if r.ContentType != "" {
		dst = append(dst, `,"parameters":{"content_type":`...)
		dst = jsontensor.AppendText(dst, r.ContentType)
		dst = append(dst, '}')
	}
	dst = append(dst, `,"outputs":[`...)
	header = WholeBody
	for i := range r.Outputs {
		t := &r.Outputs[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"name":`...)
		dst = jsontensor.AppendText(dst, t.Name)
		dst = append(dst, `,"datatype":"`...)
		dst = append(dst, t.Datatype...)
		dst = append(dst, `","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, d, 10)
		}
		dst = append(dst, ']')
		if to.binary(i) {
			header = 0
			dst = append(dst, `,"parameters":{"binary_data_size":`...)
			dst = strconv.AppendInt(dst, int64(len(t.Data)), 10)
			if t.ContentType != "" {
				dst = append(dst, `,"content_type":`...)
				dst = jsontensor.AppendText(dst, t.ContentType)
			}
			dst = append(dst, "}}"...)
			continue
		}
		if t.ContentType != "" {
			dst = append(dst, `,"parameters":{"content_type":`...)
			dst = jsontensor.AppendText(dst, t.ContentType)
			dst = append(dst, '}')
		}
		dst = append(dst, `,"data":`...)
		if dst, err = AppendFlat(dst, t); err != nil {
			return nil, 0, badRequest("output '%s': %v", t.Name, err)
		}
		dst = append(dst, '}')
	}
	dst = append(dst, "]}"...)
	if header == WholeBody {
		return dst, header, nil
	}
	header = len(dst) - start
	for i := range r.Outputs {
		if to.binary(i) {
			dst = append(dst, r.Outputs[i].Data...)
		}
	}
	return dst, header, nil
}

// size is about how long the body of the answer is.
func (r *Response) size(to *Request) int {
	const around, number = 128, 12
	size := around
	for i := range r.Outputs {
		t := &r.Outputs[i]
		size += around + len(t.Name)
		if width := int(t.Datatype.Size()); width > 0 && !to.binary(i) {
			size += number * (len(t.Data) / width)
		} else {
			size += len(t.Data)
		}
	}
	return size
}

// classes are the count largest elements of each row of a tensor, as the classification extension writes
// them: "<value>:<index>". A row is a tensor's last dimension.
func classes(t *engine.Tensor, count int64) (engine.Tensor, error) {
	if t.Datatype == engine.Bytes || t.Datatype == engine.Bool || t.Datatype == engine.FP16 || t.Datatype == engine.BF16 {
		return engine.Tensor{}, fmt.Errorf("classes are those of numbers, not of %s", t.Datatype)
	}
	n, err := engine.Elements(t.Shape)
	if err != nil {
		return engine.Tensor{}, err
	}
	if len(t.Shape) == 0 || n == 0 {
		return engine.Tensor{}, errors.New("it has no row to choose classes from")
	}
	width := t.Shape[len(t.Shape)-1]
	count = min(count, width)
	out := engine.Tensor{Name: t.Name, Datatype: engine.Bytes, Shape: append(slices.Clone(t.Shape[:len(t.Shape)-1]), count)}
	order := make([]int64, width)
	values := make([]float64, width)
	size := t.Datatype.Size()
	for row := int64(0); row < n; row += width {
		for i := range width {
			order[i], values[i] = i, value(t.Datatype, t.Data[(row+i)*size:])
		}
		slices.SortStableFunc(order, func(a, b int64) int { return cmp.Compare(values[b], values[a]) })
		for _, i := range order[:count] {
			text := strconv.AppendFloat(nil, values[i], 'f', 6, 64)
			text = append(text, ':')
			text = strconv.AppendInt(text, i, 10)
			out.Data = binary.LittleEndian.AppendUint32(out.Data, uint32(len(text)))
			out.Data = append(out.Data, text...)
		}
	}
	return out, nil
}

// value is the number at the beginning of data.
func value(d engine.Datatype, data []byte) float64 {
	switch d {
	case engine.Uint8:
		return float64(data[0])
	case engine.Int8:
		return float64(int8(data[0]))
	case engine.Uint16:
		return float64(binary.LittleEndian.Uint16(data))
	case engine.Int16:
		return float64(int16(binary.LittleEndian.Uint16(data)))
	case engine.Uint32:
		return float64(binary.LittleEndian.Uint32(data))
	case engine.Int32:
		return float64(int32(binary.LittleEndian.Uint32(data)))
	case engine.Uint64:
		return float64(binary.LittleEndian.Uint64(data))
	case engine.Int64:
		return float64(int64(binary.LittleEndian.Uint64(data)))
	case engine.FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(data))
}

package native

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"unicode/utf8"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/engine/python"
	flat "clearmlserving/native"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// tensorForms are the requests with tensors that are answered in Go, and the tensor of the answer.
type tensorForms struct {
	// Rows: one tensor of rows; Columns: a tensor for each column; Narrow: also of float32.
	Rows    bool `json:"rows,omitempty"`
	Columns bool `json:"columns,omitempty"`
	Narrow  bool `json:"narrow,omitempty"`
	// Datatype and ContentType are those of the answer.
	Datatype    engine.Datatype `json:"datatype,omitempty"`
	ContentType string          `json:"content_type,omitempty"`
}

// exactWhole is the largest whole number below which all are exact.
const exactWhole = 1 << 53

// numbers reads elements as float64. It is false for types and numbers that are left to Python.
func (f *tensorForms) numbers(t *engine.Tensor, into []float64) bool {
	little := binary.LittleEndian
	for i := range into {
		var whole int64
		switch t.Datatype {
		case engine.FP64:
			into[i] = math.Float64frombits(little.Uint64(t.Data[8*i:]))
			continue
		case engine.FP32:
			if !f.Narrow {
				return false
			}
			into[i] = float64(math.Float32frombits(little.Uint32(t.Data[4*i:])))
			continue
		case engine.Int64:
			whole = int64(little.Uint64(t.Data[8*i:]))
		case engine.Int32:
			whole = int64(int32(little.Uint32(t.Data[4*i:])))
		default:
			return false
		}
		if whole > exactWhole || whole < -exactWhole {
			return false
		}
		into[i] = float64(whole)
	}
	return true
}

// readTensors reads a request as rows, and returns their number: 0 for one that is left to Python.
func (f *form) readTensors(req *engine.Request, forms *tensorForms, into *jsontensor.Rows) (n int) {
	if req.TensorsAs != "" && req.TensorsAs != "np" || len(req.Tensors) == 0 {
		return 0
	}
	width, first := f.Width(), &req.Tensors[0]
	for i := range req.Tensors {
		if req.Tensors[i].Check() != nil || len(req.Tensors[i].Shape) == 0 {
			return 0 // Python says what is wrong
		}
	}
	if n = int(first.Shape[0]); n < 1 || n > len(first.Data) {
		return 0
	}
	if len(req.Tensors) == 1 && !(f.named && isColumn(first) && f.column(first.Name) >= 0) {
		if !forms.Rows || len(first.Shape) != 2 || first.Shape[1] != int64(width) || !forms.numbers(first, grown(into, n*width)) {
			return 0
		}
		if whole := first.Datatype == engine.Int64 || first.Datatype == engine.Int32; whole && f.narrow.Whole && !f.narrow.narrow(into.Values) {
			return 0
		}
		return n
	}
	if !forms.Columns || len(req.Tensors) != width {
		return 0
	}
	values, cells, seen := grown(into, n*width), make([]float64, n), make([]bool, width)
	for i := range req.Tensors {
		t := &req.Tensors[i]
		at := f.column(t.Name)
		if at < 0 || seen[at] || !isColumn(t) || t.Shape[0] != int64(n) || !f.cells(at, t, forms, cells) {
			return 0
		}
		seen[at] = true
		for row, v := range cells {
			values[row*width+at] = v
		}
	}
	return n
}

func isColumn(t *engine.Tensor) bool {
	return len(t.Shape) == 1 || len(t.Shape) == 2 && t.Shape[1] == 1
}

func (f *form) column(name string) int {
	return slices.IndexFunc(f.columns, func(c jsontensor.Column) bool { return c.Name == name })
}

func grown(rows *jsontensor.Rows, n int) []float64 {
	if cap(rows.Values) < n {
		rows.Values = make([]float64, n)
	}
	rows.Values = rows.Values[:n]
	return rows.Values
}

// cells reads the tensor of a column.
func (f *form) cells(at int, t *engine.Tensor, forms *tensorForms, into []float64) bool {
	c := &f.columns[at]
	switch {
	case c.Categories == nil && c.Numbers == nil:
		return forms.numbers(t, into)
	case t.Datatype != engine.Bytes:
		if c.Numbers == nil || !forms.numbers(t, into) {
			return false
		}
		for i, v := range into {
			code, known := c.Numbers[v]
			if into[i] = code; !known {
				if into[i] = c.Unknown; c.Strict && v == v {
					return false
				}
			}
		}
		return true
	case c.Categories == nil || t.ContentType != "" && t.ContentType != "str":
		return false
	}
	rest := t.Data
	for i := range into {
		size := binary.LittleEndian.Uint32(rest)
		element := rest[4 : 4+size]
		rest = rest[4+size:]
		code, known := c.Categories[string(element)]
		if into[i] = code; !known {
			if into[i] = c.Unknown; c.Strict || !utf8.Valid(element) {
				return false
			}
		}
	}
	return true
}

// tensor makes the tensor of an answer. It is false for a datatype that is left to Python.
func (w *writer) tensor(forms *tensorForms, name string, values []float64, n int) (engine.Tensor, bool) {
	t := engine.Tensor{Name: name, Datatype: forms.Datatype, ContentType: forms.ContentType, Shape: []int64{int64(n)}}
	if !w.method.Flat {
		t.Shape = append(t.Shape, int64(w.method.Width))
	}
	little := binary.LittleEndian
	for _, v := range values {
		if w.method.Type == "label" {
			ok := v >= 0 && v < float64(len(w.labels))
			if !ok {
				return t, false
			}
			if forms.Datatype == engine.Bytes {
				text := w.texts[int(v)]
				t.Data = append(little.AppendUint32(t.Data, uint32(len(text))), text...)
				continue
			}
			if v, ok = w.number(int(v)); !ok {
				return t, false
			}
		}
		switch forms.Datatype {
		case engine.FP64:
			t.Data = little.AppendUint64(t.Data, math.Float64bits(v))
		case engine.FP32:
			t.Data = little.AppendUint32(t.Data, math.Float32bits(float32(v)))
		case engine.Int64:
			t.Data = little.AppendUint64(t.Data, uint64(int64(v)))
		case engine.Int32:
			t.Data = little.AppendUint32(t.Data, uint32(int32(v)))
		case engine.Bool:
			t.Data = append(t.Data, byte(v))
		default:
			return t, false
		}
	}
	return t, true
}

// number is a class that is a number.
func (w *writer) number(class int) (float64, bool) {
	switch text := w.labels[class]; string(text) {
	case "true":
		return 1, true
	case "false":
		return 0, true
	default:
		var v float64
		err := json.Unmarshal(text, &v)
		return v, err == nil && math.Abs(v) <= exactWhole
	}
}

// outputName is the name of the answer's tensor, as in a worker.
func outputName(spec *serving.Endpoint, method string) string {
	if len(spec.OutputName) > 0 {
		return spec.OutputName[0]
	}
	return method
}

// large reports whether tensors are as large as a large body.
func large(tensors []engine.Tensor) bool {
	size := 0
	for i := range tensors {
		size += len(tensors[i].Data)
	}
	return size >= largeBody
}

// answerTensors answers a request with tensors, or returns nil for one that is left to Python.
func (m *model) answerTensors(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if len(req.Outputs) > 1 || len(req.Outputs) == 1 && req.Outputs[0] != m.output || req.Sampled && len(*m.variables.Load()) > 0 {
		return nil, nil //nolint:nilnil // documented
	}
	if large(req.Tensors) {
		if err := m.wait(ctx); err != nil {
			return nil, err
		}
		defer m.done()
	}
	s := m.scratch.Get().(*scratch)
	defer m.scratch.Put(s)
	n := m.form.readTensors(req, &m.tensors, &s.rows)
	if n == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	if left, err := m.predict(ctx, s, n); left || err != nil {
		return nil, err
	}
	t, ok := m.writer.tensor(&m.tensors, m.output, s.out, n)
	if !ok {
		return nil, nil //nolint:nilnil // documented
	}
	m.native.Add(1)
	return &engine.Response{Status: http.StatusOK, ContentType: jsonType, Tensors: []engine.Tensor{t}}, nil
}

// tensors finds the forms of tensors that Python and Go answer alike.
func (c *comparison) tensors(ctx context.Context, rows []flat.ProofRows) (forms tensorForms, err error) {
	width := c.form.Width()
	for _, form := range []struct {
		name            string
		columns, narrow bool
		usable          bool
	}{
		{"tensor of rows", false, false, c.form.rows},
		{"tensors of columns", true, false, c.form.named},
		{"tensors of float32", false, true, c.form.rows && c.narrow()},
	} {
		if !form.usable {
			continue
		}
		try := forms
		try.Rows, try.Columns, try.Narrow = !form.columns, form.columns, form.narrow
		check := serving.NativeCheck{Rows: form.name, Method: c.writer.method.Name}
		for _, kind := range rows {
			for _, n := range []int{1, batchRows} {
				if kind.Count < n {
					continue
				}
				req := c.request(kind.Values[:n*width], n, form.columns, form.narrow)
				if req == nil {
					continue
				}
				same, err := c.compareTensors(ctx, req, n, &try, &check)
				if err != nil {
					return forms, err
				}
				if !same {
					check.Count = 0
					break
				}
			}
			if check.Count == 0 {
				break
			}
		}
		if check.Count == 0 {
			continue
		}
		c.checks = append(c.checks, check)
		forms.Rows, forms.Columns, forms.Narrow = forms.Rows || try.Rows, forms.Columns || try.Columns, forms.Narrow || try.Narrow
		forms.Datatype, forms.ContentType = try.Datatype, try.ContentType
	}
	return forms, nil
}

// narrow reports whether float32 may be computed as float64: if nothing but trees gets them.
func (c *comparison) narrow() bool {
	for _, raw := range c.m.Stages {
		var stage struct {
			Kind string `json:"kind"`
		}
		if json.Unmarshal(raw, &stage) != nil || !slices.Contains([]string{"trees", "link", "label"}, stage.Kind) {
			return false
		}
	}
	return true
}

// request makes a request of rows, nil if they have no such form.
func (c *comparison) request(values []float64, n int, columns, narrow bool) *engine.Request {
	width := c.form.Width()
	encode := func(values []float64) engine.Tensor {
		t := engine.Tensor{Name: "input-0", Datatype: engine.FP64}
		for _, v := range values {
			if narrow {
				t.Datatype, t.Data = engine.FP32, binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(float32(v)))
			} else {
				t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(v))
			}
		}
		return t
	}
	if !columns {
		t := encode(values)
		t.Shape = []int64{int64(n), int64(width)}
		return &engine.Request{Tensors: []engine.Tensor{t}}
	}
	req := &engine.Request{}
	for i := range width {
		cells := make([]float64, n)
		for row := range cells {
			cells[row] = values[row*width+i]
		}
		t := encode(cells)
		if known := c.form.values[i]; known != nil {
			var ok bool
			if t, ok = encodeCodes(&c.form.columns[i], known, cells, encode); !ok {
				return nil
			}
		}
		t.Name, t.Shape = c.form.columns[i].Name, []int64{int64(n), 1}
		req.Tensors = append(req.Tensors, t)
	}
	return req
}

// encodeCodes makes the tensor of a column of categories.
func encodeCodes(column *jsontensor.Column, known []json.RawMessage, codes []float64, numbers func([]float64) engine.Tensor) (engine.Tensor, bool) {
	t := engine.Tensor{Datatype: engine.Bytes}
	values := make([]float64, len(codes))
	for i, code := range codes {
		inside := code >= 0 && code < float64(len(known))
		if column.Categories == nil {
			if !inside || json.Unmarshal(known[int(code)], &values[i]) != nil {
				return t, false
			}
			continue
		}
		text := "(a text that training did not have)"
		if inside && json.Unmarshal(known[int(code)], &text) != nil || code != code {
			return t, false
		}
		t.Data = append(binary.LittleEndian.AppendUint32(t.Data, uint32(len(text))), text...)
	}
	if column.Categories == nil {
		return numbers(values), true
	}
	return t, true
}

// compareTensors asks one request. same: Go answers it as Python does, or leaves it to Python.
func (c *comparison) compareTensors(ctx context.Context, req *engine.Request, n int, forms *tensorForms, check *serving.NativeCheck) (same bool, err error) {
	in, err := python.ValueOf("", req)
	if err != nil {
		return false, err
	}
	answer, err := c.o.group.DoTensors(ctx, &worker.Request{}, in)
	if err != nil {
		return false, err
	}
	told, err := python.ResponseOf("", answer)
	if err != nil {
		return false, err
	}
	var rows jsontensor.Rows
	if c.form.readTensors(req, forms, &rows) != n {
		return true, nil
	}
	method := c.m.Methods[c.at]
	out := make([]float64, n*method.Width)
	if err := c.m.Predict(c.at, rows.Values, n, out); err != nil {
		if _, ok := errors.AsType[*flat.InputError](err); ok {
			return true, nil
		}
		return false, err
	}
	if told.Status != http.StatusOK || len(told.Tensors) != 1 {
		return false, nil
	}
	want := &told.Tensors[0]
	forms.Datatype, forms.ContentType = cmp.Or(forms.Datatype, want.Datatype), want.ContentType
	got, ok := c.writer.tensor(forms, want.Name, out, n)
	if !ok || got.Datatype != want.Datatype || !slices.Equal(got.Shape, want.Shape) {
		return false, nil
	}
	check.Count += n
	if bytes.Equal(got.Data, want.Data) {
		return true, nil
	}
	check.Bits += n
	return want.Datatype == engine.FP64 && method.Tolerance > 0 && nearNumbers(floatsOf(want.Data), out, method.Tolerance), nil
}

func floatsOf(data []byte) []float64 {
	values := make([]float64, len(data)/8)
	for i := range values {
		values[i] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return values
}

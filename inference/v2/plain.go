package v2

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
)

// The tensors of a model that does not tell its inputs: a whole body, and the whole answer, as one element of BYTES.
const (
	FreeInput  = "body"
	FreeOutput = "answer"
)

// Describe completes a signature for clients that need a datatype and a shape of every tensor. A model whose inputs are
// not known has the free tensors.
func Describe(sig *engine.Signature) engine.Signature {
	told := *sig
	if len(sig.Inputs) == 0 {
		told.Inputs = []engine.TensorSpec{{Name: FreeInput, Datatype: engine.Bytes, Shape: []int64{1}}}
		told.Outputs = []engine.TensorSpec{{Name: FreeOutput, Datatype: engine.Bytes, Shape: []int64{1}}}
		return told
	}
	told.Inputs, told.Outputs = describe(sig.Inputs), describe(sig.Outputs)
	return told
}

func describe(specs []engine.TensorSpec) []engine.TensorSpec {
	specs = slices.Clone(specs)
	for i := range specs {
		s := &specs[i]
		if s.Datatype == "" {
			s.Datatype = engine.FP64
			if s.Categories != nil {
				s.Datatype = engine.Bytes
			}
		}
		if s.Shape == nil {
			s.Shape = []int64{-1}
		}
	}
	return specs
}

// Batched reports whether a model computes on any number of rows: the first dimension of all its inputs is free, and
// each has others.
func Batched(sig *engine.Signature) bool {
	for i := range sig.Inputs {
		if shape := sig.Inputs[i].Shape; len(shape) < 2 || shape[0] >= 0 {
			return false
		}
	}
	return len(sig.Inputs) > 0
}

// FreeBody is the whole body in the tensors of a request, if they are FreeInput.
func FreeBody(tensors []engine.Tensor) (body []byte, ok bool) {
	if len(tensors) != 1 || tensors[0].Name != FreeInput || tensors[0].Datatype != engine.Bytes || CheckData(&tensors[0]) != nil {
		return nil, false
	}
	if n, err := engine.Elements(tensors[0].Shape); err != nil || n != 1 {
		return nil, false
	}
	return tensors[0].Data[4:], true
}

// FreeAnswer is a whole answer as FreeOutput.
func FreeAnswer(body []byte) engine.Tensor {
	data := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	return engine.Tensor{Name: FreeOutput, Datatype: engine.Bytes, Shape: []int64{1}, Data: append(data, body...)}
}

// Body is the JSON body that tensors would be: an object of nested lists by name, or the records of a table. It fails
// for tensors that have no form in JSON.
func Body(tensors []engine.Tensor, table bool) ([]byte, error) {
	if table {
		if rows, ok := rowsOf(tensors); ok {
			return records(tensors, rows)
		}
	}
	var err error
	b := []byte{'{'}
	for i := range tensors {
		t := &tensors[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(jsontensor.AppendText(b, strings.ToValidUTF8(t.Name, "\uFFFD")), ':')
		if b, err = AppendNested(b, t); err != nil {
			return nil, fmt.Errorf("tensor '%s': %w", t.Name, err)
		}
	}
	return append(b, '}'), nil
}

// rowsOf is the number of rows of a table whose columns are tensors, if they are columns.
func rowsOf(tensors []engine.Tensor) (rows int64, ok bool) {
	for i := range tensors {
		shape := tensors[i].Shape
		if len(shape) == 0 || len(shape) > 2 || len(shape) == 2 && shape[1] != 1 || i > 0 && shape[0] != rows {
			return 0, false
		}
		rows = shape[0]
	}
	return rows, len(tensors) > 0
}

// records are the rows of a table as JSON.
func records(tensors []engine.Tensor, rows int64) ([]byte, error) {
	columns, names := make([]writer, len(tensors)), make([][]byte, len(tensors))
	for i := range tensors {
		columns[i] = newWriter(&tensors[i], "NaN")
		names[i] = append(jsontensor.AppendText(nil, strings.ToValidUTF8(tensors[i].Name, "\uFFFD")), ':')
	}
	var err error
	b := []byte{'['}
	for row := range rows {
		if row > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		for i := range columns {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, names[i]...)
			if b, err = columns[i].element(b); err != nil {
				return nil, fmt.Errorf("tensor '%s': %w", tensors[i].Name, err)
			}
		}
		b = append(b, '}')
	}
	return append(b, ']'), nil
}

// ErrorText is the text in the body of a failed answer, for a protocol that has only a text.
func ErrorText(body []byte) string {
	s := scanner{b: body}
	var text string
	found := false
	err := s.object("the answer", func(key []byte) error {
		if string(key) == "detail" && s.peek() == '"' {
			var err error
			text, err = s.text("detail")
			found = true
			return err
		}
		return s.skip(0)
	})
	if err != nil || !found {
		return strings.ToValidUTF8(string(body), "\uFFFD")
	}
	return text
}

// ErrorBody is the protocol's form of an error.
func ErrorBody(text string) []byte {
	b := jsontensor.AppendText([]byte(`{"error":`), strings.ToValidUTF8(text, "\uFFFD"))
	return append(b, '}')
}

// Fit checks the tensors of a request against the inputs of the model, and returns them in the datatypes of the model:
// a number is converted if that changes no value. The only input of a model that does not name it has any name. Its errors are *engine.Error, and name the input.
func Fit(sig *engine.Signature, tensors []engine.Tensor) ([]engine.Tensor, error) {
	if len(sig.Inputs) == 0 {
		return tensors, nil
	}
	if sig.Table && len(tensors) == 1 && matrix(sig, &tensors[0]) {
		return tensors, nil
	}
	copied := false
	for i := range tensors {
		t := &tensors[i]
		at := i // mostly
		if i >= len(sig.Inputs) || sig.Inputs[i].Name != t.Name {
			at = slices.IndexFunc(sig.Inputs, func(s engine.TensorSpec) bool { return s.Name == t.Name })
		}
		if at < 0 && len(sig.Inputs) == 1 && sig.Inputs[0].Name == engine.Unnamed && len(tensors) == 1 {
			at = 0
		}
		if at < 0 {
			return nil, unknownInput(sig, tensors, t.Name)
		}
		spec := &sig.Inputs[at]
		if err := fitShape(sig, spec, t); err != nil {
			return nil, badRequest("input '%s': %v", t.Name, err)
		}
		if spec.Datatype == "" || spec.Datatype == t.Datatype {
			continue
		}
		converted, err := convert(t, spec.Datatype)
		if err != nil {
			return nil, badRequest("input '%s': %v", t.Name, err)
		}
		if !copied {
			tensors, copied = slices.Clone(tensors), true
		}
		tensors[i] = converted
	}
	var missing []string
	for i := range sig.Inputs {
		spec := &sig.Inputs[i]
		if len(tensors) < len(sig.Inputs) && !spec.Optional && !slices.ContainsFunc(tensors, func(t engine.Tensor) bool { return t.Name == spec.Name }) {
			missing = append(missing, spec.Name)
		}
	}
	if missing != nil {
		return nil, badRequest("the input %s is missing; the model takes %s", quoted(missing), quoted(inputNames(sig.Inputs)))
	}
	if sig.Table {
		for i := range tensors {
			if tensors[i].Shape[0] != tensors[0].Shape[0] {
				return nil, badRequest("input '%s' has %d rows, but '%s' has %d", tensors[i].Name, tensors[i].Shape[0], tensors[0].Name, tensors[0].Shape[0])
			}
		}
	}
	return tensors, nil
}

// unknownInput says which input a name may mean: one that is missing.
func unknownInput(sig *engine.Signature, tensors []engine.Tensor, name string) error {
	names := inputNames(sig.Inputs)
	missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return slices.ContainsFunc(tensors, func(t engine.Tensor) bool { return t.Name == n })
	})
	hint := ""
	if near := engine.Nearest(name, missing); near != "" {
		hint = fmt.Sprintf(" (did you mean '%s'?)", near)
	}
	return badRequest("the model has no input '%s'%s; it takes %s", name, hint, quoted(names))
}

// matrix reports whether a tensor is all columns of a table side by side.
func matrix(sig *engine.Signature, t *engine.Tensor) bool {
	return len(t.Shape) == 2 && t.Shape[1] == int64(len(sig.Inputs)) &&
		!slices.ContainsFunc(sig.Inputs, func(s engine.TensorSpec) bool { return s.Name == t.Name })
}

func inputNames(specs []engine.TensorSpec) []string {
	var names []string
	for i := range specs {
		names = append(names, specs[i].Name)
	}
	return names
}

func fitShape(sig *engine.Signature, spec *engine.TensorSpec, t *engine.Tensor) error {
	if sig.Table {
		if len(t.Shape) == 1 || len(t.Shape) == 2 && t.Shape[1] == 1 {
			return nil
		}
		return fmt.Errorf("its shape is %s, but a column has the shape [n] or [n,1]", engine.Shape(t.Shape))
	}
	if spec.Shape == nil || matches(spec.Shape, t.Shape) {
		return nil
	}
	// Settings may leave out the first dimension, that of the batch.
	if sig.Source == engine.SourceSettings && len(t.Shape) == len(spec.Shape)+1 && matches(spec.Shape, t.Shape[1:]) {
		return nil
	}
	return fmt.Errorf("its shape is %s, but the model takes %s", engine.Shape(t.Shape), engine.Shape(spec.Shape))
}

func matches(spec, shape []int64) bool {
	return slices.EqualFunc(spec, shape, func(want, have int64) bool { return want < 0 || want == have })
}

// Member is the value of a name in a JSON object, as it is written. ok is false if the text is no object, or has no
// such name.
func Member(object []byte, name string) (value []byte, ok bool) {
	s := scanner{b: object}
	err := s.object("an object", func(key []byte) error {
		var err error
		if string(key) != name {
			return s.skip(0)
		}
		value, err = s.raw()
		ok = true
		return err
	})
	if err != nil || s.end() != nil {
		return nil, false
	}
	return value, ok
}

// IsJSON reports whether a text is one JSON value, which may have NaN and Infinity.
func IsJSON(text []byte) bool {
	s := scanner{b: text}
	return s.skip(0) == nil && s.end() == nil
}

// AppendText appends a JSON string of a text, in which what is not UTF-8 is replaced.
func AppendText(dst []byte, text string) []byte {
	return jsontensor.AppendText(dst, strings.ToValidUTF8(text, "\uFFFD"))
}

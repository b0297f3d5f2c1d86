package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/onnxruntime"
)

// source names the origin of a signature.
const source = "ONNX model"

var datatypes = map[onnxruntime.ElementType]engine.Datatype{ //nolint:gochecknoglobals // a constant table
	onnxruntime.Bool: engine.Bool, onnxruntime.Uint8: engine.Uint8, onnxruntime.Uint16: engine.Uint16, onnxruntime.Uint32: engine.Uint32,
	onnxruntime.Uint64: engine.Uint64, onnxruntime.Int8: engine.Int8, onnxruntime.Int16: engine.Int16, onnxruntime.Int32: engine.Int32,
	onnxruntime.Int64: engine.Int64, onnxruntime.Float16: engine.FP16, onnxruntime.BFloat16: engine.BF16, onnxruntime.Float: engine.FP32,
	onnxruntime.Double: engine.FP64, onnxruntime.String: engine.Bytes,
}

var elementTypes = func() map[engine.Datatype]onnxruntime.ElementType { //nolint:gochecknoglobals // a constant table
	reverse := map[engine.Datatype]onnxruntime.ElementType{}
	for element, datatype := range datatypes {
		reverse[datatype] = element
	}
	return reverse
}()

// describe makes the signature. Its error is a model that this engine cannot serve.
func (m *model) describe() error {
	s := engine.Signature{Source: source}
	for _, info := range m.session.Inputs() {
		datatype, known := datatypes[info.Type]
		if info.Kind != onnxruntime.KindTensor || !known {
			return fmt.Errorf("input '%s' of the model is no tensor of numbers, booleans or texts: engine onnx cannot serve it", info.Name)
		}
		s.Inputs = append(s.Inputs, engine.TensorSpec{Name: info.Name, Datatype: datatype, Shape: info.Shape})
	}
	for _, info := range m.session.Outputs() {
		spec := engine.TensorSpec{Name: info.Name, Shape: info.Shape}
		tensor := &info
		switch {
		case isMaps(info):
			tensor, spec.Shape = info.Element.Element, []int64{-1, -1}
		case info.Kind == onnxruntime.KindSequence:
			tensor, spec.Shape = info.Element, nil
		}
		var known bool
		if spec.Datatype, known = datatypes[tensor.Type]; tensor.Kind != onnxruntime.KindTensor || !known {
			return fmt.Errorf("output '%s' of the model is neither a tensor, nor a sequence of tensors or maps: engine onnx cannot serve it", info.Name)
		}
		s.Outputs = append(s.Outputs, spec)
	}
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		return errors.New("the model has no inputs, or no outputs")
	}
	s.Table = jsontensor.IsTable(s.Inputs)
	m.signature = s
	m.keys = make([]keysOf, len(s.Outputs))
	return nil
}

// isMaps reports whether an output is a sequence of maps, one for each row, as of a classifier.
func isMaps(info onnxruntime.Info) bool {
	return info.Kind == onnxruntime.KindSequence && info.Element.Kind == onnxruntime.KindMap && info.Element.Element != nil
}

// batchable fails if rows of requests cannot be computed together.
func (m *model) batchable() error {
	for what, infos := range map[string][]onnxruntime.Info{"input": m.session.Inputs(), "output": m.session.Outputs()} {
		for _, info := range infos {
			if isMaps(info) {
				continue
			}
			if info.Kind != onnxruntime.KindTensor || len(info.Shape) == 0 || info.Shape[0] >= 0 {
				return fmt.Errorf("max_batch_size: %s '%s' of the model has no first dimension of any length, so requests cannot be computed together", what, info.Name)
			}
		}
	}
	return nil
}

// order returns tensors in the order of the model's inputs, checked against them.
func (m *model) order(tensors []engine.Tensor) ([]engine.Tensor, error) {
	inputs := m.signature.Inputs
	in := make([]engine.Tensor, len(inputs))
	for _, t := range tensors {
		i := slices.IndexFunc(inputs, func(s engine.TensorSpec) bool { return s.Name == t.Name })
		switch {
		case i < 0:
			var names []string
			for _, s := range inputs {
				names = append(names, "'"+s.Name+"'")
			}
			return nil, fmt.Errorf("the model has no input '%s': its inputs are %s", t.Name, strings.Join(names, ", "))
		case in[i].Datatype != "":
			return nil, fmt.Errorf("input '%s' is there twice", t.Name)
		case t.Datatype != inputs[i].Datatype:
			return nil, fmt.Errorf("input '%s' is of type %s: the model takes %s", t.Name, t.Datatype, inputs[i].Datatype)
		case !jsontensor.Fits(t.Shape, inputs[i].Shape):
			return nil, fmt.Errorf("input '%s' has the shape %v: the model takes %s", t.Name, t.Shape, jsontensor.ShapeText(inputs[i].Shape))
		}
		if t.Datatype == engine.Bytes {
			if err := valid(t); err != nil {
				return nil, err
			}
		}
		in[i] = t
	}
	var missing []string
	for i := range in {
		if in[i].Datatype == "" {
			missing = append(missing, "'"+inputs[i].Name+"'")
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("the request has no input %s", strings.Join(missing, ", "))
	}
	return in, nil
}

// valid refuses texts that are not UTF-8, which those of ONNX are.
func valid(t engine.Tensor) error {
	for i, rest := 0, t.Data; len(rest) >= 4; i++ {
		n := uint64(binary.LittleEndian.Uint32(rest))
		if n > uint64(len(rest)-4) {
			break // the run says how much is missing
		}
		if !utf8.Valid(rest[4 : 4+n]) {
			return fmt.Errorf("input '%s', element %d, is not valid UTF-8, as texts of ONNX are", t.Name, i)
		}
		rest = rest[4+n:]
	}
	return nil
}

// output appends the tensors of output i: one, or one for each element of a sequence of tensors.
func (m *model) output(to []engine.Tensor, i int, v *onnxruntime.Value) ([]engine.Tensor, error) {
	name := m.signature.Outputs[i].Name
	if v.Kind == onnxruntime.KindTensor {
		return append(to, engine.Tensor{Name: name, Datatype: datatypes[v.Type], Shape: v.Shape, Data: v.Data}), nil
	}
	if isMaps(m.session.Outputs()[i]) {
		t, err := m.table(i, v.Elements)
		if err != nil {
			return nil, fmt.Errorf("output '%s': %w", name, err)
		}
		t.Name = name
		return append(to, t), nil
	}
	for k, e := range v.Elements {
		if e.Kind != onnxruntime.KindTensor {
			return nil, fmt.Errorf("output '%s' is no sequence of tensors", name)
		}
		to = append(to, engine.Tensor{Name: elementName(name, k), Datatype: datatypes[e.Type], Shape: e.Shape, Data: e.Data})
	}
	return to, nil
}

func elementName(name string, k int) string { return name + "[" + strconv.Itoa(k) + "]" }

var errKeys = errors.New("its maps have different keys, which have no form as a tensor")

// table makes a tensor of maps, with a row for each map and a column for each key.
func (m *model) table(i int, maps []onnxruntime.Value) (engine.Tensor, error) {
	datatype := m.signature.Outputs[i].Datatype
	known := m.keys[i].Load()
	width := int64(0)
	if known != nil {
		width = int64(len(*known))
	}
	t := engine.Tensor{Datatype: datatype, Shape: []int64{int64(len(maps)), width}}
	for _, row := range maps {
		keys, values := row.Elements[0], row.Elements[1]
		if known == nil {
			names, err := keyNames(keys)
			if err != nil {
				return t, err
			}
			m.keys[i].CompareAndSwap(nil, &names)
			known = m.keys[i].Load()
			t.Shape[1] = int64(len(*known))
		}
		if !sameKeys(keys, *known) {
			return t, errKeys
		}
		t.Data = append(t.Data, values.Data...)
	}
	return t, nil
}

func keyNames(keys onnxruntime.Value) ([]string, error) {
	var names []string
	switch keys.Type { //nolint:exhaustive // keys of ONNX are whole numbers or texts
	case onnxruntime.Int64:
		for rest := keys.Data; len(rest) >= 8; rest = rest[8:] {
			names = append(names, strconv.FormatInt(int64(binary.LittleEndian.Uint64(rest)), 10)) //nolint:gosec // its bits
		}
	case onnxruntime.String:
		for rest := keys.Data; len(rest) >= 4; {
			n := 4 + int(binary.LittleEndian.Uint32(rest))
			names = append(names, string(rest[4:n]))
			rest = rest[n:]
		}
	default:
		return nil, fmt.Errorf("its maps have keys of type %d", keys.Type)
	}
	return names, nil
}

func sameKeys(keys onnxruntime.Value, names []string) bool {
	got, err := keyNames(keys)
	return err == nil && slices.Equal(got, names)
}

// answer is the JSON of outputs: that of a single one, or an object by their names.
func (m *model) answer(out []engine.Tensor) *engine.Response {
	var body []byte
	var err error
	single := len(m.signature.Outputs) == 1
	if !single {
		body = append(body, '{')
	}
	for i, spec := range m.signature.Outputs {
		if !single {
			if i > 0 {
				body = append(body, ',')
			}
			body = append(jsontensor.AppendText(body, spec.Name), ':')
		}
		if body, out, err = m.print(body, i, out); err != nil {
			return jsontensor.Unprintable(err)
		}
	}
	if !single {
		body = append(body, '}')
	}
	return &engine.Response{Status: 200, ContentType: jsontensor.ContentType, Body: body}
}

// print appends output i, and returns the tensors of the others.
func (m *model) print(body []byte, i int, out []engine.Tensor) ([]byte, []engine.Tensor, error) {
	info := m.session.Outputs()[i]
	if info.Kind == onnxruntime.KindTensor {
		body, err := jsontensor.AppendTensor(body, &out[0], m.nanAsNull)
		return body, out[1:], err
	}
	if isMaps(info) {
		body, err := m.printMaps(body, i, &out[0])
		return body, out[1:], err
	}
	body = append(body, '[')
	for k := 0; len(out) > 0 && out[0].Name == elementName(info.Name, k); k++ {
		if k > 0 {
			body = append(body, ',')
		}
		var err error
		if body, err = jsontensor.AppendTensor(body, &out[0], m.nanAsNull); err != nil {
			return body, out, err
		}
		out = out[1:]
	}
	return append(body, ']'), out, nil
}

func (m *model) printMaps(body []byte, i int, t *engine.Tensor) ([]byte, error) {
	var keys []string
	if known := m.keys[i].Load(); known != nil {
		keys = *known
	}
	size := t.Datatype.Size()
	body = append(body, '[')
	for row := range t.Shape[0] {
		if row > 0 {
			body = append(body, ',')
		}
		body = append(body, '{')
		for k, key := range keys {
			if k > 0 {
				body = append(body, ',')
			}
			at := (row*t.Shape[1] + int64(k)) * size
			cell := engine.Tensor{Name: t.Name, Datatype: t.Datatype, Data: t.Data[at : at+size]}
			var err error
			if body, err = jsontensor.AppendTensor(append(jsontensor.AppendText(body, key), ':'), &cell, m.nanAsNull); err != nil {
				return body, err
			}
		}
		body = append(body, '}')
	}
	return append(body, ']'), nil
}

// The inputs that are tried at a load: what a dimension of any length is, except the first, and the
// whole numbers in them. Models often need sizes that are multiples of others.
var probes = [...]struct {
	length, whole int64
}{{1, 1}, {1, 0}, {8, 1}, {32, 1}, {64, 1}, {224, 1}, {512, 1}} //nolint:gochecknoglobals // a constant table

// mostProbed bounds an input that is tried.
const mostProbed = 64 << 20

// probe makes the inputs of a probe; ok is false if they are too large.
func probe(inputs []engine.TensorSpec, number int) (in []engine.Tensor, ok bool) {
	p := probes[number]
	for _, spec := range inputs {
		elements := int64(1)
		shape := slices.Clone(spec.Shape)
		for d, n := range shape {
			if n < 0 {
				if shape[d] = p.length; d == 0 {
					shape[d] = 1
				}
			}
			if elements *= shape[d]; elements > mostProbed {
				return nil, false
			}
		}
		t := engine.Tensor{Name: spec.Name, Datatype: spec.Datatype, Shape: shape}
		for range elements {
			t.Data = appendProbe(t.Data, spec.Datatype, p.whole)
		}
		in = append(in, t)
	}
	return in, true
}

func appendProbe(b []byte, datatype engine.Datatype, whole int64) []byte {
	switch datatype { //nolint:exhaustive // others are whole numbers
	case engine.Bytes:
		return append(b, 1, 0, 0, 0, 'a')
	case engine.FP32:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(whole)))
	case engine.FP64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(whole)))
	case engine.FP16:
		return binary.LittleEndian.AppendUint16(b, 0x3c00*uint16(whole)) //nolint:gosec // 0 or 1
	case engine.BF16:
		return binary.LittleEndian.AppendUint16(b, 0x3f80*uint16(whole)) //nolint:gosec // 0 or 1
	}
	var word [8]byte
	word[0] = byte(whole) //nolint:gosec // 0 or 1
	return append(b, word[:datatype.Size()]...)
}

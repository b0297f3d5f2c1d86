package jsontensor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
)

func spec(name string, kind engine.Datatype, shape ...int64) engine.TensorSpec {
	return engine.TensorSpec{Name: name, Datatype: kind, Shape: shape}
}

// everyType has an input of each type.
func everyType() []engine.TensorSpec {
	return []engine.TensorSpec{
		spec("BOOL", engine.Bool, -1), spec("INT8", engine.Int8, -1), spec("INT16", engine.Int16, -1), spec("INT32", engine.Int32, -1), spec("INT64", engine.Int64, -1),
		spec("UINT8", engine.Uint8, -1), spec("UINT16", engine.Uint16, -1), spec("UINT32", engine.Uint32, -1), spec("UINT64", engine.Uint64, -1),
		spec("FP16", engine.FP16, -1), spec("BF16", engine.BF16, -1), spec("FP32", engine.FP32, -1), spec("FP64", engine.FP64, -1), spec("BYTES", engine.Bytes, -1),
	}
}

// printed writes tensors as an object.
func printed(t *testing.T, tensors []engine.Tensor) string {
	t.Helper()
	b := []byte("{")
	for i := range tensors {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = AppendTensor(append(AppendText(b, tensors[i].Name), ':'), &tensors[i], true); err != nil {
			t.Fatal(err)
		}
	}
	return string(append(b, '}'))
}

func TestTensorsOfEveryTypeAreReadAndWritten(t *testing.T) {
	const body = `{"BOOL":[true,false],"INT8":[-128,127],"INT16":[-32768,32767],"INT32":[-2147483648,2147483647],` +
		`"INT64":[-9223372036854775808,9223372036854775807],"UINT8":[0,255],"UINT16":[0,65535],"UINT32":[0,4294967295],` +
		`"UINT64":[0,18446744073709551615],"FP16":[0.5,65504.0],"BF16":[-0.5,1.0],"FP32":[0.10000000149011612,null],` +
		`"FP64":[0.1,1e+300],"BYTES":["","grün \"x\"\n"]}`
	tensors, err := Tensors([]byte(body), everyType())
	if err != nil {
		t.Fatal(err)
	}
	if got := printed(t, tensors); got != body {
		t.Errorf("%s\n%s", got, body)
	}
}

func TestNumbersThatATypeCannotHoldAreRefused(t *testing.T) {
	for _, s := range everyType() {
		wrong := map[engine.Datatype]string{
			engine.Bool: `1|null|"true"`, engine.Int8: `128|-129|1.5|"1"|null|true|01|1e3`, engine.Int16: `32768`, engine.Int32: `2147483648|3e9`,
			engine.Int64: `9223372036854775808|-9223372036854775809|1e19|9223372036854775808.0`, engine.Uint8: `256|-1|-1.0`, engine.Uint16: `65536`, engine.Uint32: `4294967296`,
			engine.Uint64: `18446744073709551616|-1|2e19`, engine.FP16: `"1"|true|{}|NaN|.5|1.|65520|-1e39`, engine.BF16: `[1]|3.4e38|1e39`, engine.FP32: `1e|-|3.5e38|-1e39`, engine.FP64: `1e400`, engine.Bytes: `1|null`,
		}[s.Datatype]
		for value := range strings.SplitSeq(wrong, "|") {
			for _, body := range []string{"[" + value + "]", `{"` + s.Name + `":[` + value + `]}`} {
				tensors, err := Tensors([]byte(body), []engine.TensorSpec{s})
				if _, ok := errors.AsType[*BodyError](err); !ok {
					t.Errorf("%s of %s: %+v, %v", body, s.Datatype, tensors, err)
				}
			}
		}
	}
	for _, text := range []string{"1.0", "1e0", "10e-1"} { // whole numbers, written otherwise
		if tensors, err := Tensors([]byte("["+text+"]"), []engine.TensorSpec{spec("x", engine.Int8, -1)}); err != nil || tensors[0].Data[0] != 1 {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestShapesOfBodies(t *testing.T) {
	x := []engine.TensorSpec{spec("x", engine.FP32, -1, 2)}
	column := []engine.TensorSpec{spec("a", engine.FP32, -1, 1), spec("b", engine.Int64, -1)}
	for _, tc := range []struct {
		inputs []engine.TensorSpec
		body   string
		shapes string // or the begin of the error
	}{
		{x, `[[1,2],[3,4],[5,6]]`, "[[3 2]]"},
		{x, `[]`, "[[0 2]]"},
		{x, `{"x":[]}`, "[[0 2]]"},
		{x, `[[]]`, "input 'x' has the shape [1 0]: the model takes [? 2]"},
		{x, `[1,2]`, "input 'x' has the shape [2]"},
		{x, `[[[1,2]]]`, "input 'x' has the shape [1 1 2]"},
		{x, `[[1,2],[3]]`, "input 'x': its lists"},
		{x, `[[1,2],3]`, "input 'x': its lists"},
		{x, `[1,[2,3]]`, "input 'x': its lists"},
		{x, `[[],[1,2]]`, "input 'x': its lists"},
		{x, strings.Repeat("[", 10_000), "input 'x': its lists"},
		{x, `[[1,2]`, "Expecting ',' delimiter"},
		{x, `[[1 2]]`, "Expecting ',' delimiter"},
		{x, `{"x" [[1,2]]}`, "Expecting ':' delimiter"},
		{x, `{x: 1}`, "Expecting property name"},
		{x, `{"x":[[1,2]],}`, "Expecting property name"},
		{x, `{"x":[[1,2]]} {}`, "Extra data"},
		{x, "{\"\xff\":1}", "Invalid text"},
		{x, `   `, "the body is empty"},
		{x, `{"y":1}`, "the model has no input 'y'"},
		{column, `{"a":1,"b":2}`, "[[1 1] [1]]"},
		{column, `[{"a":1,"b":2},{"b":3,"a":null}]`, "[[2 1] [2]]"},
		{column, `{"a":[1,2],"b":[3,4]}`, "[[2 1] [2]]"},
		{column, `{"a":[[1],[2]],"b":[3,4]}`, "[[2 1] [2]]"},
		{column, `{"a":1,"b":[2]}`, "input 'a' has the shape []"},
		{column, `[{"a":1,"b":2},3]`, "row 1 is no record"},
		{column, `[{"a":1,"b":2},{"a":1}]`, "row 1 has no 'b'"},
		{column, `[{"a":1,"b":[2]}]`, "input 'b', value 0 (of type INT64) is a list"},
		{column, `[[1,2]]`, "the body is not an object"},
		{[]engine.TensorSpec{spec("s", engine.Int64)}, `7`, "[[]]"},
		{[]engine.TensorSpec{{Name: "free", Datatype: engine.FP64}}, `[[[1],[2]]]`, "[[1 2 1]]"},
	} {
		tensors, err := Tensors([]byte(tc.body), tc.inputs)
		var shapes [][]int64
		for _, tensor := range tensors {
			shapes = append(shapes, tensor.Shape)
		}
		got := fmt.Sprint(shapes)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tc.shapes) {
			t.Errorf("%.60s: %s, want %s", tc.body, got, tc.shapes)
		}
	}
}

func TestNumbersOf16BitsAreThoseOfTheirStandards(t *testing.T) {
	for bits := range 1 << 16 {
		h := uint16(bits)
		v := Float16(h)
		if math.IsNaN(v) {
			continue
		}
		if got := float16(v); got != h {
			t.Fatalf("%#x is %v, which is %#x", h, v, got)
		}
		b := math.Float32frombits(uint32(h) << 16)
		if got := bfloat16(b); b == b && got != h {
			t.Fatalf("%#x is %v, which is %#x", h, b, got)
		}
	}
	for v, want := range map[float64]uint16{1: 0x3c00, 65504: 0x7bff, 65519.9: 0x7bff, 65520: 0x7c00, math.Inf(-1): 0xfc00, 1.0 / 3: 0x3555, math.Ldexp(1, -24): 1, math.Ldexp(1, -25): 0, math.Ldexp(1.5, -25): 1, 2049: 0x6800, 2051: 0x6802} {
		if got := float16(v); got != want {
			t.Errorf("%v: %#x, want %#x", v, got, want)
		}
	}
	if h := float16(math.NaN()); !math.IsNaN(Float16(h)) {
		t.Errorf("%#x", h)
	}
}

func TestATensorWithoutElementsIsNoEndlessText(t *testing.T) {
	for _, tc := range []struct {
		shape []int64
		want  string
	}{
		{[]int64{0}, "[]"},
		{[]int64{2, 0}, "[[],[]]"},
		{[]int64{0, 1 << 62}, "[]"},
		{[]int64{1, 2, 0, 1 << 62}, "[[[],[]]]"},
		{[]int64{1 << 62, 0}, ""},
		{[]int64{1 << 62, 1 << 62, 0}, ""},
		{[]int64{1 << 10, 1<<10 + 1, 0}, ""},
	} {
		b, err := AppendTensor(nil, &engine.Tensor{Name: "y", Datatype: engine.FP32, Shape: tc.shape}, false)
		if _, refused := errors.AsType[*AnswerError](err); string(b) != tc.want || refused != (tc.want == "") {
			t.Errorf("%v: %.40s, %v", tc.shape, b, err)
		}
	}
}

func TestValuesWithoutAFormInJSONAreNamed(t *testing.T) {
	infinite := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(math.Inf(1))))
	for name, tc := range map[string]struct {
		t    engine.Tensor
		want string
	}{
		"infinite": {engine.Tensor{Name: "y", Datatype: engine.FP32, Shape: []int64{1}, Data: infinite}, "output 'y': a value is an infinite number, which JSON cannot say: set --aux-config nan_as_null=true"},
		"no UTF-8": {engine.Tensor{Name: "y", Datatype: engine.Bytes, Shape: []int64{1}, Data: []byte{1, 0, 0, 0, 0xff}}, "not valid UTF-8"},
		"short":    {engine.Tensor{Name: "y", Datatype: engine.FP32, Shape: []int64{2}, Data: infinite}, "shorter"},
		"cut text": {engine.Tensor{Name: "y", Datatype: engine.Bytes, Shape: []int64{1}, Data: []byte{9, 0, 0, 0}}, "shorter"},
		"no type":  {engine.Tensor{Name: "y", Datatype: "QUANTUM", Shape: []int64{1}}, "no form in JSON"},
	} {
		_, err := AppendTensor(nil, &tc.t, name != "infinite")
		if _, ok := errors.AsType[*AnswerError](err); !ok || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzTensors compares what is read with encoding/json: what it refuses is no JSON or another shape.
func FuzzTensors(f *testing.F) {
	for _, body := range []string{`[[1,2.5]]`, `{"x":[[1,null]],"s":["a","\u00fc"]}`, `{"x":[],"s":[]}`, `[{"x":1,"s":"a"}]`, `{"x":1,"s":"\ud800"}`, `[[[]]]`, `{"s":[],"x":[[1e2,-0]]}`} {
		f.Add([]byte(body), true)
		f.Add([]byte(body), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, two bool) {
		inputs := []engine.TensorSpec{{Name: "x", Datatype: engine.FP64}}
		if two {
			inputs = []engine.TensorSpec{spec("x", engine.FP64, -1, 1), spec("s", engine.Bytes, -1)}
		}
		tensors, err := Tensors(body, inputs)
		if err != nil {
			if _, ok := errors.AsType[*BodyError](err); !ok || err.Error() == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		var parsed any
		if err := json.Unmarshal(body, &parsed); err != nil {
			t.Fatalf("%q is read, but no JSON: %v", body, err)
		}
		for i, tensor := range tensors {
			elements := int64(1)
			for _, n := range tensor.Shape {
				elements *= n
			}
			if size := tensor.Datatype.Size(); size > 0 && int64(len(tensor.Data)) != elements*size {
				t.Fatalf("%q: %d bytes for the shape %v", body, len(tensor.Data), tensor.Shape)
			}
			b, err := AppendTensor(nil, &tensors[i], true)
			if err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			again, err := Tensors(b, inputs[i:i+1])
			if err != nil || !reflect.DeepEqual(bits(again[0]), bits(tensor)) {
				t.Fatalf("%q: %s: %v, %v, %v", body, b, err, again, tensor)
			}
		}
	})
}

// bits are a tensor's shape and data, with one form of NaN.
func bits(t engine.Tensor) string {
	data := slices.Clone(t.Data)
	if t.Datatype == engine.FP64 {
		for i := 0; i < len(data); i += 8 {
			if math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(data[i:]))) {
				binary.LittleEndian.PutUint64(data[i:], math.Float64bits(math.NaN()))
			}
		}
	}
	return fmt.Sprintf("%v %x", t.Shape, data)
}

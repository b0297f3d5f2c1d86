package v2_test

import (
	"math"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

func tensor(name string, d engine.Datatype, values any, shape ...int64) engine.Tensor {
	return engine.Tensor{Name: name, Datatype: d, Shape: shape, Data: little(values)}
}

func TestTensorsFitTheSignature(t *testing.T) {
	table := engine.Signature{Table: true, Inputs: []engine.TensorSpec{
		{Name: "a", Datatype: engine.FP64, Shape: []int64{-1, 1}},
		{Name: "b", Datatype: engine.Int64, Shape: []int64{-1, 1}},
		{Name: "c", Datatype: engine.FP64, Shape: []int64{-1, 1}, Optional: true},
	}}
	unnamed := engine.Signature{Inputs: []engine.TensorSpec{{Name: engine.Unnamed, Datatype: engine.FP64, Shape: []int64{-1, 2}}}}
	settings := engine.Signature{Source: engine.SourceSettings, Inputs: []engine.TensorSpec{{Name: "x", Shape: []int64{2}}}}
	read := engine.Signature{Inputs: settings.Inputs}
	a, b := tensor("a", engine.FP32, []float32{1.5, 2}, 2), tensor("b", engine.Uint32, []uint32{7, math.MaxUint32}, 2, 1)
	for name, tc := range map[string]struct {
		signature engine.Signature
		tensors   []engine.Tensor
		want      []engine.Tensor // the data of nil is not compared
		refusal   string
	}{
		"columns":             {table, []engine.Tensor{a, b}, []engine.Tensor{tensor("a", engine.FP64, []float64{1.5, 2}, 2), tensor("b", engine.Int64, []int64{7, math.MaxUint32}, 2, 1)}, ""},
		"columns, other way":  {table, []engine.Tensor{b, a}, []engine.Tensor{tensor("b", engine.Int64, []int64{7, math.MaxUint32}, 2, 1), tensor("a", engine.FP64, []float64{1.5, 2}, 2)}, ""},
		"all columns":         {table, []engine.Tensor{tensor("rows", engine.Int8, []int8{1, 2, 3}, 1, 3)}, []engine.Tensor{tensor("rows", engine.Int8, []int8{1, 2, 3}, 1, 3)}, ""},
		"a column is missing": {table, []engine.Tensor{a}, nil, "the input 'b' is missing; the model takes 'a', 'b', 'c'"},
		"rows":                {table, []engine.Tensor{a, tensor("b", engine.Int64, []int64{1}, 1)}, nil, "input 'b' has 1 rows, but 'a' has 2"},
		"no column":           {table, []engine.Tensor{a, tensor("b", engine.Int64, []int64{1, 2, 3, 4}, 2, 2)}, nil, "input 'b': its shape is [2,2], but a column has the shape [n] or [n,1]"},
		"a fraction":          {table, []engine.Tensor{a, tensor("b", engine.FP64, []float64{1, 2}, 2)}, nil, "input 'b': its datatype is FP64, but the model takes INT64"},
		"a text":              {table, []engine.Tensor{{Name: "a", Datatype: engine.Bytes, Shape: []int64{1}, Data: []byte{0, 0, 0, 0}}, b}, nil, "input 'a': its datatype is BYTES, but the model takes FP64"},
		"too large":           {table, []engine.Tensor{a, tensor("b", engine.Uint64, []uint64{1, 1 << 63}, 2)}, nil, "input 'b': its element 1 is 9223372036854775808, which is out of the range of the model's INT64"},
		"not exact":           {table, []engine.Tensor{tensor("a", engine.Int64, []int64{-(1<<53 + 1), 0}, 2), b}, nil, "input 'a': its element 0 is -9007199254740993, which is out of the range of the model's FP64"},
		"exact":               {table, []engine.Tensor{tensor("a", engine.Int64, []int64{-(1 << 53), 0}, 2), b}, []engine.Tensor{tensor("a", engine.FP64, []float64{-(1 << 53), 0}, 2), {Name: "b"}}, ""},
		"any name":            {unnamed, []engine.Tensor{tensor("x", engine.FP64, []float64{1, 2}, 1, 2)}, []engine.Tensor{tensor("x", engine.FP64, []float64{1, 2}, 1, 2)}, ""},
		"two of any name":     {unnamed, []engine.Tensor{a, b}, nil, "no input 'a'; it takes 'input-0'"},
		"settings":            {settings, []engine.Tensor{tensor("x", engine.FP64, []float64{1, 2}, 2)}, []engine.Tensor{{Name: "x"}}, ""},
		"settings, a batch":   {settings, []engine.Tensor{tensor("x", engine.FP64, []float64{1, 2, 3, 4}, 2, 2)}, []engine.Tensor{{Name: "x"}}, ""},
		"settings, two more":  {settings, []engine.Tensor{tensor("x", engine.FP64, []float64{1, 2}, 1, 1, 2)}, nil, "its shape is [1,1,2], but the model takes [2]"},
		"a model's, a batch":  {read, []engine.Tensor{tensor("x", engine.FP64, []float64{1, 2, 3, 4}, 2, 2)}, nil, "its shape is [2,2], but the model takes [2]"},
		"nothing is known":    {engine.Signature{}, []engine.Tensor{a}, []engine.Tensor{a}, ""},
	} {
		got, err := v2.Fit(&tc.signature, tc.tensors)
		if tc.refusal != "" {
			if err == nil || !strings.Contains(err.Error(), tc.refusal) {
				t.Errorf("%s: %v, want %s", name, err, tc.refusal)
			}
			continue
		}
		if err != nil || len(got) != len(tc.want) {
			t.Errorf("%s: %v %v", name, got, err)
			continue
		}
		for i, want := range tc.want {
			if got[i].Name != want.Name || want.Data != nil && (string(got[i].Data) != string(want.Data) || got[i].Datatype != want.Datatype) {
				t.Errorf("%s: %+v, want %+v", name, got[i], want)
			}
		}
	}
}

func TestTensorsHaveTheFormOfABody(t *testing.T) {
	a, b := tensor("a", engine.FP32, []float32{1.5, float32(math.NaN())}, 2), engine.Tensor{Name: "b\"", Datatype: engine.Bytes, Shape: []int64{2, 1}, Data: []byte("\x01\x00\x00\x00x\x00\x00\x00\x00")}
	for _, tc := range []struct {
		tensors []engine.Tensor
		table   bool
		want    string
	}{
		{[]engine.Tensor{a, b}, false, `{"a":[1.5,NaN],"b\"":[["x"],[""]]}`},
		{[]engine.Tensor{a, b}, true, `[{"a":1.5,"b\"":"x"},{"a":NaN,"b\"":""}]`},
		{[]engine.Tensor{tensor("m", engine.Int8, []int8{1, 2, 3, 4}, 2, 2)}, true, `{"m":[[1,2],[3,4]]}`},
		{[]engine.Tensor{tensor("s", engine.Bool, []byte{1})}, false, `{"s":true}`},
		{[]engine.Tensor{{Name: "e", Datatype: engine.Int8, Shape: []int64{1 << 40, 0}}}, false, `{"e":[]}`},
	} {
		if got, err := v2.Body(tc.tensors, tc.table); err != nil || string(got) != tc.want {
			t.Errorf("%s, want %s (%v)", got, tc.want, err)
		}
	}
	for _, in := range []engine.Tensor{{Name: "h", Datatype: engine.FP16, Shape: []int64{1}, Data: []byte{0, 0}}, {Name: "h", Datatype: engine.Bytes, Shape: []int64{1}, Data: []byte("\x01\x00\x00\x00\xff")}} {
		for _, table := range []bool{true, false} {
			if got, err := v2.Body([]engine.Tensor{in}, table); err == nil || !strings.Contains(err.Error(), "'h'") {
				t.Errorf("%s %v", got, err)
			}
		}
	}
}

func TestPartsOfJSON(t *testing.T) {
	for body, want := range map[string]string{`{"detail":"a\"b"}`: `a"b`, `{"detail":[1]}`: `{"detail":[1]}`, "plain": "plain", "\xff": "\uFFFD", "": ""} {
		if got := v2.ErrorText([]byte(body)); got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
	for body, want := range map[string]string{`{"a":1,"x":[1, {"x":2}] }`: `[1, {"x":2}]`, `{"y":1}`: "", `[1]`: "", `{"x":1} 2`: "", `{"x":`: ""} {
		if got, ok := v2.Member([]byte(body), "x"); string(got) != want || ok != (want != "") {
			t.Errorf("%q: %q %t, want %q", body, got, ok, want)
		}
	}
	for text, want := range map[string]bool{"[NaN, null]": true, `{"a":"b"}`: true, "": false, "1 2": false, "{a:1}": false, `"` + "\xff" + `"`: false} {
		if got := v2.IsJSON([]byte(text)); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	if got := string(v2.ErrorBody("a\"\n\x00\xff")); got != `{"error":"a\"\n\u0000`+"\uFFFD"+`"}` {
		t.Errorf("%s", got)
	}
}

package engine_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

func TestASignatureIsReadFromAnEndpointsSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		size  string
		types []string
		names []string
		want  []engine.TensorSpec // nil: invalid
	}{
		"nothing":           {"null", nil, nil, []engine.TensorSpec{}},
		"one":               {"[[-1, 4]]", []string{"float32"}, []string{"x"}, []engine.TensorSpec{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 4}}}},
		"one, not in lists": {"[1, 4]", []string{"TYPE_FP32"}, []string{"x"}, []engine.TensorSpec{{Name: "x", Datatype: engine.FP32, Shape: []int64{1, 4}}}},
		"two": {"[[2], []]", []string{"int64", "string"}, []string{"a", "b"}, []engine.TensorSpec{
			{Name: "a", Datatype: engine.Int64, Shape: []int64{2}}, {Name: "b", Datatype: engine.Bytes, Shape: []int64{}},
		}},
		"without names": {"[[2]]", []string{"bool"}, nil, []engine.TensorSpec{{Name: "input-0", Datatype: engine.Bool, Shape: []int64{2}}}},
		"unknown type":  {"[[2]]", []string{"quantum"}, nil, []engine.TensorSpec{{Name: "input-0", Shape: []int64{2}}}},
		"a type alone":  {"null", []string{"half"}, nil, []engine.TensorSpec{{Name: "input-0", Datatype: engine.FP16}}},
		"no dimension":  {`[["two"]]`, nil, nil, nil},
		"less than any": {"[[-2]]", nil, nil, nil},
	} {
		var size []any
		if err := json.Unmarshal([]byte(tc.size), &size); err != nil {
			t.Fatal(err)
		}
		got, err := engine.SignatureOf(serving.Tensors{InputSize: size, InputType: tc.types, InputName: tc.names})
		if (err != nil) != (tc.want == nil) {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && (!reflect.DeepEqual(got.Inputs, tc.want) || len(got.Outputs) != 0 || got.Source != engine.SourceSettings) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

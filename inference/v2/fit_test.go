package v2_test

import (
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

func TestARequestNamesTheInputsOfTheSignature(t *testing.T) {
	tensor := func(name string, d engine.Datatype, shape ...int64) engine.Tensor {
		count := int64(1)
		for _, n := range shape {
			count *= n
		}
		return engine.Tensor{Name: name, Datatype: d, Shape: shape, Data: make([]byte, count*d.Size())}
	}
	table := engine.Signature{Table: true, Source: engine.SourceModel, Inputs: []engine.TensorSpec{
		{Name: "area", Datatype: engine.FP64, Shape: []int64{-1, 1}}, {Name: "rooms", Datatype: engine.Int64, Shape: []int64{-1, 1}, Optional: true},
	}}
	rows := engine.Signature{Source: engine.SourceModel, Inputs: []engine.TensorSpec{{Name: engine.Unnamed, Datatype: engine.FP64, Shape: []int64{-1, 4}}}}
	named := engine.Signature{Source: engine.SourceSettings, Inputs: []engine.TensorSpec{{Name: "x", Datatype: engine.FP64, Shape: []int64{-1, 4}}}}
	for name, tc := range map[string]struct {
		signature engine.Signature
		tensors   []engine.Tensor
		wrong     string // "": it fits
	}{
		"columns":             {table, []engine.Tensor{tensor("rooms", engine.Int64, 2), tensor("area", engine.FP32, 2, 1)}, ""},
		"all side by side":    {table, []engine.Tensor{tensor("rows", engine.FP64, 3, 2)}, ""},
		"a misspelled column": {table, []engine.Tensor{tensor("rooms", engine.Int64, 2), tensor("aera", engine.FP32, 2)}, "the model has no input 'aera' (did you mean 'area'?); it takes 'area', 'rooms'"},
		"not a missing one":   {table, []engine.Tensor{tensor("area", engine.FP64, 2), tensor("aera", engine.FP32, 2)}, "the model has no input 'aera'; it takes"},
		"a missing column":    {table, []engine.Tensor{tensor("rooms", engine.Int64, 2)}, "the input 'area' is missing"},
		"a made-up name":      {rows, []engine.Tensor{tensor("predict", engine.FP32, 2, 4)}, ""},
		"two of them":         {rows, []engine.Tensor{tensor("a", engine.FP32, 2, 4), tensor("b", engine.FP32, 2, 4)}, "the model has no input 'a'"},
		"its shape counts":    {rows, []engine.Tensor{tensor("predict", engine.FP32, 2, 5)}, "its shape is"},
		"a name of settings":  {named, []engine.Tensor{tensor("y", engine.FP64, 2, 4)}, "the model has no input 'y'; it takes 'x'"},
	} {
		got, err := v2.Fit(&tc.signature, tc.tensors)
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s: %v, want %q", name, err, tc.wrong)
		}
		if err == nil && len(got) != len(tc.tensors) {
			t.Errorf("%s: %d tensors", name, len(got))
		}
	}
}

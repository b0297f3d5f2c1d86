package mar

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"clearmlserving/serving"
)

//go:embed handler.py
var tensorHandler []byte

// torchTypes are torch's names of numpy's types.
var torchTypes = map[string]string{
	"bool": "bool", "bool_": "bool", "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64", "uint8": "uint8", "int": "int64",
	"float16": "float16", "half": "float16", "float32": "float32", "single": "float32", "float64": "float64", "double": "float64", "float": "float64",
}

// TensorHandler is the handler of a model without one, and its file tensors.json: the names and types of inputs and
// outputs as the endpoint's settings have them. Without them there is one input of float32.
func TensorHandler(t serving.Tensors) (handler, tensors []byte) {
	type input struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	inputs := []input{}
	for i := range max(len(t.InputName), len(t.InputType), 1) {
		in := input{fmt.Sprintf("input-%d", i), "float32"}
		if i < len(t.InputName) {
			in.Name = t.InputName[i]
		}
		if i < len(t.InputType) && torchTypes[t.InputType[i]] != "" {
			in.Type = torchTypes[t.InputType[i]]
		}
		inputs = append(inputs, in)
	}
	outputs := t.OutputName
	if outputs == nil {
		outputs = []string{}
	}
	text, _ := json.Marshal(map[string]any{"inputs": inputs, "outputs": outputs}) // texts alone
	return tensorHandler, text
}

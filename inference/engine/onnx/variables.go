package onnx

import (
	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
)

// SetVariables implements engine.VariableSetter.
func (m *model) SetVariables(names []string) error {
	m.variables.Store(&names)
	return nil
}

// stats are the sampled request's variables: inputs and outputs by their names, the output if both have
// the name.
func (m *model) stats(req *engine.Request, in, out []engine.Tensor) []byte {
	names := m.variables.Load()
	if !req.Sampled || names == nil {
		return nil
	}
	return jsontensor.Variables(*names, in, out)
}

package serving

import "strings"

// The settings of the engine onnx in an endpoint's auxiliary configuration, beside those for batching
// and AuxNaNAsNull.
const (
	AuxThreads   = "threads"   // --aux-config threads=4
	AuxProviders = "providers" // --aux-config providers=CUDAExecutionProvider
)

// ONNX are the settings of an endpoint of the engine onnx.
type ONNX struct {
	// Threads compute one request together.
	Threads int
	// Providers are ONNX Runtime's execution providers, in order of preference; the CPU's is added.
	Providers []string
}

const mostThreads = 256

// ONNXOf reads the settings of the engine onnx. The error is a *FieldError. Other engines have none.
func ONNXOf(engine string, aux any) (ONNX, error) {
	o := ONNX{Threads: 1}
	if engine != EngineONNX {
		return o, nil
	}
	settings, err := pythonSettings(engine, aux, AuxThreads, AuxProviders)
	if err != nil {
		return o, err
	}
	if value, set := settings[AuxThreads]; set {
		if o.Threads, err = wholeNumber(value, 1, mostThreads, auxField(AuxThreads)); err != nil {
			return o, err
		}
	}
	value, set := settings[AuxProviders]
	if !set {
		return o, nil
	}
	for _, name := range words(value) {
		if !strings.HasSuffix(name, "ExecutionProvider") {
			return o, &FieldError{Field: auxField(AuxProviders), Value: shownValue(name), Why: "is no name of an execution provider: give CUDAExecutionProvider, for example"}
		}
		o.Providers = append(o.Providers, name)
	}
	if len(o.Providers) == 0 {
		return o, &FieldError{Field: auxField(AuxProviders), Value: shownValue(value), Why: "names no execution provider: give CUDAExecutionProvider, for example"}
	}
	return o, nil
}

package serving_test

import (
	"errors"
	"slices"
	"testing"

	"clearmlserving/serving"
)

func TestSettingsOfTheEngineONNXAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		engine    string
		aux       any
		threads   int
		providers []string
		wrong     string // the field
	}{
		"none":                  {"onnx", nil, 1, nil, ""},
		"threads":               {"onnx", map[string]any{"threads": "4"}, 4, nil, ""},
		"text of a config":      {"onnx", "threads: 2\nproviders: \"CUDAExecutionProvider\"", 2, []string{"CUDAExecutionProvider"}, ""},
		"one provider":          {"onnx", map[string]any{"providers": `"CUDAExecutionProvider"`}, 1, []string{"CUDAExecutionProvider"}, ""},
		"a list":                {"onnx", map[string]any{"providers": []any{"TensorrtExecutionProvider", "CUDAExecutionProvider"}}, 1, []string{"TensorrtExecutionProvider", "CUDAExecutionProvider"}, ""},
		"a text of several":     {"onnx", map[string]any{"providers": "A_ExecutionProvider, B_ExecutionProvider"}, 1, []string{"A_ExecutionProvider", "B_ExecutionProvider"}, ""},
		"another engine":        {"sklearn", map[string]any{"threads": "many"}, 1, nil, ""},
		"no number":             {"onnx", map[string]any{"threads": "many"}, 0, nil, "auxiliary_cfg.threads"},
		"no thread":             {"onnx", map[string]any{"threads": 0}, 0, nil, "auxiliary_cfg.threads"},
		"no provider":           {"onnx", map[string]any{"providers": "cuda"}, 0, nil, "auxiliary_cfg.providers"},
		"an empty list":         {"onnx", map[string]any{"providers": []any{}}, 0, nil, "auxiliary_cfg.providers"},
		"a text without a form": {"onnx", "threads {", 0, nil, "auxiliary_cfg"},
	} {
		got, err := serving.ONNXOf(c.engine, c.aux)
		field, _ := errors.AsType[*serving.FieldError](err)
		switch {
		case c.wrong == "" && (err != nil || got.Threads != c.threads || !slices.Equal(got.Providers, c.providers)):
			t.Errorf("%s: %+v, %v", name, got, err)
		case c.wrong != "" && (field == nil || field.Field != c.wrong):
			t.Errorf("%s: %v", name, err)
		}
		if e := (serving.Endpoint{EngineType: c.engine, ServingURL: "a", AuxiliaryCfg: c.aux}); (e.Validate() == nil) != (c.wrong == "") {
			t.Errorf("%s: Validate says %v", name, e.Validate())
		}
	}
}

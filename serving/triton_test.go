package serving_test

import (
	"strings"
	"testing"

	"clearmlserving/serving"
)

func TestTritonSettingsThatTheSidecarWritesAreRefused(t *testing.T) {
	pbtxt := `
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1, 28,28 ] } ]
output: { name: "y", data_type: TYPE_STRING dims: [-1] }
`
	for _, tc := range []struct {
		name   string
		engine string
		aux    any
		want   string // "" for no error
	}{
		{"a text without them", serving.EngineTriton, "platform: \"onnxruntime_onnx\"\nmax_batch_size: 4\ninput_pinned: 1", ""},
		{"a text with input and output", serving.EngineTriton, pbtxt, `--input-name "x" --input-type float32 --input-size "[1, 28, 28]" --output-name "y" --output-type str --output-size "[-1]"`},
		{
			"groups that come twice, and marks in texts", serving.EngineTriton,
			`parameters { key: "k" value: { string_value: "{\"output\": [ }" } } # input {
input { name: "a" data_type: TYPE_BOOL dims: 1 dims: 2 } input { name: "b" dims: [ ] }`,
			`--input-name "a" "b" --input-type bool --input-size "[1, 2]" "[]" --output-name ? --output-type ? --output-size ?`,
		},
		{"a word in a text is no group", serving.EngineTriton, `platform: "input { default_model_filename: 1"`, ""},
		{"settings with input", serving.EngineTriton, map[string]any{"input": map[string]any{}}, "--input-name ? --input-type ? --input-size ?"},
		{"a text with a file name", serving.EngineTriton, "default_model_filename: \"model.bin\"", "default_model_filename"},
		{"settings with a file name", serving.EngineTriton, map[string]any{"default_model_filename": "m"}, "added automatically by the system."},
		{"other engines never read them", serving.EngineCustom, pbtxt, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := serving.Endpoint{EngineType: tc.engine, ServingURL: "a", AuxiliaryCfg: tc.aux}
			if tc.engine == serving.EngineTriton {
				e.Tensors = serving.Tensors{InputType: []string{"int8"}, InputSize: []any{1}, InputName: []string{"x"}, OutputType: []string{"int8"}, OutputSize: []any{1}, OutputName: []string{"y"}}
			}
			err := e.Validate()
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/serving"
)

func TestAuxConfigIsAFileOrSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.pbtxt")
	if err := os.WriteFile(file, []byte("max_batch_size: 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		words []string
		want  any
	}{
		{"nothing", nil, nil},
		{"a file is kept as text", []string{file}, "max_batch_size: 8\n"},
		{"numbers and booleans are values", []string{"max_batch_size=32", "flag=true", "share=0.5"}, map[string]any{"max_batch_size": json.Number("32"), "flag": true, "share": json.Number("0.5")}},
		{"dots nest and lists are lists", []string{"dynamic_batching.preferred_batch_size=[1,2]"}, map[string]any{"dynamic_batching": map[string]any{"preferred_batch_size": []any{json.Number("1"), json.Number("2")}}}},
		{"numbers as keys nest too", []string{"parameters.0.format=X"}, map[string]any{"parameters": map[string]any{"0": map[string]any{"format": "X"}}}},
		{"quotes stay in the value", []string{`platform="onnxruntime_onnx"`, `name='x'`}, map[string]any{"platform": `"onnxruntime_onnx"`, "name": "'x'"}},
		{"quotes in lists stay", []string{`names=["a", "b"]`}, map[string]any{"names": []any{`"a"`, `"b"`}}},
		{"bare words", []string{"kind=KIND_CPU"}, map[string]any{"kind": "KIND_CPU"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readAuxConfig(tc.words)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAuxConfigThatIsNeitherIsRefused(t *testing.T) {
	for _, words := range [][]string{{"no_such_file.pbtxt"}, {"a=[1"}, {"{"}, {"x=\ue000"}} {
		if got, err := readAuxConfig(words); err == nil || !strings.Contains(err.Error(), "--aux-config") {
			t.Errorf("%q: got %v, %v", words, got, err)
		}
	}
}

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
		{"settings with input", serving.EngineTriton, map[string]any{"input": map[string]any{}}, "--input-name ? --input-type ? --input-size ?"},
		{"a text with a file name", serving.EngineTriton, "default_model_filename: \"model.bin\"", "default_model_filename"},
		{"settings with a file name", serving.EngineTriton, map[string]any{"default_model_filename": "m"}, "added automatically by the system."},
		{"other engines never read them", serving.EngineCustom, pbtxt, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := checkTritonConfig(tc.engine, tc.aux)
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzReadAuxConfig(f *testing.F) {
	f.Add(`platform="x"`, "input.0.format=X")
	f.Add(`a='[1,2]'`, `{"b": ["c"]}`)
	f.Add("input [ { name: \"x\" dims: [", "output: {")
	f.Fuzz(func(t *testing.T, a, b string) {
		aux, err := readAuxConfig([]string{a, b})
		if err == nil {
			if _, err := json.Marshal(aux); err != nil {
				t.Fatalf("cannot be stored: %v", err)
			}
		}
		_ = checkTritonConfig(serving.EngineTriton, aux)
		_ = checkTritonConfig(serving.EngineTriton, a+"\n"+b)
	})
}

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
		_ = serving.Endpoint{EngineType: serving.EngineTriton, AuxiliaryCfg: aux}.Validate()
		_ = serving.Endpoint{EngineType: serving.EngineTriton, AuxiliaryCfg: a + "\n" + b}.Validate()
	})
}

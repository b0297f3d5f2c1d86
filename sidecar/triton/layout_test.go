package triton

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// laid is what lay makes of a model, in the form of a golden file: the paths, and the configuration.
func laid(t *testing.T, spec engine.Spec) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := lay(spec, dir); err != nil {
		t.Fatal(err)
	}
	var paths []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	config, err := os.ReadFile(filepath.Join(dir, "config.pbtxt"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(paths, "\n") + "\n\n" + string(config)
}

// modelOf writes the files of a model: one that ends in "/…" is in a folder.
func modelOf(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, file := range files {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content of "+file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, _, _ := strings.Cut(files[0], "/")
	return filepath.Join(root, first)
}

func list(text string) (values []any) {
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		panic(err)
	}
	return values
}

var mnist = serving.Tensors{
	InputName: []string{"dense_input"}, InputType: []string{"float32"}, InputSize: list(`[[1, 784]]`),
	OutputName: []string{"activation_2"}, OutputType: []string{"float32"}, OutputSize: list(`[[-1, 10]]`),
}

func TestModelsAreLaidOutAsTheirBackendsReadThem(t *testing.T) {
	for name, tc := range map[string]struct {
		files     []string
		framework string
		aux       any
		tensors   serving.Tensors
	}{
		"saved_model":                  {[]string{"m/saved_model.pb", "m/variables/variables.index"}, "Keras", nil, mnist},
		"saved_model_by_content":       {[]string{"m/saved_model.pb"}, "", nil, mnist},
		"keras_folder":                 {[]string{"m/keras_metadata.pb"}, "Keras", nil, mnist},
		"graph_def":                    {[]string{"frozen.pb"}, "TensorFlow", nil, mnist},
		"torch_script":                 {[]string{"serving_model.pt"}, "PyTorch", nil, mnist},
		"torch_script_without_record":  {[]string{"serving_model.pt"}, "", nil, mnist},
		"onnx":                         {[]string{"model.bin.onnx"}, "ONNX", nil, mnist},
		"onnx_without_its_ending":      {[]string{"model.bin"}, "ONNX", nil, mnist},
		"onnx_folder":                  {[]string{"m/net.onnx", "m/weights.data"}, "TensorFlow", nil, mnist}, // a zip is TensorFlow's for the SDK
		"onnx_by_platform":             {[]string{"model.bin"}, "", map[string]any{"platform": `"onnxruntime_onnx"`}, mnist},
		"onnx_by_backend_in_text":      {[]string{"model.bin"}, "", "backend: \"onnxruntime\"\nmax_batch_size: 8\n", mnist},
		"tensorrt":                     {[]string{"m.engine"}, "TensorRT", nil, mnist},
		"tensorrt_platform_unquoted":   {[]string{"model.bin"}, "custom", map[string]any{"platform": "tensorrt_plan"}, mnist},
		"openvino":                     {[]string{"m/net.xml", "m/net.bin"}, "OpenVINO", nil, mnist},
		"python":                       {[]string{"m/model.py", "m/weights/w.npy"}, "TensorFlow", nil, mnist},
		"python_by_backend":            {[]string{"m/model.py"}, "custom", map[string]any{"backend": "python"}, mnist},
		"python_file":                  {[]string{"model_of_mine.py"}, "custom", map[string]any{"backend": "python"}, mnist},
		"a_backend_of_its_own":         {[]string{"forest.json"}, "XGBoost", map[string]any{"backend": "fil", "parameters": map[string]any{"model_type": map[string]any{"string_value": "xgboost_json"}}}, mnist},
		"nothing_is_known":             {[]string{"weights.dat"}, "", nil, mnist},
		"nothing_is_known_of_a_folder": {[]string{"m/weights.dat"}, "", nil, mnist},
		"several_tensors": {
			[]string{"model.onnx"}, "ONNX", nil, serving.Tensors{
				InputName: []string{"input_ids", "text", "flag"}, InputType: []string{"int32", "object", "bool"}, InputSize: list(`[[-1, -1], [1], [1]]`),
				OutputName: []string{"logits", "half"}, OutputType: []string{"float64", "float16"}, OutputSize: list(`[[-1, 2], [3]]`),
			},
		},
		"flat_size": {[]string{"model.pt"}, "PyTorch", nil, serving.Tensors{
			InputName: []string{"INPUT__0"}, InputType: []string{"float32"}, InputSize: list(`[1, 28, 28]`),
			OutputName: []string{"OUTPUT__0"}, OutputType: []string{"float32"}, OutputSize: list(`[-1, 10]`),
		}},
		"settings": {[]string{"model.onnx"}, "ONNX", map[string]any{
			"max_batch_size":   json.Number("16"),
			"dynamic_batching": map[string]any{"preferred_batch_size": list(`[4, 8]`), "max_queue_delay_microseconds": 100.0},
			"instance_group":   []any{map[string]any{"kind": "KIND_CPU", "count": 2.0}},
			"parameters":       map[string]any{"threads": 4.0, "mode": "fast \"and\" exact", "quoted": `"as it is"`},
			"metric_tags":      map[string]any{"team": "vision"},
			"optimization": map[string]any{"execution_accelerators": map[string]any{"cpu_execution_accelerator": []any{
				map[string]any{"name": "openvino", "parameters": map[string]any{"precision": "FP16"}},
			}}},
			"model_transaction_policy": map[string]any{"decoupled": true},
			"response_cache":           map[string]any{"enable": "true"},
			"version_policy":           map[string]any{"latest": map[string]any{"num_versions": "1"}},
		}, mnist},
	} {
		t.Run(name, func(t *testing.T) {
			spec := engine.Spec{ModelPath: modelOf(t, tc.files...), Framework: tc.framework, Endpoint: serving.Endpoint{Tensors: tc.tensors, AuxiliaryCfg: tc.aux}}
			got, golden := laid(t, spec), filepath.Join("testdata", name+".golden")
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestModelsThatTritonCannotHaveAreRefusedWithReasons(t *testing.T) {
	for name, tc := range map[string]struct {
		files   []string
		tensors serving.Tensors
		aux     any
		want    string
	}{
		"a file of Keras": {[]string{"model.h5"}, mnist, nil, "cannot load model.h5, a file of Keras"},
		"two networks":    {[]string{"m/a.onnx", "m/b.onnx"}, mnist, nil, "2 files *.onnx"},
		"no model.py":     {[]string{"m/other.txt"}, mnist, map[string]any{"backend": "python"}, "0 files *.py"},
		"no size":         {[]string{"m.onnx"}, serving.Tensors{InputName: []string{"x"}, InputType: []string{"float32"}}, nil, "--input-size"},
		"no type":         {[]string{"m.onnx"}, serving.Tensors{OutputName: []string{"y"}, OutputSize: list(`[[1]]`)}, nil, "--output-type"},
		"a strange size":  {[]string{"m.onnx"}, serving.Tensors{InputSize: list(`[["many"]]`)}, nil, "many is not a dimension"},
	} {
		t.Run(name, func(t *testing.T) {
			err := lay(engine.Spec{ModelPath: modelOf(t, tc.files...), Endpoint: serving.Endpoint{Tensors: tc.tensors, AuxiliaryCfg: tc.aux}}, filepath.Join(t.TempDir(), "model"))
			refused, ok := errors.AsType[*engine.LoadError](err)
			if !ok || !refused.Final || !strings.Contains(refused.Text, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestLinksAreNotFollowedOutOfAModel(t *testing.T) {
	folder := modelOf(t, "m/model.py")
	if err := os.Symlink("/etc/passwd", filepath.Join(folder, "secrets")); err != nil {
		t.Fatal(err)
	}
	if err := lay(engine.Spec{ModelPath: folder, Endpoint: serving.Endpoint{Tensors: mnist}}, filepath.Join(t.TempDir(), "model")); err == nil || !strings.Contains(err.Error(), "neither a file nor a folder") {
		t.Errorf("got %v", err)
	}
}

func TestScalarsAreThoseOfModels(t *testing.T) {
	got := Scalars([]byte(`# HELP nv_inference_count x
nv_inference_count{model="a_1",version="1"} 37
nv_inference_request_failure{model="a_1",reason="OTHER",version="1"} 2
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
nv_inference_request_duration_us{gpu_uuid="GPU-1",model="b",version="1"} 1.5e+06
nv_bad{model="b",version="1"} many
`))
	want := []Scalar{{"nv_inference_count", "a_1.v1", 37}, {"nv_inference_request_failure", "a_1.v1", 2}, {"nv_inference_request_duration_us", "b.v1", 1.5e6}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// FuzzConfigurationsAreBalanced: whatever settings hold, they stay within their place.
func FuzzSettingsStayInTheirPlace(f *testing.F) {
	f.Add("parameters", "a\"}\nbackend: \"python\"", "x")
	f.Add("platform", "onnx\\", "'")
	f.Fuzz(func(t *testing.T, name, value, key string) {
		if strings.HasPrefix(value, `"`) || strings.HasPrefix(value, "'") || strings.ContainsAny(name+key, "{}[]:\"'\n #;,<>=.\\\r\t") || name == "" || key == "" {
			t.Skip() // quotes are kept on purpose; names are words
		}
		text, err := configuration(serving.Endpoint{Tensors: mnist, AuxiliaryCfg: map[string]any{name: map[string]any{key: value}}}, pythonForm)
		if err != nil {
			t.Skip()
		}
		settings := serving.TritonSettings(text)
		if settings == nil || settings["input"] == nil || settings["output"] == nil {
			t.Errorf("%q: the configuration cannot be read:\n%s", value, text)
		}
	})
}

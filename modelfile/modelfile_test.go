package modelfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/modelfile"
	"clearmlserving/serving"
)

// testdata/make.py makes the files.
func TestAModelIsKnownByItsContent(t *testing.T) {
	const regression, pipeline = "sklearn.linear_model._base.LinearRegression", "sklearn.pipeline.Pipeline"
	columns := []string{"age", "net worth", "größe"}
	for _, tc := range []struct {
		file, format, engine, framework, class string
		columns                                []string
		features                               int
		packages                               string
	}{
		{"plain.pkl", "pickle", "sklearn", "ScikitLearn", regression, nil, 3, "joblib numpy sklearn"},
		{"protocol2.pkl", "pickle", "sklearn", "ScikitLearn", regression, nil, 3, "joblib numpy sklearn"},
		{"protocol0.pkl", "pickle", "sklearn", "ScikitLearn", regression, nil, 0, "joblib numpy sklearn"},
		{"named.pkl", "pickle", "sklearn", "ScikitLearn", pipeline, columns, 3, "joblib numpy sklearn"},
		{"named.joblib", "joblib", "sklearn", "ScikitLearn", pipeline, columns, 3, "joblib numpy sklearn"},
		{"zlib.joblib", "joblib, compressed by zlib", "sklearn", "ScikitLearn", pipeline, columns, 3, "joblib numpy sklearn"},
		{"named.joblib.gz", "joblib, compressed by gzip", "sklearn", "ScikitLearn", pipeline, columns, 3, "joblib numpy sklearn"},
		{"named.joblib.bz2", "joblib, compressed by bzip2", "sklearn", "ScikitLearn", pipeline, columns, 3, "joblib numpy sklearn"},
		{"columns.joblib", "joblib", "sklearn", "ScikitLearn", pipeline, []string{"age", "city"}, 2, "joblib numpy sklearn"},
		{"classifier.pkl", "pickle", "sklearn", "XGBoost", "xgboost.sklearn.XGBRegressor", nil, 0, "joblib sklearn xgboost"},
		{"own.pkl", "pickle", "sklearn", "", "__main__.Own", nil, 3, "joblib numpy sklearn"},
		{"dictionary.pkl", "pickle", "", "ScikitLearn", regression, nil, 3, "joblib numpy sklearn"},
		{"pair.pkl", "pickle", "", "ScikitLearn", regression, nil, 3, "joblib numpy sklearn"},
		{"text.pkl", "pickle", "", "", "", nil, 0, "joblib sklearn"},
		{"table.pkl", "pickle", "", "", "pandas.DataFrame", nil, 0, "joblib numpy pandas sklearn"},
		{"named.json", "XGBoost json", "xgboost", "XGBoost", "", columns, 3, "xgboost"},
		{"unnamed.json", "XGBoost json", "xgboost", "XGBoost", "", nil, 3, "xgboost"},
		{"named.ubj", "XGBoost ubj", "xgboost", "XGBoost", "", columns, 3, "xgboost"},
		{"unnamed.ubj", "XGBoost ubj", "xgboost", "XGBoost", "", nil, 3, "xgboost"},
		{"named.txt", "LightGBM text", "lightgbm", "LightGBM", "", []string{"a", "b", "c"}, 3, "lightgbm"},
		{"unnamed.txt", "LightGBM text", "lightgbm", "LightGBM", "", nil, 3, "lightgbm"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			// The name must not matter.
			path := filepath.Join(t.TempDir(), "model.bin")
			if err := os.Symlink(testdata(t, tc.file), path); err != nil {
				t.Fatal(err)
			}
			f, err := modelfile.Look(path)
			if err != nil {
				t.Fatal(err)
			}
			if f.Format != tc.format || f.Engine != tc.engine || f.Framework != tc.framework || f.Class != tc.class {
				t.Errorf("got %q, engine %q, framework %q, class %q", f.Format, f.Engine, f.Framework, f.Class)
			}
			if !slices.Equal(f.Columns, tc.columns) || f.Features != tc.features {
				t.Errorf("got columns %q of %d, want %q of %d", f.Columns, f.Features, tc.columns, tc.features)
			}
			if f.Table != (tc.file == "columns.joblib") {
				t.Errorf("it takes a table: %v", f.Table)
			}
			if got := strings.Join(f.Packages, " "); got != tc.packages {
				t.Errorf("it needs %s, want %s", got, tc.packages)
			}
			if (f.Engine == "") != (f.Why != "") {
				t.Errorf("engine %q, why %q", f.Engine, f.Why)
			}
			if strings.HasPrefix(tc.class, "sklearn") && tc.file != "protocol0.pkl" && !strings.HasPrefix(f.Version, "1.") {
				t.Errorf("its version is %q", f.Version)
			}
		})
	}
}

func TestWhatIsNoKnownModelIsTold(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "text.txt": "tree\nof life\n", "object.json": `{"learning": 1}`, "image.png": "\x89PNG\r\n", "zero": strings.Repeat("\x00", 100),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := modelfile.Look(path); !errors.Is(err, modelfile.ErrUnknown) {
			t.Errorf("%s is taken as %q (%v)", name, f.Format, err)
		}
	}
	if _, err := modelfile.Look(testdata(t, "plain.joblib.xz")); err == nil || !strings.Contains(err.Error(), "--engine") {
		t.Errorf("xz: %v", err)
	}
	for name, content := range map[string]string{"net.pt": "PK\x03\x04rest", "net.h5": "\x89HDF\r\n\x1a\n"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := modelfile.Look(path); err != nil || f.Engine != "" || !strings.Contains(f.Why, "load") {
			t.Errorf("%s: engine %q, %q, %v", name, f.Engine, f.Why, err)
		}
	}
	for _, name := range []string{"model.onnx", "model"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("\x08\x08\x12\x07pytorch"), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := modelfile.Look(path); err != nil || f.Engine != serving.EngineONNX || f.Framework != "ONNX" {
			t.Errorf("%s: engine %q, framework %q, %v", name, f.Engine, f.Framework, err)
		}
	}
}

// FuzzLook reads truncated and changed files, which must not cause a panic.
func FuzzLook(f *testing.F) {
	for _, name := range []string{"plain.pkl", "protocol0.pkl", "named.joblib", "zlib.joblib", "named.json", "named.ubj", "named.txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "model")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if found, err := modelfile.Look(path); err == nil && found.Format == "" {
			t.Errorf("no format of %q", data)
		}
	})
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// It becomes a line of requirements.txt, where a second line could name another index.
func TestAVersionThatIsNoneIsUnknown(t *testing.T) {
	data, err := os.ReadFile(testdata(t, "plain.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.pkl")
	version := func(data []byte) string {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := modelfile.Look(path)
		if err != nil {
			t.Fatal(err)
		}
		return f.Version
	}
	written := version(data)
	if written == "" {
		t.Fatal("the file has no version")
	}
	for _, c := range []string{"\n", " ", ",", ";", "@", "/", "-", "#", "\x00"} {
		hostile := written[:1] + c + written[2:]
		if got := version(bytes.Replace(data, []byte(written), []byte(hostile), 1)); got != "" {
			t.Errorf("%q is a version", got)
		}
	}
}

package worker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAnEndpointNeedsThePackagesOfItsEngineAndItsCode(t *testing.T) {
	preload := []string{"numpy", "joblib", "pandas", "sklearn", "xgboost", "asyncio"}
	folder := t.TempDir()
	for name, text := range map[string]string{
		"preprocess.py": "import os, numpy as np\n# import pandas\n\ndef f():\n    from xgboost import DMatrix\n",
		"notes.txt":     "import pandas\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pickled := filepath.Join(t.TempDir(), "model.pkl")
	model := []byte("\x80\x04\x95\x8c\x1esklearn.linear_model._logistic\x94\x8c\x12LogisticRegression\x8c\x17sklearn.pipeline")
	if err := os.WriteFile(pickled, model, 0o600); err != nil {
		t.Fatal(err)
	}
	code := filepath.Join(t.TempDir(), "preprocess.py")
	text := "import sklearn\nimport sklearn.tree as t\nfrom sklearn import svm, set_config as c\nfrom sklearn.utils.extmath import softmax\n"
	if err := os.WriteFile(code, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"an engine's own", Spec{Engine: "sklearn", ModelPath: "m.pkl"}, []string{"numpy", "joblib", "sklearn"}},
		{"the modules that a model names", Spec{Engine: "sklearn", ModelPath: pickled}, []string{"numpy", "joblib", "sklearn.linear_model", "sklearn.pipeline"}},
		{"those that the code names, too", Spec{Engine: "sklearn", ModelPath: pickled, CodePath: code}, []string{
			"numpy", "joblib", "sklearn.as", "sklearn.c", "sklearn.linear_model", "sklearn.pipeline", "sklearn.set_config",
			"sklearn.svm", "sklearn.tree", "sklearn.utils",
		}},
		{"what the code imports", Spec{Engine: "sklearn", CodePath: folder}, []string{"numpy", "joblib", "sklearn", "xgboost"}},
		{"code alone", Spec{Engine: "custom", CodePath: folder}, []string{"numpy", "xgboost"}},
		{"one file", Spec{Engine: "custom_async", CodePath: filepath.Join(folder, "preprocess.py")}, []string{"numpy", "xgboost", "asyncio"}},
		{"a model of which nothing is known", Spec{Engine: "custom", CodePath: folder, ModelPath: "m.pkl"}, preload},
		{"code that is not there", Spec{Engine: "custom", CodePath: "nowhere.py"}, []string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.spec.needs(preload); !slices.Equal(got, test.want) {
				t.Errorf("needs %q, want %q", got, test.want)
			}
		})
	}
}

//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// typed is code whose type hints say what it takes, and which checks it.
const typed = `
from typing import List, Optional, TypedDict


class Point(TypedDict):
    x: float
    y: float
    label: Optional[str]


class Answer(TypedDict):
    distance: float
    labels: List[str]


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Preprocess:
    def preprocess(self, body: Point, state: dict, collect_custom_statistics_fn=None):
        if not isinstance(body, dict) or not {"x", "y", "label"} <= body.keys():
            raise ValueError("give x, y and label")
        if not is_number(body["x"]) or not is_number(body["y"]) or not isinstance(body["label"], (str, type(None))):
            raise ValueError("x and y are numbers, label is a text")
        return body

    def process(self, data, state: dict, collect_custom_statistics_fn=None) -> Answer:
        return {"distance": min(abs(data["x"]) + abs(data["y"]), 1e308), "labels": [data["label"]] if data["label"] else []}
`

// takesAll is code that answers any JSON and any bytes.
const takesAll = `
class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"bytes": len(data)} if isinstance(data, bytes) else {"echo": data}
`

// trainTable makes a pipeline of columns with texts, missing values and numbers.
const trainTable = `
import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

table = pd.DataFrame({"city": ["Rome", "Oslo", "Łódź"] * 20, "rooms": [1, 2, 3, 4] * 15, "area": [None, 50.5, 70.0, 90.25, 110.0] * 12})
columns = ColumnTransformer([
    ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
    ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["rooms", "area"]),
])
model = make_pipeline(columns, LogisticRegression()).fit(table, table.rooms * 50 + table.area.fillna(70) > 200)
joblib.dump(model, "prices.pkl")
`

// hostile is the name of an endpoint that would break a document or a page that does not escape it.
const hostile = `a b/ü "x" {y}/<img src=x onerror=alert(1)>'`

// TestOpenAPIDocumentIsValidAndKept checks the document of a live instance with the official validator,
// and the instance against its document with schemathesis.
func TestOpenAPIDocumentIsValidAndKept(t *testing.T) {
	if os.Getenv("CLEARML_SERVING_E2E_OPENAPI") == "" {
		t.Skip("make e2e-openapi")
	}
	tools, runtime := filepath.Join(root, ".venv-openapi/bin"), filepath.Join(root, ".venv-runtime/bin/python")
	s := install(t)
	s.start(t, role{python: runtime})
	t.Cleanup(func() { s.stop(t) })
	s.must(t, "create", "--name", `The "open" <service>`)
	s.python(t, runtime, writeCode(t, s, "train.py", trainTable))
	s.must(t, "model", "upload", "--name", "prices", "--project", "openapi", "--path", "prices.pkl")
	s.must(t, "model", "add", "--engine", "sklearn", "--endpoint", "prices", "--name", "prices", "--project", "openapi")
	for _, endpoint := range []string{"typed", "all/1", "all/2", hostile} {
		text := takesAll
		if endpoint == "typed" {
			text = typed
		}
		name, version, _ := strings.Cut(endpoint, "/")
		if endpoint == hostile {
			name, version = hostile, ""
		}
		s.must(t, "model", "add", "--engine", "custom", "--endpoint", name, "--version", version, "--preprocess", writeCode(t, s, "preprocess.py", text))
	}
	s.must(t, "model", "canary", "--endpoint", "split", "--weights", "0.5", "0.5", "--input-endpoints", "all/1", "all/2")
	s.must(t, "feedback", "set", "--endpoint", "all", "--prediction", "y", "--wait")

	document := filepath.Join(s.dir, "work", "openapi.json")
	valid := func(key string) {
		t.Helper()
		status, text := roundTrip(http.MethodGet, s.urls["serve"]+"/openapi.json", "", nil, "Authorization", "Bearer "+key)
		if status != http.StatusOK || !strings.Contains(text, `\"x\" {y}`) {
			t.Fatalf("%d %.500s", status, text)
		}
		if err := os.WriteFile(document, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := s.command(t, nil, filepath.Join(tools, "openapi-spec-validator"), document); r.code != 0 {
			t.Errorf("the validator: %v", r)
		}
	}
	kept := func(examples, key string) {
		t.Helper()
		config := filepath.Join(s.dir, "work", "schemathesis.toml")
		// A schema cannot say that the data of a tensor fits its shape and the model.
		text := "[[operations]]\ninclude-path-regex = \"^/v[12]/\"\nchecks.positive_data_acceptance.enabled = false\n"
		// scikit-learn takes true and "1" as numbers.
		text += "[[operations]]\ninclude-path = \"/serve/prices\"\nchecks.negative_data_rejection.enabled = false\n"
		if key != "" {
			text += fmt.Sprintf("[auth.openapi.key]\nbearer = %q\n", key)
		}
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		hooks := []string{"SCHEMATHESIS_HOOKS=schemathesis_hooks", "PYTHONPATH=" + filepath.Join(root, "e2e/testdata/python"), "PYTHONDONTWRITEBYTECODE=1"}
		r := s.command(t, hooks, filepath.Join(tools, "schemathesis"), "--config-file", config, "run", document, "--url", s.urls["serve"],
			"--no-color", "--max-examples", examples, "--request-timeout", "60")
		if r.code != 0 {
			t.Errorf("schemathesis: %v", r)
		}
		_, summary, _ := strings.Cut(r.out, "SUMMARY")
		t.Logf("schemathesis: %s", summary)
	}
	valid("")
	kept("50", "")

	// With keys, and only what a key opens.
	key := capture(t, s.must(t, "auth", "create", "--label", "all"), `(csk_\S+)`)
	s.must(t, "config", "--auth", "on", "--wait")
	if status, text := s.get(t, s.urls["serve"]+"/openapi.json"); status != http.StatusUnauthorized || strings.Contains(text, "typed") {
		t.Errorf("without a key: %d %s", status, text)
	}
	valid(key)
	kept("10", key)

	// What does not load is in the document too.
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "broken", "--preprocess", writeCode(t, s, "broken.py", "raise RuntimeError('<b>broken</b>')"))
	s.eventually(t, patience, "the broken endpoint is described", func() error {
		_, text := roundTrip(http.MethodGet, s.urls["serve"]+"/openapi.json?endpoint=broken", "", nil, "Authorization", "Bearer "+key)
		if !strings.Contains(text, `"state":"failed"`) {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	valid(key)
}

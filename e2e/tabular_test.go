//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// trainedModels is what the training script says of its models.
type trainedModels struct {
	Records []map[string]any
	Cases   []trainedCase
}

type trainedCase struct {
	File, Engine, Method string
	Together             any
	Alone                []any
}

func (c trainedCase) endpoint() string { return strings.Trim(c.File+"/"+c.Method, "/") }

// shownSignature is the part of a status that the test reads.
type shownSignature struct {
	Source    string
	Table     bool
	Inputs    []shownTensor
	Outputs   []shownTensor
	Example   json.RawMessage
	ExampleOf string `json:"example_of"`
}

type shownTensor struct {
	Name, Datatype string
	Shape          []int
	Categories     []string
	Open, Optional bool
}

// signature reads the signature of an endpoint from the command line.
func (s *system) signature(t *testing.T, endpoint string) (found shownSignature) {
	t.Helper()
	var list struct {
		Instances []struct {
			Status struct {
				Endpoints []struct {
					Endpoint  string
					Signature shownSignature
				}
			}
		}
	}
	decode(t, s.must(t, "--json", "model", "list", "-v", "--serve-url", s.urls["admin"]), &list)
	for _, i := range list.Instances {
		for _, e := range i.Status.Endpoints {
			if e.Endpoint == endpoint {
				found = e.Signature
			}
		}
	}
	var compact bytes.Buffer
	if found.Example != nil {
		if err := json.Compact(&compact, found.Example); err != nil {
			t.Fatal(err)
		}
	}
	found.Example = compact.Bytes()
	return found
}

func TestTabularModelsAreServedWithoutCode(t *testing.T) {
	python := filepath.Join(root, ".venv-runtime/bin/python")
	if _, err := os.Stat(python); err != nil {
		t.Fatal("no .venv-runtime: make venv-runtime")
	}
	s := install(t)
	s.start(t, role{python: python})
	t.Cleanup(func() { s.stop(t) })
	service := createdID(t, s.must(t, "create", "--name", "tabular"))
	folder := filepath.Join(s.dir, "work")
	var trained trainedModels
	decode(t, s.python(t, python, "train_tabular.py", folder), &trained)
	all, err := json.Marshal(trained.Records)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, c := range trained.Cases {
		files[c.File] = true
		id := s.registerFrom(t, service, "--name", c.endpoint(), "--project", "tabular", "--path", filepath.Join(folder, c.File), "--reference", filepath.Join(folder, "train.csv"))
		add := []string{"model", "add", "--engine", c.Engine, "--endpoint", c.endpoint(), "--model-id", id, "--wait", "--wait-timeout", "5m"}
		if c.Method != "" {
			add = append(add, "--aux-config", "method="+c.Method)
		}
		s.must(t, add...)
		s.answersRecords(t, c, all, trained.Records)
		s.namesWrongColumns(t, c, trained.Records[0])
		s.hasSignature(t, c)
	}
	for _, format := range []string{"trees.json", "trees.ubj", "trees.pkl", "light.txt", "pipeline.pkl"} {
		if !files[format] {
			t.Errorf("%s was not served", format)
		}
	}
}

// answersRecords compares the answers to records with those of Python.
func (s *system) answersRecords(t *testing.T, c trainedCase, all []byte, records []map[string]any) {
	t.Helper()
	if status, got := s.ask(t, c.endpoint(), string(all)); status != http.StatusOK || !same(t, got, c.Together) {
		t.Errorf("%s: %d %s, want %v", c.endpoint(), status, got, c.Together)
	}
	for i, record := range records {
		body := encode(t, record)
		if status, got := s.ask(t, c.endpoint(), body); status != http.StatusOK || !same(t, got, c.Alone[i]) {
			t.Errorf("%s: %s: %d %s, want %v", c.endpoint(), body, status, got, c.Alone[i])
		}
	}
}

func encode(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// same compares an answer with the value that Python has printed.
func same(t *testing.T, got string, want any) bool {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(got), &value); err != nil {
		t.Errorf("%v: %s", err, got)
	}
	return reflect.DeepEqual(value, want)
}

func (s *system) namesWrongColumns(t *testing.T, c trainedCase, record map[string]any) {
	t.Helper()
	change := func(remove string, add ...string) string {
		changed := map[string]any{}
		for name, value := range record {
			if name != remove {
				changed[name] = value
			}
		}
		for _, name := range add {
			changed[name] = 1
		}
		return encode(t, changed)
	}
	for body, words := range map[string]string{
		change("area"):          "has no 'area'",
		change("", "zzz"):       "has 'zzz', which the model does not know",
		change("area", "areas"): "has no 'area' and has 'areas' (did you mean 'area'?), which the model does not know",
	} {
		if status, got := s.ask(t, c.endpoint(), body); status != http.StatusUnprocessableEntity || !strings.Contains(got, words) {
			t.Errorf("%s: %s: %d %s, want 422 with %q", c.endpoint(), body, status, got, words)
		}
	}
}

// hasSignature checks that the signature names the columns of training, and that its example is answered as it says.
func (s *system) hasSignature(t *testing.T, c trainedCase) {
	t.Helper()
	told := s.signature(t, c.endpoint())
	var names []string
	byName := map[string]shownTensor{}
	for _, in := range told.Inputs {
		names = append(names, in.Name)
		byName[in.Name] = in
	}
	if !slices.Equal(names, []string{"city", "area", "rooms", "heating", "new"}) || !told.Table || told.Source != "model, reference" {
		t.Errorf("%s: %+v", c.endpoint(), told)
	}
	if city := byName["city"]; city.Datatype != "BYTES" || !slices.Equal(city.Categories, []string{"Bern", "La Chaux-de-Fonds", "Zug"}) || !city.Optional {
		t.Errorf("%s: %+v", c.endpoint(), city)
	}
	status, answer := s.ask(t, c.endpoint(), string(told.Example))
	if status != http.StatusOK || told.ExampleOf != "made" || !bytes.HasPrefix(told.Example, []byte(`{"city":"`)) {
		t.Errorf("%s: the example %s (%s): %d %s", c.endpoint(), told.Example, told.ExampleOf, status, answer)
	}
	if len(told.Outputs) != 1 || told.Outputs[0].Shape == nil {
		t.Fatalf("%s: %+v", c.endpoint(), told.Outputs)
	}
	var value []any
	decode(t, answer, &value)
	element, output := value[0], told.Outputs[0]
	if len(output.Shape) == 2 {
		row, ok := element.([]any)
		if !ok || len(row) != output.Shape[1] {
			t.Fatalf("%s: %s is not of shape %v", c.endpoint(), answer, output.Shape)
		}
		element = row[0]
	}
	if _, text := element.(string); text != (output.Datatype == "BYTES") {
		t.Errorf("%s: %s is not of type %s", c.endpoint(), answer, output.Datatype)
	}
	for name, in := range byName { // what may be missing is answered
		body := map[string]any{}
		decode(t, string(told.Example), &body)
		body[name] = nil
		if status, answer := s.ask(t, c.endpoint(), encode(t, body)); in.Optional && status != http.StatusOK {
			t.Errorf("%s without %s: %d %s", c.endpoint(), name, status, answer)
		}
	}
}

const hinted = `
from typing import TypedDict


class House(TypedDict):
    rooms: int
    city: str


class Preprocess:
    def preprocess(self, body: House, state, collect_custom_statistics_fn=None):
        return body["rooms"]

    def process(self, data, state, collect_custom_statistics_fn=None) -> "dict[str, float]":
        return {"price": data * 10.0}
`

func TestTheExampleOfCodeIsARequestThatWasAnswered(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "hinted")
	add := []string{"model", "add", "--engine", "custom", "--endpoint", "house", "--preprocess", writeCode(t, s, "house.py", hinted), "--wait"}
	s.must(t, add...)
	if told := s.signature(t, "house"); told.Source != "type hints" || told.ExampleOf != "made" || string(told.Example) != `{"rooms":0,"city":"text"}` {
		t.Errorf("%+v %s", told, told.Example)
	}
	s.must(t, "model", "record", "--endpoint", "house", "--wait")
	s.wants(t, "house", `{"rooms":4,"city":"Bern"}`, `{"price":40.0}`)
	s.eventually(t, patience, "the recorded request is the example", func() error {
		if told := s.signature(t, "house"); told.ExampleOf != "recorded" || string(told.Example) != `{"rooms":4,"city":"Bern"}` {
			return fmt.Errorf("%+v %s", told, told.Example)
		}
		return nil
	})
	s.must(t, "model", "record", "--off", "--endpoint", "house", "--wait")
	s.stop(t)
	s.start(t, role{})
	s.eventually(t, patience, "the recording is read after a restart", func() error {
		if told := s.signature(t, "house"); told.ExampleOf != "recorded" {
			return fmt.Errorf("%+v", told)
		}
		return nil
	})
	samples := writeCode(t, s, "golden.jsonl", `{"endpoint":"house","body":{"rooms":5,"city":"Zug"},"answer":{"price":50.0}}`+"\n")
	s.must(t, "model", "golden", "--endpoint", "house", "--samples", samples, "--wait")
	s.must(t, append(add, "--output-name", "price")...) // loads it again
	s.eventually(t, patience, "the golden sample is the example", func() error {
		if told := s.signature(t, "house"); told.ExampleOf != "golden" {
			return fmt.Errorf("%+v", told)
		}
		return nil
	})
	out := s.must(t, "model", "list", "-v", "--format", "table", "--serve-url", s.urls["admin"])
	wantWords(t, "model list -v", out, "SIGNATURE OF", "/house", "type hints", `{"rooms":5,"city":"Zug"}`)
}

package engine_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
)

const table = `{"table":true,"source":"model","inputs":[
	{"name":"kind","datatype":"BYTES","shape":[-1,1],"categories":["<a>","b"],"optional":true},
	{"name":"size","datatype":"FP64","shape":[-1,1],"optional":true,"example":5.25},
	{"name":"rooms","datatype":"INT64","shape":[-1,1],"categories":["1","2"]},
	{"name":"town","datatype":"BYTES","shape":[-1,1],"categories":["Bern"],"open":true},
	{"name":"unused","shape":[-1,1],"optional":true}],
	"outputs":[{"name":"predict","datatype":"INT64","shape":[-1]}],"answer_schema":{"type":"array"}}`

func parsed(t *testing.T, text string) engine.Signature {
	t.Helper()
	s, err := engine.ParseSignature([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestATableDescribesItsBodiesAndHasAnExample(t *testing.T) {
	s := parsed(t, table)
	if want := `{"kind": "<a>", "size": 5.25, "rooms": 1, "town": "Bern", "unused": null}`; string(s.Example) != want || s.ExampleOf != engine.ExampleMade {
		t.Errorf("example %s (%s), want %s", s.Example, s.ExampleOf, want)
	}
	var body struct {
		AnyOf []struct {
			Type  string
			Items json.RawMessage
			MinItems,
			MaxItems int
			Properties map[string]json.RawMessage
			Required   []string
		}
	}
	if err := json.Unmarshal(s.Body(), &body); err != nil {
		t.Fatalf("%v: %s", err, s.Body())
	}
	if len(body.AnyOf) != 3 {
		t.Fatalf("%s", s.Body())
	}
	record := body.AnyOf[0]
	for name, want := range map[string]string{
		"kind": `{"enum":["<a>","b",null]}`, "size": `{"type":["number","null"]}`, "rooms": `{"enum":[1,2]}`,
		"town": `{"examples":["Bern"],"type":"string"}`, "unused": `{}`,
	} {
		if got := string(record.Properties[name]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(record.Required) != 5 || body.AnyOf[1].Type != "array" {
		t.Errorf("%s", s.Body())
	}
	s = parsed(t, strings.Replace(table, "{", `{"preprocessed":true,"postprocessed":true,`, 1))
	if s.Body() != nil || s.Example != nil || s.Table || s.Inputs != nil || s.Outputs != nil || len(s.ModelInputs) != 5 || len(s.ModelOutputs) != 1 {
		t.Errorf("behind user code the body is unknown, got %+v", s)
	}
}

func TestSettingsGoBeforeTheModel(t *testing.T) {
	s := parsed(t, table)
	body := string(s.Body())
	one := engine.Signature{Inputs: []engine.TensorSpec{{Name: "rows", Datatype: engine.FP32, Shape: []int64{-1, 5}}}}
	got := s.With(one)
	if got.Table || !reflect.DeepEqual(got.Inputs, one.Inputs) || string(got.Body()) != body || got.Source != "settings, model" {
		t.Errorf("%+v", got)
	}
	if len(got.Outputs) != 1 || got.Outputs[0].Name != "predict" {
		t.Errorf("outputs %+v", got.Outputs)
	}
	var columns engine.Signature
	for _, c := range s.Inputs {
		columns.Inputs = append(columns.Inputs, engine.TensorSpec{Name: c.Name, Datatype: engine.FP32})
	}
	got = s.With(columns)
	if !got.Table || got.Inputs[1].Datatype != engine.FP32 || !got.Inputs[1].Optional || !reflect.DeepEqual(got.Inputs[0].Categories, s.Inputs[0].Categories) {
		t.Errorf("%+v", got.Inputs)
	}
	if s.Inputs[1].Datatype != engine.FP64 {
		t.Error("the model's signature has changed")
	}
	columns.Inputs[0].Name = "other"
	if got = s.With(columns); got.Table || string(got.Body()) != body {
		t.Errorf("names that are not those of the columns describe a table: %+v", got.Inputs)
	}
	if none := s.With(engine.Signature{Source: engine.SourceSettings}); !reflect.DeepEqual(none, s) {
		t.Errorf("without settings: %+v", none)
	}
}

func TestASignatureFromAWorkerIsChecked(t *testing.T) {
	if s := parsed(t, ""); s.Source != engine.SourceNone || s.Body() != nil {
		t.Errorf("nothing: %+v", s)
	}
	many := make([]string, 20_001)
	for i := range many {
		many[i] = fmt.Sprintf(`{"name":"c%d"}`, i)
	}
	for name, text := range map[string]string{
		"no JSON":        `{"table":`,
		"no name":        `{"inputs":[{"datatype":"FP32"}]}`,
		"a name twice":   `{"outputs":[{"name":"a"},{"name":"a"}]}`,
		"a type":         `{"inputs":[{"name":"a","datatype":"FP31"}]}`,
		"a shape":        `{"inputs":[{"name":"a","shape":[-2]}]}`,
		"empty table":    `{"table":true}`,
		"many tensors":   `{"inputs":[` + strings.Join(many, ",") + `]}`,
		"a large schema": `{"body_schema":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		if s, err := engine.ParseSignature([]byte(text)); err == nil || s.Source != engine.SourceNone {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestNoExampleIsMadeOfAnUnknownColumn(t *testing.T) {
	s := parsed(t, `{"table":true,"inputs":[{"name":"a","datatype":"FP64"},{"name":"b"}]}`)
	if s.Example != nil || s.ExampleOf != "" {
		t.Errorf("%s %s", s.Example, s.ExampleOf)
	}
	s = parsed(t, `{"table":true,"inputs":[{"name":"a","datatype":"FP32"},{"name":"b","datatype":"BOOL"},{"name":"c","datatype":"INT8"},{"name":"d","datatype":"BYTES"}]}`)
	if want := `{"a": 0.0, "b": false, "c": 0, "d": "text"}`; string(s.Example) != want {
		t.Errorf("%s, want %s", s.Example, want)
	}
}

func TestAMisspelledNameIsFound(t *testing.T) {
	names := []string{"area", "rooms", "town", "price_per_month", "é"}
	for name, want := range map[string]string{
		"areas": "area", "aera": "area", "room": "rooms", "price_per_mnth": "price_per_month", "zzz": "", "": "", strings.Repeat("x", 100): "", "towns": "town",
	} {
		if got := engine.Nearest(name, names); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

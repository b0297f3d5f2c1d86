package openapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/openapi"
	"clearmlserving/serving"
)

type document struct {
	Info struct {
		Description string `json:"description"`
		LeftOut     int    `json:"x-left-out"`
	} `json:"info"`
	Security []map[string][]string `json:"security"`
	Paths    map[string]struct {
		Post *operation `json:"post"`
	} `json:"paths"`
	Components map[string]map[string]json.RawMessage `json:"components"`
}

type operation struct {
	ID   string `json:"operationId"`
	Body struct {
		Required bool             `json:"required"`
		Content  map[string]media `json:"content"`
	} `json:"requestBody"`
	Responses map[string]json.RawMessage `json:"responses"`
}

type media struct {
	Schema  json.RawMessage `json:"schema"`
	Example json.RawMessage `json:"example"`
}

func read(t *testing.T, s openapi.Service, limit int) document {
	t.Helper()
	text, err := openapi.Document(s, limit)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	missing(t, text, d)
	return d
}

// missing reports references that lead nowhere.
func missing(t *testing.T, text []byte, d document) {
	t.Helper()
	for part := range strings.SplitSeq(string(text), `"$ref":"`) {
		ref, _, _ := strings.Cut(part, `"`)
		to, ok := strings.CutPrefix(ref, "#/components/")
		if !ok {
			continue
		}
		kind, name, _ := strings.Cut(to, "/")
		name, inside, deep := strings.Cut(name, "/")
		component, ok := d.Components[kind][name]
		if !ok {
			t.Errorf("%s leads nowhere", ref)
			continue
		}
		if deep {
			at := any(nil)
			if err := json.Unmarshal(component, &at); err != nil {
				t.Fatal(err)
			}
			for key := range strings.SplitSeq(inside, "/") {
				object, _ := at.(map[string]any)
				if at, ok = object[key]; !ok {
					t.Errorf("%s leads nowhere", ref)
					break
				}
			}
		}
	}
}

func one(url serving.EndpointURL, s engine.Signature) openapi.Service {
	return openapi.Service{Title: "t", Version: "1", Prefix: "/serve/", Endpoints: []openapi.Endpoint{{URL: url, Engine: "sklearn", State: serving.StateReady, Signature: s}}}
}

func TestATableIsARecordAListOfThemOrRows(t *testing.T) {
	d := read(t, one("prices", engine.Signature{Table: true, Inputs: []engine.TensorSpec{
		{Name: "rooms", Datatype: engine.Int64, Shape: []int64{-1}},
		{Name: `city "x" <b>`, Datatype: engine.Bytes, Categories: []string{"Rome", "O'slo"}, Optional: true},
		{Name: "area", Datatype: engine.FP32, Optional: true},
		{Name: "floor", Datatype: engine.Int32, Categories: []string{"1", "2"}},
		{Name: "new", Datatype: engine.Bool},
		{Name: "other"},
	}}), openapi.MaxDocument)
	content := d.Paths["/serve/prices"].Post.Body.Content["application/json"]
	if got, want := string(content.Example), `{"rooms":1,"city \"x\" <b>":"Rome","area":0.5,"floor":1,"new":false,"other":1}`; got != want {
		t.Errorf("the example is %s", got)
	}
	schema := string(d.Components["schemas"]["serve_prices.body"])
	for _, part := range []string{
		`"rooms":{"type":"number"}`, `"city \"x\" <b>":{"enum":["Rome","O'slo",null]}`, `"area":{"type":["number","null"],"minimum":`,
		`"floor":{"enum":[1,2]}`, `"new":{"type":"boolean"}`, `"other":{"type":["number","string","boolean","null"]}`,
		`"required":["rooms","city \"x\" <b>","area","floor","new","other"],"additionalProperties":false`, `"minItems":6,"maxItems":6`,
	} {
		if !strings.Contains(schema, part) {
			t.Errorf("%s is not in %s", part, schema)
		}
	}
	if !d.Paths["/serve/prices"].Post.Body.Required {
		t.Error("the body is optional")
	}
}

func TestASchemaOfTheCodeKeepsItsReferencesAndOrder(t *testing.T) {
	own := `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"z":{"$ref":"#/$defs/Item"},"$schema":{"type":"string"},"$ref":{"type":"string"},"a":{"items":{"$ref":"#/$defs/Item"},"default":{"$ref":"#/no/reference"}},"self":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"$defs":{"Item":{"enum":[1.0,{"$ref":"#/data"}]}}}`
	d := read(t, one("typed", engine.Signature{BodySchema: []byte(own), AnswerSchema: []byte(`{"type":"array","items":{"$ref":"#/$defs/One"},"$defs":{"One":true}}`), Example: []byte(`{"z": 1}`)}), openapi.MaxDocument)
	got := string(d.Components["schemas"]["serve_typed.body"])
	at := "#/components/schemas/serve_typed.body"
	want := `{"type":"object","properties":{"z":{"$ref":"` + at + `/$defs/Item"},"$schema":{"type":"string"},"$ref":{"type":"string"},"a":{"items":{"$ref":"` + at + `/$defs/Item"},"default":{"$ref":"#/no/reference"}},"self":{"anyOf":[{"$ref":"` + at + `"},{"type":"null"}]}},"$defs":{"Item":{"enum":[1.0,{"$ref":"#/data"}]}}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if answer := string(d.Components["schemas"]["serve_typed.answer"]); !strings.Contains(answer, `"#/components/schemas/serve_typed.answer/$defs/One"`) {
		t.Errorf("the answer's schema is %s", answer)
	}
	if example := string(d.Paths["/serve/typed"].Post.Body.Content["application/json"].Example); example != `{"z":1}` && example != `{"z": 1}` {
		t.Errorf("the example is %s", example)
	}
}

func TestASchemaThatCannotBeUsedIsLeftOut(t *testing.T) {
	deep := strings.Repeat(`{"not":`, 100) + "true" + strings.Repeat("}", 100)
	for name, schema := range map[string]string{
		"no JSON": `{"type":`, "no schema": `[1]`, "a number": `7`, "elsewhere": `{"$ref":"https://example.com/schema"}`, "nowhere": `{"$ref":"#/$defs/X"}`,
		"an anchor": `{"$ref":"#x","$anchor":"x"}`, "another base": `{"$id":"https://example.com/a"}`, "too deep": deep, "properties": `{"properties":[1]}`,
		"an empty choice": `{"anyOf":[]}`, "text for a schema": `{"items":"string"}`, "not UTF-8": "{\"title\":\"\xff\"}", "too large": `{"title":"` + strings.Repeat("x", 300<<10) + `"}`,
	} {
		d := read(t, one("e", engine.Signature{BodySchema: []byte(schema), AnswerSchema: []byte(schema)}), openapi.MaxDocument)
		if d.Components["schemas"]["serve_e.body"] != nil || d.Components["schemas"]["serve_e.answer"] != nil || d.Paths["/serve/e"].Post.Body.Required {
			t.Errorf("%s: %s", name, d.Components["schemas"]["serve_e.body"])
		}
	}
	for _, example := range []string{"{", "\xff", `"` + strings.Repeat("x", 100<<10) + `"`} {
		if got := openapi.Example(engine.Signature{Example: []byte(example)}); got != nil {
			t.Errorf("example %.20q is %.20q", example, got)
		}
	}
}

func TestOperationsHaveUniqueIdentifiers(t *testing.T) {
	s := openapi.Service{Title: "t", Version: "1", Prefix: "/serve/"}
	for _, url := range []serving.EndpointURL{"a b", "a/b", "a_b", "a_b__2", "ä/b", serving.EndpointURL(strings.Repeat("x", 300)), serving.EndpointURL(strings.Repeat("x", 301))} {
		s.Endpoints = append(s.Endpoints, openapi.Endpoint{URL: url, Signature: engine.Signature{BodySchema: []byte("{}")}})
	}
	d := read(t, s, openapi.MaxDocument)
	seen := map[string]bool{}
	for path, item := range d.Paths {
		if item.Post == nil {
			continue
		}
		if seen[item.Post.ID] || d.Components["schemas"][item.Post.ID+".body"] == nil {
			t.Errorf("%s: identifier %s", path, item.Post.ID)
		}
		seen[item.Post.ID] = true
	}
	if len(seen) != len(s.Endpoints) {
		t.Errorf("%d operations", len(seen))
	}
}

func TestALimitedDocumentSaysHowManyEndpointsAreMissing(t *testing.T) {
	s := openapi.Service{Title: "t", Version: "1", Prefix: "/serve/", Keys: true, Feedback: true}
	for i := range 5000 {
		s.Endpoints = append(s.Endpoints, openapi.Endpoint{URL: serving.EndpointURL(fmt.Sprintf("e%04d", i))})
	}
	whole := read(t, s, openapi.MaxDocument)
	if whole.Info.LeftOut != 0 || len(whole.Paths) < 5000 || whole.Security == nil {
		t.Errorf("%d paths, %d left out", len(whole.Paths), whole.Info.LeftOut)
	}
	if part := read(t, s, 1<<20); part.Info.LeftOut == 0 || len(part.Paths) < 100 || !strings.Contains(part.Info.Description, fmt.Sprintf("%d more endpoints", part.Info.LeftOut)) {
		t.Errorf("%d paths, %d left out", len(part.Paths), part.Info.LeftOut)
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(`{"properties":{"a":{"$ref":"#/$defs/x~1y"}},"$defs":{"x/y":true}}`), []byte(`[1]`))
	f.Add([]byte(`{"anyOf":[{"items":false}],"$ref":"#"}`), []byte(`{`))
	f.Fuzz(func(t *testing.T, schema, example []byte) {
		text, err := openapi.Document(one("e", engine.Signature{BodySchema: schema, AnswerSchema: schema, Example: example}), openapi.MaxDocument)
		if err != nil || !json.Valid(text) {
			t.Fatalf("%v: %s", err, text)
		}
	})
}

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
	}}), openapi.MaxDocument)
	post := d.Paths["/serve/prices"].Post
	if got := string(post.Body.Content["application/json"].Schema); got != `{"$ref":"#/components/schemas/serve_prices.body"}` || !post.Body.Required {
		t.Errorf("the body is %s, required: %t", got, post.Body.Required)
	}
	schema := string(d.Components["schemas"]["serve_prices.body"])
	for _, part := range []string{`"rooms":{"type":"number"}`, `"city \"x\" <b>":{"enum":["Rome","O'slo",null]}`, `"required":["rooms","city \"x\" <b>"]`} {
		if !strings.Contains(schema, part) {
			t.Errorf("%s is not in %s", part, schema)
		}
	}
}

func TestASchemaOfTheCodeKeepsItsOrder(t *testing.T) {
	own := `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"z":{"enum":[1.0,{"$ref":"#/data"}]},"$schema":{"type":"string"},"$ref":{"type":"string"},"a":{"items":{"const":1},"default":{"$id":"data"}},"self":{"anyOf":[true,{"type":["null","string"]}]}}}`
	d := read(t, one("typed", engine.Signature{BodySchema: []byte(own), AnswerSchema: []byte(`{"type": "array", "items": true}`), Example: []byte(`{"z":1.0}`)}), openapi.MaxDocument)
	want := strings.Replace(own, `"$schema":"https://json-schema.org/draft/2020-12/schema",`, "", 1)
	if got := string(d.Components["schemas"]["serve_typed.body"]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if answer := string(d.Components["schemas"]["serve_typed.answer"]); answer != `{"type":"array","items":true}` {
		t.Errorf("the answer's schema is %s", answer)
	}
	if example := string(d.Paths["/serve/typed"].Post.Body.Content["application/json"].Example); example != `{"z":1.0}` {
		t.Errorf("the example is %s", example)
	}
}

func TestASchemaThatCannotBeUsedIsLeftOut(t *testing.T) {
	deep := strings.Repeat(`{"not":`, 100) + "true" + strings.Repeat("}", 100)
	for name, schema := range map[string]string{
		"no JSON": `{"type":`, "no schema": `[1]`, "a number": `7`, "elsewhere": `{"$ref":"https://example.com/schema"}`,
		"a reference": `{"$ref":"#"}`, "no type": `{"type":"banana"}`, "no list": `{"required":"a"}`, "an anchor": `{"$anchor":"x"}`, "another base": `{"$id":"https://example.com/a"}`, "too deep": deep, "properties": `{"properties":[1]}`,
		"an empty choice": `{"anyOf":[]}`, "text for a schema": `{"items":"string"}`, "not UTF-8": "{\"title\":\"\xff\"}", "too large": `{"title":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		d := read(t, one("e", engine.Signature{BodySchema: []byte(schema), AnswerSchema: []byte(schema)}), openapi.MaxDocument)
		if d.Components["schemas"]["serve_e.body"] != nil || d.Components["schemas"]["serve_e.answer"] != nil || d.Paths["/serve/e"].Post.Body.Required {
			t.Errorf("%s: %s", name, d.Components["schemas"]["serve_e.body"])
		}
	}
	for _, example := range []string{"{", "\xff", `"` + strings.Repeat("x", 100<<10) + `"`} {
		d := read(t, one("e", engine.Signature{Example: []byte(example)}), openapi.MaxDocument)
		if got := d.Paths["/serve/e"].Post.Body.Content["application/json"].Example; got != nil {
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
		if item.Post == nil || !strings.HasPrefix(path, "/serve/") {
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

func TestARecordedRequestIsNotShownToOtherClients(t *testing.T) {
	recorded := `{"name":"Ada","address":{"street":["a",{"no":7}],"at":[1.25,2e3]},"paid":true,"note":null,"empty":{},"none":[]}`
	want := `{"name":"text","address":{"street":["text",{"no":0}],"at":[0.5,0.5]},"paid":false,"note":null,"empty":{},"none":[]}`
	for of, want := range map[string]string{engine.ExampleRecorded: want, engine.ExampleGolden: recorded} {
		d := read(t, one("e", engine.Signature{Example: []byte(recorded), ExampleOf: of}), openapi.MaxDocument)
		if got := string(d.Paths["/serve/e"].Post.Body.Content["application/json"].Example); got != want {
			t.Errorf("%s: %s", of, got)
		}
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(`{"properties":{"a":{"$ref":"#/$defs/x~1y"}},"$defs":{"x/y":true}}`), []byte(`[1]`))
	f.Add([]byte(`{"anyOf":[{"items":false}],"$ref":"#"}`), []byte(`{`))
	f.Fuzz(func(t *testing.T, schema, example []byte) {
		text, err := openapi.Document(one("e", engine.Signature{BodySchema: schema, AnswerSchema: schema, Example: example, ExampleOf: engine.ExampleRecorded}), openapi.MaxDocument)
		if err != nil || !json.Valid(text) {
			t.Fatalf("%v: %s", err, text)
		}
	})
}

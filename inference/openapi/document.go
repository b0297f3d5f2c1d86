// Package openapi describes what an instance serves as an OpenAPI 3.1 document. It owns the
// form of the document, the JSON Schemas of bodies, and the page that shows them. It does no I/O and
// knows nothing of what runs behind an endpoint.
package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// Service is what a document describes.
type Service struct {
	Title   string // the name of the service
	Version string // of the program
	Prefix  string // of the endpoints' paths, such as "/serve/"
	// Keys: requests need a key.
	Keys bool
	// Feedback: the instance takes feedback.
	Feedback  bool
	Endpoints []Endpoint
}

// Endpoint is one endpoint or canary.
type Endpoint struct {
	URL       serving.EndpointURL
	Engine    string // "" for a canary
	ModelID   serving.ModelID
	State     serving.State
	Reason    string // why State is not ready
	Revision  int
	Shares    map[serving.EndpointURL]float64 // of a canary
	Signature engine.Signature
}

// MaxDocument is the size in bytes from which on a document leaves endpoints out.
const MaxDocument = 32 << 20

//go:embed fixed.json
var fixedText []byte

// fixed are the parts of each document.
type fixed struct {
	Tags       []json.RawMessage                     `json:"tags"`
	Feedback   map[string]json.RawMessage            `json:"feedback"`
	Paths      map[string]json.RawMessage            `json:"paths"`
	Components map[string]map[string]json.RawMessage `json:"components"`
}

// Document writes the document of a service, as JSON. Endpoints that do not fit into limit bytes are
// left out; the document says how many.
func Document(s Service, limit int) ([]byte, error) {
	var parts fixed
	if err := json.Unmarshal(fixedText, &parts); err != nil {
		return nil, fmt.Errorf("parts of every document: %w", err)
	}
	paths := parts.Paths
	if s.Feedback {
		maps.Copy(paths, parts.Feedback)
		if len(s.Endpoints) > 0 {
			if err := exampleOfParameter(parts.Components["parameters"], "endpoint", string(s.Endpoints[0].URL)); err != nil {
				return nil, err
			}
		}
	}
	schemas := parts.Components["schemas"]
	size, left := len(fixedText), 0
	ids := map[string]bool{}
	for i, e := range s.Endpoints {
		id := idOf(e.URL, ids)
		item, body, answer, err := s.item(e, id)
		if err != nil {
			return nil, fmt.Errorf("describe endpoint '%s': %w", e.URL, err)
		}
		if size += len(item) + len(body) + len(answer); size > limit {
			left = len(s.Endpoints) - i
			break
		}
		paths[s.Prefix+EscapePath(e.URL)] = item
		if body != nil {
			schemas[bodyName(id)] = body
		}
		if answer != nil {
			schemas[answerName(id)] = answer
		}
	}
	document := struct {
		OpenAPI    string                                `json:"openapi"`
		Info       info                                  `json:"info"`
		Security   []map[string][]string                 `json:"security,omitempty"`
		Tags       []json.RawMessage                     `json:"tags"`
		Paths      map[string]json.RawMessage            `json:"paths"`
		Components map[string]map[string]json.RawMessage `json:"components"`
	}{OpenAPI: "3.1.0", Info: info{Title: s.Title, Version: s.Version, Description: s.about(left), LeftOut: left, Keys: s.Keys}, Tags: parts.Tags, Paths: paths, Components: parts.Components}
	if s.Keys {
		document.Security = []map[string][]string{{"key": {}}}
	}
	return encode(document)
}

// exampleOfParameter gives a parameter of the fixed parts an example.
func exampleOfParameter(parameters map[string]json.RawMessage, name, example string) error {
	var members map[string]any
	if err := json.Unmarshal(parameters[name], &members); err != nil {
		return fmt.Errorf("parameter %s of every document: %w", name, err)
	}
	members["example"] = example
	text, err := encode(members)
	parameters[name] = text
	return err
}

type info struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description string `json:"description"`
	// LeftOut counts the endpoints that did not fit.
	LeftOut int  `json:"x-left-out,omitempty"`
	Keys    bool `json:"x-keys-required"`
}

func (s Service) about(left int) string {
	text := "Endpoints of a ClearML Serving instance. A body is JSON with the header Content-Type: application/json; other content types reach an endpoint's own code as bytes or forms. " +
		"A body may be compressed (Content-Encoding: gzip, deflate, zstd). The parameter version of a path without a version is the same as the last part of the path. " +
		"Metrics for Prometheus are on the listener for operators."
	if left > 0 {
		text += fmt.Sprintf(" This document has no room for %d more endpoints: ask for one of them, or for all versions of a name, with /openapi.json?endpoint=<endpoint>.", left)
	}
	return text
}

// reference points to a component.
type reference struct {
	Ref string `json:"$ref"`
}

func response(status string) reference { return reference{"#/components/responses/" + status} }

// refusals are the statuses of errors of an endpoint.
var refusals = []string{"400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503", "504", "default"} //nolint:gochecknoglobals // a constant table

type media struct {
	Schema  *reference      `json:"schema,omitempty"`
	Example json.RawMessage `json:"example,omitempty"`
}

type operation struct {
	Tags        []string       `json:"tags"`
	Summary     string         `json:"summary"`
	Description string         `json:"description,omitempty"`
	OperationID string         `json:"operationId"`
	Parameters  []reference    `json:"parameters"`
	RequestBody body           `json:"requestBody"`
	Responses   map[string]any `json:"responses"`
	State       state          `json:"x-clearml-endpoint"`
}

type body struct {
	Required bool             `json:"required,omitempty"`
	Content  map[string]media `json:"content"`
}

type success struct {
	Description string               `json:"description"`
	Headers     map[string]reference `json:"headers"`
	Content     map[string]media     `json:"content"`
}

// state is what the document tells of an endpoint beside its schema.
type state struct {
	URL      serving.EndpointURL             `json:"url"`
	Name     string                          `json:"name"`
	Version  string                          `json:"version,omitempty"`
	Engine   string                          `json:"engine,omitempty"`
	ModelID  serving.ModelID                 `json:"model_id,omitempty"`
	State    serving.State                   `json:"state"`
	Reason   string                          `json:"reason,omitempty"`
	Revision int                             `json:"revision,omitempty"`
	Canary   map[serving.EndpointURL]float64 `json:"canary,omitempty"`
	Source   string                          `json:"signature_from,omitempty"`
	// ExampleOf is the origin of the example: made, code, golden, recorded.
	ExampleOf string   `json:"example_of,omitempty"`
	Inputs    []tensor `json:"inputs,omitempty"`
	Outputs   []tensor `json:"outputs,omitempty"`
}

type tensor struct {
	Name     string          `json:"name"`
	Datatype engine.Datatype `json:"datatype,omitempty"`
	Shape    []int64         `json:"shape,omitempty"`
	Optional bool            `json:"optional,omitempty"`
}

// maxTensors bounds the inputs and outputs that are listed beside the schema.
const maxTensors = 200

func tensors(specs []engine.TensorSpec) []tensor {
	var list []tensor
	for _, t := range specs[:min(len(specs), maxTensors)] {
		list = append(list, tensor{t.Name, t.Datatype, t.Shape, t.Optional})
	}
	return list
}

// item is the path item of an endpoint, and the schemas of its body and answer; nil for any.
func (s Service) item(e Endpoint, id string) (item, asks, answers []byte, err error) {
	name := serving.NameOf(e.URL)
	op := operation{
		Tags: []string{"endpoints"}, Summary: string(e.URL), OperationID: id, Description: e.describe(),
		Parameters: []reference{{"#/components/parameters/timeout"}, {"#/components/parameters/id"}},
		Responses:  map[string]any{},
		State: state{
			URL: e.URL, Name: name.Endpoint, Version: name.Version, Engine: e.Engine, ModelID: e.ModelID, State: e.State, Reason: e.Reason,
			Revision: e.Revision, Canary: e.Shares, Inputs: tensors(e.Signature.Inputs), Outputs: tensors(e.Signature.Outputs),
		},
	}
	asks, answers = SchemaOf(e.Signature.Body()), SchemaOf(e.Signature.AnswerSchema)
	asked := media{Example: exampleOf(e.Signature)}
	op.RequestBody.Content = map[string]media{"application/json": asked}
	switch {
	case asks != nil:
		asked.Schema = &reference{component(bodyName(id))}
		op.RequestBody = body{Required: true, Content: map[string]media{"application/json": asked}}
	case e.takesBytes():
		op.RequestBody.Content["application/octet-stream"] = media{}
	}
	answered := success{
		Description: "The answer.",
		Headers:     map[string]reference{"X-Clearml-Endpoint": {"#/components/headers/Endpoint"}, "X-Clearml-Model-Id": {"#/components/headers/ModelID"}},
		Content:     map[string]media{"application/json": {}},
	}
	if answers != nil {
		answered.Content["application/json"] = media{Schema: &reference{component(answerName(id))}}
	} else if e.takesBytes() {
		answered.Content["*/*"] = media{}
	}
	if e.Signature.Source != engine.SourceNone {
		op.State.Source = e.Signature.Source
	}
	if asked.Example != nil {
		op.State.ExampleOf = e.Signature.ExampleOf
	}
	op.Responses["200"] = answered
	for _, status := range refusals {
		op.Responses[status] = response(status)
	}
	item, err = encode(map[string]operation{"post": op})
	return item, asks, answers, err
}

// takesBytes: the endpoint may have code that takes and answers anything.
func (e Endpoint) takesBytes() bool {
	return e.Engine == "" || e.Engine == serving.EngineCustom || e.Engine == serving.EngineCustomAsync
}

func (e Endpoint) describe() string {
	var text []string
	switch {
	case e.Shares != nil:
		text = append(text, "A canary: each request goes to one of several endpoints.")
	case e.Engine != "":
		text = append(text, "Engine "+e.Engine+".")
	}
	if e.Reason != "" {
		text = append(text, "State: "+string(e.State)+", "+e.Reason+".")
	}
	return strings.Join(text, " ")
}

func bodyName(id string) string { return id + ".body" }

func answerName(id string) string { return id + ".answer" }

// component is the place of a schema.
func component(name string) string { return "#/components/schemas/" + name }

// idOf is the operationId of an endpoint: an identifier of programming languages, and unique.
func idOf(url serving.EndpointURL, taken map[string]bool) string {
	base := []byte("serve_" + string(url))
	for i, c := range base {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			base[i] = '_'
		}
	}
	id := string(base[:min(len(base), maxID)])
	for n := 2; taken[id]; n++ {
		id = string(base[:min(len(base), maxID)]) + "__" + strconv.Itoa(n)
	}
	taken[id] = true
	return id
}

const maxID = 100

// EscapePath is the path of an endpoint: every byte but letters, digits and "-._~/" as %XX, so
// that no name looks like a template of OpenAPI.
func EscapePath(url serving.EndpointURL) string {
	var b strings.Builder
	for i := range len(url) {
		if c := url[i]; 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // programs read it; the page sets texts, not markup
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

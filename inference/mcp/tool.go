package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/openapi"
	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// tool is an endpoint as a tool.
type tool struct {
	*sdk.Tool

	url serving.EndpointURL
	// bare: the arguments are the body. Otherwise the body is their member bodyName.
	bare bool
	// answers: the answer is an object. Otherwise the structured content has it as answerName.
	answers bool
}

// The members of arguments and of structured content that hold what is no object.
const (
	bodyName   = "body"
	answerName = "answer"
)

// newTool describes an endpoint by its signature. The arguments of a table are one record: that is what a language model
// fills in best.
func newTool(name string, l inference.Listed, url serving.EndpointURL, description string) *tool {
	t := &tool{Tool: &sdk.Tool{Name: name, Description: description}, url: url}
	s := &l.Signature
	body := openapi.SchemaOf(s.Body())
	if s.Table && !s.Preprocessed && s.BodySchema == nil {
		body = openapi.SchemaOf(s.RecordSchema())
	}
	switch {
	case body != nil && objectKind(body):
		t.bare, t.InputSchema = true, json.RawMessage(body)
	case body != nil && !bytes.Contains(body, []byte(headerKey)):
		t.InputSchema = wrapped(bodyName, body)
	default:
		t.InputSchema = json.RawMessage(`{"type":"object","properties":{"` + bodyName + `":{"description":"The body of the request, any JSON."}},"required":["` + bodyName + `"]}`)
	}
	// What requests have taught is an observation and no promise, which clients would hold answers against.
	if answer := openapi.SchemaOf(s.AnswerSchema); answer != nil && !strings.Contains(s.Source, engine.SourceRequests) && !bytes.Contains(answer, []byte(headerKey)) {
		if t.answers = objectKind(answer); t.answers {
			t.OutputSchema = json.RawMessage(answer)
		} else {
			t.OutputSchema = wrapped(answerName, answer)
		}
	}
	if t.Description == "" {
		t.Description = describe(l, url)
	}
	return t
}

func wrapped(name string, schema []byte) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"object","properties":{"%s":%s},"required":["%s"]}`, name, schema, name))
}

// maxExample bounds an example in a description.
const maxExample = 2 << 10

func describe(l inference.Listed, url serving.EndpointURL) string {
	text := fmt.Sprintf("Asks the model endpoint '%s'", url)
	if l.Engine != "" {
		text += " (engine " + l.Engine + ")"
	}
	text += "."
	if names := namesOf(l.Signature.Outputs); names != "" {
		text += " It answers " + names + "."
	}
	if e := l.Signature.Example; len(e) > 0 && len(e) <= maxExample && l.Signature.ExampleOf != engine.ExampleRecorded && l.Signature.ExampleOf != engine.ExampleGolden {
		text += " Example of a request: " + string(e)
	}
	return text
}

func namesOf(specs []engine.TensorSpec) string {
	const most = 10
	var names []string
	for i := range specs[:min(len(specs), most)] {
		names = append(names, specs[i].Name)
	}
	text := strings.Join(names, ", ")
	if len(specs) > most {
		text += fmt.Sprintf(" and %d more", len(specs)-most)
	}
	return text
}

// call asks the endpoint. What goes wrong there is a result with an error, which the language model can read. A panic costs
// the call, not the process: the SDK calls tools in goroutines of its own.
func (s *Server) call(ctx context.Context, t *tool, req *sdk.CallToolRequest) (result *sdk.CallToolResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("call of a tool panicked", "endpoint", t.url, "tool", t.Name, "panic", p, "stack", string(debug.Stack()))
			result, err = failed("Internal Server Error"), nil
		}
	}()
	header := http.Header{}
	if req.Extra != nil {
		header = req.Extra.Header
	}
	id := header.Get(RequestID)
	span := s.tracer.Start("tools/call "+t.Name, tracing.Server, header.Get("Traceparent"), header.Get("Tracestate"))
	defer span.End()
	ticket, failure := s.core.Admit(inference.Head{Endpoint: t.url, Key: keyOf(req.Extra), ID: id})
	if failure != nil {
		return failed(failure.Text), nil
	}
	body, err := t.body(req.Params.Arguments)
	if err != nil {
		s.core.Reject(ticket, inference.KindBadRequest)
		return failed(err.Error()), nil
	}
	answer, failure := s.core.AskWhole(ctx, ticket, &inference.Question{Request: engine.Request{ID: id, Body: body, ContentType: "application/json", Span: span}})
	switch {
	case failure != nil:
		span.Fail(failure.Text)
		return failed(failure.Text), nil
	case answer.Status >= http.StatusBadRequest:
		return failed(textOf(answer.Body)), nil
	}
	return t.result(answer)
}

func failed(text string) *sdk.CallToolResult {
	return &sdk.CallToolResult{IsError: true, Content: []sdk.Content{&sdk.TextContent{Text: text}}}
}

// textOf is the text of an endpoint's error.
func textOf(body []byte) string {
	var told struct {
		Detail *string `json:"detail"`
	}
	if json.Unmarshal(body, &told) == nil && told.Detail != nil {
		return *told.Detail
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

// body is the body of a request with these arguments.
func (t *tool) body(arguments json.RawMessage) ([]byte, error) {
	if len(arguments) == 0 || string(arguments) == "null" {
		arguments = json.RawMessage("{}")
	}
	if t.bare {
		return arguments, nil
	}
	var given map[string]json.RawMessage
	if json.Unmarshal(arguments, &given) != nil {
		return nil, errors.New("the arguments are no object")
	}
	body, ok := given[bodyName]
	if !ok {
		return nil, fmt.Errorf("the argument '%s' is missing: it is the body of the request", bodyName)
	}
	return body, nil
}

// result is an answer as content for a language model, and as data if it is JSON.
func (t *tool) result(answer *engine.Response) (*sdk.CallToolResult, error) {
	kind, _, err := mime.ParseMediaType(answer.ContentType)
	if err != nil {
		kind = ""
	}
	switch {
	case strings.HasPrefix(kind, "image/"):
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.ImageContent{Data: answer.Body, MIMEType: kind}}}, nil
	case strings.HasPrefix(kind, "audio/"):
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.AudioContent{Data: answer.Body, MIMEType: kind}}}, nil
	case !utf8.Valid(answer.Body):
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "clearml-serving:" + string(t.url), MIMEType: kind, Blob: answer.Body}}}}, nil
	}
	result := &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: string(answer.Body)}}}
	isJSON := json.Valid(answer.Body) // without NaN, which clients cannot read
	object := isJSON && bytes.HasPrefix(bytes.TrimSpace(answer.Body), []byte("{"))
	switch {
	case t.OutputSchema != nil && (!isJSON || t.answers && !object):
		return failed(fmt.Sprintf("the endpoint has not answered as its schema says: %s", serving.Shorten(string(answer.Body), 1000))), nil
	case t.OutputSchema != nil && !t.answers:
		result.StructuredContent = map[string]json.RawMessage{answerName: answer.Body}
	case object:
		result.StructuredContent = json.RawMessage(answer.Body)
	}
	return result, nil
}

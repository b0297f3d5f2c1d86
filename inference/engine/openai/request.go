package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"

	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
)

// question is a request as it is sent to a server, and what its answer needs.
type question struct {
	route       string
	body        []byte
	contentType string
	// stream: the client wants events. usage: it wants them to end with the usage.
	stream, usage bool
	// forced is a chat whose answer has to call a function, nil for others.
	forced *openaiapi.Object
	// responses is the state of a request of the Responses API that is sent as a chat completion, nil for others.
	responses *response
}

// prepare makes the question of a client's request. name is the model's at the servers.
func prepare(route, contentType string, body []byte, name string, settings *serving.OpenAI) (*question, *openaiapi.Problem) {
	if kind, params, err := mime.ParseMediaType(contentType); err == nil && kind == "multipart/form-data" {
		if route == "" {
			return nil, openaiapi.BadRequest("", "a form needs a route of the API, such as /serve/openai/%s", openaiapi.Transcriptions)
		}
		form, err := renamed(body, params["boundary"], name)
		if err != nil {
			return nil, openaiapi.BadRequest("", "the form cannot be read: %s", err)
		}
		return &question{route: route, body: form, contentType: contentType}, nil
	}
	o, err := openaiapi.ParseObject(body)
	if err != nil {
		return nil, openaiapi.BadRequest("", "We could not parse the JSON body of your request: %s", err)
	}
	if route == "" {
		if route = openaiapi.RouteOfBody(o); route == "" {
			return nil, openaiapi.BadRequest("", "the request has none of the fields 'messages', 'prompt' and 'input'")
		}
	}
	if problem := validate(route, &o); problem != nil {
		return nil, problem
	}
	q := &question{route: route, contentType: "application/json", stream: o.True("stream")}
	if route == openaiapi.Responses && !settings.OwnResponses {
		var problem *openaiapi.Problem
		if o, q.responses, problem = chatOf(&o); problem != nil {
			return nil, problem
		}
		q.route = openaiapi.Chat
	}
	if settings.NoteImages && q.route == openaiapi.Chat {
		noteImages(&o)
	}
	o.SetText("model", name)
	if q.route == openaiapi.Chat && !q.stream && callsRequired(&o) {
		q.forced = &o
	}
	if q.stream && (q.route == openaiapi.Chat || q.route == openaiapi.Completions) {
		q.usage = askForUsage(&o)
	}
	q.body = o.Append(nil)
	return q, nil
}

// askForUsage has a stream end with its usage, which the counters need, and reports whether the client asked for it.
func askForUsage(o *openaiapi.Object) bool {
	options, err := openaiapi.ParseObject(o.Get("stream_options"))
	if err != nil {
		options = openaiapi.Object{}
	}
	if options.True("include_usage") {
		return true
	}
	options.Set("include_usage", json.RawMessage("true"))
	o.SetValue("stream_options", options)
	return false
}

// validate refuses what every server would have to refuse. Servers differ in all else, which is left to them.
func validate(route string, o *openaiapi.Object) *openaiapi.Problem {
	if stream := o.Get("stream"); o.Has("stream") && !o.True("stream") && string(bytes.TrimSpace(stream)) != "false" {
		return openaiapi.BadRequest("stream", "Invalid type for 'stream': expected a boolean")
	}
	switch route {
	case openaiapi.Chat:
		if problem := validateMessages(o); problem != nil {
			return problem
		}
	case openaiapi.Completions:
		if !o.Has("prompt") {
			return openaiapi.BadRequest("prompt", "Missing required parameter: 'prompt'")
		}
	case openaiapi.Embeddings:
		if !o.Has("input") && !o.Has("messages") { // vLLM embeds chats too
			return openaiapi.BadRequest("input", "Missing required parameter: 'input'")
		}
		return nil
	case openaiapi.Responses:
		if !o.Has("input") && !o.Has("prompt") && !o.Has("previous_response_id") {
			return openaiapi.BadRequest("input", "Missing required parameter: 'input'")
		}
	default:
		return nil
	}
	return validateNumbers(o)
}

func validateMessages(o *openaiapi.Object) *openaiapi.Problem {
	if !o.Has("messages") {
		return openaiapi.BadRequest("messages", "Missing required parameter: 'messages'")
	}
	messages, err := openaiapi.ParseList(o.Get("messages"))
	if err != nil {
		return openaiapi.BadRequest("messages", "Invalid type for 'messages': expected a list of objects")
	}
	if len(messages) == 0 {
		return openaiapi.BadRequest("messages", "Invalid 'messages': empty array. Expected an array with minimum length 1")
	}
	for i := range messages {
		if messages[i].Text("role") == "" {
			return openaiapi.BadRequest("messages", "Missing required parameter: 'messages[%d].role'", i)
		}
	}
	return nil
}

// ranges are the numbers of requests: their least and largest values.
var ranges = []struct { //nolint:gochecknoglobals // a constant table
	name        string
	least, most float64
	whole       bool
}{
	{"temperature", 0, 2, false},
	{"top_p", 0, 1, false},
	{"presence_penalty", -2, 2, false},
	{"frequency_penalty", -2, 2, false},
	{"n", 1, 1 << 20, true},
	{"max_output_tokens", 1, 1 << 40, true},
	{"max_completion_tokens", 0, 1 << 40, true},
}

func validateNumbers(o *openaiapi.Object) *openaiapi.Problem {
	for _, r := range ranges {
		if !o.Has(r.name) {
			continue
		}
		var n float64
		if json.Unmarshal(o.Get(r.name), &n) != nil {
			return openaiapi.BadRequest(r.name, "Invalid type for '%s': expected a number", r.name)
		}
		if n < r.least || n > r.most || r.whole && n != float64(int64(n)) {
			return openaiapi.BadRequest(r.name, "Invalid '%s': expected a number from %g to %g", r.name, r.least, r.most)
		}
	}
	return nil
}

// renamed replaces the model in a form.
func renamed(form []byte, boundary, name string) ([]byte, error) {
	if boundary == "" {
		return nil, errors.New("the header Content-Type has no boundary")
	}
	in := multipart.NewReader(bytes.NewReader(form), boundary)
	var b bytes.Buffer
	out := multipart.NewWriter(&b)
	if err := out.SetBoundary(boundary); err != nil {
		return nil, err
	}
	for {
		part, err := in.NextRawPart()
		if errors.Is(err, io.EOF) {
			err = out.Close()
			return b.Bytes(), err
		}
		if err != nil {
			return nil, err
		}
		to, err := out.CreatePart(part.Header)
		if err != nil {
			return nil, err
		}
		if part.FormName() == "model" {
			_, err = io.WriteString(to, name)
		} else {
			_, err = io.Copy(to, part)
		}
		if err != nil {
			return nil, err
		}
	}
}

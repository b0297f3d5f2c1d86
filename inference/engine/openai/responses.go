package openai

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"clearmlserving/inference/openaiapi"
)

// response is a request of the Responses API that is answered by chat completions: what its answer repeats, and the
// items that have been generated.
type response struct {
	id      string
	created int64
	model   string
	echo    map[string]json.RawMessage // fields of the request that the answer repeats
	items   []*item
	usage   *openaiapi.Usage
	cached  int64 // of the prompt's tokens
	thought int64 // of the completion's tokens
	reason  string
}

// item is a part of the output.
type item struct {
	kind   string // message, function_call or reasoning
	id     string
	text   strings.Builder // of a message or reasoning; the arguments of a call
	refuse strings.Builder // the refusal of a message
	call   string          // the id of a call
	name   string          // of the called function
	index  int             // of the call in the chat's answer
	done   bool
}

// defaults are the fields of an answer for a request without them, in the order in which they are sent.
var defaults = []struct{ name, value string }{ //nolint:gochecknoglobals // a constant table
	{"instructions", "null"},
	{"tools", "[]"},
	{"tool_choice", `"auto"`},
	{"truncation", `"disabled"`},
	{"parallel_tool_calls", "true"},
	{"text", `{"format":{"type":"text"}}`},
	{"top_p", "1"},
	{"presence_penalty", "0"},
	{"frequency_penalty", "0"},
	{"top_logprobs", "0"},
	{"temperature", "1"},
	{"reasoning", "null"},
	{"max_output_tokens", "null"},
	{"max_tool_calls", "null"},
	{"service_tier", `"default"`},
	{"metadata", "{}"},
	{"safety_identifier", "null"},
	{"prompt_cache_key", "null"},
}

// notKept are the fields for what an instance would have to keep between requests.
var notKept = []string{"previous_response_id", "conversation", "prompt"} //nolint:gochecknoglobals // a constant table

// chatOf is a request of the Responses API as a chat completion.
func chatOf(o *openaiapi.Object) (openaiapi.Object, *response, *openaiapi.Problem) {
	var chat openaiapi.Object
	for _, name := range notKept {
		if o.Has(name) {
			return chat, nil, openaiapi.BadRequest(name, "'%s' is not supported here, because no responses are stored: send the whole conversation as 'input', or give the endpoint --aux-config responses=engine if its server stores them", name)
		}
	}
	if o.True("background") {
		return chat, nil, openaiapi.BadRequest("background", "'background' is not supported here")
	}
	messages, problem := messagesOf(o)
	if problem != nil {
		return chat, nil, problem
	}
	chat.Set("model", o.Get("model"))
	chat.SetValue("messages", messages)
	r := &response{id: newID("resp_"), created: time.Now().Unix(), model: o.Text("model"), echo: map[string]json.RawMessage{}}
	for _, d := range defaults {
		if r.echo[d.name] = json.RawMessage(d.value); o.Has(d.name) {
			r.echo[d.name] = o.Get(d.name)
		}
	}
	for from, to := range map[string]string{"max_output_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty", "user": "user", "seed": "seed", "stop": "stop"} {
		if o.Has(from) {
			chat.Set(to, o.Get(from))
		}
	}
	if o.True("stream") {
		chat.Set("stream", json.RawMessage("true"))
	}
	for _, read := range []func(*response, *openaiapi.Object, *openaiapi.Object) *openaiapi.Problem{readTools, readFormat, readReasoning} {
		if problem := read(r, o, &chat); problem != nil {
			return chat, nil, problem
		}
	}
	return chat, r, nil
}

// readTools converts the functions that the model may call.
func readTools(r *response, o, chat *openaiapi.Object) *openaiapi.Problem {
	if !o.Has("tools") {
		return readChoice(r, o, chat, nil)
	}
	tools, err := openaiapi.ParseList(o.Get("tools"))
	if err != nil {
		return openaiapi.BadRequest("tools", "Invalid type for 'tools': expected a list of objects")
	}
	var functions, echoed []openaiapi.Object
	for i, tool := range tools {
		if kind := tool.Text("type"); kind != "function" {
			return openaiapi.BadRequest("tools", "tools[%d]: a tool of type '%s' is not supported here, only functions", i, kind)
		}
		if tool.Text("name") == "" {
			return openaiapi.BadRequest("tools", "Missing required parameter: 'tools[%d].name'", i)
		}
		var function openaiapi.Object
		for _, name := range []string{"name", "description", "parameters", "strict"} {
			if tool.Has(name) {
				function.Set(name, tool.Get(name))
			}
		}
		var outer openaiapi.Object
		outer.SetText("type", "function")
		outer.SetValue("function", function)
		functions = append(functions, outer)
		for _, name := range []string{"description", "parameters", "strict"} {
			tool.Default(name, "null")
		}
		echoed = append(echoed, tool)
	}
	r.echo["tools"] = openaiapi.ListOf(echoed)
	if len(functions) == 0 {
		return nil
	}
	if problem := readChoice(r, o, chat, &functions); problem != nil {
		return problem
	}
	chat.Set("tools", openaiapi.ListOf(functions))
	if o.Has("parallel_tool_calls") {
		chat.Set("parallel_tool_calls", o.Get("parallel_tool_calls"))
	}
	return nil
}

// readChoice converts which function has to be called. Functions that are not allowed are removed.
func readChoice(_ *response, o, chat *openaiapi.Object, functions *[]openaiapi.Object) *openaiapi.Problem {
	if !o.Has("tool_choice") {
		return nil
	}
	if word := o.Text("tool_choice"); word != "" {
		if functions != nil {
			chat.Set("tool_choice", o.Get("tool_choice"))
		}
		return nil
	}
	choice, err := openaiapi.ParseObject(o.Get("tool_choice"))
	if err != nil {
		return openaiapi.BadRequest("tool_choice", "Invalid type for 'tool_choice': expected a string or an object")
	}
	switch kind := choice.Text("type"); {
	case functions == nil:
		return openaiapi.BadRequest("tool_choice", "'tool_choice' is only allowed when 'tools' are given")
	case kind == "function":
		var function, outer openaiapi.Object
		function.Set("name", choice.Get("name"))
		outer.SetText("type", "function")
		outer.SetValue("function", function)
		chat.SetValue("tool_choice", outer)
	case kind == "allowed_tools":
		allowed, err := openaiapi.ParseList(choice.Get("tools"))
		if err != nil {
			return openaiapi.BadRequest("tool_choice", "Invalid type for 'tool_choice.tools': expected a list of objects")
		}
		names := make(map[string]bool, len(allowed))
		for _, a := range allowed {
			names[a.Text("name")] = true
		}
		*functions = slices.DeleteFunc(*functions, func(f openaiapi.Object) bool {
			inner, _ := openaiapi.ParseObject(f.Get("function")) // made above
			return !names[inner.Text("name")]
		})
		if choice.Has("mode") {
			chat.Set("tool_choice", choice.Get("mode"))
		}
	default:
		return openaiapi.BadRequest("tool_choice", "a 'tool_choice' of type '%s' is not supported here", kind)
	}
	return nil
}

// readFormat converts the form of the text.
func readFormat(r *response, o, chat *openaiapi.Object) *openaiapi.Problem {
	if n := o.Get("top_logprobs"); o.Has("top_logprobs") && string(n) != "0" {
		chat.Set("logprobs", json.RawMessage("true"))
		chat.Set("top_logprobs", n)
	}
	if !o.Has("text") {
		return nil
	}
	text, err := openaiapi.ParseObject(o.Get("text"))
	if err != nil {
		return openaiapi.BadRequest("text", "Invalid type for 'text': expected an object")
	}
	text.Default("format", `{"type":"text"}`)
	format, err := openaiapi.ParseObject(text.Get("format"))
	if err != nil {
		return openaiapi.BadRequest("text.format", "Invalid type for 'text.format': expected an object")
	}
	switch kind := format.Text("type"); kind {
	case "text":
	case "json_object":
		chat.SetValue("response_format", format)
	case "json_schema":
		if !format.Has("schema") {
			return openaiapi.BadRequest("text.format.schema", "Missing required parameter: 'text.format.schema'")
		}
		var schema, outer openaiapi.Object
		for _, name := range []string{"name", "description", "schema", "strict"} {
			if format.Has(name) {
				schema.Set(name, format.Get(name))
			}
			format.Default(name, map[bool]string{true: "false", false: "null"}[name == "strict"])
		}
		outer.SetText("type", kind)
		outer.SetValue("json_schema", schema)
		chat.SetValue("response_format", outer)
		text.SetValue("format", format)
	default:
		return openaiapi.BadRequest("text.format.type", "a 'text.format' of type '%s' is not supported here", kind)
	}
	r.echo["text"] = text.Append(nil)
	return nil
}

func readReasoning(r *response, o, chat *openaiapi.Object) *openaiapi.Problem {
	if !o.Has("reasoning") {
		return nil
	}
	reasoning, err := openaiapi.ParseObject(o.Get("reasoning"))
	if err != nil {
		return openaiapi.BadRequest("reasoning", "Invalid type for 'reasoning': expected an object")
	}
	if reasoning.Has("effort") {
		chat.Set("reasoning_effort", reasoning.Get("effort"))
	}
	reasoning.Default("effort", "null")
	reasoning.Default("summary", "null")
	r.echo["reasoning"] = reasoning.Append(nil)
	return nil
}

// part is a piece of a message's content in a chat.
type part struct {
	Type  string          `json:"type"`
	Text  *string         `json:"text,omitempty"`
	Image *image          `json:"image_url,omitempty"`
	File  json.RawMessage `json:"file,omitempty"`
	Audio json.RawMessage `json:"input_audio,omitempty"`
}

type image struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"`
}

// message is one of a chat.
type message struct {
	Role    string `json:"role"`
	Content any    `json:"content"`
	Calls   []call `json:"tool_calls,omitempty"`
	CallID  string `json:"tool_call_id,omitempty"`
}

type call struct {
	ID       string   `json:"id"`
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// messagesOf converts the input to messages.
func messagesOf(o *openaiapi.Object) ([]message, *openaiapi.Problem) {
	var messages []message
	if text := o.Text("instructions"); text != "" {
		messages = append(messages, message{Role: "system", Content: text})
	}
	var text string
	if json.Unmarshal(o.Get("input"), &text) == nil {
		return append(messages, message{Role: "user", Content: text}), nil
	}
	items, err := openaiapi.ParseList(o.Get("input"))
	if err != nil {
		return nil, openaiapi.BadRequest("input", "Invalid type for 'input': expected a string or a list of objects")
	}
	for i, in := range items {
		kind := in.Text("type")
		if kind == "" && in.Has("role") {
			kind = "message"
		}
		switch kind {
		case "message":
			m, problem := messageOf(&in, i)
			if problem != nil {
				return nil, problem
			}
			messages = append(messages, m)
		case "function_call":
			c := call{ID: in.Text("call_id"), Type: "function", Function: function{in.Text("name"), in.Text("arguments")}}
			if c.ID == "" || c.Function.Name == "" {
				return nil, openaiapi.BadRequest("input", "Missing required parameter: 'input[%d].call_id' or 'input[%d].name'", i, i)
			}
			if n := len(messages) - 1; n >= 0 && messages[n].Role == "assistant" {
				messages[n].Calls = append(messages[n].Calls, c) // calls of one answer are in one message
			} else {
				messages = append(messages, message{Role: "assistant", Calls: []call{c}})
			}
		case "function_call_output":
			content, problem := contentOf(in.Get("output"), "tool", i)
			if problem != nil {
				return nil, problem
			}
			messages = append(messages, message{Role: "tool", Content: content, CallID: in.Text("call_id")})
		case "reasoning": // models are not told what they thought before
		default:
			return nil, openaiapi.BadRequest("input", "input[%d]: an item of type '%s' is not supported here", i, kind)
		}
	}
	if len(messages) == 0 {
		return nil, openaiapi.BadRequest("input", "'input' has no message")
	}
	return messages, nil
}

func messageOf(in *openaiapi.Object, index int) (message, *openaiapi.Problem) {
	m := message{Role: in.Text("role")}
	switch m.Role {
	case "user", "assistant", "system":
	case "developer":
		m.Role = "system" // chat templates of models know only this name
	default:
		return m, openaiapi.BadRequest("input", "Invalid value for 'input[%d].role': '%s'", index, m.Role)
	}
	var problem *openaiapi.Problem
	m.Content, problem = contentOf(in.Get("content"), m.Role, index)
	return m, problem
}

// contentOf converts content. Texts alone become one text, because not all servers take parts for all roles.
func contentOf(content json.RawMessage, role string, index int) (any, *openaiapi.Problem) {
	var text string
	if json.Unmarshal(content, &text) == nil && len(content) > 0 {
		return text, nil
	}
	list, err := openaiapi.ParseList(content)
	if err != nil {
		return nil, openaiapi.BadRequest("input", "Invalid type for 'input[%d].content': expected a string or a list of objects", index)
	}
	var parts []part
	onlyText := true
	var texts []string
	for _, p := range list {
		switch kind := p.Text("type"); kind {
		case "input_text", "output_text", "text", "summary_text":
			text := p.Text("text")
			texts = append(texts, text)
			parts = append(parts, part{Type: "text", Text: &text})
		case "refusal":
			text := p.Text("refusal")
			texts = append(texts, text)
			parts = append(parts, part{Type: "text", Text: &text})
		case "input_image":
			onlyText = false
			url := p.Text("image_url")
			if url == "" {
				return nil, openaiapi.BadRequest("input", "input[%d]: an image without 'image_url' is not supported here", index)
			}
			parts = append(parts, part{Type: "image_url", Image: &image{url, p.Text("detail")}})
		case "input_file":
			onlyText = false
			p.Delete("type")
			parts = append(parts, part{Type: "file", File: p.Append(nil)})
		case "input_audio":
			onlyText = false
			parts = append(parts, part{Type: "input_audio", Audio: p.Get("input_audio")})
		default:
			return nil, openaiapi.BadRequest("input", "input[%d]: content of type '%s' is not supported here", index, kind)
		}
	}
	if onlyText || role != "user" {
		return strings.Join(texts, "\n"), nil
	}
	return parts, nil
}

// answered reads a whole chat completion.
func (r *response) answered(body []byte) error {
	o, err := openaiapi.ParseObject(body)
	if err != nil {
		return err
	}
	r.count(&o)
	choices, err := openaiapi.ParseList(o.Get("choices"))
	if err != nil || len(choices) == 0 {
		return errNoChoice
	}
	r.reason = choices[0].Text("finish_reason")
	m, err := openaiapi.ParseObject(choices[0].Get("message"))
	if err != nil {
		return err
	}
	for _, name := range []string{"reasoning_content", "reasoning"} {
		if text := m.Text(name); text != "" {
			r.add("reasoning").text.WriteString(text)
			break
		}
	}
	calls, _ := openaiapi.ParseList(m.Get("tool_calls")) // none is not a list
	text, refusal := m.Text("content"), m.Text("refusal")
	if text != "" || refusal != "" || len(calls) == 0 {
		it := r.add("message")
		it.text.WriteString(text)
		it.refuse.WriteString(refusal)
	}
	for i := range calls {
		f, err := openaiapi.ParseObject(calls[i].Get("function"))
		if err != nil {
			return err
		}
		it := r.add("function_call")
		it.call, it.name = calls[i].Text("id"), f.Text("name")
		it.text.WriteString(f.Text("arguments"))
	}
	for _, it := range r.items {
		it.done = true
	}
	return nil
}

// count takes the usage of an answer or a chunk.
func (r *response) count(o *openaiapi.Object) {
	u, ok := usageOf(o)
	if !ok {
		return
	}
	r.usage = &u
	var more struct {
		In struct {
			Cached int64 `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
		Out struct {
			Thought int64 `json:"reasoning_tokens"`
		} `json:"completion_tokens_details"`
	}
	if json.Unmarshal(o.Get("usage"), &more) == nil {
		r.cached, r.thought = more.In.Cached, more.Out.Thought
	}
}

// itemPrefixes begin the ids of items.
var itemPrefixes = map[string]string{"message": "msg_", "function_call": "fc_", "reasoning": "rs_"} //nolint:gochecknoglobals // a constant table

func (r *response) add(kind string) *item {
	it := &item{kind: kind, id: newID(itemPrefixes[kind])}
	if kind == "function_call" {
		it.call = newID("call_")
	}
	r.items = append(r.items, it)
	return it
}

// content is the content of a message or of reasoning, as far as it has been generated.
func (it *item) content() []any {
	list := []any{}
	if it.kind == "reasoning" {
		return append(list, map[string]any{"type": "reasoning_text", "text": it.text.String()})
	}
	if it.refuse.Len() > 0 {
		list = append(list, map[string]any{"type": "refusal", "refusal": it.refuse.String()})
	}
	if it.text.Len() > 0 || it.refuse.Len() == 0 {
		list = append(list, textPart(it.text.String()))
	}
	return list
}

func textPart(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}, "logprobs": []any{}}
}

// shown is the item as it is sent.
func (it *item) shown(incomplete bool) map[string]any {
	status := "completed"
	switch {
	case !it.done:
		status = "in_progress"
	case incomplete:
		status = "incomplete"
	}
	switch it.kind {
	case "function_call":
		return map[string]any{"type": it.kind, "id": it.id, "call_id": it.call, "name": it.name, "arguments": it.text.String(), "status": status}
	case "reasoning":
		return map[string]any{"type": it.kind, "id": it.id, "summary": []any{}, "content": it.content()}
	}
	return map[string]any{"type": it.kind, "id": it.id, "status": status, "role": "assistant", "content": it.content()}
}

// incompleteReasons are the reasons why an answer is not complete, by the chat's.
var incompleteReasons = map[string]string{"length": "max_output_tokens", "content_filter": "content_filter"} //nolint:gochecknoglobals // a constant table

// object is the response with a status; "" stands for the one that follows from the reason of its end.
func (r *response) object(status string, failure any) json.RawMessage {
	var o openaiapi.Object
	var details any
	if status == "" {
		status = "completed"
		if reason := incompleteReasons[r.reason]; reason != "" {
			status, details = "incomplete", map[string]string{"reason": reason}
		}
	}
	output := []any{}
	for i, it := range r.items {
		output = append(output, it.shown(status == "incomplete" && i == len(r.items)-1))
	}
	var completed any
	if status == "completed" {
		completed = time.Now().Unix()
	}
	o.SetText("id", r.id)
	o.SetText("object", "response")
	o.SetValue("created_at", r.created)
	o.SetValue("completed_at", completed)
	o.SetText("status", status)
	o.SetValue("incomplete_details", details)
	o.SetText("model", r.model)
	o.SetValue("previous_response_id", nil)
	o.SetValue("output", output)
	o.SetValue("error", failure)
	for _, d := range defaults {
		o.Set(d.name, r.echo[d.name])
	}
	o.SetValue("store", false)
	o.SetValue("background", false)
	o.SetValue("usage", r.shownUsage())
	return o.Append(nil)
}

func (r *response) shownUsage() any {
	if r.usage == nil {
		return nil
	}
	return map[string]any{
		"input_tokens": r.usage.Prompt, "output_tokens": r.usage.Completion, "total_tokens": r.usage.Prompt + r.usage.Completion,
		"input_tokens_details": map[string]int64{"cached_tokens": r.cached}, "output_tokens_details": map[string]int64{"reasoning_tokens": r.thought},
	}
}

// with is a map with more entries.
func with(m map[string]any, more map[string]any) map[string]any {
	maps.Copy(m, more)
	return m
}

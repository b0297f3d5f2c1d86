package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"clearmlserving/inference/openaiapi"
)

// repaired is a whole answer with the fields that the API requires and the server has left out. An answer that lacks
// nothing stays as it is.
func repaired(route, name string, body []byte) []byte {
	if route != openaiapi.Chat && route != openaiapi.Completions {
		return body
	}
	o, err := openaiapi.ParseObject(body)
	if err != nil {
		return body
	}
	choices, err := openaiapi.ParseList(o.Get("choices"))
	if err != nil {
		return body
	}
	changed := completeHead(&o, route, name, false)
	inner := false
	for i := range choices {
		if route == openaiapi.Chat {
			inner = completeChoice(&choices[i], i) || inner
		} else {
			inner = completeText(&choices[i], i) || inner
		}
	}
	if inner {
		o.Set("choices", openaiapi.ListOf(choices))
	}
	if !changed && !inner {
		return body
	}
	return o.Append(nil)
}

// completeHead adds what each answer has, and reports whether something was missing.
func completeHead(o *openaiapi.Object, route, name string, chunk bool) bool {
	object := "text_completion"
	if route == openaiapi.Chat {
		object = "chat.completion"
		if chunk {
			object += ".chunk"
		}
	}
	changed := o.Default("id", string(openaiapi.Encode(newID("chatcmpl-"))))
	changed = o.Default("object", string(openaiapi.Encode(object))) || changed
	changed = o.Default("created", fmt.Sprint(time.Now().Unix())) || changed
	return o.Default("model", string(openaiapi.Encode(name))) || changed
}

func completeChoice(c *openaiapi.Object, index int) bool {
	changed := c.Default("index", fmt.Sprint(index))
	message, err := openaiapi.ParseObject(c.Get("message"))
	if err != nil {
		return changed
	}
	inner := message.Default("role", `"assistant"`)
	inner = message.Default("content", "null") || inner
	inner = message.Default("refusal", "null") || inner
	inner = message.Default("annotations", "[]") || inner
	calls := false
	if list, err := openaiapi.ParseList(message.Get("tool_calls")); err == nil && len(list) > 0 {
		calls = true
		missing := false
		for i := range list {
			missing = list[i].Default("id", string(openaiapi.Encode(newID("call_")))) || missing
			missing = list[i].Default("type", `"function"`) || missing
			if list[i].Text("id") == "" { // an empty one would not tell calls apart
				list[i].SetText("id", newID("call_"))
				missing = true
			}
		}
		if missing {
			message.Set("tool_calls", openaiapi.ListOf(list))
			inner = true
		}
	}
	if inner {
		c.SetValue("message", message)
	}
	changed = changed || inner
	if reason := c.Text("finish_reason"); reason == "" || reason == "stop" && calls {
		c.SetText("finish_reason", finishReason(reason, calls))
		changed = true
	}
	return c.Default("logprobs", "null") || changed
}

func finishReason(told string, calls bool) string {
	if calls {
		return "tool_calls"
	}
	if told == "" {
		return "stop"
	}
	return told
}

func completeText(c *openaiapi.Object, index int) bool {
	changed := c.Default("index", fmt.Sprint(index))
	changed = c.Default("logprobs", "null") || changed
	return c.Default("finish_reason", `"stop"`) || changed
}

// chunkMembers are what each chunk of a stream has. A chunk with all of them is sent as it is.
var chunkMembers = [][]byte{[]byte(`"id"`), []byte(`"object"`), []byte(`"created"`), []byte(`"model"`)} //nolint:gochecknoglobals // a constant table

var finishMember = []byte(`"finish_reason"`) //nolint:gochecknoglobals // a constant

// whole reports whether a chunk has what the API requires. It looks for names only, which content may have too: then
// the chunk is sent as the server wrote it.
func whole(chunk []byte) bool {
	for _, name := range chunkMembers {
		if !bytes.Contains(chunk, name) {
			return false
		}
	}
	return bytes.Contains(chunk, finishMember) || bytes.Contains(chunk, []byte(`"choices":[]`))
}

// completeChunk is a chunk with what it lacks. id and created are those of the stream.
func completeChunk(chunk []byte, route, name, id string, created int64) []byte {
	o, err := openaiapi.ParseObject(chunk)
	if err != nil {
		return chunk
	}
	o.Default("id", string(openaiapi.Encode(id)))
	o.Default("created", fmt.Sprint(created))
	completeHead(&o, route, name, true)
	if choices, err := openaiapi.ParseList(o.Get("choices")); err == nil {
		for i := range choices {
			choices[i].Default("index", fmt.Sprint(i))
			choices[i].Default("finish_reason", "null")
		}
		o.Set("choices", openaiapi.ListOf(choices))
	}
	return o.Append(nil)
}

// refusalOf is the error of a server in the API's form and with a status that clients understand.
func refusalOf(status int, body []byte) *openaiapi.Problem {
	p := openaiapi.ProblemOf(status, strings.TrimSpace(string(shortened(body))))
	o, err := openaiapi.ParseObject(body)
	if err == nil {
		if inner, err := openaiapi.ParseObject(o.Get("error")); err == nil {
			o = inner
		}
		for _, name := range []string{"message", "error", "detail"} {
			if text := o.Text(name); text != "" {
				p.Message = text
				break
			}
		}
		if kind := o.Text("type"); kind != "" {
			p.Type = kind
		}
		p.Param = o.Text("param")
		if code := o.Text("code"); code != "" {
			p.Code = code
		}
	}
	if p.Message == "" {
		p.Message = "the engine answered " + http.StatusText(status)
	}
	if status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable && unsupported(p) {
		p.Status, p.Type = http.StatusBadRequest, openaiapi.InvalidRequest // clients repeat a request after a 5xx
	}
	return p
}

// unsupported reports whether the server says that it cannot answer such requests at all.
func unsupported(p *openaiapi.Problem) bool {
	text := strings.ToLower(p.Message)
	return p.Type == "not_supported_error" || strings.Contains(text, "not supported") || strings.Contains(text, "does not support")
}

// mostShown bounds the part of a server's error that is shown.
const mostShown = 2 << 10

func shortened(text []byte) []byte {
	if len(text) > mostShown {
		text = text[:mostShown]
	}
	return bytes.ToValidUTF8(text, []byte("\uFFFD"))
}

// usageOf reads the usage of an answer or a chunk; ok is false if it has none.
func usageOf(o *openaiapi.Object) (u openaiapi.Usage, ok bool) {
	if !o.Has("usage") || json.Unmarshal(o.Get("usage"), &u) != nil {
		return u, false
	}
	if u.Prompt == 0 && u.Completion == 0 { // of the Responses API
		var own struct {
			In  int64 `json:"input_tokens"`
			Out int64 `json:"output_tokens"`
		}
		if json.Unmarshal(o.Get("usage"), &own) == nil {
			u.Prompt, u.Completion = own.In, own.Out
		}
	}
	return u, u.Prompt >= 0 && u.Completion >= 0
}

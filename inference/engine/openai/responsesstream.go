package openai

import (
	"encoding/json"
	"errors"

	"clearmlserving/inference/openaiapi"
)

var errNoChoice = errors.New("the engine's answer has no choices")

// events makes the events of the Responses API of the chunks of a chat completion.
type events struct {
	r       *response
	number  int
	open    *item // that is being generated
	begun   bool
	refused bool // the open part of a message is a refusal
}

// event appends an event.
func (e *events) event(b []byte, kind string, members map[string]any) []byte {
	var o openaiapi.Object
	o.SetText("type", kind)
	o.SetValue("sequence_number", e.number)
	e.number++
	for _, name := range []string{"output_index", "item_id", "content_index", "response", "item", "part", "delta", "text", "refusal", "arguments", "name", "logprobs", "error", "code", "message", "param"} {
		if value, ok := members[name]; ok {
			if raw, ok := value.(json.RawMessage); ok {
				o.Set(name, raw)
			} else {
				o.SetValue(name, value)
			}
		}
	}
	b = append(append(append(b, "event: "...), kind...), "\ndata: "...)
	return append(o.Append(b), "\n\n"...)
}

// begin appends what comes before the first chunk.
func (e *events) begin(b []byte) []byte {
	if e.begun {
		return b
	}
	e.begun = true
	b = e.event(b, "response.created", map[string]any{"response": e.r.object("in_progress", nil)})
	return e.event(b, "response.in_progress", map[string]any{"response": e.r.object("in_progress", nil)})
}

// chunk appends the events of a chunk.
func (e *events) chunk(b []byte, chunk *openaiapi.Object) []byte {
	b = e.begin(b)
	e.r.count(chunk)
	choices, err := openaiapi.ParseList(chunk.Get("choices"))
	if err != nil || len(choices) == 0 {
		return b // the usage at the end
	}
	if delta, err := openaiapi.ParseObject(choices[0].Get("delta")); err == nil {
		for _, name := range []string{"reasoning_content", "reasoning"} {
			if text := delta.Text(name); text != "" {
				b = e.text(b, "reasoning", text, false)
				break
			}
		}
		if text := delta.Text("content"); text != "" {
			b = e.text(b, "message", text, false)
		}
		if text := delta.Text("refusal"); text != "" {
			b = e.text(b, "message", text, true)
		}
		calls, _ := openaiapi.ParseList(delta.Get("tool_calls")) // none is not a list
		for i := range calls {
			b = e.call(b, &calls[i])
		}
	}
	if reason := choices[0].Text("finish_reason"); reason != "" {
		e.r.reason = reason
	}
	return b
}

// position names the open item, and its part of content.
func (e *events) position() map[string]any {
	return map[string]any{"output_index": len(e.r.items) - 1, "item_id": e.open.id}
}

// text appends the events of a piece of text.
func (e *events) text(b []byte, kind, text string, refusal bool) []byte {
	if e.open == nil || e.open.kind != kind || e.refused != refusal {
		b = e.close(b)
		e.open, e.refused = e.r.add(kind), refusal
		started := e.open.shown(false)
		started["content"] = []any{}
		b = e.event(b, "response.output_item.added", map[string]any{"output_index": len(e.r.items) - 1, "item": started})
		b = e.event(b, "response.content_part.added", with(e.position(), map[string]any{"content_index": 0, "part": e.part()}))
	}
	name := "response.output_text.delta"
	more := map[string]any{"content_index": 0, "delta": text}
	switch {
	case refusal:
		name = "response.refusal.delta"
		e.open.refuse.WriteString(text)
	case kind == "reasoning":
		name = "response.reasoning_text.delta"
		e.open.text.WriteString(text)
	default:
		more["logprobs"] = []any{}
		e.open.text.WriteString(text)
	}
	return e.event(b, name, with(e.position(), more))
}

// part is the only part of the open item.
func (e *events) part() any {
	switch {
	case e.open.kind == "reasoning":
		return map[string]any{"type": "reasoning_text", "text": e.open.text.String()}
	case e.refused:
		return map[string]any{"type": "refusal", "refusal": e.open.refuse.String()}
	}
	return textPart(e.open.text.String())
}

// call appends the events of a piece of a call.
func (e *events) call(b []byte, piece *openaiapi.Object) []byte {
	index := 0
	_ = json.Unmarshal(piece.Get("index"), &index) // servers that send whole calls may leave it out
	f, err := openaiapi.ParseObject(piece.Get("function"))
	if err != nil {
		return b
	}
	if e.open == nil || e.open.kind != "function_call" || e.open.index != index || (f.Text("name") != "" && e.open.name != "" && piece.Text("id") != "" && piece.Text("id") != e.open.call) {
		b = e.close(b)
		e.open = e.r.add("function_call")
		e.open.index, e.open.name = index, f.Text("name")
		if id := piece.Text("id"); id != "" {
			e.open.call = id
		}
		b = e.event(b, "response.output_item.added", map[string]any{"output_index": len(e.r.items) - 1, "item": e.open.shown(false)})
	}
	if text := f.Text("arguments"); text != "" {
		e.open.text.WriteString(text)
		b = e.event(b, "response.function_call_arguments.delta", with(e.position(), map[string]any{"delta": text}))
	}
	return b
}

// close ends the open item.
func (e *events) close(b []byte) []byte {
	it := e.open
	if it == nil {
		return b
	}
	it.done = true
	if it.kind == "function_call" {
		b = e.event(b, "response.function_call_arguments.done", with(e.position(), map[string]any{"arguments": it.text.String(), "name": it.name}))
	} else {
		at := with(e.position(), map[string]any{"content_index": 0})
		switch {
		case e.refused:
			b = e.event(b, "response.refusal.done", with(at, map[string]any{"refusal": it.refuse.String()}))
		case it.kind == "reasoning":
			b = e.event(b, "response.reasoning_text.done", with(at, map[string]any{"text": it.text.String()}))
		default:
			b = e.event(b, "response.output_text.done", with(at, map[string]any{"text": it.text.String(), "logprobs": []any{}}))
		}
		b = e.event(b, "response.content_part.done", with(with(e.position(), map[string]any{"content_index": 0}), map[string]any{"part": e.part()}))
	}
	b = e.event(b, "response.output_item.done", map[string]any{"output_index": len(e.r.items) - 1, "item": it.shown(incompleteReasons[e.r.reason] != "")})
	e.open = nil
	return b
}

// end appends what comes after the last chunk.
func (e *events) end(b []byte) []byte {
	b = e.begin(b)
	if len(e.r.items) == 0 { // the model has ended at once
		b = e.text(b, "message", "", false)
	}
	b = e.close(b)
	kind := "response.completed"
	if incompleteReasons[e.r.reason] != "" {
		kind = "response.incomplete"
	}
	return e.event(b, kind, map[string]any{"response": e.r.object("", nil)})
}

// fail appends the end of a response that failed.
func (e *events) fail(b []byte, p *openaiapi.Problem) []byte {
	b = e.begin(b)
	payload := map[string]any{"type": p.Type, "code": p.Code, "message": p.Message, "param": nil}
	b = e.event(b, "error", map[string]any{"error": payload, "code": p.Code, "message": p.Message, "param": nil})
	return e.event(b, "response.failed", map[string]any{"response": e.r.object("failed", map[string]string{"code": p.Code, "message": p.Message})})
}

package openai

import (
	"encoding/json"
	"errors"
	"strings"

	"clearmlserving/inference/openaiapi"
)

// Servers whose model has no template for functions ignore them, also if the client demands a call. The form of an
// answer they enforce all the same: so a call is asked for as a JSON text of its form.

// callsRequired reports whether the answer to a chat has to call a function.
func callsRequired(chat *openaiapi.Object) bool {
	if !chat.Has("tools") || !chat.Has("tool_choice") {
		return false
	}
	word := chat.Text("tool_choice")
	return word == "required" || word == ""
}

// hasCalls reports whether a chat's answer calls a function.
func hasCalls(answer *openaiapi.Object) bool {
	choices, err := openaiapi.ParseList(answer.Get("choices"))
	if err != nil || len(choices) == 0 {
		return true // there is nothing to repair
	}
	m, err := openaiapi.ParseObject(choices[0].Get("message"))
	if err != nil {
		return true
	}
	calls, err := openaiapi.ParseList(m.Get("tool_calls"))
	return err == nil && len(calls) > 0
}

// formOfCall is a chat whose answer is a call as JSON text. ok is false if its functions cannot be read.
func formOfCall(chat *openaiapi.Object) (form openaiapi.Object, ok bool) {
	tools, err := openaiapi.ParseList(chat.Get("tools"))
	if err != nil {
		return form, false
	}
	only := ""
	if choice, err := openaiapi.ParseObject(chat.Get("tool_choice")); err == nil {
		named, err := openaiapi.ParseObject(choice.Get("function"))
		if err != nil {
			return form, false
		}
		only = named.Text("name")
	}
	var forms, shown []any
	for _, tool := range tools {
		f, err := openaiapi.ParseObject(tool.Get("function"))
		if err != nil || only != "" && f.Text("name") != only {
			continue
		}
		arguments := json.RawMessage(`{"type":"object"}`)
		if f.Has("parameters") {
			arguments = f.Get("parameters")
		}
		shown = append(shown, f)
		forms = append(forms, map[string]any{
			"type": "object", "required": []string{"name", "arguments"}, "additionalProperties": false,
			"properties": map[string]any{"name": map[string]any{"const": f.Text("name")}, "arguments": arguments},
		})
	}
	if len(forms) == 0 {
		return form, false
	}
	messages, err := openaiapi.ParseList(chat.Get("messages"))
	if err != nil {
		return form, false
	}
	form, err = openaiapi.ParseObject(chat.Append(nil))
	if err != nil {
		return form, false
	}
	for _, name := range []string{"tools", "tool_choice", "parallel_tool_calls"} {
		form.Delete(name)
	}
	text := "Call one of these functions. Answer with JSON that has the function's name and its arguments.\n" + string(openaiapi.Encode(shown))
	if len(messages) > 0 && messages[0].Text("role") == "system" && messages[0].Text("content") != "" {
		messages[0].SetText("content", messages[0].Text("content")+"\n"+text)
	} else {
		var system openaiapi.Object
		system.SetText("role", "system")
		system.SetText("content", text)
		messages = append([]openaiapi.Object{system}, messages...)
	}
	form.Set("messages", openaiapi.ListOf(messages))
	form.SetValue("response_format", map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "call", "strict": true, "schema": map[string]any{"anyOf": forms}}})
	return form, true
}

var errNoCall = errors.New("the answer is no call")

// callOf is an answer with a call of a function, made of one with the call as text.
func callOf(answer []byte) ([]byte, error) {
	o, err := openaiapi.ParseObject(answer)
	if err != nil {
		return nil, err
	}
	choices, err := openaiapi.ParseList(o.Get("choices"))
	if err != nil || len(choices) == 0 {
		return nil, errNoCall
	}
	for i := range choices {
		m, err := openaiapi.ParseObject(choices[i].Get("message"))
		if err != nil {
			return nil, err
		}
		var called struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"`
		}
		if json.Unmarshal([]byte(strings.TrimSpace(m.Text("content"))), &called) != nil || called.Name == "" || len(called.Arguments) == 0 {
			return nil, errNoCall
		}
		m.Set("content", json.RawMessage("null"))
		m.SetValue("tool_calls", []call{{ID: newID("call_"), Type: "function", Function: function{called.Name, string(called.Arguments)}}})
		choices[i].SetValue("message", m)
		choices[i].SetText("finish_reason", "tool_calls")
	}
	o.Set("choices", openaiapi.ListOf(choices))
	return o.Append(nil), nil
}

package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
)

func FuzzPrepare(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}},{"type":"text","text":"a"}]}],"stream":true,"stream_options":{"x":1},"temperature":1}`,
		`{"model":"m","input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"1"}],"tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","tools":[{"name":"f"}],"mode":"auto"},"text":{"format":{"type":"json_schema","name":"s","schema":{}}},"reasoning":{"effort":"low"}}`,
		`{"prompt":"a"}`,
	} {
		for _, route := range []string{"", openaiapi.Chat, openaiapi.Responses, openaiapi.Completions} {
			f.Add(route, "application/json", []byte(body))
		}
	}
	f.Add(openaiapi.Transcriptions, "multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--b--\r\n"))
	f.Fuzz(func(t *testing.T, route, contentType string, body []byte) {
		q, problem := prepare(route, contentType, body, "name", &serving.OpenAI{NoteImages: true})
		if problem != nil {
			if !json.Valid(problem.Body()) || problem.Status < 400 {
				t.Errorf("%d %s", problem.Status, problem.Body())
			}
			return
		}
		if q.contentType == jsonType && !json.Valid(q.body) {
			t.Errorf("%q becomes %q", body, q.body)
		}
		if q.forced != nil {
			if form, ok := formOfCall(q.forced); ok && !json.Valid(form.Append(nil)) {
				t.Errorf("%q", form.Append(nil))
			}
		}
	})
}

func FuzzWholeAnswers(f *testing.F) {
	f.Add([]byte(`{"id":"x","choices":[{"message":{"content":"a","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`))
	f.Add([]byte(`{"choices":[{"message":{"content":"{\"name\":\"f\",\"arguments\":{}}","reasoning_content":"hm"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, route := range []string{openaiapi.Chat, openaiapi.Completions} {
			if got := repaired(route, "m", body); json.Valid(body) && !json.Valid(got) {
				t.Errorf("%q becomes %q", body, got)
			}
		}
		if called, err := callOf(body); err == nil && !json.Valid(called) {
			t.Errorf("%q becomes %q", body, called)
		}
		if p := refusalOf(500, body); !json.Valid(p.Body()) {
			t.Errorf("%q becomes %q", body, p.Body())
		}
		o, _ := openaiapi.ParseObject([]byte(`{"model":"m","input":"a"}`)) // it is one
		_, r, problem := chatOf(&o)
		if problem != nil {
			t.Fatal(problem)
		}
		if err := r.answered(body); err == nil && !json.Valid(r.object("", nil)) {
			t.Errorf("%q becomes %q", body, r.object("", nil))
		}
	})
}

// Whatever a server sends, a stream ends, and each of its events is JSON.
func FuzzStream(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n"), false)
	f.Add([]byte(": ping\r\n\r\ndata: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]},\"finish_reason\":\"length\"}]}\r\n\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n"), true)
	f.Add([]byte("data: {\"error\":{\"message\":\"a\"}}\n\n"), true)
	f.Add([]byte("data: x\ndata: y\n\n"), false)
	f.Fuzz(func(t *testing.T, sent []byte, responses bool) {
		m := &model{e: New(Options{Logger: slog.New(slog.DiscardHandler)}), settings: serving.OpenAI{Stall: time.Hour, Model: "m"}, tokens: newTokens()}
		q := &question{route: openaiapi.Chat, stream: true}
		if responses {
			o, _ := openaiapi.ParseObject([]byte(`{"model":"m","input":"a","stream":true}`)) // it is one
			_, q.responses, _ = chatOf(&o)
		}
		s := newStream(m, q, io.NopCloser(bytes.NewReader(sent)), func(error) {}, time.Now())
		defer s.Close() //nolint:errcheck // of a test
		var got []byte
		for range len(sent) + 10 {
			piece, err := s.Next(context.Background())
			got = append(got, piece...)
			if err != nil {
				if responses && !errors.Is(err, io.EOF) && !strings.Contains(string(got), "response.failed") {
					t.Errorf("%q ends with %v and without an event", sent, err)
				}
				break
			}
		}
		if s.failed == nil && s.reading == nil {
			t.Errorf("%q does not end", sent)
		}
		if !responses {
			return
		}
		events := splitter{buffer: got}
		for {
			event, ok := events.cut()
			if !ok {
				break
			}
			if data := dataOf(event); !json.Valid(data) {
				t.Errorf("%q: the event %q", sent, event)
			}
		}
	})
}

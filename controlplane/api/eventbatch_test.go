package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"clearmlserving/controlplane/documents"
)

func TestBareNaNBecomesNullAndTextsStay(t *testing.T) {
	for text, want := range map[string]string{
		`{"v":NaN}`:                    `{"v":null}`,
		`[NaN, Infinity,-Infinity]`:    `[null, null,null]`,
		`{"NaN":"Infinity \" NaN \\"}`: `{"NaN":"Infinity \" NaN \\"}`,
		`{"a":"\\","b":NaN}`:           `{"a":"\\","b":null}`,
		"{\"open\nNaN":                 "{\"open\nnull",
		`"NaN`:                         `"NaN`,
		`"\`:                           `"\`,
	} {
		if got := string(withoutNaN([]byte(text))); got != want {
			t.Errorf("withoutNaN(%s) = %s; want %s", text, got, want)
		}
	}
}

func FuzzBatch(f *testing.F) {
	for _, seed := range []string{
		`{"type":"log","task":"t"}`, "{\"v\":NaN}\n\n{}", "[{}]", `{"events":[{"task":"t"}]}`, "{\"a\":\"\\", `"`, "NaN", "-Infinity\n{}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		events, err := parseEvents([]byte(body))
		if refused := (*documents.Error)(nil); err != nil && (!errors.As(err, &refused) || refused.Code != 400) {
			t.Fatalf("parseEvents(%q): %v; want a refusal with 400", body, err)
		}
		for _, e := range events {
			if _, err := e.Encode(); err != nil {
				t.Fatalf("parseEvents(%q) gives what can't be stored: %v", body, err)
			}
		}
		// What is JSON already is not changed.
		if json.Valid([]byte(body)) && string(withoutNaN([]byte(body))) != body {
			t.Fatalf("withoutNaN(%q) changes valid JSON", body)
		}
		if err == nil && len(events) == 0 && strings.Contains(body, `"task"`) && json.Valid([]byte(body)) && strings.HasPrefix(body, `{"task"`) {
			t.Fatalf("parseEvents(%q) drops an event", body)
		}
	})
}

package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

func exchange(body, answer string) serving.Exchange {
	return serving.Exchange{ContentType: "application/json", Body: []byte(body), Status: 200, Answer: []byte(answer)}
}

// learned is what recorded exchanges tell of an endpoint about which nothing else is known.
func learned(all ...serving.Exchange) engine.Signature {
	var l engine.Lessons
	for _, e := range all {
		l.Add(e, engine.ExampleRecorded)
	}
	return l.Apply(engine.Signature{Source: engine.SourceNone})
}

func TestRequestsTellASchemaAndAnExample(t *testing.T) {
	for name, tc := range map[string]struct {
		bodies []string
		schema string
	}{
		"objects": {
			[]string{`{"a": 1, "b": [1.5, null], "c": {"d": true}}`, `{"a": "x", "b": []}`},
			`{"properties":{"a":{"type":["string","number"]},"b":{"items":{"type":["number","null"]},"type":"array"},"c":{"properties":{"d":{"type":"boolean"}},"required":["d"],"type":"object"}},"required":["a","b"],"type":"object"}`,
		},
		"rows":      {[]string{`[[1,2],[3,4.5]]`}, `{"items":{"items":{"type":"number"},"type":"array"},"type":"array"}`},
		"records":   {[]string{`[{"x":1},{"x":2,"y":3}]`}, `{"items":{"properties":{"x":{"type":"number"},"y":{"type":"number"}},"required":["x"],"type":"object"},"type":"array"}`},
		"different": {[]string{`1`, `[]`, `{}`, `null`, `"<&>"`}, `{"type":["object","array","string","number","null"]}`},
		"many keys": {[]string{"{" + strings.Repeat(`"%d":1,`, 300) + `"end":1}`}, `{"type":"object"}`},
		"deep":      {[]string{strings.Repeat("[", 40) + strings.Repeat("]", 40)}, strings.Repeat(`{"items":`, 16) + `{"type":"array"}` + strings.Repeat(`,"type":"array"}`, 16)},
	} {
		var all []serving.Exchange
		for _, body := range tc.bodies {
			if n := strings.Count(body, "%d"); n > 0 {
				numbers := make([]any, n)
				for i := range numbers {
					numbers[i] = i
				}
				body = fmt.Sprintf(body, numbers...)
			}
			all = append(all, exchange(body, body))
		}
		s := learned(all...)
		if string(s.BodySchema) != tc.schema || string(s.AnswerSchema) != tc.schema {
			t.Errorf("%s: %s\nwant %s", name, s.BodySchema, tc.schema)
		}
		if s.Source != engine.SourceRequests || s.ExampleOf != engine.ExampleRecorded || s.Example == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestOnlyGoodRequestsAreLearnedFrom(t *testing.T) {
	with := func(change func(*serving.Exchange)) serving.Exchange {
		e := exchange(`{"secret":1}`, `1`)
		change(&e)
		return e
	}
	for name, e := range map[string]serving.Exchange{
		"an error":        with(func(e *serving.Exchange) { e.Status = 422 }),
		"blanked fields":  with(func(e *serving.Exchange) { e.Redacted = true }),
		"another type":    with(func(e *serving.Exchange) { e.ContentType = "text/csv" }),
		"no JSON":         with(func(e *serving.Exchange) { e.Body = []byte("{") }),
		"two values":      with(func(e *serving.Exchange) { e.Body = []byte("1 2") }),
		"not UTF-8":       with(func(e *serving.Exchange) { e.Body = []byte("\"\xff\"") }),
		"a large body":    with(func(e *serving.Exchange) { e.Body = []byte(`"` + strings.Repeat("x", 64<<10) + `"`) }),
		"an unknown type": with(func(e *serving.Exchange) { e.ContentType = "?;?" }),
	} {
		if s := learned(e); s.Source != engine.SourceNone || s.Example != nil || s.BodySchema != nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	s := learned(exchange(`1`, `1`), exchange(`2`, "no JSON"))
	if s.AnswerSchema != nil || string(s.BodySchema) != `{"type":"number"}` {
		t.Errorf("an answer that is not JSON: %s", s.AnswerSchema)
	}
}

func TestLessonsComeLast(t *testing.T) {
	var l engine.Lessons
	l.Add(exchange(`{"recorded": true}`, `[1]`), engine.ExampleRecorded)
	l.Add(exchange(`{"golden": true}`, `[1]`), engine.ExampleGolden)
	l.Add(exchange(`{"golden": false}`, `[1]`), engine.ExampleGolden)
	s := l.Apply(parsed(t, table))
	if string(s.Example) != `{"golden":true}` || s.ExampleOf != engine.ExampleGolden || s.Source != "model, requests" {
		t.Errorf("%s %s %s", s.Example, s.ExampleOf, s.Source)
	}
	if s.BodySchema != nil || string(s.AnswerSchema) != `{"type":"array"}` {
		t.Errorf("the model's own are replaced: %s %s", s.BodySchema, s.AnswerSchema)
	}
	given := engine.Signature{Source: engine.SourceHints, Example: []byte(`1`), ExampleOf: engine.ExampleCode, BodySchema: []byte(`{"type":"number"}`), AnswerSchema: []byte(`{"type":"number"}`)}
	if s := l.Apply(given); string(s.Example) != `1` || s.Source != engine.SourceHints {
		t.Errorf("%+v", s)
	}
	for range 300 {
		l.Add(exchange(`{"golden": true}`, `[1]`), engine.ExampleRecorded)
	}
	if l.Add(exchange(`{"late": 1}`, `1`), engine.ExampleGolden) {
		t.Error("learns for ever")
	}
}

func TestNamesThatAreLearnedAreBounded(t *testing.T) {
	var l engine.Lessons
	for n := range 50 {
		var b strings.Builder
		for i := range 60 {
			fmt.Fprintf(&b, `,"a%d":{"x":0`, i)
			for j := range 3 {
				fmt.Fprintf(&b, `,"%d %s":1`, 3*n+j, strings.Repeat("n", 200))
			}
			b.WriteString("}")
		}
		l.Add(exchange("{"+b.String()[1:]+"}", `{"`+strings.Repeat("n", 1000)+`": 1, "y": 2}`), engine.ExampleRecorded)
	}
	s := l.Apply(engine.Signature{})
	if n := len(s.BodySchema); n < 100_000 || n > engine.MaxExample {
		t.Errorf("the schema has %d bytes", n)
	}
	if got := string(s.AnswerSchema); got != `{"properties":{"y":{"type":"number"}},"required":["y"],"type":"object"}` {
		t.Errorf("answer %s", got)
	}
}

func TestASchemaThatIsLearnedIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, `,"a%d":{"x":0`, i)
		for j := range 80 {
			fmt.Fprintf(&b, `,"%d":1`, j)
		}
		b.WriteString("}")
	}
	s := learned(exchange("{"+b.String()[1:]+"}", "1"))
	if n := strings.Count(string(s.BodySchema), `"number"`); n < 1000 || n > 2000 {
		t.Errorf("%d numbers are described, in %d bytes", n, len(s.BodySchema))
	}
}

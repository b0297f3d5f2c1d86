package serving_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/serving"
)

func TestOptionsSurviveDecodingAndEncoding(t *testing.T) {
	text := `{"a/b":{"later":[1],"record":{"max":5,"redact":["x.y"],"share":0.1,"why":"audit"}},` +
		`"m":{"golden":{"artifact":"golden_m","timeout":0.5,"tolerance":0.000001},"shadow":{"share":1,"to":"other/2"}}}`
	s := decode(t, map[serving.Section]string{serving.SectionOptions: text})
	if len(s.Broken) > 0 {
		t.Fatal(s.Broken)
	}
	got, err := s.Encode(serving.SectionOptions)
	if err != nil || got != text {
		t.Errorf("%v\n got %s\nwant %s", err, got, text)
	}
}

func TestUnusableOptionsAreBrokenRecordsThatStay(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"a share above 1", `{"m":{"record":{"share":2}}}`, "share"},
		{"a share of nothing", `{"m":{"shadow":{"to":"n","share":0}}}`, "share"},
		{"golden without samples", `{"m":{"golden":{}}}`, "artifact"},
		{"a negative tolerance", `{"m":{"golden":{"artifact":"a","tolerance":-1}}}`, "tolerance"},
		{"shadow to itself", `{"m":{"shadow":{"to":"/m/"}}}`, "itself"},
		{"no record", `{"m":{"record":7}}`, "record"},
		{"a field to redact without a name", `{"m":{"record":{"redact":["."]}}}`, "redact"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := decode(t, map[serving.Section]string{serving.SectionOptions: tc.text})
			if len(s.Broken) != 1 || !strings.Contains(s.Broken[0].Err.Error(), tc.want) {
				t.Fatalf("broken: %v", s.Broken)
			}
			if got, err := s.Encode(serving.SectionOptions); err != nil || got != tc.text {
				t.Errorf("written back: %s, %v", got, err)
			}
		})
	}
}

func TestOptionsOfAMonitoringReachItsVersionsOneByOne(t *testing.T) {
	record, golden := &serving.Record{Share: 1}, &serving.Golden{Artifact: "g"}
	own := &serving.Golden{Artifact: "own"}
	s := serving.Service{
		Endpoints:  custom("n", "m/9"),
		Monitoring: map[string]serving.Monitoring{"m": {BaseServingURL: "m", EngineType: "custom", Project: "p"}},
		Canaries:   map[string]serving.Canary{"c": {Endpoint: "c", Weights: []float64{1}, LoadEndpoints: []string{"n"}}},
		Options: map[string]serving.EndpointOptions{
			"m": {Record: record, Golden: golden}, "/m/2": {Golden: own},
			"c": {Shadow: &serving.Shadow{To: "n", Share: 1}}, "n": {}, "nobody": {Record: record},
		},
	}
	plan := serving.Resolve(s, map[string][]serving.MonitoredModel{"m": {{ID: "B"}, {ID: "A"}}}, serving.Versions{"m": {"A": 1, "B": 2}})
	want := map[serving.EndpointURL]serving.EndpointOptions{
		"m/1": {Record: record, Golden: golden}, "m/2": {Record: record, Golden: own}, "c": {Shadow: &serving.Shadow{To: "n", Share: 1}},
	}
	if d := cmp.Diff(want, plan.Options); d != "" {
		t.Error(d)
	}
	if len(plan.Problems) > 0 {
		t.Error(plan.Problems)
	}
}

func TestOptionsMoveTheHashAndNoOptionsDoNot(t *testing.T) {
	s := serving.Service{Endpoints: custom("m")}
	before := s.StateHash(nil)
	s.Options = map[string]serving.EndpointOptions{}
	if s.StateHash(nil) != before {
		t.Error("an empty section moves the hash")
	}
	if err := s.SetOptions("/m/", func(o *serving.EndpointOptions) { o.Golden = &serving.Golden{Artifact: "g"} }); err != nil {
		t.Fatal(err)
	}
	with := s.StateHash(map[string]string{"g": "1"})
	if with == before || with == s.StateHash(map[string]string{"g": "2"}) {
		t.Error("options, or the content of their samples, do not move the hash")
	}
	if err := s.SetOptions("m", func(o *serving.EndpointOptions) { o.Golden = nil }); err != nil || len(s.Options) != 0 {
		t.Errorf("an empty record stays: %v, %v", s.Options, err)
	}
	err := s.SetOptions("m", func(o *serving.EndpointOptions) { o.Shadow = &serving.Shadow{To: "m", Share: 1} })
	if err == nil || len(s.Options) != 0 {
		t.Errorf("stored although refused: %v, %v", s.Options, err)
	}
}

func TestTheShorterLimitBoundsAGoldenAnswer(t *testing.T) {
	for _, tc := range []struct {
		own     float64
		request time.Duration
		want    time.Duration
	}{{0, time.Minute, time.Minute}, {0.5, time.Minute, time.Second / 2}, {90, time.Minute, time.Minute}, {2, 0, 2 * time.Second}, {0, 0, 0}} {
		if got := (serving.Golden{Timeout: tc.own}).Limit(tc.request); got != tc.want {
			t.Errorf("%v of %v: %v, want %v", tc.own, tc.request, got, tc.want)
		}
	}
}

func TestCompareNamesThePlaces(t *testing.T) {
	for _, tc := range []struct {
		name, want, got string
		tolerance       float64
		found           string // all differences, "" for none
	}{
		{"the same bytes", "abc", "abc", 0, ""},
		{"order and blanks of JSON do not count", `{"a": 1, "b": [1, 2]}`, `{"b":[1,2],"a":1}`, 0, ""},
		{"1 and 1.0 are the same number", `[1]`, `[1.0]`, 0, ""},
		{"within the tolerance", `{"y":[1.0000001]}`, `{"y":[1]}`, 1e-6, ""},
		{"relative to great numbers", `1000000000`, `1000000100`, 1e-6, ""},
		{"beyond the tolerance", `{"y":[{"p":0.25},{"p":0.5}]}`, `{"y":[{"p":0.25},{"p":0.75}]}`, 0.1, "y[1].p is 0.75, expected 0.5"},
		{"whole numbers beyond a float's", `9007199254740993`, `9007199254740992`, 0, "the answer is 9007199254740992, expected 9007199254740993"},
		{"numbers beyond every float", `1e999`, `2e999`, 1, "the answer is 2e999, expected 1e999"},
		{"missing and new fields", `{"a":1}`, `{"b":2}`, 0, "a is missing, expected 1; b is 2, expected nothing"},
		{"a longer list", `[1]`, `[1,2]`, 0, "the answer is a list of 2, expected a list of 1"},
		{"another kind", `{"a":"1"}`, `{"a":1}`, 1, `a is 1, expected "1"`},
		{"null is not missing", `{"a":null}`, `{}`, 0, "a is missing, expected null"},
		{"odd names are quoted", `{"od280/x y":1}`, `{"od280/x y":2}`, 0, `["od280/x y"] is 2, expected 1`},
		{"text", "abc", "abd", 1, `the answer is "abd", expected "abc"`},
		{"JSON and text", `{"a":1}`, "", 0, `the answer is empty, expected {"a":1}`},
		{"bytes", "\xff\xfe", "\xff", 0, "the answer is 1 bytes that are no text, expected 2 bytes that are no text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var texts []string
			for _, d := range serving.Compare(serving.Answer{Body: []byte(tc.want)}, serving.Answer{Status: 200, Body: []byte(tc.got)}, tc.tolerance) {
				texts = append(texts, d.String())
			}
			if got := strings.Join(texts, "; "); got != tc.found {
				t.Errorf("got %q, want %q", got, tc.found)
			}
		})
	}
	if found := serving.Compare(serving.Answer{Status: 200, Body: []byte("1")}, serving.Answer{Status: 500, Body: []byte("1")}, 0); len(found) != 1 || found[0].Path != "status" {
		t.Errorf("status: %v", found)
	}
	many := strings.Repeat("1,", 1000) + "1"
	if found := serving.Compare(serving.Answer{Body: []byte("[" + many + "]")}, serving.Answer{Body: []byte("[" + strings.ReplaceAll(many, "1", "2") + "]")}, 0); len(found) != 20 {
		t.Errorf("%d differences are listed", len(found))
	}
}

func TestRedactionBlanksNamedFields(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		fields     []string
		want       string
		changed    bool
	}{
		{"at any depth", `{"password":"p","user":[{"Password":{"a":1}}],"n":12345678901234567890}`, []string{"password"}, `{"n":12345678901234567890,"password":"[redacted]","user":[{"Password":"[redacted]"}]}`, true},
		{"a path from the top, through lists", `{"x":[{"y":1,"z":2}],"y":3}`, []string{"x.y"}, `{"x":[{"y":"[redacted]","z":2}],"y":3}`, true},
		{"nothing of that name: unchanged bytes", `{ "a" : 1.50 }`, []string{"b", "a.b"}, `{ "a" : 1.50 }`, false},
		{"both of a field given twice", `{"k":"first","k":"second"}`, []string{"k"}, `{"k":"[redacted]"}`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, changed, err := serving.RedactJSON([]byte(tc.text), tc.fields)
			if err != nil || string(got) != tc.want || changed != tc.changed {
				t.Errorf("%s, %v, %v", got, changed, err)
			}
		})
	}
	if _, _, err := serving.RedactJSON([]byte("password=p"), []string{"password"}); !errors.Is(err, serving.ErrNotRedactable) {
		t.Errorf("a form: %v", err)
	}
}

func TestExchangesAreReadAsTheyWereWritten(t *testing.T) {
	all := []serving.Exchange{
		{Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Endpoint: "m/1", AnsweredBy: "m/2", ModelID: "A", Route: "v1/responses", ContentType: "application/json", Body: []byte(`{"a":"ü<>"}`), Status: 200, AnswerType: "application/json", Answer: []byte("1\n2"), Redacted: true},
		{Endpoint: "raw", Body: []byte("\xff\x00"), Status: 500, Answer: []byte("\xfe")},
		{Endpoint: "empty", ContentType: "text/plain", Body: []byte{}, Status: 204, Answer: []byte{}},
	}
	var data []byte
	for _, e := range all {
		line, err := e.Line()
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, line...)
	}
	if !serving.LooksLikeExchanges(data) {
		t.Error("a recording looks like something else")
	}
	got, err := serving.ParseExchanges(append([]byte("\ufeff\n"), data...))
	if d := cmp.Diff(all, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

func TestExchangesMayBeWrittenByHand(t *testing.T) {
	got, err := serving.ParseExchanges([]byte(`{"body": {"x": 1}, "answer": [2]}` + "\r\n\r\n" + `{"body": null, "answer": "text", "status": 404}`))
	want := []serving.Exchange{
		{ContentType: "application/json", Body: []byte(`{"x": 1}`), Status: 200, Answer: []byte("[2]")},
		{ContentType: "application/json", Body: []byte("null"), Status: 404, Answer: []byte("text")},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	for text, want := range map[string]string{
		"":                                   "no exchange",
		`{"body":"a","answer":"b"}` + "\n{":  "line 2: is not a recorded request",
		`{"answer":"b"}`:                     "line 1: field body is missing",
		`{"body":"a"}`:                       "line 1: field answer is missing",
		`{"body_base64":"*","answer":"b"}`:   "body_base64",
		`{"body":"a","answer":"b","time":1}`: "line 1",
	} {
		if _, err := serving.ParseExchanges([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]bool{`{"body":1,"answer":2}`: true, `{"body":1}`: false, `[1]`: false, `{"x": 1}`: false, "": false} {
		if serving.LooksLikeExchanges([]byte(text)) != want {
			t.Errorf("%s: looks like exchanges: %v", text, !want)
		}
	}
}

func FuzzExchanges(f *testing.F) {
	for _, seed := range []string{`{"body":"a","answer":"b"}`, `{"body_base64":"AA==","answer":null,"status":-1}`, `{"endpoint":"/a/","body":{},"answer":[1e999]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := serving.ParseExchanges(data)
		if err != nil {
			return
		}
		for _, e := range all {
			line, err := e.Line()
			if err != nil {
				t.Skip("a time that JSON cannot hold")
			}
			again, err := serving.ParseExchanges(line)
			if err != nil || len(again) != 1 || string(again[0].Body) != string(e.Body) || string(again[0].Answer) != string(e.Answer) {
				t.Fatalf("%s: %v, %v", line, again, err)
			}
		}
	})
}

func FuzzCompareAndRedact(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5,"x"]}`), []byte(`{"a":[1,null]}`), "a.b")
	f.Add([]byte("\xff"), []byte(`1e999`), "a")
	f.Fuzz(func(t *testing.T, want, got []byte, field string) {
		if found := serving.Compare(serving.Answer{Body: want}, serving.Answer{Body: want}, 0); len(found) > 0 {
			t.Fatalf("differs from itself: %v", found)
		}
		_ = serving.Compare(serving.Answer{Body: want}, serving.Answer{Body: got}, 0.1)
		out, changed, err := serving.RedactJSON(want, []string{field})
		if err == nil && !changed && string(out) != string(want) {
			t.Fatalf("unchanged, but %q", out)
		}
	})
}

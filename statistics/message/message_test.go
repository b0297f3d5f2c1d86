package message_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/statistics/message"
)

// golden are messages that the original's own code has made: see testdata/golden.py.
func golden(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestARecordIsTheOneThatTheOriginalSends(t *testing.T) {
	all := golden(t)
	for name, c := range map[string]struct {
		latency   time.Duration
		weight    float64
		variables string
	}{
		"plain":     {3140 * time.Microsecond, 1, ""},
		"sampled":   {1500 * time.Millisecond, 2, `{}`},
		"variables": {2 * time.Second, 1, ` {"x0": 1, "y": [0.5, 2]} `},
		"zero":      {20 * time.Microsecond, 1, `{"text": "\u00e9 \"quoted\""}`},
	} {
		got, err := message.AppendRecord(nil, "m/1", c.latency, c.weight, []byte(c.variables))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := string(message.AppendEnd(got)); got != all[name] {
			t.Errorf("%s: %s, want %s", name, got, all[name])
		}
	}
}

func TestSeveralRecordsAreOneList(t *testing.T) {
	var list []byte
	for _, value := range []string{"a", "b", "c"} {
		var err error
		if list, err = message.AppendRecord(list, "x/1", time.Second, 1/0.3, []byte(`{"v":"`+value+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	got, broken, err := message.Decode(message.AppendEnd(list))
	if err != nil || broken != (message.Broken{}) || len(got) != 3 {
		t.Fatalf("%v %v %v", got, broken, err)
	}
	for i, r := range got {
		want := message.Record{URL: "x/1", Latency: 1, Timed: true, Count: 1 / 0.3, Variables: map[string]any{"v": []string{"a", "b", "c"}[i]}}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Error(diff)
		}
	}
}

func TestVariablesThatAreNoObjectAreNotSent(t *testing.T) {
	for _, wrong := range []string{"[]", "1", "{", `{"a":NaN}`, `{}{}`, `{"a":1},{"_url":"other"}`} {
		list, err := message.AppendRecord(nil, "m", 0, 1, []byte(wrong))
		if err == nil || len(list) != 0 {
			t.Errorf("%s: %s, %v", wrong, list, err)
		}
	}
}

func TestMessagesOfTheOriginalAreRead(t *testing.T) {
	num := func(text string) json.Number { return json.Number(text) }
	for name, want := range map[string]message.Record{
		"plain":     {URL: "m/1", Latency: 0.0031, Timed: true, Count: 1, Variables: map[string]any{}},
		"sampled":   {URL: "m/1", Latency: 1.5, Timed: true, Count: 2, Variables: map[string]any{}},
		"variables": {URL: "m/1", Latency: 2, Timed: true, Count: 1, Variables: map[string]any{"x0": num("1"), "y": []any{num("0.5"), num("2")}}},
		"nonfinite": {URL: "m/1", Latency: 0, Timed: true, Count: 1, Variables: map[string]any{"a": nil, "b": nil, "c": nil, "d": "NaN Infinity", "e\"NaN": []any{nil, num("-1")}}},
		"zero":      {URL: "m/1", Latency: 0, Timed: true, Count: 1, Variables: map[string]any{"text": "é \"quoted\""}},
		"huge":      {URL: "m/1", Latency: 0, Timed: true, Count: 1, Variables: map[string]any{"big": num("123456789012345678901234567890"), "small": num("1e-09"), "bad": "\uFFFD"}},
	} {
		got, broken, err := message.Decode([]byte(golden(t)[name]))
		if err != nil || broken != (message.Broken{}) || len(got) != 1 {
			t.Errorf("%s: %v, %+v, %v", name, got, broken, err)
			continue
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAPoisonMessageIsRefusedAndItsGoodRecordsAreKept(t *testing.T) {
	for _, poison := range []string{"", "null", "{}", "1", "[", `[{"_url":"m"}] x`, `[{"_url":"m"}][]`, "\x00\xff", `[NaN`, `"NaN`, `[{"_url":"m","a":"\`} {
		if got, _, err := message.Decode([]byte(poison)); err == nil {
			t.Errorf("%q: %v", poison, got)
		}
	}
	got, broken, err := message.Decode([]byte(`[1, null, {}, {"_url": 3}, {"_url": "/"}, {"_url":"m","_latency":"x"}, {"_url":"m","_count":-1},
		{"_url":"m","_latency":1e999}, {"_url":"m","_count":true}, {"_url":"/m/1/"}, {"_url":"m","_latency":null,"_count":null}]`))
	if err != nil || len(got) != 2 || got[0].URL != "m/1" || got[0].Timed || got[1].Count != 0 {
		t.Errorf("%v %v", got, err)
	}
	if want := (message.Broken{NoObject: 2, NoURL: 3, Builtin: 4}); broken != want {
		t.Errorf("%+v, want %+v", broken, want)
	}
}

// FuzzDecode: whatever is in the topic, decoding returns, and all records are accounted for.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`[{"_url": "m/1", "_latency": 0.1, "_count": 1, "x": [1, NaN]}]`, `[{}]`, `[[]]`, `[{"_url":"\ud800"}]`, `[-Infinity, "\"NaN"]`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		records, _, err := message.Decode(value)
		if err != nil && len(records) > 0 {
			t.Errorf("%d records and %v", len(records), err)
		}
		for _, r := range records {
			if r.URL == "" || r.Count < 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}

// FuzzRecord: whatever a worker sends, the message can be read, and the record has its values.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{`{"x":1}`, `{}`, ` { } `, `{"a":"}"}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, variables []byte) {
		list, err := message.AppendRecord(nil, "m", time.Second, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err = message.AppendRecord(list, "m/1", time.Second, 1, variables)
		records, _, decodeErr := message.Decode(message.AppendEnd(list))
		if decodeErr != nil || len(records) == 0 || records[0].URL != "m" {
			t.Errorf("%q: %v %v", list, records, decodeErr)
		}
		if err != nil && len(records) != 1 {
			t.Errorf("%q: %d records beside an error", list, len(records))
		}
	})
}

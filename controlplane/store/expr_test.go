package store_test

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"clearmlserving/controlplane/store"
)

func TestMatchIsTheMeaningOfAFilter(t *testing.T) {
	doc, err := store.Decode([]byte(`{"name":"abc","n":2.0,"flag":false,"nul":null,"empty":"","none":[],"obj":{},
		"tags":["x","y"],"a.b":{"c.d":1},"list":[{"k":"v","n":1},{"k":["w"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	in := func(v any, path ...string) store.Expr { return store.In{Path: path, Values: []any{"other", v}} }
	compare := func(op store.Op, v any, path ...string) store.Expr {
		return store.Compare{Path: path, Op: op, Value: v}
	}
	absent := func(path ...string) store.Expr { return store.Missing{Path: path} }
	found := func(pattern string, path ...string) store.Expr {
		return store.Regexp{Path: path, Pattern: regexp.MustCompile(pattern)}
	}
	yes, no := store.And{}, store.Or{}
	for _, c := range []struct {
		rule string
		expr store.Expr
		want bool
	}{
		{"a text", in("abc", "name"), true},
		{"another text", in("ab", "name"), false},
		{"a number by its value", in(json.Number("2"), "n"), true},
		{"a number is no text", in("2.0", "n"), false},
		{"a flag", in(false, "flag"), true},
		{"an absent flag is not false", in(false, "nothing"), false},
		{"null equals nothing", in(nil, "nul"), false},
		{"an element", in("y", "tags"), true},
		{"through a list", in("v", "list", "k"), true},
		{"through two lists", in("w", "list", "k"), true},
		{"keys with dots", in(json.Number("1"), "a.b", "c.d"), true},
		{"a path is not joined", in(json.Number("1"), "a", "b", "c.d"), false},
		{"no values", store.In{Path: store.Path{"name"}}, false},
		{"less", compare(store.Less, json.Number("3"), "n"), true},
		{"not less", compare(store.Less, json.Number("2"), "n"), false},
		{"less or equal", compare(store.LessEqual, json.Number("2"), "n"), true},
		{"greater text", compare(store.Greater, "abb", "name"), true},
		{"greater or equal element", compare(store.GreaterEqual, "y", "tags"), true},
		{"a text isn't compared with a number", compare(store.Greater, json.Number("0"), "name"), false},
		{"nothing is compared", compare(store.GreaterEqual, json.Number("0"), "nothing"), false},
		{"an unknown comparison", compare("=", json.Number("2"), "n"), false},
		{"a pattern anywhere", found("b", "name"), true},
		{"a pattern in an element", found("^y$", "tags"), true},
		{"a pattern in a number", found("2", "n"), false},
		{"absent", absent("nothing"), true},
		{"null", absent("nul"), true},
		{"empty text", absent("empty"), true},
		{"empty list", absent("none"), true},
		{"empty object", absent("obj"), true},
		{"false is there", absent("flag"), false},
		{"a list is there", absent("tags"), false},
		{"below what isn't an object", absent("name", "x"), true},
		{"and", store.And{yes, yes}, true},
		{"and with one that fails", store.And{yes, no}, false},
		{"or", store.Or{no, yes}, true},
		{"or of none", store.Or{no, no}, false},
		{"not", store.Not{Expr: no}, true},
	} {
		if got := c.expr.Match(doc); got != c.want {
			t.Errorf("%s: %v", c.rule, got)
		}
	}
}

func TestTimesSortAsTexts(t *testing.T) {
	at := time.Date(2026, 12, 31, 23, 59, 59, 999_999_000, time.FixedZone("x", 3600))
	texts := []string{}
	for _, step := range []time.Duration{0, time.Microsecond, time.Second, 24 * time.Hour, 365 * 24 * time.Hour} {
		texts = append(texts, store.FormatTime(at.Add(step)))
	}
	for i := 1; i < len(texts); i++ {
		if texts[i-1] >= texts[i] {
			t.Errorf("%s is not before %s", texts[i-1], texts[i])
		}
	}
	if texts[0] != "2026-12-31T22:59:59.999999+00:00" {
		t.Errorf("got %s", texts[0])
	}
	back, err := store.ParseTime(texts[0])
	if err != nil || !back.Equal(at) {
		t.Errorf("read back as %v, %v", back, err)
	}
	if _, err := store.ParseTime("2026"); err == nil {
		t.Error("a year was read as a time")
	}
}

func TestDecodeTakesOneObjectOnly(t *testing.T) {
	for _, text := range []string{``, `[]`, `1`, `"x"`, `{} {}`, `{}x`, `{"a":NaN}`, `{"a":1`} {
		if doc, err := store.Decode([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, doc)
		}
	}
}

package hocon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/hocon"
)

func TestKeepsWhatTheSDKLoses(t *testing.T) {
	for _, c := range []struct{ rule, text, want string }{
		{"empty texts in lists stay", `l = ["", a, ""]`, `{"l":["","a",""]}`},
		{"tabs inside quotes stay tabs", "a = \"x\ty\"", `{"a":"x\ty"}`},
		{"words beside true stay as written", "a = abc true\nb = v 1.10", `{"a":"abc true","b":"v 1.10"}`},
		{"keys hold letters of any script", "модель/1 { версия = \"1\" }", `{"модель/1":{"версия":"1"}}`},
		{"keys hold brackets and quotes of words", "a(b);c'd = 1", `{"a(b);c'd":1}`},
		{"secrets need no quotes", "secret: a$b^c!d?e*f&g@h+i`j\n", "{\"secret\":\"a$b^c!d?e*f&g@h+i`j\"}"},
		{"a single value gives way to an object", "s = 1\ns { x = 2 }", `{"s":{"x":2}}`},
		{"what += starts has no blank before it", "s += b", `{"s":"b"}`},
		{"nested += grows its own list", "a { l = [1]\n l += [2] }\nl = [9]", `{"a":{"l":[1,2]},"l":[9]}`},
		{"absent items leave a list", "l = [${?NOPE}, 1]", `{"l":[1]}`},
		{"a dotted path may have quoted parts", `a."b.c".d = 1`, `{"a":{"b.c":{"d":1}}}`},
		{"a dotted key lays over a substituted object", "b { x = 1 }\na = ${b}\na.y = 2", `{"b":{"x":1},"a":{"x":1,"y":2}}`},
		{"JSON has all of JSON's escapes", `{"a":"\u00e9\b\f\/\ud83d\ude42\u0001"}`, "{\"a\":\"é\\b\\f/🙂\\u0001\"}"},
		{"HOCON keeps \\u as the SDK does", `a = "\u00e9"`, `{"a":"\\u00e9"}`},
		{"numbers that no float holds stay texts", "n = 1e999", `{"n":"1e999"}`},
		{"big whole numbers stay exact", "n = 123456789012345678901234567890", `{"n":123456789012345678901234567890}`},
		{"the variable of the same name is found behind a key's own", "PATH = ${PATH}\":/x\"", `{"PATH":"/bin:/x"}`},
		{"an earlier value is kept by an absent override", "a = 1\na = ${?NOPE}\na = ${?a}", `{"a":1}`},
	} {
		t.Run(c.rule, func(t *testing.T) {
			o, err := hocon.Parse([]byte(c.text), hocon.Options{Env: func(name string) (string, bool) {
				return "/bin", name == "PATH"
			}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.JSON()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestErrorsNamePlaceAndRemedy(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a = 1\nb", `line 2, column 2: key "b" has no value: found the end of the text where = or : or { is expected`},
		{"a {\n  b = 1\n", "line 1, column 3: the brace opened here is not closed: found the end of the text"},
		{"a = 1\n  }", "line 2, column 3: found '}' without an opening one"},
		{"a = [1,\n{b = 1]", "line 2, column 1: the brace opened here is not closed: found ']'"},
		{"a = 'é' \"x", "line 1, column 9: the quote opened here is not closed"},
		{"a = \"x\nb = 1", `line 1, column 5: the quote opened here is not closed on its line: use """ for a text of several lines`},
		{"a =\nb = 1", "line 2, column 3: found '=' inside a value: put the value in quotes, or end the line before it"},
		{"a = x [1]", "line 1, column 5: the value mixes text, list and object: separate them by a comma or a new line, or quote the text"},
		{"a = ${b}", "line 1, column 5: ${b} is neither a key of this text nor a variable of the environment; write ${?b} if it may be absent"},
		{"a = ${a}", "line 1, column 5: ${a} refers to itself"},
		{"a { b = ${a} }", "line 1, column 9: ${a} refers to itself"},
		{"a = ${b} [1]\nb = x", "line 1, column 5: the value mixes text, list and object: separate them by a comma or a new line, or quote the text"},
		{"a = ${", "line 1, column 5: the ${ opened here is not closed"},
		{"a = ${?}", "line 1, column 5: ${} names nothing"},
		{`include "other.conf"`, "line 1, column 1: include is not supported: put the settings into this text"},
		{`a = include file("x")`, "line 1, column 5: include is not supported: put the settings into this text"},
		{"[1]", "line 1, column 1: found a list where an object (key = value, …) is expected"},
		{"{a = 1} b", "line 1, column 9: found 'b' after the closing brace of the whole text"},
		{"a = \"\"\"x", `line 1, column 5: the """ opened here is not closed`},
		{"= 1", "line 1, column 1: found '=' where a key is expected"},
		{"a = x\\", "line 1, column 6: found a backslash with nothing after it"},
		{"a = 1\n\xff", "line 2, column 1: the text is not UTF-8"},
		{strings.Repeat("a{", 1000), "line 1, column 402: nested deeper than 200"},
		{"a = " + strings.Repeat("[", 1000), "line 1, column 205: nested deeper than 200"},
		{strings.Repeat("a.", 1000) + "b = 1", "line 1, column 1: nested deeper than 200"},
	} {
		_, err := hocon.Parse([]byte(c.text), hocon.Options{})
		if _, ok := errors.AsType[*hocon.SyntaxError](err); !ok {
			t.Errorf("%.30q: error = %v, want a *SyntaxError", c.text, err)
			continue
		}
		if err.Error() != c.want {
			t.Errorf("%.30q:\ngot  %s\nwant %s", c.text, err, c.want)
		}
	}
}

func TestSmallTextsCannotBecomeHuge(t *testing.T) {
	doubling := func(first, form string) string {
		b := strings.Builder{}
		b.WriteString("v0 = " + first + "\n")
		for i := 1; i < 60; i++ {
			fmt.Fprintf(&b, form+"\n", i, i-1, i-1)
		}
		return b.String()
	}
	chain := strings.Builder{}
	for i := range 5000 {
		fmt.Fprintf(&chain, "v%d = ${v%d}\n", i, i+1)
	}
	chain.WriteString("v5000 = 1\n")
	for rule, text := range map[string]string{
		"layers":  "a = [0]\n" + strings.Repeat("a += [1]\n", 100_000),
		"texts":   doubling("xxxx", "v%d = ${v%d}${v%d}"),
		"objects": doubling("{ x = 1 }", "v%d { a = ${v%d}, b = ${v%d} }"),
		"lists":   doubling("[1]", "v%d = [${v%d}, ${v%d}]"),
		"chains":  chain.String(),
	} {
		if _, err := hocon.Parse([]byte(text), hocon.Options{}); err == nil || !strings.Contains(err.Error(), "substitutions") && !strings.Contains(err.Error(), "more than 5000 values") {
			t.Errorf("%s: error = %v, want one about the limit", rule, err)
		}
	}
}

func TestPathsFindValues(t *testing.T) {
	o, err := hocon.Parse([]byte("a { b = 5, c = true, \"d.e\" { f = x }, n = null, l = [1] }"), hocon.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"a.b": "5", "a.c": "true", `a."d.e".f`: "x", "a.n": "-", "a.l": "-", "a.b.x": "-", "nope": "-"} {
		got, ok := o.Text(path)
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("Text(%s) = %s, want %s", path, got, want)
		}
	}
	if l := o.List("a.l"); len(l) != 1 || l[0] != json.Number("1") {
		t.Errorf("List = %v", l)
	}
	if v, ok := o.Get("a.n"); v != nil || !ok {
		t.Errorf("null = %v, %v; want it present", v, ok)
	}
	var none *hocon.Object
	if _, ok := none.Object("x").Text("y"); ok || none.Len() != 0 {
		t.Error("a nil object is not empty")
	}
}

func TestMergeChangesNeitherArgument(t *testing.T) {
	parse := func(text string) *hocon.Object {
		o, err := hocon.Parse([]byte(text), hocon.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	below, above := parse("a { x = 1, y = 2 }, l = [1]"), parse("a { y = 3 }, l = [2], n = null")
	got, _ := hocon.Merge(below, above).JSON()
	if want := `{"a":{"x":1,"y":3},"l":[2],"n":null}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if diff := cmp.Diff(parse("a { x = 1, y = 2 }, l = [1]").ToAny(), below.ToAny()); diff != "" {
		t.Errorf("below changed: %s", diff)
	}
	if diff := cmp.Diff(parse("a { y = 3 }, l = [2], n = null").ToAny(), above.ToAny()); diff != "" {
		t.Errorf("above changed: %s", diff)
	}
}

func TestJSONIsRaw(t *testing.T) {
	text, err := hocon.EncodeJSON(map[string]any{"a": "<é & 漢>\u2028\u2029", "b": `\u2028 \\u2028`})
	if err != nil {
		t.Fatal(err)
	}
	if want := "{\"a\":\"<é & 漢>\u2028\u2029\",\"b\":\"\\\\u2028 \\\\\\\\u2028\"}"; text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if _, err := hocon.EncodeJSON(map[string]any{"f": func() {}}); err == nil {
		t.Error("a function was written as JSON")
	}
}

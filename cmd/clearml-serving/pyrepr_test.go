package main

import (
	"encoding/json"
	"math"
	"testing"
)

func TestTextsAreWrittenAsPythonWritesThem(t *testing.T) {
	for in, want := range map[string]string{
		"":               `''`,
		"plain":          `'plain'`,
		"it's":           `"it's"`,
		`say "x"`:        `'say "x"'`,
		`it's "x"`:       `'it\'s "x"'`,
		"a\\b\n\t\r":     `'a\\b\n\t\r'`,
		"\x00\x1f":       `'\x00\x1f'`,
		"é日本😀":           `'é日本😀'`,
		"a\u00a0b\u2028": `'a\xa0b\u2028'`,
		"\U000e0001":     `'\U000e0001'`,
	} {
		if got := pyText(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestValuesAreWrittenAsPythonWritesThem(t *testing.T) {
	for _, tc := range []struct {
		in   any
		want string
	}{
		{nil, "None"},
		{true, "True"},
		{1.0, "1.0"},
		{0.1, "0.1"},
		{1e-7, "1e-07"},
		{1e16, "1e+16"},
		{123456789.5, "123456789.5"},
		{math.Inf(-1), "-inf"},
		{[]string{"a", "b'c"}, `['a', "b'c"]`},
		{object{{"name", "x"}, {"tags", []string{}}, {"n", 3}, {"none", nil}}, `{'name': 'x', 'tags': [], 'n': 3, 'none': None}`},
	} {
		if got := pyRepr(tc.in); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestJSONIsWrittenAsPythonWritesIt(t *testing.T) {
	half := 0.5
	got, err := indented(object{
		{"z", "é<&>😀\u2028"},
		{"a", nil},
		{"empty", object{}},
		{"none", []any{}},
		{"weights", []float64{1, 0.25}},
		{"freq", &half},
		{"unset", (*float64)(nil)},
		{"n", json.Number("1.50")},
		{"inner", object{{"b", 1}, {"list", []any{json.Number("1"), []any{"x"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "z": "\u00e9<&>\ud83d\ude00\u2028",
  "a": null,
  "empty": {},
  "none": [],
  "weights": [
    1.0,
    0.25
  ],
  "freq": 0.5,
  "unset": null,
  "n": 1.50,
  "inner": {
    "b": 1,
    "list": [
      1,
      [
        "x"
      ]
    ]
  }
}`
	if got != want {
		t.Errorf("got %s", got)
	}
	if !json.Valid([]byte(got)) {
		t.Error("is no JSON")
	}
}

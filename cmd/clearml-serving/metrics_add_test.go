package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/serving"
)

func bounds(texts ...string) []any {
	list := make([]any, len(texts))
	for i, text := range texts {
		list[i] = json.Number(text)
	}
	return list
}

func TestVariablesAreRead(t *testing.T) {
	var notices []string
	f := metricFlags{
		scalar:   []string{"x0=0,0.1, 1", "x1=0.0/1.0/5", "sorted=3,1,2,1"},
		enum:     []string{"animal=dog,cat, dog"},
		value:    []string{"y", "x0"},
		counters: []string{"tokens"},
	}
	got, err := f.variables(func(format string, args ...any) { notices = append(notices, fmt.Sprintf(format, args...)) })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]serving.Metric{
		"x0":     {Type: "value"},
		"x1":     {Type: "scalar", Buckets: bounds("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")},
		"sorted": {Type: "scalar", Buckets: bounds("1.0", "2.0", "3.0")},
		"animal": {Type: "enum", Buckets: []any{"dog", "cat"}},
		"y":      {Type: "value"},
		"tokens": {Type: "counter"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"Warning: x0 defined twice"}, notices); d != "" {
		t.Error(d)
	}
}

func TestVariablesThatCannotBeReadAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    metricFlags
		want string
	}{
		{"no buckets", metricFlags{scalar: []string{"x1"}}, "Variable 'x1' should be in the form of <name>=<buckets> example: x1=0,1,2,3,4,5"},
		{"no name", metricFlags{enum: []string{"=a"}}, "has no name"},
		{"not a number", metricFlags{scalar: []string{"x=1,b"}}, "bucket 'b' is not a number"},
		{"not finite", metricFlags{scalar: []string{"x=1,inf"}}, "bucket 'inf' is not a number"},
		{"two parts", metricFlags{scalar: []string{"x=1/2"}}, "min/max/number of buckets"},
		{"no bucket at all", metricFlags{scalar: []string{"x=0/1/0"}}, "1 to 10000 buckets"},
		{"part of a bucket", metricFlags{scalar: []string{"x=0/1/2.5"}}, "1 to 10000 buckets"},
		{"too many", metricFlags{scalar: []string{"x=0/1/1e9"}}, "1 to 10000 buckets"},
		{"upside down", metricFlags{scalar: []string{"x=1/0/5"}}, "min less than max"},
		{"an empty word", metricFlags{enum: []string{"x=a,,b"}}, "empty word"},
		{"buckets of a value", metricFlags{value: []string{"x=1"}}, "takes no buckets"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := tc.f.variables(t.Logf); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzReadBounds(f *testing.F) {
	f.Add("0,1,2.5")
	f.Add("0.0/1.0/5")
	f.Add("-1e308/1e308/3")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := readBounds(text)
		if err == nil && (len(values) == 0 || len(values) > serving.MaxBuckets+1 && strings.Contains(text, "/")) {
			t.Fatalf("%d bounds", len(values))
		}
		if _, err := json.Marshal(values); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSizesAreRead(t *testing.T) {
	for _, tc := range []struct {
		name, words, want string
	}{
		{"one size", "1|28|28", `[[1,28,28]]`},
		{"several", "[1, 784]|[1, 10]", `[[1,784],[1,10]]`},
		{"a mix stays mixed", "1|[2, 3]", `[1,[2,3]]`},
		{"open sizes", "-1|10", `[[-1,10]]`},
	} {
		got, err := readSizes("input-size", strings.Split(tc.words, "|"))
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if text, _ := json.Marshal(got); string(text) != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, text, tc.want)
		}
	}
	for _, word := range []string{"x", "1.5", `"1"`, "[1,[2]]", "{}", "[1", "1 2", "null", ""} {
		if got, err := readSizes("input-size", []string{word}); err == nil || !strings.Contains(err.Error(), "--input-size") {
			t.Errorf("%q: got %v, %v", word, got, err)
		}
	}
}

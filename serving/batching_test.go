package serving_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestBatchingIsReadFromEveryFormOfAuxiliaryConfiguration(t *testing.T) {
	full := serving.Batching{MaxRows: 32, Delay: 100 * time.Microsecond, Preferred: []int{8, 16}}
	dynamic := func(sizes any) map[string]any {
		return map[string]any{
			"max_batch_size":   json.Number("32"),
			"dynamic_batching": map[string]any{"max_queue_delay_microseconds": 100.0, "preferred_batch_size": sizes},
		}
	}
	for name, c := range map[string]struct {
		aux  any
		want serving.Batching
	}{
		"nothing":              {nil, serving.Batching{}},
		"other settings":       {map[string]any{"environment": "own"}, serving.Batching{}},
		"a list of numbers":    {dynamic([]any{16.0, 8, "8"}), full},
		"a list in a text":     {dynamic(`"[16, 8]"`), full},
		"only a size":          {map[string]any{"max_batch_size": `"32"`}, serving.Batching{MaxRows: 32}},
		"one preferred size":   {map[string]any{"max_batch_size": 32, "dynamic_batching": map[string]any{"preferred_batch_size": 8}}, serving.Batching{MaxRows: 32, Preferred: []int{8}}},
		"no batching":          {map[string]any{"max_batch_size": 0}, serving.Batching{}},
		"a config.pbtxt":       {"# ours\nmax_batch_size: 32\ndynamic_batching {\n preferred_batch_size: [ 8, 16 ]\n max_queue_delay_microseconds: 100 }\n", full},
		"repeated fields":      {"max_batch_size: 32 dynamic_batching: { preferred_batch_size: 8 preferred_batch_size: 16, max_queue_delay_microseconds: 100 }", full},
		"the words of a conf":  {"max_batch_size = 32\ndynamic_batching.max_queue_delay_microseconds = 100\ndynamic_batching.preferred_batch_size = [8, 16]", full},
		"a text about another": {"platform: \"onnx", serving.Batching{}},
		"a text of our own":    {`input [ { name: "x" dims: [ 1, 2 ] } ] default < a: 'b' >`, serving.Batching{}},
	} {
		got, err := serving.BatchingOf(serving.EngineSklearn, c.aux)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestBatchingThatMeansNothingIsNamed(t *testing.T) {
	with := func(inner any) map[string]any {
		return map[string]any{"max_batch_size": 32, "dynamic_batching": inner}
	}
	for name, c := range map[string]struct {
		engine string
		aux    any
		field  string
		says   string
	}{
		"no number":        {"sklearn", map[string]any{"max_batch_size": "many"}, "max_batch_size", `"many" is not a whole number`},
		"half a row":       {"sklearn", map[string]any{"max_batch_size": 1.5}, "max_batch_size", "is not a whole number"},
		"not even a value": {"sklearn", map[string]any{"max_batch_size": nil}, "max_batch_size", "is not a whole number"},
		"negative":         {"xgboost", map[string]any{"max_batch_size": -1}, "max_batch_size", "from 0 to 65536"},
		"too patient":      {"custom", with(map[string]any{"max_queue_delay_microseconds": 1e9}), "dynamic_batching.max_queue_delay_microseconds", "from 0 to 10000000"},
		"too large":        {"custom", with(map[string]any{"preferred_batch_size": []any{8, 64}}), "dynamic_batching.preferred_batch_size", "from 1 to 32"},
		"misspelt":         {"lightgbm", with(map[string]any{"max_queue_delay": 1}), "dynamic_batching.max_queue_delay", "which know max_queue_delay_microseconds"},
		"no group":         {"sklearn", with("yes"), "dynamic_batching", "not a group"},
		"no size":          {"sklearn", map[string]any{"dynamic_batching": map[string]any{"preferred_batch_size": 4}}, "dynamic_batching", "without max_batch_size"},
		"asynchronous":     {"custom_async", map[string]any{"max_batch_size": 8}, "max_batch_size", "custom_async"},
		"a broken text":    {"sklearn", "max_batch_size: 8\ndynamic_batching {", "", "line 2"},
		"an open quote":    {"sklearn", "max_batch_size: \"8", "", "quote is not closed"},
	} {
		_, err := serving.BatchingOf(c.engine, c.aux)
		field, ok := errors.AsType[*serving.FieldError](err)
		want := strings.TrimSuffix("auxiliary_cfg."+c.field, ".")
		if !ok || field.Field != want || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		e := serving.Endpoint{EngineType: c.engine, ServingURL: "a", AuxiliaryCfg: c.aux}
		if got := e.Validate(); got == nil || got.Error() != err.Error() {
			t.Errorf("%s: Validate says %v", name, got)
		}
		m := serving.Monitoring{EngineType: c.engine, BaseServingURL: "a", Name: "m", AuxiliaryCfg: c.aux}
		if got := m.Validate(); got == nil || got.Error() != err.Error() {
			t.Errorf("%s: Validate of monitoring says %v", name, got)
		}
	}
	if b, err := serving.BatchingOf(serving.EngineTriton, "max_batch_size: {"); err != nil || b.On() {
		t.Errorf("Triton's own settings: %+v, %v", b, err)
	}
}

func FuzzBatchingOf(f *testing.F) {
	for _, text := range []string{"max_batch_size: 32", "dynamic_batching { preferred_batch_size: [ 1, 2 ] }", "a.b.a=1 a [ < x : '#' > ]", "\"", "}", "a{{{{"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := serving.BatchingOf(serving.EngineCustom, text)
		if err == nil && b.On() && (b.MaxRows > 65536 || b.Delay < 0 || b.Delay > 10*time.Second) {
			t.Errorf("%+v", b)
		}
	})
}

package serving_test

import (
	"errors"
	"testing"

	"clearmlserving/serving"
)

func TestNaNAsNullIsASettingOfTheAuxiliaryConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		engine string
		aux    any
		want   bool
		wrong  bool
	}{
		"nothing":           {"custom", nil, false, false},
		"a text":            {"custom", "max_batch_size: 8\nnan_as_null: true", true, false},
		"another text":      {"custom", "{", false, false},
		"a text of Triton":  {"triton", "nan_as_null: x {", false, false},
		"another setting":   {"custom", map[string]any{"environment": "own"}, false, false},
		"true":              {"custom", map[string]any{"nan_as_null": true}, true, false},
		"true as a text":    {"sklearn", map[string]any{"nan_as_null": `"true"`}, true, false},
		"false":             {"custom", map[string]any{"nan_as_null": false}, false, false},
		"null":              {"custom", map[string]any{"nan_as_null": nil}, false, false},
		"Triton's own word": {"triton", map[string]any{"nan_as_null": "x"}, false, false},
		"a number":          {"custom", map[string]any{"nan_as_null": 1.0}, false, true},
		"a word":            {"custom", map[string]any{"nan_as_null": "yes"}, false, true},
	} {
		got, err := serving.NaNAsNull(c.engine, c.aux)
		field, isField := errors.AsType[*serving.FieldError](err)
		if got != c.want || isField != c.wrong || (c.wrong && field.Field != "auxiliary_cfg.nan_as_null") {
			t.Errorf("%s: %t %v", name, got, err)
		}
		if c.aux == nil || !c.wrong {
			continue
		}
		e := serving.Endpoint{EngineType: c.engine, ServingURL: "x", AuxiliaryCfg: c.aux}
		if err := e.Validate(); err == nil {
			t.Errorf("%s: it can be stored", name)
		}
	}
}

func TestMethodIsASettingOfTheModelEngines(t *testing.T) {
	for name, c := range map[string]struct {
		engine string
		aux    any
		want   string
		wrong  bool
	}{
		"nothing":              {"sklearn", nil, "", false},
		"a method":             {"sklearn", map[string]any{"method": "predict_proba"}, "predict_proba", false},
		"quoted":               {"xgboost", map[string]any{"method": `"predict"`}, "predict", false},
		"a text":               {"lightgbm", "max_batch_size: 8\nmethod: \"predict\"", "predict", false},
		"null":                 {"sklearn", map[string]any{"method": nil}, "", false},
		"the code's own":       {"custom", map[string]any{"method": "-x-"}, "", false},
		"the async code's own": {"custom_async", map[string]any{"method": 3.0}, "", false},
		"Triton's own":         {"triton", map[string]any{"method": "-"}, "", false},
		"a private one":        {"sklearn", map[string]any{"method": "_fit"}, "", true},
		"a special one":        {"sklearn", map[string]any{"method": "__reduce__"}, "", true},
		"an attribute of one":  {"sklearn", map[string]any{"method": "a.b"}, "", true},
		"a call":               {"sklearn", map[string]any{"method": "predict()"}, "", true},
		"an empty one":         {"sklearn", map[string]any{"method": ""}, "", true},
		"a number":             {"sklearn", map[string]any{"method": 1.0}, "", true},
		"true":                 {"sklearn", map[string]any{"method": true}, "", true},
	} {
		got, err := serving.Method(c.engine, c.aux)
		field, isField := errors.AsType[*serving.FieldError](err)
		if got != c.want || isField != c.wrong || (c.wrong && field.Field != "auxiliary_cfg.method") {
			t.Errorf("%s: %q %v", name, got, err)
		}
		e := serving.Endpoint{EngineType: c.engine, ServingURL: "x", AuxiliaryCfg: c.aux}
		if err := e.Validate(); c.wrong && err == nil {
			t.Errorf("%s: it can be stored", name)
		}
	}
	if foreign := serving.ForeignSettings("custom", map[string]any{"method": "x"}); len(foreign) != 1 {
		t.Errorf("custom has the setting: %v", foreign)
	}
	if foreign := serving.ForeignSettings("sklearn", map[string]any{"method": "x"}); len(foreign) != 0 {
		t.Errorf("sklearn lacks the setting: %v", foreign)
	}
}

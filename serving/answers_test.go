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

package serving_test

import (
	"errors"
	"testing"

	"clearmlserving/serving"
)

func TestAccelerateIsASettingOfTheModelEngines(t *testing.T) {
	for name, c := range map[string]struct {
		engine string
		aux    any
		want   serving.Acceleration
		wrong  bool
	}{
		"nothing":        {"sklearn", nil, "false", false},
		"true":           {"sklearn", map[string]any{"accelerate": true}, "true", false},
		"true as a text": {"xgboost", map[string]any{"accelerate": `"true"`}, "true", false},
		"auto":           {"lightgbm", map[string]any{"accelerate": "auto"}, "auto", false},
		"false":          {"sklearn", map[string]any{"accelerate": false}, "false", false},
		"null":           {"sklearn", map[string]any{"accelerate": nil}, "false", false},
		"a text":         {"lightgbm", "max_batch_size: 8\naccelerate: \"auto\"", "auto", false},
		"the code's own": {"custom", map[string]any{"accelerate": "very"}, "false", false},
		"Triton's own":   {"triton", map[string]any{"accelerate": "very"}, "false", false},
		"another word":   {"sklearn", map[string]any{"accelerate": "yes"}, "false", true},
		"a number":       {"sklearn", map[string]any{"accelerate": 1.0}, "false", true},
		"a list":         {"sklearn", map[string]any{"accelerate": []any{true}}, "false", true},
	} {
		got, err := serving.Accelerate(c.engine, c.aux)
		field, isField := errors.AsType[*serving.FieldError](err)
		if got != c.want || isField != c.wrong || (c.wrong && field.Field != "auxiliary_cfg.accelerate") {
			t.Errorf("%s: %s %v", name, got, err)
		}
		if e := (serving.Endpoint{EngineType: c.engine, ServingURL: "x", AuxiliaryCfg: c.aux}); c.wrong && e.Validate() == nil {
			t.Errorf("%s: it can be stored", name)
		}
	}
}

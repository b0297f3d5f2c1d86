package serving_test

import (
	"errors"
	"testing"

	"clearmlserving/serving"
)

func TestOnlyOwnMakesAnEnvironmentOfItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		engine string
		aux    any
		own    bool
		field  string
	}{
		"nothing set":         {engine: "sklearn"},
		"a text":              {engine: "custom", aux: "environment: own"},
		"other settings":      {engine: "custom", aux: map[string]any{"x": "own"}},
		"own":                 {engine: "custom", aux: map[string]any{"environment": "own"}, own: true},
		"own in quotes":       {engine: "custom", aux: map[string]any{"environment": `"own"`}, own: true},
		"shared":              {engine: "xgboost", aux: map[string]any{"environment": "shared"}},
		"Triton's own word":   {engine: "triton", aux: map[string]any{"environment": "else"}},
		"a word of no sense":  {engine: "custom", aux: map[string]any{"environment": "mine"}, field: "auxiliary_cfg.environment"},
		"a value of no sense": {engine: "custom", aux: map[string]any{"environment": true}, field: "auxiliary_cfg.environment"},
	} {
		own, err := serving.OwnEnvironment(c.engine, c.aux)
		field, _ := errors.AsType[*serving.FieldError](err)
		if own != c.own || (field != nil) != (c.field != "") || (field != nil && field.Field != c.field) {
			t.Errorf("%s: %v, %v", name, own, err)
		}
	}
}

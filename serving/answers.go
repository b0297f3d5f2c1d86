package serving

import (
	"fmt"
	"strings"
)

// AuxNaNAsNull is the setting of an endpoint's auxiliary configuration that sends NaN and infinite
// numbers in answers as null: --aux-config nan_as_null=true. Without it they are an error, since
// JSON has no form for them.
const AuxNaNAsNull = "nan_as_null"

// NaNAsNull reports whether an endpoint of that engine and auxiliary configuration sends NaN as
// null. The error is a *FieldError for a value that is neither true nor false. Triton's settings
// are its own.
func NaNAsNull(engine string, aux any) (bool, error) {
	if engine == EngineTriton {
		return false, nil
	}
	settings, _ := aux.(map[string]any)
	if text, isText := aux.(string); isText && strings.Contains(text, AuxNaNAsNull) {
		var err error
		if settings, err = parsePbtxt(text); err != nil {
			return false, &FieldError{Field: "auxiliary_cfg", Why: "cannot be read: " + err.Error()}
		}
	}
	value, set := settings[AuxNaNAsNull]
	if !set || value == nil {
		return false, nil
	}
	switch strings.Trim(fmt.Sprint(value), `"'\`) { // quotes stay in values of --aux-config
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, &FieldError{Field: auxField(AuxNaNAsNull), Value: fmt.Sprintf("%q", fmt.Sprint(value)), Why: "is neither true nor false"}
}

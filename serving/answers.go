package serving

import (
	"fmt"
	"regexp"
	"slices"
)

// AuxNaNAsNull is the setting of an endpoint's auxiliary configuration that sends NaN and infinite
// numbers in answers as null: --aux-config nan_as_null=true. Without it they are an error, since
// JSON has no form for them.
const AuxNaNAsNull = "nan_as_null"

// NaNAsNull reports whether an endpoint of that engine and auxiliary configuration sends NaN as
// null. The error is a *FieldError for a value that is neither true nor false. Triton's settings
// are its own.
func NaNAsNull(engine string, aux any) (bool, error) {
	settings, err := pythonSettings(engine, aux, AuxNaNAsNull)
	if err != nil {
		return false, err
	}
	value, set := settings[AuxNaNAsNull]
	if !set || value == nil {
		return false, nil
	}
	switch unquoted(fmt.Sprint(value)) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, &FieldError{Field: auxField(AuxNaNAsNull), Value: fmt.Sprintf("%q", fmt.Sprint(value)), Why: "is neither true nor false"}
}

// AuxMethod is the setting of an endpoint's auxiliary configuration that names the model's method
// that the model engines of Python call instead of predict: --aux-config method=predict_proba.
const AuxMethod = "method"

var methodName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// Method is the method that an endpoint of that engine and auxiliary configuration calls, "" for the
// engine's own. The error is a *FieldError for a value that cannot be a public method's name. Engines
// without a model of a Python library do not have the setting.
func Method(engine string, aux any) (string, error) {
	if !slices.Contains(modelEngines, engine) {
		return "", nil
	}
	settings, err := pythonSettings(engine, aux, AuxMethod)
	if err != nil {
		return "", err
	}
	value, set := settings[AuxMethod]
	if !set || value == nil {
		return "", nil
	}
	if text, isText := value.(string); isText && methodName.MatchString(unquoted(text)) {
		return unquoted(text), nil
	}
	return "", &FieldError{Field: auxField(AuxMethod), Value: shownValue(value), Why: "is not the name of a model's method: give predict_proba, for example"}
}

// modelEngines are the engines that call a method of a model of a Python library.
var modelEngines = []string{EngineSklearn, EngineXGBoost, EngineLightGBM}

package serving

import "fmt"

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

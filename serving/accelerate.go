package serving

import (
	"fmt"
	"slices"
)

// AuxAccelerate is the setting of an endpoint's auxiliary configuration that has its model computed
// in Go, without Python: --aux-config accelerate=true.
const AuxAccelerate = "accelerate"

// Acceleration says whether a model is computed in Go.
type Acceleration string

// The values of AuxAccelerate. A model is only computed in Go if its answers are proven to be
// those of its library.
const (
	AccelerateOff  Acceleration = "false" // the default
	AccelerateOn   Acceleration = "true"  // a model without proof fails to load
	AccelerateAuto Acceleration = "auto"  // a model without proof stays in Python
)

// Accelerate is the acceleration of an endpoint of that engine and auxiliary configuration. The error
// is a *FieldError for another value. Engines without a model of a Python library do not have the
// setting.
func Accelerate(engine string, aux any) (Acceleration, error) {
	if !slices.Contains(modelEngines, engine) {
		return AccelerateOff, nil
	}
	settings, err := pythonSettings(engine, aux, AuxAccelerate)
	if err != nil {
		return AccelerateOff, err
	}
	value, set := settings[AuxAccelerate]
	if !set || value == nil {
		return AccelerateOff, nil
	}
	switch v := Acceleration(unquoted(fmt.Sprint(value))); v {
	case AccelerateOff, AccelerateOn, AccelerateAuto:
		return v, nil
	}
	return AccelerateOff, &FieldError{Field: auxField(AuxAccelerate), Value: shownValue(value), Why: "is none of true, auto and false"}
}

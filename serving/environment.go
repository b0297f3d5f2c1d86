package serving

import "fmt"

// The setting of an endpoint's auxiliary configuration that chooses the Python
// environment in which its code runs, and its values. Each command line stores it:
// --aux-config environment=own.
const (
	AuxEnvironment    = "environment"
	EnvironmentShared = "shared" // the instance's; the default
	EnvironmentOwn    = "own"    // made of the code folder's requirements.txt
)

// OwnEnvironment tells whether an endpoint of that engine and auxiliary
// configuration runs in a Python environment of its own. The error is a
// *FieldError for a value that means nothing. Triton's settings are its own.
func OwnEnvironment(engine string, aux any) (bool, error) {
	settings, isMap := aux.(map[string]any)
	if !isMap || engine == EngineTriton {
		return false, nil
	}
	value, set := settings[AuxEnvironment]
	if !set {
		return false, nil
	}
	text, _ := value.(string)
	switch unquoted(text) {
	case EnvironmentShared:
		return false, nil
	case EnvironmentOwn:
		return true, nil
	}
	return false, &FieldError{Field: "auxiliary_cfg." + AuxEnvironment, Value: fmt.Sprintf("%q", fmt.Sprint(value)), Why: "is no environment: give " + EnvironmentOwn + " or " + EnvironmentShared}
}

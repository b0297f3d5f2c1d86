package serving

import (
	"errors"
	"strings"
)

// Blanked replaces the value of a redacted field.
const Blanked = "[redacted]"

// ErrNotRedactable says that a text has no fields that could be blanked.
var ErrNotRedactable = errors.New("it is no JSON, so its fields cannot be redacted")

// RedactJSON blanks the named fields of a JSON text, with all nested values. A plain name selects
// the fields of that name at any depth, a dotted path (user.address) the fields from the top,
// through lists. Case is ignored. It returns the text unchanged if there is no such field, and
// ErrNotRedactable for anything but JSON.
func RedactJSON(data []byte, names []string) (out []byte, changed bool, err error) {
	v, ok := parseJSON(data)
	if !ok {
		return nil, false, ErrNotRedactable
	}
	for _, name := range names {
		path := strings.Split(strings.Trim(name, ". "), ".")
		if len(path) == 1 {
			changed = blankEverywhere(v, path[0]) || changed
		} else {
			changed = blankPath(v, path) || changed
		}
	}
	if !changed {
		return data, false, nil
	}
	text, err := marshal(v)
	return []byte(text), true, err
}

func blankEverywhere(v any, name string) (changed bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if strings.EqualFold(key, name) {
				v[key], changed = Blanked, true
			} else {
				changed = blankEverywhere(value, name) || changed
			}
		}
	case []any:
		for _, item := range v {
			changed = blankEverywhere(item, name) || changed
		}
	}
	return changed
}

func blankPath(v any, path []string) (changed bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			switch {
			case !strings.EqualFold(key, path[0]):
			case len(path) == 1:
				v[key], changed = Blanked, true
			default:
				changed = blankPath(value, path[1:]) || changed
			}
		}
	case []any:
		for _, item := range v {
			changed = blankPath(item, path) || changed
		}
	}
	return changed
}

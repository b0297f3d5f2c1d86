package documents

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// Shape is what a field of a request must hold.
type Shape int

// The shapes.
const (
	AText Shape = iota
	AName       // a name: trimmed, three characters or more
	Texts       // a list of texts
	Tags        // a list of texts that filters can name
	AnObject
	ANumber
	AFlag
	ATime // ISO 8601; stored in our own form
)

// Take selects the known fields of a request and checks their values; nulls and unknown keys
// are left out. The required fields must be present and not empty.
func Take(req Fields, shapes map[string]Shape, required ...string) (Fields, error) {
	out := Fields{}
	for _, key := range slices.Sorted(maps.Keys(shapes)) {
		if req[key] == nil {
			continue
		}
		v, err := shapes[key].check(key, req[key])
		if err != nil {
			return nil, err
		}
		out[key] = v
	}
	for _, key := range required {
		if out[key] == nil || out[key] == "" {
			return nil, Missing(key)
		}
	}
	return out, nil
}

func (s Shape) check(key string, v any) (any, error) {
	want, ok := "", false
	switch s {
	case AName:
		return CheckName(key, v)
	case Texts, Tags:
		return CheckTexts(key, v, s == Tags)
	case ATime:
		return checkTime(key, v)
	case AText:
		_, ok = v.(string)
		want = "a text"
	case AnObject:
		_, ok = v.(map[string]any)
		want = "an object"
	case ANumber:
		_, ok = v.(json.Number)
		want = "a number"
	case AFlag:
		_, ok = v.(bool)
		want = "true or false"
	}
	if !ok {
		return nil, Invalid("%s must be %s", key, want)
	}
	return v, nil
}

// MinName is the minimal length of a name, as on every ClearML server.
const MinName = 3

// CheckName returns the trimmed name in a field.
func CheckName(key string, v any) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, Invalid("%s must be a text", key)
	}
	if text = strings.TrimSpace(text); len([]rune(text)) < MinName {
		return nil, Refuse(subDataValidation, "Data validation error: %s %q is too short: it needs %d characters", key, text, MinName)
	}
	return text, nil
}

// CheckTexts refuses values that are no list of texts. Named ones cannot begin like operators
// of filters.
func CheckTexts(key string, v any, named bool) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, Invalid("%s must be a list of texts", key)
	}
	if err := AtMost(key, len(list), MaxTags); err != nil {
		return nil, err
	}
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, Invalid("%s must be a list of texts", key)
		}
		if named && strings.HasPrefix(text, OpPrefix) {
			return nil, Invalid("%s holds %q: what begins with %s is an operator of filters", key, text, OpPrefix)
		}
	}
	return v, nil
}

func checkTime(key string, v any) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, Invalid("%s must be a time", key)
	}
	t, err := parseTime(text)
	if err != nil {
		return nil, Invalid("%s: %v", key, err)
	}
	return store.FormatTime(t), nil
}

// MaxTags bounds the tags, or linked models, in one list of a document: each is an entry of
// an index.
const MaxTags = 10_000

// AtMost refuses a list that is too long for one call.
func AtMost(field string, n, most int) error {
	if n <= most {
		return nil
	}
	return Invalid("%s lists %d, more than %d: ask in several calls", field, n, most)
}

package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// decodeRequest reads a JSON object into a request: a struct, or Fields without nulls.
func decodeRequest(text []byte, req any) error {
	if fields, ok := req.(*documents.Fields); ok {
		doc, err := decodeObject(text)
		if err != nil {
			return err
		}
		for key, v := range doc {
			if v == nil {
				delete(doc, key)
			}
		}
		*fields = doc
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	err := dec.Decode(req)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return documents.Invalid("field %q must be %s, not %s", wrong.Field, typeName(wrong), wrong.Value)
	}
	if err != nil && json.Valid(text) {
		return documents.Invalid("%v", err) // a string where a number is expected
	}
	if err != nil {
		return badRequest("Malformed JSON: %v", err)
	}
	return nil
}

// checkRequired refuses a request struct that lacks a field tagged as required.
func checkRequired(req reflect.Value) error {
	if req.Kind() != reflect.Struct {
		return nil
	}
	for _, field := range reflect.VisibleFields(req.Type()) {
		if field.Tag.Get("required") == "" {
			continue
		}
		v := req.FieldByIndex(field.Index)
		if v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
			return documents.Missing(field.Tag.Get("json"))
		}
	}
	return nil
}

func decodeObject(text []byte) (documents.Fields, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return documents.Fields{}, nil
	}
	doc, err := store.Decode(text)
	if err != nil {
		return nil, badRequest("Malformed JSON: %v", err)
	}
	if doc == nil {
		return documents.Fields{}, nil
	}
	return doc, nil
}

// typeName names the type of a field in JSON's terms.
func typeName(e *json.UnmarshalTypeError) string {
	names := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Bool: "a boolean", reflect.Slice: "a list",
		reflect.Int: "a number", reflect.Int64: "a number", reflect.Float64: "a number",
	}
	return cmp.Or(names[e.Type.Kind()], "an object")
}

// mergeArguments lays query arguments over a JSON body: "a.b" nests, a key that is
// repeated or ends in [] becomes a list, numbers and booleans get their type.
func mergeArguments(body []byte, query string) ([]byte, error) {
	empty := len(bytes.TrimSpace(body)) == 0
	if strings.TrimSpace(query) == "" {
		if empty {
			return []byte("{}"), nil
		}
		return body, nil
	}
	if len(body) > maxFormBody {
		return nil, badRequest("Query arguments beside a body of more than %d KiB: put them into the body", maxFormBody>>10)
	}
	args, err := url.ParseQuery(query)
	if err != nil {
		return nil, badRequest("Malformed query: %v", err)
	}
	fields, err := decodeObject(body)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(args)) {
		values := make([]any, len(args[key]))
		for i, text := range args[key] {
			values[i] = argument(text)
		}
		name, list := strings.CutSuffix(key, "[]")
		path := strings.SplitN(name, ".", maxArgumentDepth+1)
		if len(path) > maxArgumentDepth {
			return nil, badRequest("Malformed query: an argument nests deeper than %d levels", maxArgumentDepth)
		}
		at := store.Doc(fields)
		for _, part := range path[:len(path)-1] {
			at = at.Object(part)
		}
		at[path[len(path)-1]] = values
		if !list && len(values) == 1 {
			at[path[len(path)-1]] = values[0]
		}
	}
	return encode(fields)
}

// maxArgumentDepth bounds how deep an argument nests.
const maxArgumentDepth = 16

var numberText = regexp.MustCompile(`^-?(?:0|[1-9]\d{0,17})(?:\.\d+)?$`)

func argument(text string) any {
	switch text {
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	if numberText.MatchString(text) {
		return json.Number(text)
	}
	return text
}

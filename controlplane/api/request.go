package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
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
		return documents.Invalid("%v", err) // a text where a number belongs
	}
	if err != nil {
		return badRequest("Malformed JSON: %v", err)
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

// typeName says in JSON's words what a field wants.
func typeName(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "string":
		return "a string"
	case "bool":
		return "a boolean"
	case "int", "int64", "float64":
		return "a number"
	case "slice":
		return "a list"
	}
	return "an object"
}

// mergeArguments lays query arguments over a JSON body: "a.b" nests, a key that is
// repeated or ends in [] becomes a list, numbers and booleans get their type. Of the body
// only the objects on the way to an argument are taken apart; nothing else is decoded.
func mergeArguments(body []byte, query string) ([]byte, error) {
	if strings.TrimSpace(query) == "" {
		if len(bytes.TrimSpace(body)) == 0 {
			return []byte("{}"), nil
		}
		return body, nil
	}
	args, err := url.ParseQuery(query)
	if err != nil {
		return nil, badRequest("Malformed query: %v", err)
	}
	tree, err := argumentTree(args)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return encode(tree)
	}
	return tree.over(body)
}

// arguments are the arguments below one name: each is arguments again, or a value.
type arguments map[string]any

// maxArgumentDepth bounds how deep an argument nests.
const maxArgumentDepth = 16

func argumentTree(args url.Values) (arguments, error) {
	tree := arguments{}
	for _, key := range slices.Sorted(maps.Keys(args)) {
		values := make([]any, len(args[key]))
		for i, text := range args[key] {
			values[i] = argument(text)
		}
		name, list := strings.CutSuffix(key, "[]")
		var value any = values
		if !list && len(values) == 1 {
			value = values[0]
		}
		path := strings.SplitN(name, ".", maxArgumentDepth+1)
		if len(path) > maxArgumentDepth {
			return nil, badRequest("Malformed query: an argument nests deeper than %d levels", maxArgumentDepth)
		}
		at := tree
		for _, part := range path[:len(path)-1] {
			next, ok := at[part].(arguments)
			if !ok {
				next = arguments{}
				at[part] = next
			}
			at = next
		}
		at[path[len(path)-1]] = value
	}
	return tree, nil
}

// over returns the JSON object with the arguments laid over it.
func (a arguments) over(object []byte) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, badRequest("Malformed JSON: %v", err)
	}
	if fields == nil { // null
		fields = map[string]json.RawMessage{}
	}
	for name, value := range a {
		var text []byte
		var err error
		inner, nested := value.(arguments)
		if below := bytes.TrimSpace(fields[name]); nested && len(below) > 0 && below[0] == '{' {
			text, err = inner.over(below)
		} else {
			text, err = encode(value)
		}
		if err != nil {
			return nil, err
		}
		fields[name] = text
	}
	return encode(fields)
}

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

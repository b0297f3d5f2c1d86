package hocon

import (
	"maps"
	"slices"
	"strings"
)

// Object is a map of keys to values that keeps the order of its keys. Its values are nil, bool,
// string, json.Number, []any and *Object. It is not changed after Parse or Merge returned it, so it
// may be shared. A nil *Object is an empty object.
type Object struct {
	keys   []string
	values map[string]any
}

// Keys lists the keys in the order in which they first appeared.
func (o *Object) Keys() []string {
	if o == nil {
		return nil
	}
	return slices.Clone(o.keys)
}

// Len counts the keys.
func (o *Object) Len() int {
	if o == nil {
		return 0
	}
	return len(o.keys)
}

// At returns the value of one key, which may contain dots.
func (o *Object) At(key string) (any, bool) {
	if o == nil {
		return nil, false
	}
	v, ok := o.values[key]
	return v, ok
}

// Get returns the value at a path like `sdk.aws.s3.key`. An element with dots is quoted:
// `endpoints."a.b".version`.
func (o *Object) Get(path string) (any, bool) { return o.get(splitPath(path)) }

func (o *Object) get(path []string) (any, bool) {
	var v any = o
	for _, key := range path {
		in, isObject := v.(*Object)
		if !isObject {
			return nil, false
		}
		var ok bool
		if v, ok = in.At(key); !ok {
			return nil, false
		}
	}
	return v, true
}

// Text returns a single value at a path, as text; numbers and booleans are formatted. It is not ok
// for null, lists, objects and missing values.
func (o *Object) Text(path string) (string, bool) {
	v, _ := o.Get(path)
	text, ok := textOf(v)
	return text, ok && v != nil
}

// Object returns the object at a path, or nil (an empty object) if there is none.
func (o *Object) Object(path string) *Object {
	v, _ := o.Get(path)
	found, _ := v.(*Object)
	return found
}

// List returns the list at a path, or nil if there is none.
func (o *Object) List(path string) []any {
	v, _ := o.Get(path)
	found, _ := v.([]any)
	return found
}

// ToAny converts the object and all nested values to map[string]any, []any and single values;
// numbers stay json.Number.
func (o *Object) ToAny() any { return plain(o) }

func plain(v any) any {
	switch v := v.(type) {
	case *Object:
		m := make(map[string]any, v.Len())
		if v != nil {
			for key, value := range v.values {
				m[key] = plain(value)
			}
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = plain(item)
		}
		return list
	default:
		return v
	}
}

// Merge overlays one object with another: objects are merged key by key, all other values are
// replaced. The arguments are not changed.
func Merge(below, above *Object) *Object {
	merged := &Object{keys: below.Keys(), values: map[string]any{}}
	if below != nil {
		maps.Copy(merged.values, below.values)
	}
	for _, key := range above.Keys() {
		merged.put(key, above.values[key])
	}
	return merged
}

// put sets a key; objects with the same key are merged.
func (o *Object) put(key string, value any) {
	old, exists := o.values[key]
	if !exists {
		o.keys = append(o.keys, key)
	}
	oldObject, oldIs := old.(*Object)
	newObject, newIs := value.(*Object)
	if oldIs && newIs {
		value = Merge(oldObject, newObject)
	}
	o.values[key] = value
}

// Nest puts an object below a path: Nest("a.b", o) has the values of o at "a.b".
func Nest(path string, o *Object) *Object {
	keys := splitPath(path)
	for _, key := range slices.Backward(keys) {
		o = &Object{keys: []string{key}, values: map[string]any{key: o}}
	}
	return o
}

// splitPath splits a path at its dots; a quoted element is not split.
func splitPath(path string) []string {
	var elements []string
	for path != "" {
		if path[0] == '"' {
			if end := strings.IndexByte(path[1:], '"'); end >= 0 {
				elements = append(elements, path[1:1+end])
				path = strings.TrimPrefix(path[end+2:], ".")
				continue
			}
		}
		element, rest, _ := strings.Cut(path, ".")
		if element != "" {
			elements = append(elements, element)
		}
		path = rest
	}
	return elements
}

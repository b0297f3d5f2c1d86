package openaiapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

// Object is a JSON object whose members keep their order and their text.
type Object struct{ members []member }

type member struct {
	key   string
	value json.RawMessage
}

var errNoObject = errors.New("it is not a JSON object")

// fewMembers are found fast enough by comparing their names.
const fewMembers = 32

// ParseObject reads an object. Of several members with one name, the last counts.
func ParseObject(text []byte) (Object, error) {
	var o Object
	dec := json.NewDecoder(bytes.NewReader(text))
	begin, err := dec.Token()
	if err != nil {
		return o, err
	}
	if begin != json.Delim('{') {
		return o, errNoObject
	}
	var at map[string]int // the places of the members, once there are many
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return o, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return o, err
		}
		name, _ := key.(string) // a key is one
		if len(o.members) < fewMembers {
			o.Set(name, value)
			continue
		}
		if at == nil {
			at = make(map[string]int, 2*fewMembers)
			for i, m := range o.members {
				at[m.key] = i
			}
		}
		if i, ok := at[name]; ok {
			o.members[i].value = value
			continue
		}
		at[name] = len(o.members)
		o.members = append(o.members, member{name, value})
	}
	if _, err := dec.Token(); err != nil {
		return o, err
	}
	if dec.More() {
		return o, errors.New("there is text after the JSON object")
	}
	return o, nil
}

// ParseList reads a list of objects.
func ParseList(text []byte) ([]Object, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	list := make([]Object, len(raw))
	for i := range raw {
		var err error
		if list[i], err = ParseObject(raw[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (o *Object) index(key string) int {
	return slices.IndexFunc(o.members, func(m member) bool { return m.key == key })
}

// Get returns a member's value, nil if there is none.
func (o *Object) Get(key string) json.RawMessage {
	if i := o.index(key); i >= 0 {
		return o.members[i].value
	}
	return nil
}

// Has reports whether there is a member that is not null.
func (o *Object) Has(key string) bool {
	value := o.Get(key)
	return value != nil && !isNull(value)
}

func isNull(value json.RawMessage) bool { return string(bytes.TrimSpace(value)) == "null" }

// Text returns a member that is a string, "" for another or none.
func (o *Object) Text(key string) string {
	var text string
	if json.Unmarshal(o.Get(key), &text) != nil {
		return ""
	}
	return text
}

// True reports whether a member is true.
func (o *Object) True(key string) bool { return string(bytes.TrimSpace(o.Get(key))) == "true" }

// Set replaces or adds a member.
func (o *Object) Set(key string, value json.RawMessage) {
	if i := o.index(key); i >= 0 {
		o.members[i].value = value
		return
	}
	o.members = append(o.members, member{key, value})
}

// SetValue is Set with a value that is encoded.
func (o *Object) SetValue(key string, value any) { o.Set(key, Encode(value)) }

// SetText is Set with a string.
func (o *Object) SetText(key, text string) { o.SetValue(key, text) }

// Default adds a member if there is none, and reports whether it has.
func (o *Object) Default(key, value string) bool {
	if o.index(key) >= 0 {
		return false
	}
	o.members = append(o.members, member{key, json.RawMessage(value)})
	return true
}

// Delete removes a member.
func (o *Object) Delete(key string) {
	o.members = slices.DeleteFunc(o.members, func(m member) bool { return m.key == key })
}

// Append appends the object's text.
func (o *Object) Append(b []byte) []byte {
	b = append(b, '{')
	for i, m := range o.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, Encode(m.key)...)
		b = append(b, ':')
		b = append(b, m.value...)
	}
	return append(b, '}')
}

// MarshalJSON implements json.Marshaler.
func (o Object) MarshalJSON() ([]byte, error) { return o.Append(nil), nil }

// ListOf is the text of a list of objects.
func ListOf(list []Object) json.RawMessage {
	b := []byte{'['}
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = list[i].Append(b)
	}
	return append(b, ']')
}

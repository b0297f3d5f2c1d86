package serving

import (
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"
)

// The fields of a record have tags: `record:"name,option"`. Fields without a tag are read and written
// by code of their own; the fields of embedded structs belong to the record. A field is written if it
// is set, with these options always: "required" (it must be there and not empty) and "always". The
// field Unknown holds what has no name here. "sizes" is the form of tensor sizes.

// walk calls each with the fields of a struct that have a tag.
func walk(of reflect.Value, each func(name, option string, value reflect.Value)) {
	for i := range of.NumField() {
		field := of.Type().Field(i)
		name, option, _ := strings.Cut(field.Tag.Get("record"), ",")
		switch {
		case field.Anonymous:
			walk(of.Field(i), each)
		case name != "":
			each(name, option, of.Field(i))
		}
	}
}

// Fields lists the fields of a record by their stored names, in order. The value is nil for those that
// are not set.
func Fields(record any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		more := true
		walk(reflect.ValueOf(record), func(name, option string, value reflect.Value) {
			stored, _ := storedForm(option, value)
			more = more && yield(name, stored)
		})
	}
}

// storedForm is the value of a field as it is written, and whether it is.
func storedForm(option string, value reflect.Value) (stored any, written bool) {
	always := option == "required" || option == "always"
	t, isTime := reflect.TypeAssert[time.Time](value)
	switch {
	case value.IsZero() && !always, isTime && t.IsZero():
		return nil, false
	case isTime:
		return t.UTC().Format(time.RFC3339), true
	case isOption(value):
		r := record{}
		r.put(value.Elem())
		return r, true
	case value.Kind() == reflect.Slice && value.IsNil():
		return []any{}, true
	}
	return value.Interface(), true
}

// isOption reports whether a field points to a record within the record.
func isOption(field reflect.Value) bool {
	return field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct
}

// recordOf is the JSON object of a struct with tags.
func recordOf[T any](from T) record {
	r := record{}
	r.put(reflect.ValueOf(from))
	return r
}

func (r record) put(from reflect.Value) {
	if unknown := from.FieldByName("Unknown"); unknown.IsValid() {
		for name, raw := range unknown.Seq2() {
			r[name.String()] = raw.Interface()
		}
	}
	walk(from, func(name, option string, value reflect.Value) {
		if stored, written := storedForm(option, value); written {
			r[name] = stored
		}
	})
}

// into fills a struct with tags. What is missing stays as it is; the rest of the fields is unknown.
func (f *fields) into(to any) { f.fill(reflect.ValueOf(to).Elem()) }

func (f *fields) fill(to reflect.Value) {
	walk(to, func(name, option string, value reflect.Value) {
		switch at := value.Addr().Interface().(type) {
		case *bool:
			*at = f.boolean(name)
		case *int:
			*at = f.whole(name)
		case **int:
			*at = f.optionalWhole(name)
		case *int64:
			*at = f.size(name)
		case *float64:
			*at = f.numberOr(name, *at)
		case **float64:
			*at = f.optionalNumber(name)
		case *time.Time:
			*at = f.time(name)
		case *[]string:
			*at = f.texts(name)
		case *any:
			*at = f.value(name)
		case *[]any:
			if option == "sizes" {
				*at = f.sizes(name)
			} else {
				*at, _ = f.value(name).([]any)
			}
		default:
			switch {
			case isOption(value):
				f.option(name, value)
			case option == "required":
				value.SetString(f.requiredText(name))
			default:
				value.SetString(f.text(name))
			}
		}
	})
	if unknown := to.FieldByName("Unknown"); unknown.IsValid() {
		unknown.Set(reflect.ValueOf(f.rest()))
	}
}

// option reads a record within the record.
func (f *fields) option(name string, to reflect.Value) {
	raw, ok := f.take(name)
	if !ok {
		return
	}
	option, inner := reflect.New(to.Type().Elem()), fieldsOf(raw)
	if shared, ok := reflect.TypeAssert[interface{ setDefaults() }](option); ok {
		shared.setDefaults()
	}
	if inner.err == nil {
		inner.fill(option.Elem())
	}
	if inner.err != nil && f.err == nil {
		f.err = fmt.Errorf("%s: %w", name, inner.err)
	}
	to.Set(option)
}

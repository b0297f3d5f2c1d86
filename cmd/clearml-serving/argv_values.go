package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// checkValue refuses a value that its flag cannot take, in argparse's words.
func checkValue(flag *pflag.Flag, value string) error {
	switch flag.Value.Type() {
	case "int":
		if _, err := readWhole(value); err != nil {
			return fmt.Errorf("argument --%s: invalid int value: %s", flag.Name, pyText(value))
		}
	case "duration":
		if d, err := time.ParseDuration(value); err != nil || d <= 0 {
			return fmt.Errorf("argument --%s: invalid duration: %s (for example 90s or 5m)", flag.Name, pyText(value))
		}
	case "size":
		if _, err := parseSize(value); err != nil {
			return fmt.Errorf("argument --%s: %w", flag.Name, err)
		}
	case "number", "numbers":
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			return fmt.Errorf("argument --%s: invalid float value: %s", flag.Name, pyText(value))
		}
	}
	if choices := flag.Annotations[markChoices]; choices != nil && !slices.Contains(choices, value) {
		quoted := make([]string, len(choices))
		for i, c := range choices {
			quoted[i] = pyText(c)
		}
		return fmt.Errorf("argument --%s: invalid choice: %s (choose from %s)", flag.Name, pyText(value), strings.Join(quoted, ", "))
	}
	return nil
}

func isList(flag *pflag.Flag) bool {
	switch flag.Value.Type() {
	case "words", "numbers":
		return true
	}
	return false
}

// value is a flag value of a type that pflag does not have.
type value struct {
	kind string // for checkValue
	set  func(text string) error
	text string
}

func (v *value) String() string { return v.text }
func (v *value) Type() string   { return v.kind }

func (v *value) Set(text string) error {
	v.text = text
	return v.set(text)
}

// parsed is the value of a flag that is read into to.
func parsed[T any](kind string, to *T, read func(text string) (T, error)) pflag.Value {
	return &value{kind: kind, set: func(text string) (err error) {
		*to, err = read(text)
		return err
	}}
}

// optional is parsed for what stays nil without the flag.
func optional[T any](kind string, to **T, read func(text string) (T, error)) pflag.Value {
	return parsed(kind, to, func(text string) (*T, error) {
		value, err := read(text)
		return &value, err
	})
}

// list is the value of a flag that takes several words.
func list[T any](kind string, to *[]T, read func(text string) (T, error)) pflag.Value {
	return &value{kind: kind, set: func(text string) error {
		item, err := read(text)
		if err == nil {
			*to = append(*to, item)
		}
		return err
	}}
}

func readDecimal(text string) (float64, error) { return strconv.ParseFloat(text, 64) }
func readWhole(text string) (int, error)       { return strconv.Atoi(strings.TrimSpace(text)) }
func readWord(text string) (string, error)     { return text, nil }

func decimal(to *float64) pflag.Value          { return parsed("number", to, readDecimal) }
func whole(to *int) pflag.Value                { return parsed("int", to, readWhole) }
func byteSize(to *int64) pflag.Value           { return parsed("size", to, parseSize) }
func optionalDecimal(to **float64) pflag.Value { return optional("number", to, readDecimal) }
func optionalWhole(to **int) pflag.Value       { return optional("int", to, readWhole) }
func wordList(to *[]string) pflag.Value        { return list("words", to, readWord) }
func numbers(to *[]float64) pflag.Value        { return list("numbers", to, readDecimal) }

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

// wordList is a flag value of several words.
type wordList []string

func (w *wordList) String() string { return "" }
func (w *wordList) Type() string   { return "words" }

func (w *wordList) Set(text string) error {
	*w = append(*w, text)
	return nil
}

// numbers is a flag value of several decimal numbers.
type numbers []float64

func (n *numbers) String() string { return "" }
func (n *numbers) Type() string   { return "numbers" }

func (n *numbers) Set(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return err
	}
	*n = append(*n, v)
	return nil
}

// parsed is a flag value of a type that pflag does not have.
type parsed[T any] struct {
	to   *T
	kind string // for checkValue
	read func(text string) (T, error)
	text string
}

func (p *parsed[T]) String() string { return p.text }
func (p *parsed[T]) Type() string   { return p.kind }

func (p *parsed[T]) Set(text string) (err error) {
	p.text = text
	*p.to, err = p.read(text)
	return err
}

func readDecimal(text string) (float64, error) { return strconv.ParseFloat(text, 64) }
func readWhole(text string) (int, error)       { return strconv.Atoi(strings.TrimSpace(text)) }

func decimal(to *float64) pflag.Value {
	return &parsed[float64]{to: to, kind: "number", read: readDecimal}
}
func whole(to *int) pflag.Value      { return &parsed[int]{to: to, kind: "int", read: readWhole} }
func byteSize(to *int64) pflag.Value { return &parsed[int64]{to: to, kind: "size", read: parseSize} }

func optionalDecimal(to **float64) pflag.Value {
	return &parsed[*float64]{to: to, kind: "number", read: optional(readDecimal)}
}

func optionalWhole(to **int) pflag.Value {
	return &parsed[*int]{to: to, kind: "int", read: optional(readWhole)}
}

// optional reads a value that may be left out: nil then.
func optional[T any](read func(string) (T, error)) func(string) (*T, error) {
	return func(text string) (*T, error) {
		value, err := read(text)
		return &value, err
	}
}

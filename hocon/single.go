package hocon

import (
	"cmp"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// numberForm matches what the SDK reads as a number.
var numberForm = regexp.MustCompile(`^[+-]?(\d*\.\d+|\d+(\.\d+)?)([eE][+-]?\d+)?$`)

// single determines the value of a single unquoted word. In JSON, every other word is a number.
func single(word string, inJSON bool) *singleNode {
	n := &singleNode{value: word, text: word}
	switch strings.ToLower(word) {
	case "true":
		n.value = true
	case "false":
		n.value = false
	case "null":
		n.value = nil
	default:
		if inJSON {
			n.value = json.Number(word)
		} else if number, ok := jsonNumber(word); ok {
			n.value = number
		}
	}
	return n
}

// jsonNumber converts a number of the dialect (+5, .5, 007) to JSON's form. A number outside of the
// range of floats stays a text.
func jsonNumber(word string) (json.Number, bool) {
	if !numberForm.MatchString(word) {
		return "", false
	}
	if f, err := strconv.ParseFloat(word, 64); err != nil || f != f {
		return "", false
	}
	sign, digits := "", strings.TrimPrefix(word, "+")
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	end := strings.IndexAny(digits, ".eE")
	if end < 0 {
		end = len(digits)
	}
	whole := cmp.Or(strings.TrimLeft(digits[:end], "0"), "0")
	return json.Number(sign + whole + digits[end:]), true
}

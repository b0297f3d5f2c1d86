package hocon

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// numberForm is what the SDK takes for a number.
var numberForm = regexp.MustCompile(`^[+-]?(\d*\.\d+|\d+(\.\d+)?)([eE][+-]?\d+)?$`)

// single decides what an unquoted word that stands alone is.
func single(word string) *singleNode {
	n := &singleNode{value: word, text: word}
	switch strings.ToLower(word) {
	case "true":
		n.value = true
	case "false":
		n.value = false
	case "null":
		n.value = nil
	default:
		if number, ok := jsonNumber(word); ok {
			n.value = number
		}
	}
	return n
}

// jsonNumber writes a number of the dialect (+5, .5, 007) in JSON's form. A
// number that no float holds stays a text.
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
	whole := strings.TrimLeft(digits[:end], "0")
	if whole == "" {
		whole = "0"
	}
	return json.Number(sign + whole + digits[end:]), true
}

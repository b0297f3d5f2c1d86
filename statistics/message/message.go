// Package message has the messages that carry the statistics of requests over Kafka, in the format of
// the original: a JSON list of records, each with _url, _latency, _count and the logged variables.
package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"clearmlserving/serving"
)

// Topic is the topic of the messages.
const Topic = "clearml_inference_stats"

// The names of the values that every record has.
const (
	keyURL     = "_url"
	keyLatency = "_latency"
	keyCount   = "_count"
)

// maxWeight bounds the weight of a record: 1/share of a tiny share is infinite.
const maxWeight = 1e15

// ErrVariables says that the variables of a request are not a JSON object.
var ErrVariables = errors.New("the variables are not a JSON object")

// AppendRecord appends the record of a request to a list that AppendEnd ends. variables is a JSON object,
// or empty. Like in the original, a variable may replace one of the built-in values.
func AppendRecord(list []byte, url serving.EndpointURL, latency time.Duration, weight float64, variables []byte) ([]byte, error) {
	variables = bytes.TrimSpace(variables)
	if len(variables) > 0 && (variables[0] != '{' || !json.Valid(variables)) {
		return list, ErrVariables
	}
	name, err := json.Marshal(string(url))
	if err != nil {
		return list, err
	}
	if len(list) == 0 {
		list = append(list, '[')
	} else {
		list = append(list, ", "...)
	}
	list = append(list, `{"`+keyLatency+`": `...)
	list = appendPython(list, math.Round(latency.Seconds()*1e4)/1e4, true)
	list = append(list, `, "`+keyCount+`": `...)
	list = appendPython(list, min(weight, maxWeight), false)
	list = append(list, `, "`+keyURL+`": `...)
	list = append(list, name...)
	if inner := bytes.TrimSpace(variables[min(1, len(variables)):]); len(inner) > 1 {
		list = append(list, ", "...)
		return append(list, inner...), nil // with the closing brace
	}
	return append(list, '}'), nil
}

// AppendEnd ends a list of records.
func AppendEnd(list []byte) []byte { return append(list, ']') }

// appendPython writes a finite number as Python's json does: a whole float ends in ".0".
func appendPython(to []byte, f float64, float bool) []byte {
	n := len(to)
	to = strconv.AppendFloat(to, f, 'f', -1, 64)
	if float && !bytes.ContainsRune(to[n:], '.') {
		to = append(to, ".0"...)
	}
	return to
}

// Record is what a message says about one request.
type Record struct {
	URL serving.EndpointURL
	// Latency is in seconds. Timed: the record has one.
	Latency float64
	Timed   bool
	// Count is the number of requests that the record stands for, 0 if it says none.
	Count float64
	// Variables are the other values, as package json decodes them with UseNumber.
	Variables map[string]any
}

// Broken is the number of records of a message that cannot be used, by the reason.
type Broken struct {
	NoObject int // not a JSON object
	NoURL    int
	Builtin  int // _latency or _count is not a number that can be recorded
}

// Decode reads a message, also one of the original, which may contain NaN and infinities. These
// become null. The error says that it is not a list of records at all.
func Decode(value []byte) (records []Record, broken Broken, err error) {
	list, err := decodeList(value)
	if err != nil {
		finite := replaceNonFinite(value)
		if finite == nil {
			return nil, Broken{}, err
		}
		if list, err = decodeList(finite); err != nil {
			return nil, Broken{}, err
		}
	}
	records = make([]Record, 0, len(list))
	for _, one := range list {
		fields, ok := one.(map[string]any)
		if !ok {
			broken.NoObject++
			continue
		}
		url, _ := fields[keyURL].(string)
		r := Record{URL: serving.CleanURL(url), Variables: fields}
		if r.URL == "" {
			broken.NoURL++
			continue
		}
		ok = true
		if latency, given := fields[keyLatency]; given && latency != nil {
			r.Latency, r.Timed = number(latency)
			ok = r.Timed
		}
		if count, given := fields[keyCount]; given && count != nil {
			var counted bool
			r.Count, counted = number(count)
			ok = ok && counted && r.Count >= 0
		}
		if !ok {
			broken.Builtin++
			continue
		}
		delete(fields, keyURL)
		delete(fields, keyLatency)
		delete(fields, keyCount)
		records = append(records, r)
	}
	return records, broken, nil
}

func decodeList(value []byte) ([]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	var list []any
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("statistics message is not a JSON list: %w", err)
	}
	if list == nil {
		return nil, errors.New("statistics message is null")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("statistics message has more than one JSON value")
	}
	return list, nil
}

// number converts a decoded JSON value to a finite number.
func number(value any) (float64, bool) {
	n, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// replaceNonFinite replaces the words that Python's json writes for NaN and infinities by null. It
// returns nil if there are none outside of texts.
func replaceNonFinite(value []byte) []byte {
	out := make([]byte, 0, len(value)+16)
	text, found := false, false
	for i := 0; i < len(value); {
		n := 1
		switch {
		case text && value[i] == '\\':
			n = min(2, len(value)-i)
		case value[i] == '"':
			text = !text
		case !text:
			n = max(1, nonFinite(value[i:]))
		}
		if n > 2 {
			out, found = append(out, "null"...), true
		} else {
			out = append(out, value[i:i+n]...)
		}
		i += n
	}
	if !found {
		return nil
	}
	return out
}

// nonFinite is the length of the word that a text begins with, 0 if that is another one.
func nonFinite(text []byte) int {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(text, []byte(word)) {
			return len(word)
		}
	}
	return 0
}

// Halves splits a message of several records into two.
func Halves(value []byte) (first, second []byte, err error) {
	var all []json.RawMessage
	if err := json.Unmarshal(value, &all); err != nil {
		return nil, nil, err
	}
	if first, err = json.Marshal(all[:len(all)/2]); err != nil {
		return nil, nil, err
	}
	second, err = json.Marshal(all[len(all)/2:])
	return first, second, err
}

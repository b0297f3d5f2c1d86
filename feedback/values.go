package feedback

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"clearmlserving/serving"
)

const (
	maxRows     = 10_000  // of one request
	maxKept     = 1 << 20 // bytes of the kept predictions of one request
	maxClass    = 200     // bytes of a class
	maxKey      = 256     // bytes of a client's key
	maxProbable = 10_000  // probabilities of one row
)

// unit is the prediction of one request, or of one row with its own key.
type unit struct {
	key  string
	rows []Prediction
}

// skipError is the reason why an answer has no prediction that can be kept, as a label of a metric.
type skipError string

func (e skipError) Error() string { return "no prediction kept: " + string(e) }

// The reasons.
const (
	skipJSON       skipError = "not_json"   // request or answer
	skipPrediction skipError = "prediction" // missing, or of another type
	skipScore      skipError = "score"      // missing, or no probability: the prediction is kept
	skipKey        skipError = "key"        // missing, or of another type
	skipSize       skipError = "size"       // too many rows or bytes
	skipStream     skipError = "stream"     // the answer is not known as a whole
)

// predictionsOf selects the predictions of an answer. scoreless reports that the prediction is kept
// without a probability that it should have.
func predictionsOf(o serving.Observed, f *serving.Feedback) (units []unit, scoreless bool, err error) {
	if o.Streamed {
		return nil, false, skipStream
	}
	answer, err := parse(o.Answer)
	if err != nil {
		return nil, false, skipJSON
	}
	found, ok := lookUp(answer, f.Prediction)
	if !ok {
		return nil, false, skipPrediction
	}
	list, several := found.([]any)
	if !several {
		list = []any{found}
	}
	if len(list) == 0 {
		return nil, false, skipPrediction
	}
	if len(list) > maxRows {
		return nil, false, skipSize
	}
	rows := make([]Prediction, len(list))
	for i, value := range list {
		if f.Task == serving.TaskRegression {
			n, ok := number(value)
			if !ok {
				return nil, false, skipPrediction
			}
			rows[i].Number = &n
		} else if rows[i].Class, ok = class(value); !ok {
			return nil, false, skipPrediction
		}
	}
	if f.Score != "" {
		scoreless = !addScores(rows, answer, several, f)
	}
	units, err = keyed(o, f, rows)
	return units, scoreless, err
}

// addScores sets the probabilities of the rows, of all or of none.
func addScores(rows []Prediction, answer any, several bool, f *serving.Feedback) bool {
	found, ok := lookUp(answer, f.Score)
	if !ok {
		return false
	}
	list := []any{found}
	if several {
		if list, ok = found.([]any); !ok || len(list) != len(rows) {
			return false
		}
	}
	scored := make([]Prediction, len(rows))
	for i, value := range list {
		if scored[i], ok = score(value, f.Classes); !ok {
			return false
		}
	}
	for i := range rows {
		rows[i].Score, rows[i].Scores = scored[i].Score, scored[i].Scores
	}
	return true
}

// score reads a probability, or one for each class.
func score(value any, classes []string) (p Prediction, ok bool) {
	switch value := value.(type) {
	case map[string]any:
		if len(value) == 0 || len(value) > maxProbable {
			return p, false
		}
		p.Scores = make(map[string]float64, len(value))
		for name, one := range value {
			n, ok := probability(one)
			if !ok || len(name) > maxClass {
				return p, false
			}
			p.Scores[canonical(name)] = n
		}
		return p, true
	case []any:
		if len(value) == 0 || len(value) > maxProbable || classes != nil && len(classes) != len(value) {
			return p, false
		}
		p.Scores = make(map[string]float64, len(value))
		for i, one := range value {
			n, ok := probability(one)
			if !ok {
				return p, false
			}
			name := strconv.Itoa(i)
			if classes != nil {
				name = canonical(classes[i])
			}
			p.Scores[name] = n
		}
		return p, true
	}
	n, ok := probability(value)
	p.Score = &n
	return p, ok
}

func probability(value any) (float64, bool) {
	n, ok := number(value)
	return n, ok && n >= 0 && n <= 1
}

// keyed assigns the rows to keys: to the request id, or to the client's key, which may be a list with
// a key for each row.
func keyed(o serving.Observed, f *serving.Feedback, rows []Prediction) ([]unit, error) {
	if f.Key == "" {
		return []unit{{o.ID, rows}}, nil
	}
	body, err := parse(o.Body)
	if err != nil {
		return nil, skipJSON
	}
	found, ok := lookUp(body, f.Key)
	if !ok {
		return nil, skipKey
	}
	list, several := found.([]any)
	if !several {
		key, ok := keyText(found)
		if !ok {
			return nil, skipKey
		}
		return []unit{{key, rows}}, nil
	}
	if len(list) != len(rows) {
		return nil, skipKey
	}
	units := make([]unit, len(list))
	for i, value := range list {
		if units[i].key, ok = keyText(value); !ok {
			return nil, skipKey
		}
		units[i].rows = rows[i : i+1]
	}
	return units, nil
}

// keyText is a client's key as a text: 7 and "7" are the same key.
func keyText(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return value, value != "" && len(value) <= maxKey
	case json.Number:
		text := canonical(value.String())
		return text, len(text) <= maxKey
	}
	return "", false
}

// class is a predicted or true class as a text.
func class(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return canonical(value), len(value) <= maxClass
	case json.Number:
		return canonical(value.String()), len(value) <= maxClass
	case bool:
		return strconv.FormatBool(value), true
	}
	return "", false
}

// whole is a whole number that is written like a fraction, as pandas does where values are missing.
var whole = regexp.MustCompile(`^(-?(?:0|[1-9][0-9]*))\.0+$`)

// canonical makes the same class or key of 1, 1.0 and "1", and of true and "True".
func canonical(text string) string {
	switch text {
	case "True":
		return "true"
	case "False":
		return "false"
	}
	if strings.HasSuffix(text, "0") { // a regular expression costs more
		if found := whole.FindStringSubmatch(text); found != nil {
			return found[1]
		}
	}
	return text
}

// number is a finite number.
func number(value any) (float64, bool) {
	text, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseFloat(text.String(), 64)
	return n, err == nil && !math.IsInf(n, 0) && !math.IsNaN(n)
}

// lookUp finds the value at a path of names, through lists: the value is then a list too.
func lookUp(value any, path string) (any, bool) {
	if path = strings.Trim(path, ". "); path == "" {
		return value, true
	}
	first, rest, _ := strings.Cut(path, ".")
	switch value := value.(type) {
	case map[string]any:
		next, ok := value[first]
		if !ok {
			return nil, false
		}
		return lookUp(next, rest)
	case []any:
		if i, err := strconv.Atoi(first); err == nil && i >= 0 {
			if i >= len(value) {
				return nil, false
			}
			return lookUp(value[i], rest)
		}
		if len(value) == 0 {
			return nil, false
		}
		list := make([]any, len(value))
		for i, element := range value {
			found, ok := lookUp(element, path)
			if !ok {
				return nil, false
			}
			list[i] = found
		}
		return list, true
	}
	return nil, false
}

// parse reads one JSON value.
func parse(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("is not one JSON value")
	}
	return value, nil
}

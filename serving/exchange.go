package serving

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Exchange is a request and its answer as stored in recordings and golden samples: one JSON object
// per line.
type Exchange struct {
	Time        time.Time
	Endpoint    EndpointURL // as in the request
	AnsweredBy  EndpointURL // "" when it is the same
	ModelID     ModelID
	Route       string // of the OpenAI API, "" for other requests: it tells what the body means
	ContentType string
	Body        []byte
	Status      int
	AnswerType  string // content type
	Answer      []byte
	// Redacted means that fields of body or answer were blanked.
	Redacted bool
}

// exchangeLine is the stored form. Bytes that are not UTF-8 are in the field that ends in _base64.
type exchangeLine struct {
	Time         *time.Time  `json:"time,omitempty"`
	Endpoint     EndpointURL `json:"endpoint"`
	AnsweredBy   EndpointURL `json:"answered_by,omitempty"`
	ModelID      ModelID     `json:"model_id,omitempty"`
	Route        string      `json:"route,omitempty"`
	ContentType  *string     `json:"content_type,omitempty"`
	Body         *string     `json:"body,omitempty"`
	BodyBase64   *string     `json:"body_base64,omitempty"`
	Status       int         `json:"status"`
	AnswerType   string      `json:"answer_type,omitempty"`
	Answer       *string     `json:"answer,omitempty"`
	AnswerBase64 *string     `json:"answer_base64,omitempty"`
	Redacted     bool        `json:"redacted,omitempty"`
}

// Line returns the exchange as one line, with its line end.
func (e Exchange) Line() ([]byte, error) {
	line := exchangeLine{
		Endpoint: e.Endpoint, AnsweredBy: e.AnsweredBy, ModelID: e.ModelID, Route: e.Route, ContentType: &e.ContentType,
		Status: e.Status, AnswerType: e.AnswerType, Redacted: e.Redacted,
	}
	if !e.Time.IsZero() {
		line.Time = &e.Time
	}
	line.Body, line.BodyBase64 = textOrBase64(e.Body)
	line.Answer, line.AnswerBase64 = textOrBase64(e.Answer)
	text, err := marshal(line)
	if err != nil {
		return nil, fmt.Errorf("write exchange of '%s': %w", e.Endpoint, err)
	}
	return []byte(text + "\n"), nil
}

func textOrBase64(data []byte) (text, encoded *string) {
	s := string(data)
	if utf8.Valid(data) {
		return &s, nil
	}
	s = base64.StdEncoding.EncodeToString(data)
	return nil, &s
}

// ParseExchanges reads the output of Line. Empty lines are skipped; an error names the line. Lines
// may also be written by hand: endpoint, content type (JSON) and status (200) may be omitted, and
// body and answer may be JSON instead of a text with JSON.
func ParseExchanges(data []byte) ([]Exchange, error) {
	var all []Exchange
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		e, err := parseExchange(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no exchange in it")
	}
	return all, nil
}

// LooksLikeExchanges distinguishes a set of exchanges from a request's body.
func LooksLikeExchanges(data []byte) bool {
	line, _, _ := bytes.Cut(bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff"))), []byte("\n"))
	var named map[string]json.RawMessage
	if json.Unmarshal(line, &named) != nil {
		return false
	}
	_, body := named["body"]
	_, encoded := named["body_base64"]
	_, answer := named["answer"]
	_, answerEncoded := named["answer_base64"]
	return (body || encoded) && (answer || answerEncoded)
}

func parseExchange(line []byte) (Exchange, error) {
	var stored struct {
		exchangeLine
		Body   json.RawMessage `json:"body"`
		Answer json.RawMessage `json:"answer"`
	}
	if err := json.Unmarshal(line, &stored); err != nil {
		return Exchange{}, fmt.Errorf("is not a recorded request: %w", err)
	}
	e := Exchange{
		Endpoint: CleanURL(string(stored.Endpoint)), AnsweredBy: stored.AnsweredBy, ModelID: stored.ModelID, Route: stored.Route,
		ContentType: "application/json", Status: stored.Status, AnswerType: stored.AnswerType, Redacted: stored.Redacted,
	}
	if stored.Time != nil {
		e.Time = *stored.Time
	}
	if stored.ContentType != nil { // "": the client sent none
		e.ContentType = *stored.ContentType
	}
	e.Status = cmp.Or(e.Status, 200)
	var err error
	if e.Body, err = storedBytes("body", stored.Body, stored.BodyBase64); err != nil {
		return e, err
	}
	e.Answer, err = storedBytes("answer", stored.Answer, stored.AnswerBase64)
	return e, err
}

func storedBytes(field string, raw json.RawMessage, encoded *string) ([]byte, error) {
	switch {
	case encoded != nil:
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(*encoded))
		if err != nil {
			return nil, &FieldError{Field: field + "_base64", Why: "is not base64: " + err.Error()}
		}
		return data, nil
	case raw == nil:
		return nil, &FieldError{Field: field, Why: "is missing"}
	case raw[0] == '"':
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, &FieldError{Field: field, Why: err.Error()}
		}
		return []byte(text), nil
	default:
		return raw, nil
	}
}

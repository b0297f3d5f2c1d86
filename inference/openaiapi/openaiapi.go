// Package openaiapi knows the OpenAI API as fronts and engines share it: its routes, the model that a
// request names, its errors, and the form of embeddings. It does no I/O.
package openaiapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
)

// The routes with a form that is known here. All are answered by POST.
const (
	Chat           = "v1/chat/completions"
	Completions    = "v1/completions"
	Embeddings     = "v1/embeddings"
	Responses      = "v1/responses"
	Transcriptions = "v1/audio/transcriptions"
	Translations   = "v1/audio/translations"
)

// Models is the route of the list of models, answered by GET.
const Models = "v1/models"

// routes are all that a model may answer: those of the API, and those of vLLM beside it.
var routes = []string{ //nolint:gochecknoglobals // a constant table
	Chat, Completions, Embeddings, Responses, Transcriptions, Translations,
	"v1/audio/speech", "v1/moderations", "v1/images/generations",
	"v1/score", "v1/rerank", "v2/rerank", "v1/classify", "v1/pooling",
	"pooling", "classify", "score", "rerank", "tokenize", "detokenize",
}

// Routes lists the routes that a model may answer.
func Routes() []string { return slices.Clone(routes) }

// Known reports whether a model may answer the route.
func Known(route string) bool { return slices.Contains(routes, route) }

// RouteOf is the route of a path as user code of the original gives it to send_request, such as
// "chat/completions"; "" for another path.
func RouteOf(path string) string {
	path = strings.Trim(path, "/")
	for _, route := range []string{path, "v1/" + path} {
		if Known(route) {
			return route
		}
	}
	return ""
}

// RouteOfBody is the route of a request that names none, by its fields.
func RouteOfBody(o Object) string {
	switch {
	case o.Has("messages"):
		return Chat
	case o.Has("prompt"):
		return Completions
	case o.Has("input"):
		return Embeddings
	}
	return ""
}

// Problem is the reason why a request is refused.
type Problem struct {
	Status  int
	Message string
	Type    string // such as "invalid_request_error"
	Param   string // the field at fault, "" for none
	Code    string // "" for none
}

func (p *Problem) Error() string { return p.Message }

// BadRequest is the Problem of a request with a wrong field.
func BadRequest(param, format string, args ...any) *Problem {
	return &Problem{Status: http.StatusBadRequest, Type: InvalidRequest, Param: param, Message: fmt.Sprintf(format, args...)}
}

// The types of errors.
const (
	InvalidRequest = "invalid_request_error"
	ServerError    = "server_error"
)

// Body is the error as clients of the API expect it.
func (p *Problem) Body() []byte {
	type inner struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	return Encode(map[string]inner{"error": {p.Message, p.Type, orNull(p.Param), orNull(p.Code)}})
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// ProblemOf is the Problem of a status without more.
func ProblemOf(status int, message string) *Problem {
	p := &Problem{Status: status, Message: message, Type: InvalidRequest}
	switch status {
	case http.StatusUnauthorized:
		p.Code = "invalid_api_key"
	case http.StatusForbidden:
		p.Code = "insufficient_permissions"
	case http.StatusNotFound:
		p.Code = "model_not_found"
	case http.StatusTooManyRequests:
		p.Type, p.Code = "rate_limit_error", "rate_limit_exceeded"
	case http.StatusGatewayTimeout:
		p.Type, p.Code = ServerError, "timeout"
	case http.StatusServiceUnavailable:
		p.Type, p.Code = ServerError, "engine_unavailable"
	default:
		if status >= http.StatusInternalServerError {
			p.Type = ServerError
		}
	}
	return p
}

// Encode is a value as JSON without escapes for web pages.
func Encode(value any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil { // only of values that have no JSON
		return []byte("null")
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// mostModel bounds the length of a model's name.
const mostModel = 4 << 10

// ModelOf reads the model that a request names: in a JSON body, or in a form.
func ModelOf(contentType string, body []byte) (string, *Problem) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err == nil && kind == "multipart/form-data" {
		return modelOfForm(params["boundary"], body)
	}
	if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return "", &Problem{
			Status: http.StatusUnsupportedMediaType, Type: InvalidRequest,
			Message: "Unsupported Media Type: send the header Content-Type: application/json, or multipart/form-data for files",
		}
	}
	var named struct {
		Model json.RawMessage `json:"model"`
	}
	if err := json.Unmarshal(body, &named); err != nil {
		return "", BadRequest("", "We could not parse the JSON body of your request: %s", err)
	}
	var model string
	switch {
	case len(named.Model) == 0 || string(named.Model) == "null":
		return "", BadRequest("model", "you must provide a model parameter")
	case json.Unmarshal(named.Model, &model) != nil:
		return "", BadRequest("model", "Invalid type for 'model': expected a string")
	case strings.Trim(model, "/") == "":
		return "", BadRequest("model", "you must provide a model parameter")
	}
	return model, nil
}

func modelOfForm(boundary string, body []byte) (string, *Problem) {
	if boundary == "" {
		return "", BadRequest("", "the form has no boundary in the header Content-Type")
	}
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return "", BadRequest("model", "you must provide a model parameter")
		}
		if err != nil {
			return "", BadRequest("", "the form cannot be read: %s", err)
		}
		if part.FormName() != "model" {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(part, mostModel))
		if err != nil {
			return "", BadRequest("", "the form cannot be read: %s", err)
		}
		return string(name), nil
	}
}

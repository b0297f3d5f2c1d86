package jsontensor

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"clearmlserving/inference/engine"
)

// ContentType is that of JSON bodies.
const ContentType = "application/json"

// Detail is an answer with an error status, in the form that answers of workers have.
func Detail(status int, text string) *engine.Response {
	return &engine.Response{Status: status, ContentType: ContentType, Body: append(AppendText([]byte(`{"detail":`), strings.ToValidUTF8(text, "\uFFFD")), '}')}
}

// Unprintable is the answer of a model whose tensors have no form in JSON.
func Unprintable(err error) *engine.Response {
	return Detail(http.StatusInternalServerError, "Error processing request: the answer cannot be sent: "+err.Error())
}

// Refused is the answer to a body that is not the model's input.
func Refused(err error) *engine.Response {
	r := Detail(http.StatusUnprocessableEntity, err.Error())
	if failed, ok := errors.AsType[*BodyError](err); ok && failed.At >= 0 {
		r.Body = fmt.Appendf(nil, `{"detail":[{"type":"json_invalid","loc":["body",%d],"msg":"JSON decode error","input":{},"ctx":{"error":%s}}]}`, failed.At, AppendText(nil, failed.Text))
	}
	r.Unread = true
	return r
}

// AppendObject appends the JSON of tensors as an object by their names.
func AppendObject(b []byte, tensors []engine.Tensor, nanAsNull bool) ([]byte, error) {
	b = append(b, '{')
	for i := range tensors {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		b = append(AppendText(b, tensors[i].Name), ':')
		if b, err = AppendTensor(b, &tensors[i], nanAsNull); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// Logged are the variables of an endpoint's statistics.
type Logged struct{ names atomic.Pointer[[]string] }

// SetVariables implements engine.VariableSetter.
func (l *Logged) SetVariables(names []string) error {
	l.names.Store(&names)
	return nil
}

// Stats are the variables of a request, if it is sampled: inputs and outputs by their names, the output if both have
// the name.
func (l *Logged) Stats(req *engine.Request, in, out []engine.Tensor) []byte {
	names := l.names.Load()
	if !req.Sampled || names == nil {
		return nil
	}
	return Variables(*names, in, out)
}

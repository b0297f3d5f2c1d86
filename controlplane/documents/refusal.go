package documents

import (
	"errors"
	"fmt"
	"net/http"

	"clearmlserving/controlplane/store"
)

// Error is a refusal with the codes that clients compare.
type Error struct {
	// Code is the HTTP status. It is above 500 only if the database cannot be reached: with
	// 503 the SDK waits and repeats the call, with other codes it loses it.
	Code int
	// Subcode distinguishes errors of one Code; see the constants.
	Subcode int
	// Msg is the text for users.
	Msg string
}

func (e *Error) Error() string { return e.Msg }

// The subcodes of the refusals of documents, by ClearML's names.
const (
	SubInvalidID      = 10
	subValidation     = 12
	subInvalidFields  = 14
	SubFieldsValue    = 16
	subInvalidRegex   = 21
	SubInvalidTask    = 101
	subInvalidModel   = 201
	subInvalidProject = 401
	subInvalidQueue   = 701
	subDataValidation = 800
	// subNoWritePermission has code 403, for callers that may only read.
	subNoWritePermission = 21
)

// Refuse makes a refusal with code 400.
func Refuse(subcode int, format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, Subcode: subcode, Msg: fmt.Sprintf(format, args...)}
}

// Invalid refuses a request with an invalid field.
func Invalid(format string, args ...any) *Error {
	return Refuse(subValidation, "Validation error: "+format, args...)
}

// Missing refuses a request without a required field.
func Missing(field string) *Error {
	return Invalid("missing required field %s", field)
}

// NotFound turns store.ErrNotFound into the refusal for that kind of document and
// leaves other errors as they are.
func NotFound(err error, kind store.Kind, id string) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	switch kind {
	case store.Task:
		return Refuse(SubInvalidTask, "Invalid task id: id=%s", id)
	case store.Model:
		return Refuse(subInvalidModel, "Invalid model id: id=%s", id)
	case store.Project:
		return Refuse(subInvalidProject, "Invalid project id: id=%s", id)
	case store.Queue:
		return Refuse(subInvalidQueue, "Invalid queue id: id=%s", id)
	}
	return Refuse(SubInvalidID, "Invalid %s id: id=%s", kind, id)
}

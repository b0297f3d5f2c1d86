package api

import (
	"errors"
	"fmt"
	"net/http"

	"clearmlserving/controlplane/store"
)

// Error is a refusal with the codes that clients compare.
type Error struct {
	// Code is the HTTP status. It is above 500 only when the database isn't reached, with
	// 503: the SDK waits then for as long as it takes, where other codes lose the call.
	Code int
	// Subcode tells errors of one Code apart; see the constants.
	Subcode int
	// Msg is for people.
	Msg string
}

func (e *Error) Error() string { return e.Msg }

// The subcodes, by ClearML's names. All are of code 400 unless they say otherwise.
const (
	subBadRequest         = 0
	subInvalidID          = 10
	subMissingFields      = 11
	subValidation         = 12
	subInvalidFields      = 14
	subFieldsValue        = 16
	subNoItems            = 17
	subInvalidRegex       = 21
	subInvalidTask        = 101
	subTaskStatus         = 110
	subTaskNotDeletable   = 123
	subEventsNotAdded     = 131
	subInvalidModel       = 201
	subModelIsReady       = 203
	subModelInUse         = 205
	subModelCreatingTask  = 206
	subInvalidProject     = 401
	subInvalidProjectName = 407
	subProjectHasTasks    = 402
	subProjectHasModels   = 405
	subProjectLocation    = 408
	subInvalidQueue       = 701
	subQueueNotEmpty      = 702
	subTaskAlreadyQueued  = 706
	subNoDefaultQueue     = 707
	subDataValidation     = 800
	subUniqueData         = 801
	subInvalidScroll      = 1104

	subWorkerRegistration = 1002

	// subStale is ours: a condition of tasks.edit_configuration's if_match doesn't hold.
	// ClearML has no conditional write, and none of its calls that are answered here uses
	// the number.
	subStale = 122
)

// refuse makes a refusal with code 400.
func refuse(subcode int, format string, args ...any) *Error {
	return &Error{Code: http.StatusBadRequest, Subcode: subcode, Msg: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *Error {
	return refuse(subBadRequest, format, args...)
}

func invalid(format string, args ...any) *Error {
	return refuse(subValidation, "Validation error: "+format, args...)
}

// missing refuses a request without a field that its call requires.
func missing(field string) *Error {
	return invalid("missing required field %s", field)
}

// notFound turns store.ErrNotFound into the refusal for that kind of document and
// leaves other errors as they are.
func notFound(err error, kind store.Kind, id string) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	switch kind {
	case store.Task:
		return refuse(subInvalidTask, "Invalid task id: id=%s", id)
	case store.Model:
		return refuse(subInvalidModel, "Invalid model id: id=%s", id)
	case store.Project:
		return refuse(subInvalidProject, "Invalid project id: id=%s", id)
	case store.Queue:
		return refuse(subInvalidQueue, "Invalid queue id: id=%s", id)
	}
	return refuse(subInvalidID, "Invalid %s id: id=%s", kind, id)
}

// asError turns any error into what the client is told: trouble of our own becomes a
// 500 whose cause stays in the log, unless a person can mend it.
func asError(err error) (told *Error, trouble bool) {
	if errors.As(err, &told) {
		return told, told.Code >= http.StatusInternalServerError
	}
	internal := func(msg string) *Error { return &Error{Code: http.StatusInternalServerError, Subcode: 1, Msg: msg} }
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuse(subInvalidID, "No such document"), false
	case errors.Is(err, store.ErrFull):
		return internal("The disk of the control plane is full: free some space on it; nothing of this call was stored"), true
	case errors.Is(err, store.ErrTooLong):
		return invalid("a name, a comment, a tag, or the name of a metric is too long for the database"), false
	case errors.Is(err, store.ErrTooLarge):
		return invalid("what this call adds makes the document larger than the 64 MiB that one may have: remove some of it first"), false
	case errors.Is(err, store.ErrTooMuch):
		return internal("The database was not done with this call within a minute; nothing of it was stored: ask for less, or change less, in one call"), true
	case errors.Is(err, store.ErrUnavailable):
		return &Error{Code: http.StatusServiceUnavailable, Msg: "The database of the control plane isn't reached: try again"}, true
	case errors.Is(err, store.ErrReadOnly):
		return internal("The database of the control plane can't be written: check the permissions of its data folder"), true
	}
	return internal("Internal error of the control plane; its log says why"), true
}

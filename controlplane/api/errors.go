package api

import (
	"errors"
	"net/http"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// Error is a refusal with the codes that clients compare.
type Error = documents.Error

// The subcodes, by ClearML's names. All are of code 400 unless they say otherwise.
const (
	subBadRequest         = 0
	subMissingFields      = 11
	subNoItems            = 17
	subTaskStatus         = 110
	subTaskNotDeletable   = 123
	subEventsNotAdded     = 131
	subModelIsReady       = 203
	subModelInUse         = 205
	subModelCreatingTask  = 206
	subInvalidProjectName = 407
	subProjectHasTasks    = 402
	subProjectHasModels   = 405
	subProjectLocation    = 408
	subQueueNotEmpty      = 702
	subTaskAlreadyQueued  = 706
	subNoDefaultQueue     = 707
	subUniqueData         = 801
	subInvalidScroll      = 1104

	subWorkerRegistration = 1002

	// subStale is an extension: a condition of tasks.edit_configuration's if_match failed.
	// ClearML has no conditional write, and uses the number for none of the calls here.
	subStale = 122
)

func badRequest(format string, args ...any) *documents.Error {
	return documents.Refuse(subBadRequest, format, args...)
}

// asError turns any error into the refusal for the client. A fault of this server becomes a
// 500, whose cause is only in the log unless the user can do something about it.
func asError(err error) (told *documents.Error, trouble bool) {
	if errors.As(err, &told) {
		return told, told.Code >= http.StatusInternalServerError
	}
	internal := func(msg string) *documents.Error {
		return &documents.Error{Code: http.StatusInternalServerError, Subcode: 1, Msg: msg}
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return documents.Refuse(documents.SubInvalidID, "No such document"), false
	case errors.Is(err, store.ErrFull):
		return internal("The disk of the control plane is full: free some space on it; nothing of this call was stored"), true
	case errors.Is(err, store.ErrTooLong):
		return documents.Invalid("a name, a comment, a tag, or the name of a metric is too long for the database"), false
	case errors.Is(err, store.ErrTooLarge):
		return documents.Invalid("what this call adds makes the document larger than the 64 MiB that one may have: remove some of it first"), false
	case errors.Is(err, store.ErrTooMuch):
		return internal("The database did not finish this call within a minute; nothing of it was stored: request or change less in one call"), true
	case errors.Is(err, store.ErrUnavailable):
		return &documents.Error{Code: http.StatusServiceUnavailable, Msg: "The database of the control plane isn't reached: try again"}, true
	case errors.Is(err, store.ErrReadOnly):
		return internal("The database of the control plane cannot be written: check the permissions of its data folder"), true
	}
	return internal("Internal error of the control plane; its log says why"), true
}

package documents

import (
	"net/http"

	"clearmlserving/controlplane/store"
)

// Author is who writes documents.
type Author struct {
	// User and Company are ids.
	User, Company string
	// Limited is set for an account of one serving service, and Service is the service's id.
	Limited bool
	Service string
}

// MayChange says whether an author may write a document: a service account only the
// task of its service and those made for it.
func (who Author) MayChange(kind store.Kind, doc store.Doc) error {
	if !who.Limited {
		return nil
	}
	if kind == store.Task && (doc.ID() == who.Service || doc.Text("parent") == who.Service) {
		return nil
	}
	return OutOfService(kind, doc.ID())
}

// OutOfService refuses to write what an account of one service may not write.
func OutOfService(kind store.Kind, id string) error {
	return &Error{
		Code: http.StatusForbidden, Subcode: subNoWritePermission,
		Msg: "No write permission: these credentials are limited to one serving service, and " + string(kind) + " " + id + " doesn't belong to it",
	}
}

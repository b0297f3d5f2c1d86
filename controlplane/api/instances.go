package api

import (
	"context"
	"encoding/json"
	"net/http"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// reportObject is the configuration object of an instance's task with the instance's report.
const reportObject = "serving_instance"

// Instance is an instance of a serving service, by its record.
type Instance struct {
	ServiceID, ServiceName string
	// Name is "" until the instance has reported.
	Name string
}

// ChangeableInstance returns the instance whose record a caller may change: a service account those of
// its service, guests none.
func (s *Server) ChangeableInstance(ctx context.Context, who Identity, task string) (Instance, error) {
	if who.Role == RoleGuest {
		return Instance{}, &documents.Error{Code: http.StatusForbidden, Subcode: 21, Msg: "No write permission: guests may only read"}
	}
	doc, err := documents.Find(ctx, s.store, store.Task, task)
	if err != nil {
		return Instance{}, err
	}
	if err := who.author().MayChange(store.Task, doc); err != nil {
		return Instance{}, err
	}
	service, err := store.IfThere(s.store.Get(ctx, store.Task, doc.Text("parent")))
	if err != nil {
		return Instance{}, err
	}
	if service == nil {
		return Instance{}, badRequest("Task %s is no instance of a serving service", task)
	}
	var report struct {
		Name string `json:"instance"`
	}
	_ = json.Unmarshal([]byte(doc.Text("configuration", reportObject, "value")), &report) // an unreadable one is none
	return Instance{ServiceID: service.ID(), ServiceName: service.Text("name"), Name: report.Name}, nil
}

package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// userFields describe a task and not its run: an edit of these does not move last_update.
var userFields = []string{"name", "comment", "created", "status_message", "project", "tags", "system_tags"}

// editShapes and updateShapes are the fields that tasks.edit and tasks.update take.
var (
	editShapes   = withShapes(taskShapes, map[string]documents.Shape{"created": documents.ATime, "status": documents.AText})
	updateShapes = map[string]documents.Shape{
		"name": documents.AName, "comment": documents.AText, "project": documents.AText, "tags": documents.Tags, "system_tags": documents.Tags,
		"created": documents.ATime, "status": documents.AText, "status_reason": documents.AText, "status_message": documents.AText,
		"report": documents.AText, "output__error": documents.AText,
	}
)

func withShapes(a, b map[string]documents.Shape) map[string]documents.Shape {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// takeTask selects a task's fields from a request and normalises them.
func takeTask(req documents.Fields, shapes map[string]documents.Shape, required ...string) (documents.Fields, error) {
	fields, err := documents.Take(req, shapes, required...)
	if err != nil {
		return nil, err
	}
	if kind := documents.AsText(fields["type"]); kind != "" && !slices.Contains(taskTypes, kind) {
		return nil, documents.Invalid("type %q is none of %s", kind, strings.Join(taskTypes, ", "))
	}
	checks := map[string]func(map[string]any) (map[string]any, error){
		"hyperparams": checkHyperParams, "configuration": checkConfiguration,
		"models": checkTaskModels, "execution": checkExecution,
	}
	for key, check := range checks {
		if object, ok := fields[key].(map[string]any); ok {
			if fields[key], err = check(object); err != nil {
				return nil, err
			}
		}
	}
	return fields, nil
}

// checkExecution normalises the artifacts: one per key and mode, sorted by key.
func checkExecution(execution map[string]any) (map[string]any, error) {
	list, ok := execution["artifacts"].([]any)
	if !ok {
		if execution["artifacts"] != nil {
			return nil, documents.Invalid("execution.artifacts must be a list")
		}
		return execution, nil
	}
	artifacts, err := checkArtifacts(list)
	if err != nil {
		return nil, err
	}
	out := maps.Clone(execution)
	out["artifacts"] = mergeArtifacts(nil, artifacts)
	return out, nil
}

// applyTaskFields writes checked fields into a task. Objects whose keys are ClearML's
// own are merged key by key; maps whose keys users choose are replaced as a whole.
func applyTaskFields(doc store.Doc, fields documents.Fields) {
	for key, v := range fields {
		switch key {
		case "execution", "script", "output", "models":
			object := doc.Object(key)
			for inner, value := range v.(map[string]any) {
				if value == nil {
					delete(object, inner)
				} else {
					object[inner] = value
				}
			}
		case "output_dest", "output__error", "status":
		default:
			doc[key] = v
		}
	}
	if dest, ok := fields["output_dest"]; ok {
		doc.Object("output")["destination"] = dest
	}
	if text, ok := fields["output__error"]; ok {
		doc.Object("output")["error"] = text
	}
}

// editTask merges fields into a task that isn't running, or into any with force.
func (s *Server) editTask(ctx context.Context, c *Call, req documents.Fields) (updated, error) {
	fields, err := takeTask(req, editShapes)
	if err != nil {
		return updated{}, err
	}
	return s.applyEdit(ctx, c, req, fields, func(doc store.Doc) error {
		if status := doc.Text("status"); status != "created" && !documents.Truth(req["force"]) {
			return wrongStatus(doc, "created, or force")
		}
		return nil
	})
}

// updateTask changes the fields of a task that may change in any status.
func (s *Server) updateTask(ctx context.Context, c *Call, req documents.Fields) (updated, error) {
	fields, err := takeTask(req, updateShapes)
	if err != nil {
		return updated{}, err
	}
	return s.applyEdit(ctx, c, req, fields, func(store.Doc) error { return nil })
}

func (s *Server) applyEdit(ctx context.Context, c *Call, req, fields documents.Fields, guard func(store.Doc) error) (updated, error) {
	answer, id := updated{Fields: map[string]any{}}, documents.AsText(req["task"])
	if len(fields) == 0 {
		_, err := s.find(ctx, store.Task, id)
		return answer, err
	}
	err := s.change(ctx, c, store.Task, id, func(w *work, doc store.Doc) error {
		if err := guard(doc); err != nil {
			return err
		}
		if err := w.expectTaskLinks(ctx, fields); err != nil {
			return err
		}
		if status := documents.AsText(fields["status"]); status != "" {
			if err := moveTo(doc, status, documents.Truth(req["force"]), w.Now); err != nil {
				return err
			}
		}
		before := maps.Clone(doc.Object("configuration"))
		applyTaskFields(doc, fields)
		if doc.Text("type") == "service" { // a training's configuration is written by its own process
			if err := w.noteConfiguration(ctx, c, doc, before, ""); err != nil {
				return err
			}
		}
		answer = updated{Updated: 1, Fields: w.ChangedBy()}
		for key := range fields {
			if !slices.Contains(userFields, key) {
				doc["last_update"], answer.Fields["last_update"] = w.Now, w.Now
			}
			if key == "output_dest" || key == "output__error" {
				key = "output"
			}
			answer.Fields[key] = doc[key]
		}
		return nil
	})
	return answer, err
}

// setRequirements stores the packages that a task was run with.
func (s *Server) setRequirements(ctx context.Context, c *Call, req struct {
	Task         string         `json:"task"`
	Requirements map[string]any `json:"requirements" required:"true"`
},
) (updated, error) {
	_, err := s.changeContent(ctx, c, store.Task, req.Task, func(_ *work, doc store.Doc) error {
		doc.Object("script")["requirements"] = req.Requirements
		return nil
	})
	return updated{Updated: 1, Fields: map[string]any{"script.requirements": req.Requirements}}, err
}

// guardRunning allows changes of a task's inputs and outputs in status created, and with
// force in progress.
func guardRunning(doc store.Doc, force bool) error {
	switch status := doc.Text("status"); {
	case status == "created":
		return nil
	case status == "in_progress" && force:
		return nil
	case status == "in_progress":
		return wrongStatus(doc, "created, or in_progress with force")
	}
	return wrongStatus(doc, "created or in_progress")
}

func wrongStatus(doc store.Doc, expected string) *documents.Error {
	return documents.Refuse(subTaskStatus, "Invalid task status: task=%s, status=%s, expected=%s", doc.ID(), doc.Text("status"), expected)
}

package api

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// modelCalls lists the calls of the models service.
func (s *Server) modelCalls() []callEntry {
	return []callEntry{
		{"models.create", mayWrite, typed(s.createModel)},
		{"models.get_by_id", mayRead, s.byID(store.Model)},
		{"models.get_all", mayRead, s.list(documents.ModelEntity, false)},
		{"models.get_all_ex", mayRead, s.list(documents.ModelEntity, true)},
		{"models.get_frameworks", mayRead, typed(s.modelFrameworks)},
		{"models.edit", mayWrite, typed(s.editModel)},
		{"models.update_tags", mayWrite, s.updateTags(store.Model)},
		{"models.archive_many", mayWrite, s.archiveMany(store.Model, true)},
		{"models.unarchive_many", mayWrite, s.archiveMany(store.Model, false)},
		{"models.add_or_update_metadata", mayWrite, typed(s.addModelMetadata)},
		{"models.delete_metadata", mayWrite, typed(s.deleteModelMetadata)},
		{"models.set_ready", mayWrite, typed(s.setModelReady)},
		{"models.delete", mayWrite, typed(s.deleteModel)},
	}
}

// modelShapes are the fields that calls may set on a model.
var modelShapes = map[string]documents.Shape{
	"name": documents.AName, "uri": documents.AText, "comment": documents.AText, "framework": documents.AText, "project": documents.AText,
	"parent": documents.AText, "task": documents.AText, "tags": documents.Tags, "system_tags": documents.Tags, "labels": documents.AnObject,
	"ready": documents.AFlag,
}

// contentFields are the content of a model; setting one moves its last_update.
var contentFields = []string{"uri", "framework", "design", "labels", "ready", "metadata", "system_tags", "tags"}

// takeModel selects a model's fields from a request and checks them.
func takeModel(req documents.Fields, required ...string) (documents.Fields, error) {
	fields, err := documents.Take(req, modelShapes, required...)
	if err != nil {
		return nil, err
	}
	labels, _ := fields["labels"].(map[string]any)
	for label, v := range labels {
		n, ok := v.(json.Number)
		if !ok || strings.ContainsAny(n.String(), ".eE") {
			return nil, documents.Invalid("label %q must be a whole number", label)
		}
	}
	if design := req["design"]; design != nil {
		fields["design"] = design
	}
	if metadata := req["metadata"]; metadata != nil {
		if fields["metadata"], err = checkMetadata(metadata); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

// checkMetadata reads {key: {key, type, value}} or a list of {key, type, value}.
func checkMetadata(v any) (map[string]any, error) {
	out := map[string]any{}
	put := func(key string, item any) error {
		entry, ok := item.(map[string]any)
		if !ok {
			return documents.Invalid("metadata must hold objects with key, type, and value")
		}
		if named := documents.AsText(entry["key"]); named != "" {
			key = named
		}
		if key = strings.TrimSpace(key); key == "" {
			return documents.Invalid("an item of metadata has no key")
		}
		checked, err := takeTexts(entry, "metadata "+strconv.Quote(key), "type", "value")
		checked["key"] = key
		out[key] = checked
		return err
	}
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if err := put("", item); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key, item := range v {
			if err := put(key, item); err != nil {
				return nil, err
			}
		}
	default:
		return nil, documents.Invalid("metadata must be an object or a list")
	}
	return out, nil
}

// modelLinks are the fields of a model that hold ids of other documents.
var modelLinks = map[string]store.Kind{"project": store.Project, "task": store.Task, "parent": store.Model}

// createModel makes a model. It is published unless the request says that it is not
// ready; the SDK always says so.
func (s *Server) createModel(ctx context.Context, c *Call, req documents.Fields) (any, error) {
	fields, err := takeModel(req, "name", "uri")
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"created": true}
	err = s.write(ctx, c, func(w *work) error {
		if err := w.checkLinks(ctx, fields, modelLinks); err != nil {
			return err
		}
		doc := store.Doc{"ready": true, "comment": "", "labels": map[string]any{}, "metadata": map[string]any{}}
		maps.Copy(doc, fields)
		answer["id"], err = w.Add(ctx, store.Model, doc)
		return err
	})
	return answer, err
}

// modelFrameworks lists the frameworks of the models of some projects, or of all.
func (s *Server) modelFrameworks(ctx context.Context, _ *Call, req projectsRequest) (map[string]any, error) {
	found, err := s.store.Distinct(ctx, store.Model, store.Path{"framework"}, req.inside())
	return map[string]any{"frameworks": append([]string{}, found...)}, err
}

// editModel replaces fields of a model, published or not.
func (s *Server) editModel(ctx context.Context, c *Call, req documents.Fields) (updated, error) {
	fields, err := takeModel(req)
	if err != nil {
		return updated{}, err
	}
	reached, err := documents.IntField(req, "iteration")
	if err != nil {
		return updated{}, err
	}
	answer := updated{Fields: map[string]any{}}
	if len(fields) > 0 {
		answer.Updated = 1
	}
	err = s.write(ctx, c, func(w *work) error {
		doc, err := w.Find(ctx, store.Model, documents.AsText(req["model"]))
		if err != nil {
			return err
		}
		if err := w.expect(ctx, fields, modelLinks); err != nil {
			return err
		}
		if len(fields) > 0 {
			answer.Fields = w.ChangedBy()
		}
		if fields["uri"] != nil {
			delete(doc, "ui_cache")
		}
		for key, v := range fields {
			doc[key], answer.Fields[key] = v, v
			if slices.Contains(contentFields, key) {
				doc["last_update"], answer.Fields["last_update"] = w.Now, w.Now
			}
		}
		if err := w.raiseTaskIteration(ctx, doc.Text("task"), reached); err != nil {
			return err
		}
		return w.Save(ctx, store.Model, doc)
	})
	return answer, err
}

// raiseTaskIteration stores the iteration that a model was made at on its task.
func (w *work) raiseTaskIteration(ctx context.Context, task string, reached *int64) error {
	if reached == nil {
		return nil
	}
	doc, err := store.IfThere(w.Get(ctx, store.Task, task))
	if doc == nil || *reached <= doc.Int("last_iteration") {
		return err
	}
	raiseIteration(doc, reached)
	return w.Save(ctx, store.Task, doc)
}

// addModelMetadata adds and changes metadata of a model, by key.
func (s *Server) addModelMetadata(ctx context.Context, c *Call, req struct {
	Model    string `json:"model"`
	Metadata []any  `json:"metadata" required:"true"`
	Replace  bool   `json:"replace_metadata"`
},
) (counts, error) {
	fresh, err := checkMetadata(req.Metadata)
	if err != nil {
		return nil, err
	}
	for key, v := range fresh {
		for _, field := range []string{"type", "value"} {
			if item := v.(map[string]any); item[field] == nil {
				return nil, documents.Invalid("metadata %q lacks its %s", key, field)
			}
		}
	}
	return s.changeContent(ctx, c, store.Model, req.Model, func(_ *work, doc store.Doc) error {
		if req.Replace {
			doc["metadata"] = map[string]any{}
		}
		maps.Copy(doc.Object("metadata"), fresh)
		return nil
	})
}

// deleteModelMetadata removes metadata of a model; unknown keys are fine.
func (s *Server) deleteModelMetadata(ctx context.Context, c *Call, req struct {
	Model string   `json:"model"`
	Keys  []string `json:"keys" required:"true"`
},
) (counts, error) {
	return s.changeContent(ctx, c, store.Model, req.Model, func(_ *work, doc store.Doc) error {
		for _, key := range req.Keys {
			delete(doc.Object("metadata"), strings.TrimSpace(key))
		}
		return nil
	})
}

type readyRequest struct {
	Model string `json:"model"`
	// PublishTask is true when absent.
	PublishTask      *bool `json:"publish_task"`
	ForcePublishTask bool  `json:"force_publish_task"`
}

type publishedTask struct {
	ID   string  `json:"id"`
	Data updated `json:"data"`
}

// setModelReady publishes a model, and unless told otherwise the task that made it.
func (s *Server) setModelReady(ctx context.Context, c *Call, req readyRequest) (answer, error) {
	out := answer{"updated": 1}
	err := s.write(ctx, c, func(w *work) error {
		doc, err := w.Find(ctx, store.Model, req.Model)
		if err != nil {
			return err
		}
		if documents.Truth(doc["ready"]) {
			return documents.Refuse(subModelIsReady, "Model is ready already: model=%s", doc.ID())
		}
		if req.PublishTask == nil || *req.PublishTask {
			task, err := w.publishTaskOf(ctx, doc, req.ForcePublishTask)
			if err != nil {
				return err
			}
			if task != nil {
				out["published_task"] = task
			}
		}
		return w.publishModel(ctx, doc)
	})
	return out, err
}

// publishModel makes a model ready.
func (w *work) publishModel(ctx context.Context, doc store.Doc) error {
	doc["ready"], doc["last_update"] = true, w.Now
	return w.Save(ctx, store.Model, doc)
}

// publishTaskOf publishes the task that made a model, if it exists and is not published.
func (w *work) publishTaskOf(ctx context.Context, model store.Doc, force bool) (*publishedTask, error) {
	task, err := store.IfThere(w.Get(ctx, store.Task, model.Text("task")))
	if task == nil || task.Text("status") == "published" {
		return nil, err
	}
	withModel := false
	if err := w.publishTask(ctx, task, statusRequest{Force: force, PublishModel: &withModel}); err != nil {
		return nil, err
	}
	if err := w.Save(ctx, store.Task, task); err != nil {
		return nil, err
	}
	return &publishedTask{task.ID(), updated{Updated: 1, Fields: w.statusFields(task)}}, nil
}

type deleteModelRequest struct {
	Model string `json:"model"`
	Force bool   `json:"force"`
	// WithFiles also removes the model's file. Off by default: clients remove it themselves.
	WithFiles bool `json:"delete_external_artifacts"`
}

type deleteModelAnswer struct {
	Deleted bool          `json:"deleted"`
	URL     string        `json:"url,omitempty"`
	Files   *removedFiles `json:"files,omitempty"`
}

// deleteModel removes a model that nothing depends on, or any with force. The answer has the
// address of its file, and the result of its removal.
func (s *Server) deleteModel(ctx context.Context, c *Call, req deleteModelRequest) (deleteModelAnswer, error) {
	answer := deleteModelAnswer{Deleted: true}
	err := s.write(ctx, c, func(w *work) error {
		doc, err := w.Find(ctx, store.Model, req.Model)
		if err != nil {
			return err
		}
		if !req.Force {
			if err := w.guardModelDelete(ctx, doc); err != nil {
				return err
			}
		}
		answer.URL = doc.Text("uri")
		return w.removeModel(ctx, doc)
	})
	if err == nil && req.WithFiles {
		answer.Files = s.removeFiles(ctx, []string{answer.URL})
	}
	return answer, err
}

// guardModelDelete refuses to delete what is in use without force.
func (w *work) guardModelDelete(ctx context.Context, doc store.Doc) error {
	users, err := w.Count(ctx, store.Task, documents.Is(doc.ID(), "models", "input", "model"))
	if err != nil {
		return err
	}
	if users > 0 {
		return documents.Refuse(subModelInUse, "Model is used as input of %d tasks: model=%s: use force", users, doc.ID())
	}
	task, err := store.IfThere(w.Get(ctx, store.Task, doc.Text("task")))
	if task.Text("status") == "published" {
		return documents.Refuse(subModelCreatingTask, "Model was made by a published task: model=%s, task=%s: use force", doc.ID(), task.ID())
	}
	return err
}

// removeModel deletes a model and takes it out of the outputs of tasks.
func (w *work) removeModel(ctx context.Context, doc store.Doc) error {
	if err := w.Remove(ctx, store.Model, doc.ID()); err != nil {
		return err
	}
	if _, err := w.DeleteEvents(ctx, store.EventQuery{Tasks: []string{doc.ID()}}); err != nil {
		return err
	}
	_, err := w.Each(ctx, store.Task, documents.Is(doc.ID(), "models", "output", "model"), func(task store.Doc) error {
		dropItems(task.Object("models"), "output", func(entry map[string]any) bool { return entry["model"] == doc.ID() })
		return nil
	})
	return err
}

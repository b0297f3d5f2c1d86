package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// modelCalls lists the calls of the models service.
func (s *Server) modelCalls() []callEntry {
	return []callEntry{
		{"models.create", mayWrite, typed(s.createModel)},
		{"models.get_by_id", mayRead, typed(s.getModel)},
		{"models.get_all", mayRead, typed(s.getModels)},
		{"models.get_all_ex", mayRead, typed(s.getModelsExpanded)},
		{"models.edit", mayWrite, typed(s.editModel)},
		{"models.update_tags", mayWrite, typed(s.updateModelTags)},
		{"models.add_or_update_metadata", mayWrite, typed(s.addModelMetadata)},
		{"models.delete_metadata", mayWrite, typed(s.deleteModelMetadata)},

		{"models.get_frameworks", mayRead, typed(s.modelFrameworks)},

		// modelready.go
		{"models.set_ready", mayWrite, typed(s.setModelReady)},
		{"models.delete", mayWrite, typed(s.deleteModel)},

		// many.go
		{"models.archive_many", mayWrite, typed(s.archiveManyModels)},
		{"models.unarchive_many", mayWrite, typed(s.unarchiveManyModels)},
	}
}

// modelShapes are the fields that calls may set on a model.
var modelShapes = map[string]documents.Shape{
	"name": documents.AName, "uri": documents.AText, "comment": documents.AText, "framework": documents.AText, "project": documents.AText,
	"parent": documents.AText, "task": documents.AText, "tags": documents.Tags, "system_tags": documents.Tags, "labels": documents.AnObject,
	"ready": documents.AFlag,
}

// contentFields are what a model is; setting one moves its last_update.
var contentFields = []string{"uri", "framework", "design", "labels", "ready", "metadata", "system_tags", "tags"}

// takeModel picks a model's fields out of a request and checks them.
func takeModel(req documents.Fields) (documents.Fields, error) {
	fields, err := documents.Take(req, modelShapes)
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

// checkMetadata takes {key: {key, type, value}} or a list of {key, type, value}.
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
		checked := map[string]any{"key": key}
		for _, field := range []string{"type", "value"} {
			if entry[field] == nil {
				continue
			}
			if _, ok := entry[field].(string); !ok {
				return documents.Invalid("%s of metadata %q must be a text", field, key)
			}
			checked[field] = entry[field]
		}
		out[key] = checked
		return nil
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

// checkModelLinks makes sure that what a model refers to exists.
func (w *work) checkModelLinks(ctx context.Context, fields documents.Fields) error {
	for key, kind := range modelLinks {
		if id := documents.AsText(fields[key]); id != "" {
			if _, err := w.Find(ctx, kind, id); err != nil {
				return err
			}
		}
	}
	return nil
}

type createdAnswer struct {
	ID      string `json:"id"`
	Created bool   `json:"created"`
}

// createModel makes a model. It is published unless the request says that it isn't
// ready; the SDK always says so.
func (s *Server) createModel(ctx context.Context, c *Call, req documents.Fields) (createdAnswer, error) {
	fields, err := takeModel(req)
	if err != nil {
		return createdAnswer{}, err
	}
	for _, key := range []string{"name", "uri"} {
		if fields[key] == nil {
			return createdAnswer{}, documents.Missing(key)
		}
	}
	answer := createdAnswer{Created: true}
	err = s.write(ctx, c, func(w *work) error {
		if err := w.checkModelLinks(ctx, fields); err != nil {
			return err
		}
		doc := store.Doc{"ready": true, "comment": "", "labels": map[string]any{}, "metadata": map[string]any{}}
		maps.Copy(doc, fields)
		answer.ID, err = w.Add(ctx, store.Model, doc)
		return err
	})
	return answer, err
}

type modelRequest struct {
	Model string `json:"model"`
}

type modelAnswer struct {
	Model store.Doc `json:"model"`
}

// getModel returns a model in full.
func (s *Server) getModel(ctx context.Context, _ *Call, req modelRequest) (modelAnswer, error) {
	if req.Model == "" {
		return modelAnswer{}, documents.Missing("model")
	}
	doc, err := s.store.Get(ctx, store.Model, req.Model)
	return modelAnswer{doc}, documents.NotFound(err, store.Model, req.Model)
}

// getModels lists models.
func (s *Server) getModels(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
	return s.listModels(ctx, req, false)
}

// modelFrameworks lists the frameworks of the models of some projects, or of all.
func (s *Server) modelFrameworks(ctx context.Context, _ *Call, req projectsRequest) (map[string]any, error) {
	found, err := s.store.Distinct(ctx, store.Model, store.Path{"framework"}, req.inside())
	return map[string]any{"frameworks": append([]string{}, found...)}, err
}

// getModelsExpanded lists models with references as objects.
func (s *Server) getModelsExpanded(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
	return s.listModels(ctx, req, true)
}

func (s *Server) listModels(ctx context.Context, req documents.Fields, expand bool) (map[string]any, error) {
	req, err := s.withSubprojects(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.lists.List(ctx, documents.ModelEntity, req, nil, expand)
}

// editModel replaces fields of a model, published or not.
func (s *Server) editModel(ctx context.Context, c *Call, req documents.Fields) (updated, error) {
	fields, err := takeModel(req)
	if err != nil {
		return updated{}, err
	}
	var reached *int64
	if n, given, err := documents.IntField(req, "iteration"); err != nil {
		return updated{}, err
	} else if given {
		at := int64(n)
		reached = &at
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

// raiseTaskIteration keeps the iteration that a model was made at on its task.
func (w *work) raiseTaskIteration(ctx context.Context, task string, reached *int64) error {
	if task == "" || reached == nil {
		return nil
	}
	doc, err := w.Get(ctx, store.Task, task)
	if errors.Is(err, store.ErrNotFound) || (err == nil && *reached <= doc.Int("last_iteration")) {
		return nil
	}
	if err != nil {
		return err
	}
	raiseIteration(doc, reached)
	return w.Save(ctx, store.Task, doc)
}

// updateModelTags adds tags to models and takes others away.
func (s *Server) updateModelTags(ctx context.Context, c *Call, req tagsRequest) (updated, error) {
	return s.updateTags(ctx, c, store.Model, req)
}

type metadataRequest struct {
	Model    string   `json:"model"`
	Metadata []any    `json:"metadata"`
	Replace  bool     `json:"replace_metadata"`
	Keys     []string `json:"keys"`
}

// addModelMetadata adds and changes metadata of a model, by key.
func (s *Server) addModelMetadata(ctx context.Context, c *Call, req metadataRequest) (countAnswer, error) {
	if len(req.Metadata) == 0 {
		return countAnswer{}, documents.Missing("metadata")
	}
	fresh, err := checkMetadata(req.Metadata)
	if err != nil {
		return countAnswer{}, err
	}
	for key, v := range fresh {
		for _, field := range []string{"type", "value"} {
			if item := v.(map[string]any); item[field] == nil {
				return countAnswer{}, documents.Invalid("metadata %q lacks its %s", key, field)
			}
		}
	}
	err = s.changeModel(ctx, c, req.Model, func(w *work, doc store.Doc) error {
		if req.Replace {
			doc["metadata"] = map[string]any{}
		}
		maps.Copy(doc.Object("metadata"), fresh)
		doc["last_update"] = w.Now
		return nil
	})
	return countAnswer{1}, err
}

// deleteModelMetadata removes metadata of a model; unknown keys are fine.
func (s *Server) deleteModelMetadata(ctx context.Context, c *Call, req metadataRequest) (countAnswer, error) {
	if len(req.Keys) == 0 {
		return countAnswer{}, documents.Missing("keys")
	}
	err := s.changeModel(ctx, c, req.Model, func(w *work, doc store.Doc) error {
		for _, key := range req.Keys {
			delete(doc.Object("metadata"), strings.TrimSpace(key))
		}
		doc["last_update"] = w.Now
		return nil
	})
	return countAnswer{1}, err
}

// changeModel changes one model.
func (s *Server) changeModel(ctx context.Context, c *Call, id string, change func(w *work, doc store.Doc) error) error {
	return s.write(ctx, c, func(w *work) error {
		return w.Change(ctx, store.Model, id, func(doc store.Doc) error { return change(w, doc) })
	})
}

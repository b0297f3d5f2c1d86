package api

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// artifactShapes are the fields of an artifact whose types clients rely on; others are
// kept as they come.
var artifactShapes = map[string]documents.Shape{
	"key": documents.AText, "type": documents.AText, "mode": documents.AText, "uri": documents.AText, "hash": documents.AText,
	"content_size": documents.ANumber, "timestamp": documents.ANumber, "type_data": documents.AnObject,
}

// checkArtifacts checks artifacts and gives each its mode.
func checkArtifacts(list []any) ([]map[string]any, error) {
	var out []map[string]any
	for _, v := range list {
		item, ok := v.(map[string]any)
		if !ok {
			return nil, documents.Invalid("an artifact must be an object")
		}
		checked, err := documents.Take(item, artifactShapes)
		if err != nil {
			return nil, err
		}
		if documents.AsText(checked["key"]) == "" {
			return nil, documents.Invalid("an artifact has no key")
		}
		artifact := map[string]any{"mode": "output"}
		for key, v := range item {
			if v != nil {
				artifact[key] = v
			}
		}
		maps.Copy(artifact, checked)
		if mode := artifact["mode"]; mode != "input" && mode != "output" {
			return nil, documents.Invalid("mode of artifact %q must be input or output", checked["key"])
		}
		out = append(out, artifact)
	}
	return out, nil
}

// mergeArtifacts lays new artifacts over old ones, one per key and mode, by key.
func mergeArtifacts(old []any, fresh []map[string]any) []any {
	type name struct{ key, mode string }
	byName := map[name]map[string]any{}
	put := func(artifact map[string]any) {
		byName[name{documents.AsText(artifact["key"]), cmp.Or(documents.AsText(artifact["mode"]), "output")}] = artifact
	}
	for _, v := range old {
		if artifact, ok := v.(map[string]any); ok {
			put(artifact)
		}
	}
	for _, artifact := range fresh {
		put(artifact)
	}
	names := slices.SortedFunc(maps.Keys(byName), func(a, b name) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.mode, b.mode))
	})
	out := make([]any, 0, len(names))
	for _, n := range names {
		out = append(out, byName[n])
	}
	return out
}

type artifactsRequest struct {
	Task      string           `json:"task"`
	Artifacts []map[string]any `json:"artifacts"`
}

// addArtifacts adds artifacts to a task that hasn't ended; the same key and mode replaces.
func (s *Server) addArtifacts(ctx context.Context, c *Call, req artifactsRequest) (countAnswer, error) {
	if len(req.Artifacts) == 0 {
		return countAnswer{}, documents.Missing("artifacts")
	}
	list := make([]any, len(req.Artifacts))
	for i, artifact := range req.Artifacts {
		if artifact["type"] == nil {
			return countAnswer{}, documents.Invalid("artifact %q lacks its type", documents.AsText(artifact["key"]))
		}
		list[i] = artifact
	}
	artifacts, err := checkArtifacts(list)
	if err != nil {
		return countAnswer{}, err
	}
	err = s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, true); err != nil {
			return err
		}
		execution := doc.Object("execution")
		old, _ := execution["artifacts"].([]any)
		execution["artifacts"] = mergeArtifacts(old, artifacts)
		doc["last_update"] = w.Now
		return nil
	})
	return countAnswer{1}, err
}

// deleteArtifacts forgets artifacts; their files stay.
func (s *Server) deleteArtifacts(ctx context.Context, c *Call, req artifactsRequest) (deletedAnswer, error) {
	if len(req.Artifacts) == 0 {
		return deletedAnswer{}, documents.Missing("artifacts")
	}
	named := func(artifact map[string]any) [2]string {
		return [2]string{documents.AsText(artifact["key"]), cmp.Or(documents.AsText(artifact["mode"]), "output")}
	}
	gone := map[[2]string]bool{}
	for _, artifact := range req.Artifacts {
		if documents.AsText(artifact["key"]) == "" {
			return deletedAnswer{}, documents.Invalid("an artifact has no key")
		}
		gone[named(artifact)] = true
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, true); err != nil {
			return err
		}
		execution := doc.Object("execution")
		kept, _ := execution["artifacts"].([]any)
		kept = slices.DeleteFunc(kept, func(v any) bool {
			artifact, ok := v.(map[string]any)
			return ok && gone[named(artifact)]
		})
		if kept != nil {
			execution["artifacts"] = kept
		}
		doc["last_update"] = w.Now
		return nil
	})
	return deletedAnswer{1}, err
}

// checkTaskModels checks the lists of a task's input and output models.
func checkTaskModels(models map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for direction, v := range models {
		if v == nil || (direction != "input" && direction != "output") {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return nil, documents.Invalid("models.%s must be a list", direction)
		}
		for _, v := range list {
			item, ok := v.(map[string]any)
			if !ok {
				return nil, documents.Invalid("models.%s must be a list of objects", direction)
			}
			for _, key := range []string{"name", "model"} {
				if _, ok := item[key].(string); !ok {
					return nil, documents.Invalid("an entry of models.%s lacks its %s", direction, key)
				}
			}
		}
		if err := documents.AtMost("models."+direction, len(list), documents.MaxTags); err != nil {
			return nil, err
		}
		out[direction] = list
	}
	return out, nil
}

type taskModelRequest struct {
	Task      string `json:"task"`
	Name      string `json:"name"`
	Model     string `json:"model"`
	Type      string `json:"type"`
	Iteration *int64 `json:"iteration"`
}

// addTaskModel names a model as a task's input or output; the same name replaces the
// model and keeps its place, for the last output model is the one that is published. As on
// a ClearML server the model need not exist.
func (s *Server) addTaskModel(ctx context.Context, c *Call, req taskModelRequest) (countAnswer, error) {
	switch {
	case req.Name == "":
		return countAnswer{}, documents.Missing("name")
	case req.Model == "":
		return countAnswer{}, documents.Missing("model")
	case req.Type != "input" && req.Type != "output":
		return countAnswer{}, documents.Invalid("type must be input or output")
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, true); err != nil {
			return err
		}
		models := doc.Object("models")
		list, _ := models[req.Type].([]any)
		entry := map[string]any{"name": req.Name, "model": req.Model, "updated": w.Now}
		at := slices.IndexFunc(list, func(v any) bool {
			item, ok := v.(map[string]any)
			return ok && item["name"] == req.Name
		})
		if at < 0 {
			list = append(list, entry)
		} else {
			list[at] = entry
		}
		models[req.Type] = list
		raiseIteration(doc, req.Iteration)
		doc["last_update"] = w.Now
		return nil
	})
	return countAnswer{1}, err
}

// raiseIteration keeps the highest iteration that a task has reported.
func raiseIteration(doc store.Doc, reached *int64) {
	if reached != nil && *reached > doc.Int("last_iteration") {
		doc["last_iteration"] = documents.Number(*reached)
	}
}

type taskModelsRequest struct {
	Task   string           `json:"task"`
	Models []map[string]any `json:"models"`
}

// deleteTaskModels takes models out of a task's inputs and outputs; unknown names are fine.
func (s *Server) deleteTaskModels(ctx context.Context, c *Call, req taskModelsRequest) (countAnswer, error) {
	if len(req.Models) == 0 {
		return countAnswer{}, documents.Missing("models")
	}
	gone := map[string]map[string]bool{"input": {}, "output": {}}
	for _, model := range req.Models {
		names := gone[documents.AsText(model["type"])]
		if names == nil {
			return countAnswer{}, documents.Invalid("type must be input or output")
		}
		names[documents.AsText(model["name"])] = true
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, true); err != nil {
			return err
		}
		models := doc.Object("models")
		for direction, names := range gone {
			list, _ := models[direction].([]any)
			models[direction] = slices.DeleteFunc(list, func(v any) bool {
				item, ok := v.(map[string]any)
				return ok && names[documents.AsText(item["name"])]
			})
		}
		doc["last_update"] = w.Now
		return nil
	})
	return countAnswer{1}, err
}

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
// stored unchanged.
var artifactShapes = map[string]documents.Shape{
	"key": documents.AText, "type": documents.AText, "mode": documents.AText, "uri": documents.AText, "hash": documents.AText,
	"content_size": documents.ANumber, "timestamp": documents.ANumber, "type_data": documents.AnObject,
}

// checkArtifacts checks artifacts and sets their default mode.
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

// artifactName identifies an artifact in its task by its key and mode.
func artifactName(artifact map[string]any) [2]string {
	return [2]string{documents.AsText(artifact["key"]), cmp.Or(documents.AsText(artifact["mode"]), "output")}
}

// mergeArtifacts lays new artifacts over old ones, one per key and mode, by key.
func mergeArtifacts(old []store.Doc, fresh []map[string]any) []any {
	byName := map[[2]string]any{}
	for _, artifact := range old {
		byName[artifactName(artifact)] = map[string]any(artifact)
	}
	for _, artifact := range fresh {
		byName[artifactName(artifact)] = artifact
	}
	names := slices.SortedFunc(maps.Keys(byName), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	out := make([]any, len(names))
	for i, name := range names {
		out[i] = byName[name]
	}
	return out
}

type artifactsRequest struct {
	Task      string           `json:"task"`
	Artifacts []map[string]any `json:"artifacts" required:"true"`
}

// addArtifacts adds artifacts to a task that has not ended; the same key and mode replaces.
func (s *Server) addArtifacts(ctx context.Context, c *Call, req artifactsRequest) (counts, error) {
	list := make([]any, len(req.Artifacts))
	for i, artifact := range req.Artifacts {
		if artifact["type"] == nil {
			return nil, documents.Invalid("artifact %q lacks its type", documents.AsText(artifact["key"]))
		}
		list[i] = artifact
	}
	artifacts, err := checkArtifacts(list)
	if err != nil {
		return nil, err
	}
	return s.changeRun(ctx, c, req.Task, true, func(_ *work, doc store.Doc) error {
		doc.Object("execution")["artifacts"] = mergeArtifacts(doc.Objects("execution", "artifacts"), artifacts)
		return nil
	})
}

// deleteArtifacts removes artifacts from a task; their files stay.
func (s *Server) deleteArtifacts(ctx context.Context, c *Call, req artifactsRequest) (counts, error) {
	gone := map[[2]string]bool{}
	for _, artifact := range req.Artifacts {
		if documents.AsText(artifact["key"]) == "" {
			return nil, documents.Invalid("an artifact has no key")
		}
		gone[artifactName(artifact)] = true
	}
	_, err := s.changeRun(ctx, c, req.Task, true, func(_ *work, doc store.Doc) error {
		dropItems(doc.Object("execution"), "artifacts", func(artifact map[string]any) bool { return gone[artifactName(artifact)] })
		return nil
	})
	return counts{"deleted": 1}, err
}

// dropItems removes objects from a list of an object.
func dropItems(from map[string]any, key string, drop func(item map[string]any) bool) {
	if list, ok := from[key].([]any); ok {
		from[key] = slices.DeleteFunc(list, func(v any) bool {
			item, ok := v.(map[string]any)
			return ok && drop(item)
		})
	}
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
	Name      string `json:"name" required:"true"`
	Model     string `json:"model" required:"true"`
	Type      string `json:"type"`
	Iteration *int64 `json:"iteration"`
}

var errModelType = documents.Invalid("type must be input or output")

// addTaskModel names a model as a task's input or output. The same name replaces the
// model and keeps its place, because the last output model is the one that is published. As on
// a ClearML server the model need not exist.
func (s *Server) addTaskModel(ctx context.Context, c *Call, req taskModelRequest) (counts, error) {
	if req.Type != "input" && req.Type != "output" {
		return nil, errModelType
	}
	return s.changeRun(ctx, c, req.Task, true, func(w *work, doc store.Doc) error {
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
		return nil
	})
}

// raiseIteration stores the highest iteration that a task has reported.
func raiseIteration(doc store.Doc, reached *int64) {
	if reached != nil && *reached > doc.Int("last_iteration") {
		doc["last_iteration"] = documents.Number(*reached)
	}
}

type taskModelsRequest struct {
	Task   string           `json:"task"`
	Models []map[string]any `json:"models" required:"true"`
}

// deleteTaskModels takes models out of a task's inputs and outputs; unknown names are fine.
func (s *Server) deleteTaskModels(ctx context.Context, c *Call, req taskModelsRequest) (counts, error) {
	gone := map[string]map[string]bool{"input": {}, "output": {}}
	for _, model := range req.Models {
		names := gone[documents.AsText(model["type"])]
		if names == nil {
			return nil, errModelType
		}
		names[documents.AsText(model["name"])] = true
	}
	return s.changeRun(ctx, c, req.Task, true, func(_ *work, doc store.Doc) error {
		for direction, names := range gone {
			dropItems(doc.Object("models"), direction, func(entry map[string]any) bool { return names[documents.AsText(entry["name"])] })
		}
		return nil
	})
}

package api

import (
	"cmp"
	"context"
	"maps"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// cloneShapes are the fields that tasks.clone takes, and cloneFields those that go into
// the new task as they are, by their names there.
var (
	cloneShapes = map[string]documents.Shape{
		"task": documents.AText, "new_task_name": documents.AName, "new_task_comment": documents.AText,
		"new_task_parent": documents.AText, "new_task_project": documents.AText, "new_project_name": documents.AText,
		"new_task_tags": documents.Tags, "new_task_system_tags": documents.Tags, "execution_overrides": documents.AnObject,
		"new_task_hyperparams": documents.AnObject, "new_task_configuration": documents.AnObject, "new_task_container": documents.AnObject,
	}
	cloneFields = map[string]string{
		"new_task_name": "name", "new_task_comment": "comment", "new_task_tags": "tags", "new_task_system_tags": "system_tags",
		"execution_overrides": "execution", "new_task_hyperparams": "hyperparams", "new_task_configuration": "configuration",
		"new_task_container": "container",
	}
)

// cloneTask makes a new task with the inputs of another, without its outputs.
func (s *Server) cloneTask(ctx context.Context, c *Call, req documents.Fields) (map[string]any, error) {
	if req["new_task_name"] == "" {
		delete(req, "new_task_name")
	}
	fields, err := documents.Take(req, cloneShapes)
	if err != nil {
		return nil, err
	}
	overrides := documents.Fields{}
	for from, to := range cloneFields {
		if v, given := fields[from]; given {
			overrides[to] = v
		}
	}
	if models := req["new_task_input_models"]; models != nil {
		overrides["models"] = map[string]any{"input": models}
	}
	if overrides, err = takeTask(overrides, taskShapes); err != nil {
		return nil, err
	}
	var answer map[string]any
	err = s.write(ctx, c, func(w *work) error {
		source, err := w.Find(ctx, store.Task, documents.AsText(fields["task"]))
		if err != nil {
			return err
		}
		answer = map[string]any{}
		copied := inherited(source)
		copied["parent"] = cmp.Or(documents.AsText(fields["new_task_parent"]), source.ID())
		project, name := documents.AsText(fields["new_task_project"]), documents.AsText(fields["new_project_name"])
		if project != "" || name != "" {
			id, err := w.projectFor(ctx, project, name)
			if err != nil {
				return err
			}
			copied["project"] = id
			if project == "" {
				answer["new_project"] = map[string]any{"id": id, "name": name}
			}
		}
		if err := w.checkLinks(ctx, copied, taskLinks); err != nil {
			return err
		}
		answer["id"], err = w.addTask(ctx, copied, overrides)
		return err
	})
	return answer, err
}

// inherited returns the fields that a clone copies from its source.
func inherited(source store.Doc) documents.Fields {
	fields := documents.Fields{}
	for _, key := range []string{"name", "type", "project", "comment", "tags", "script", "hyperparams", "configuration", "container"} {
		if source[key] != nil {
			fields[key] = source[key]
		}
	}
	execution := maps.Clone(source.Object("execution"))
	delete(execution, "queue")
	dropItems(execution, "artifacts", isOutput)
	fields["execution"] = execution
	fields["models"] = map[string]any{"input": source.At("models", "input"), "output": []any{}}
	if dest := source.At("output", "destination"); dest != nil {
		fields["output_dest"] = dest
	}
	kept := store.Doc{"system_tags": source["system_tags"]}
	documents.SetSystemTag(kept, developmentTag, false)
	documents.SetSystemTag(kept, archivedTag, false)
	fields["system_tags"] = kept["system_tags"]
	return fields
}

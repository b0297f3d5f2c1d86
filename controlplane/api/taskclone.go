package api

import (
	"cmp"
	"context"
	"maps"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

type cloneRequest struct {
	Task               string         `json:"task"`
	NewTaskName        string         `json:"new_task_name"`
	NewTaskComment     *string        `json:"new_task_comment"`
	NewTaskParent      string         `json:"new_task_parent"`
	NewTaskProject     string         `json:"new_task_project"`
	NewProjectName     string         `json:"new_project_name"`
	NewTaskTags        *[]string      `json:"new_task_tags"`
	NewTaskSystemTags  *[]string      `json:"new_task_system_tags"`
	ExecutionOverrides map[string]any `json:"execution_overrides"`
	HyperParams        map[string]any `json:"new_task_hyperparams"`
	Configuration      map[string]any `json:"new_task_configuration"`
	Container          map[string]any `json:"new_task_container"`
	InputModels        *[]any         `json:"new_task_input_models"`
}

type cloneAnswer struct {
	ID         string     `json:"id"`
	NewProject *newParent `json:"new_project,omitempty"`
}

type newParent struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// cloneTask makes a new task of what another was given, without what it has done.
func (s *Server) cloneTask(ctx context.Context, c *Call, req cloneRequest) (cloneAnswer, error) {
	overrides := documents.Fields{}
	set := func(key string, v map[string]any) {
		if v != nil {
			overrides[key] = v
		}
	}
	set("execution", req.ExecutionOverrides)
	set("hyperparams", req.HyperParams)
	set("configuration", req.Configuration)
	set("container", req.Container)
	if req.InputModels != nil {
		overrides["models"] = map[string]any{"input": *req.InputModels}
	}
	if req.NewTaskName != "" {
		overrides["name"] = req.NewTaskName
	}
	if req.NewTaskComment != nil {
		overrides["comment"] = *req.NewTaskComment
	}
	if req.NewTaskTags != nil {
		overrides["tags"] = anyTexts(*req.NewTaskTags)
	}
	if req.NewTaskSystemTags != nil {
		overrides["system_tags"] = anyTexts(*req.NewTaskSystemTags)
	}
	overrides, err := takeTask(overrides, taskShapes)
	if err != nil {
		return cloneAnswer{}, err
	}
	var answer cloneAnswer
	err = s.write(ctx, c, func(w *work) error {
		answer, err = w.clone(ctx, req, overrides)
		return err
	})
	return answer, err
}

func (w *work) clone(ctx context.Context, req cloneRequest, overrides documents.Fields) (cloneAnswer, error) {
	source, err := w.Find(ctx, store.Task, req.Task)
	if err != nil {
		return cloneAnswer{}, err
	}
	var answer cloneAnswer
	fields := inherited(source)
	fields["parent"] = cmp.Or(req.NewTaskParent, source.ID())
	if req.NewTaskProject != "" || req.NewProjectName != "" {
		id, err := w.projectFor(ctx, req.NewTaskProject, req.NewProjectName)
		if err != nil {
			return cloneAnswer{}, err
		}
		fields["project"] = id
		if req.NewTaskProject == "" {
			answer.NewProject = &newParent{ID: id, Name: req.NewProjectName}
		}
	}
	if err := w.checkTaskLinks(ctx, fields); err != nil {
		return cloneAnswer{}, err
	}
	doc := store.Doc{
		"status": "created", "status_reason": "", "status_message": "", "status_changed": w.Now,
		"last_iteration": documents.Number(0), "last_metrics": map[string]any{},
	}
	applyTaskFields(doc, fields)
	applyTaskFields(doc, overrides)
	answer.ID, err = w.Add(ctx, store.Task, doc)
	return answer, err
}

// inherited is what a clone takes over from its source.
func inherited(source store.Doc) documents.Fields {
	fields := documents.Fields{}
	for _, key := range []string{"name", "type", "project", "comment", "tags", "script", "hyperparams", "configuration", "container"} {
		if source[key] != nil {
			fields[key] = source[key]
		}
	}
	execution := maps.Clone(source.Object("execution"))
	delete(execution, "queue")
	if artifacts, ok := execution["artifacts"].([]any); ok {
		execution["artifacts"] = inputArtifacts(artifacts)
	}
	fields["execution"] = execution
	fields["models"] = map[string]any{"input": source.At("models", "input"), "output": []any{}}
	if dest := source.At("output", "destination"); dest != nil {
		fields["output_dest"] = dest
	}
	kept := store.Doc{"system_tags": source["system_tags"]}
	documents.SetSystemTag(kept, developmentTag, false)
	documents.SetSystemTag(kept, "archived", false)
	fields["system_tags"] = kept["system_tags"]
	return fields
}

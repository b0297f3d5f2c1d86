package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// taskCalls lists the calls of the tasks service.
func (s *Server) taskCalls() []callEntry {
	return []callEntry{
		{"tasks.create", mayWrite, typed(s.createTask)},
		{"tasks.get_by_id", mayRead, typed(s.getTask)},
		{"tasks.get_all", mayRead, typed(s.getTasks)},
		{"tasks.get_all_ex", mayRead, typed(s.getTasksExpanded)},
		{"tasks.get_types", mayRead, typed(s.getTaskTypes)},
		{"tasks.ping", mayWrite, typed(s.pingTask)},

		// taskedit.go
		{"tasks.edit", mayWrite, typed(s.editTask)},
		{"tasks.update", mayWrite, typed(s.updateTask)},
		{"tasks.set_requirements", mayWrite, typed(s.setRequirements)},
		{"tasks.update_tags", mayWrite, typed(s.updateTaskTags)},

		// taskstatus.go
		{"tasks.started", mayWrite, typed(s.startedTask)},
		{"tasks.stopped", mayWrite, typed(s.stoppedTask)},
		{"tasks.stop", mayWrite, typed(s.stopTask)},
		{"tasks.completed", mayWrite, typed(s.completedTask)},
		{"tasks.failed", mayWrite, typed(s.failedTask)},
		{"tasks.publish", mayWrite, typed(s.publishTask)},
		{"tasks.enqueue", mayWrite, typed(s.enqueueTask)},
		{"tasks.dequeue", mayWrite, typed(s.dequeueTask)},

		// taskdelete.go
		{"tasks.reset", mayWrite, typed(s.resetTask)},
		{"tasks.delete", mayWrite, typed(s.deleteTask)},

		// taskclone.go
		{"tasks.clone", mayWrite, typed(s.cloneTask)},

		// taskparams.go
		{"tasks.edit_hyper_params", mayWrite, typed(s.editHyperParams)},
		{"tasks.get_hyper_params", mayRead, typed(s.getHyperParams)},
		{"tasks.delete_hyper_params", mayWrite, typed(s.deleteHyperParams)},

		// taskconfig.go
		{"tasks.edit_configuration", mayWrite, typed(s.editConfiguration)},

		// confighistory.go
		{"tasks.get_configuration_history", mayRead, typed(s.getConfigurationHistory)},
		{"tasks.revert_configuration", mayWrite, typed(s.revertConfiguration)},

		// taskoutput.go
		{"tasks.add_or_update_artifacts", mayWrite, typed(s.addArtifacts)},
		{"tasks.delete_artifacts", mayWrite, typed(s.deleteArtifacts)},
		{"tasks.add_or_update_model", mayWrite, typed(s.addTaskModel)},
		{"tasks.delete_models", mayWrite, typed(s.deleteTaskModels)},

		// many.go
		{"tasks.archive_many", mayWrite, typed(s.archiveManyTasks)},
		{"tasks.unarchive_many", mayWrite, typed(s.unarchiveManyTasks)},
	}
}

// taskTypes are the types that a task can have.
var taskTypes = []string{
	"training", "testing", "inference", "data_processing", "application", "monitor",
	"controller", "report", "optimizer", "service", "qc", "custom",
}

// taskShapes are the fields that tasks.create takes as they are; tasks.edit takes
// created and status beside them.
var taskShapes = map[string]documents.Shape{
	"name": documents.AName, "type": documents.AText, "project": documents.AText, "comment": documents.AText, "parent": documents.AText,
	"tags": documents.Tags, "system_tags": documents.Tags, "script": documents.AnObject, "execution": documents.AnObject,
	"hyperparams": documents.AnObject, "configuration": documents.AnObject, "models": documents.AnObject,
	"container": documents.AnObject, "runtime": documents.AnObject, "output": documents.AnObject, "output_dest": documents.AText,
	"status_reason": documents.AText, "status_message": documents.AText, "report": documents.AText,
}

type idAnswer struct {
	ID string `json:"id"`
}

// createTask makes a task in status created.
func (s *Server) createTask(ctx context.Context, c *Call, req documents.Fields) (idAnswer, error) {
	fields, err := takeTask(req, taskShapes)
	if err != nil {
		return idAnswer{}, err
	}
	for _, key := range []string{"name", "type"} {
		if fields[key] == nil {
			return idAnswer{}, documents.Missing(key)
		}
	}
	var answer idAnswer
	err = s.write(ctx, c, func(w *work) error {
		if err := w.expectTaskLinks(ctx, fields); err != nil {
			return err
		}
		answer.ID, err = w.addTask(ctx, fields)
		return err
	})
	return answer, err
}

// addTask stores a new task.
func (w *work) addTask(ctx context.Context, fields documents.Fields) (string, error) {
	doc := store.Doc{
		"status": "created", "status_reason": "", "status_message": "", "status_changed": w.Now,
		"comment": "", "last_iteration": documents.Number(0), "last_metrics": map[string]any{},
	}
	applyTaskFields(doc, fields)
	return w.Add(ctx, store.Task, doc)
}

// expectTaskLinks refuses a project, a parent, or input models that do not exist, with the
// codes of tasks.create and tasks.edit.
func (w *work) expectTaskLinks(ctx context.Context, fields documents.Fields) error {
	if err := w.expect(ctx, fields, map[string]store.Kind{"project": store.Project, "parent": store.Task}); err != nil {
		return err
	}
	for _, id := range modelIDs(store.Doc(fields), "input") {
		if _, err := w.Find(ctx, store.Model, id); err != nil {
			return err
		}
	}
	return nil
}

// expect refuses fields that hold ids of documents which do not exist.
func (w *work) expect(ctx context.Context, fields documents.Fields, kinds map[string]store.Kind) error {
	for _, key := range slices.Sorted(maps.Keys(kinds)) {
		id := documents.AsText(fields[key])
		if id == "" {
			continue
		}
		switch _, err := w.Get(ctx, kinds[key], id); {
		case errors.Is(err, store.ErrNotFound):
			return documents.Refuse(documents.SubFieldsValue, "Invalid field values: %s must be the id of a %s: id=%s", key, kinds[key], id)
		case err != nil:
			return err
		}
	}
	return nil
}

// checkTaskLinks makes sure that the project and the parent of a clone exist.
func (w *work) checkTaskLinks(ctx context.Context, fields documents.Fields) error {
	if id := documents.AsText(fields["project"]); id != "" {
		if _, err := w.Find(ctx, store.Project, id); err != nil {
			return err
		}
	}
	if id := documents.AsText(fields["parent"]); id != "" {
		if _, err := w.Find(ctx, store.Task, id); err != nil {
			return err
		}
	}
	return nil
}

type taskAnswer struct {
	Task store.Doc `json:"task"`
}

// getTask returns a task in full.
func (s *Server) getTask(ctx context.Context, _ *Call, req taskRequest) (taskAnswer, error) {
	if req.Task == "" {
		return taskAnswer{}, documents.Missing("task")
	}
	doc, err := s.store.Get(ctx, store.Task, req.Task)
	return taskAnswer{doc}, documents.NotFound(err, store.Task, req.Task)
}

// getTasks lists tasks.
func (s *Server) getTasks(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
	return s.listTasks(ctx, req, false)
}

// getTasksExpanded lists tasks with references as objects.
func (s *Server) getTasksExpanded(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
	return s.listTasks(ctx, req, true)
}

func (s *Server) listTasks(ctx context.Context, req documents.Fields, expand bool) (map[string]any, error) {
	req, err := s.withSubprojects(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.lists.List(ctx, documents.TaskEntity, req, nil, expand)
}

type projectsRequest struct {
	Projects []string `json:"projects"`
}

// inside is the filter for documents of these projects; nil, for all, without any.
func (r projectsRequest) inside() store.Expr {
	if len(r.Projects) == 0 {
		return nil
	}
	return store.In{Path: store.Path{"project"}, Values: anyTexts(r.Projects)}
}

type typesAnswer struct {
	Types []string `json:"types"`
}

// getTaskTypes says which types the tasks of some projects, or all tasks, have.
func (s *Server) getTaskTypes(ctx context.Context, _ *Call, req projectsRequest) (typesAnswer, error) {
	answer := typesAnswer{Types: []string{}}
	found, err := s.store.Distinct(ctx, store.Task, store.Path{"type"}, req.inside())
	if err != nil {
		return typesAnswer{}, err
	}
	for _, kind := range taskTypes {
		if slices.Contains(found, kind) {
			answer.Types = append(answer.Types, kind)
		}
	}
	return answer, nil
}

// pingTask says that the process behind a task is alive; a task that is gone is no error.
// It doesn't ring the change feed: who is woken by it pings again, and would be woken by
// that without end.
func (s *Server) pingTask(ctx context.Context, c *Call, req taskRequest) (none, error) {
	if req.Task == "" {
		return none{}, documents.Missing("task")
	}
	return none{}, s.write(ctx, c, func(w *work) error {
		doc, err := w.Get(ctx, store.Task, req.Task)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		doc["last_update"], doc["last_change"] = w.Now, w.Now
		if doc.Text("status") == "in_progress" {
			noteDuration(doc, w.Now)
		}
		if err := c.mayChange(store.Task, doc); err != nil {
			return err
		}
		return w.Put(ctx, store.Task, doc)
	})
}

// noteDuration keeps how many seconds a task has been running.
func noteDuration(doc store.Doc, now string) {
	began, err := store.ParseTime(doc.Text("started"))
	if err != nil {
		return // it was never started
	}
	until, err := store.ParseTime(now)
	if err != nil || until.Before(began) {
		return
	}
	doc["active_duration"] = documents.Number(int64(until.Sub(began) / time.Second))
}

// changeTask changes one task.
func (s *Server) changeTask(ctx context.Context, c *Call, id string, change func(w *work, doc store.Doc) error) error {
	return s.write(ctx, c, func(w *work) error {
		return w.Change(ctx, store.Task, id, func(doc store.Doc) error { return change(w, doc) })
	})
}

// anyTexts makes filter values of texts.
func anyTexts(texts []string) []any {
	out := make([]any, len(texts))
	for i, text := range texts {
		out[i] = text
	}
	return out
}

// docIDs returns the ids of documents, sorted.
func docIDs(docs []store.Doc) []string {
	ids := make([]string, len(docs))
	for i, doc := range docs {
		ids[i] = doc.ID()
	}
	slices.Sort(ids)
	return ids
}

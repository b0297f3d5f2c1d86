package api

import (
	"context"
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
		{"tasks.get_by_id", mayRead, s.byID(store.Task)},
		{"tasks.get_all", mayRead, s.list(documents.TaskEntity, false)},
		{"tasks.get_all_ex", mayRead, s.list(documents.TaskEntity, true)},
		{"tasks.get_types", mayRead, typed(s.getTaskTypes)},
		{"tasks.ping", mayWrite, typed(s.pingTask)},
		{"tasks.update_tags", mayWrite, s.updateTags(store.Task)},
		{"tasks.archive_many", mayWrite, s.archiveMany(store.Task, true)},
		{"tasks.unarchive_many", mayWrite, s.archiveMany(store.Task, false)},

		// taskedit.go
		{"tasks.edit", mayWrite, typed(s.editTask)},
		{"tasks.update", mayWrite, typed(s.updateTask)},
		{"tasks.set_requirements", mayWrite, typed(s.setRequirements)},

		// taskstatus.go
		{"tasks.started", mayWrite, typed(s.startedTask)},
		{"tasks.stopped", mayWrite, s.endedTask("stopped")},
		{"tasks.stop", mayWrite, s.status((*work).stopTask)},
		{"tasks.completed", mayWrite, typed(s.completedTask)},
		{"tasks.failed", mayWrite, s.endedTask("failed")},
		{"tasks.publish", mayWrite, s.status((*work).publishTask)},
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
		{"tasks.get_configuration_history", mayRead, typed(s.getConfigurationHistory)},
		{"tasks.revert_configuration", mayWrite, typed(s.revertConfiguration)},

		// taskoutput.go
		{"tasks.add_or_update_artifacts", mayWrite, typed(s.addArtifacts)},
		{"tasks.delete_artifacts", mayWrite, typed(s.deleteArtifacts)},
		{"tasks.add_or_update_model", mayWrite, typed(s.addTaskModel)},
		{"tasks.delete_models", mayWrite, typed(s.deleteTaskModels)},
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
	fields, err := takeTask(req, taskShapes, "name", "type")
	if err != nil {
		return idAnswer{}, err
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
func (w *work) addTask(ctx context.Context, fields ...documents.Fields) (string, error) {
	doc := store.Doc{
		"status": "created", "status_reason": "", "status_message": "", "status_changed": w.Now,
		"comment": "", "last_iteration": documents.Number(0), "last_metrics": map[string]any{},
	}
	for _, some := range fields {
		applyTaskFields(doc, some)
	}
	return w.Add(ctx, store.Task, doc)
}

// taskLinks are the fields of a task that hold ids of other documents.
var taskLinks = map[string]store.Kind{"project": store.Project, "parent": store.Task}

// expectTaskLinks refuses a project, a parent, or input models that do not exist, with the
// codes of tasks.create and tasks.edit.
func (w *work) expectTaskLinks(ctx context.Context, fields documents.Fields) error {
	if err := w.expect(ctx, fields, taskLinks); err != nil {
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
func (w *work) expect(ctx context.Context, fields documents.Fields, links map[string]store.Kind) error {
	return eachLink(fields, links, func(key, id string) error {
		doc, err := store.IfThere(w.Get(ctx, links[key], id))
		if err == nil && doc == nil {
			return documents.Refuse(documents.SubFieldsValue, "Invalid field values: %s must be the id of a %s: id=%s", key, links[key], id)
		}
		return err
	})
}

// checkLinks is expect with the refusals of the documents' own kinds, for tasks.clone and
// models.create.
func (w *work) checkLinks(ctx context.Context, fields documents.Fields, links map[string]store.Kind) error {
	return eachLink(fields, links, func(key, id string) error {
		_, err := w.Find(ctx, links[key], id)
		return err
	})
}

// eachLink calls check with the links that are set, by name.
func eachLink(fields documents.Fields, links map[string]store.Kind, check func(key, id string) error) error {
	for _, key := range slices.Sorted(maps.Keys(links)) {
		if id := documents.AsText(fields[key]); id != "" {
			if err := check(key, id); err != nil {
				return err
			}
		}
	}
	return nil
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

// getTaskTypes says which types the tasks of some projects, or all tasks, have.
func (s *Server) getTaskTypes(ctx context.Context, _ *Call, req projectsRequest) (map[string][]string, error) {
	found, err := s.store.Distinct(ctx, store.Task, store.Path{"type"}, req.inside())
	types := slices.DeleteFunc(slices.Clone(taskTypes), func(kind string) bool { return !slices.Contains(found, kind) })
	return map[string][]string{"types": types}, err
}

type taskRequest struct {
	Task string `json:"task" required:"true"`
}

// pingTask says that the process of a task is alive; a missing task is no error. It does not
// ring the change feed: a subscriber that pings would wake itself forever.
func (s *Server) pingTask(ctx context.Context, c *Call, req taskRequest) (none, error) {
	return none{}, s.write(ctx, c, func(w *work) error {
		doc, err := store.IfThere(w.Get(ctx, store.Task, req.Task))
		if doc == nil {
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

// noteDuration stores how many seconds a task has been running.
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

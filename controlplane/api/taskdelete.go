package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

type deleteTaskRequest struct {
	Task  string `json:"task"`
	Force bool   `json:"force"`
	// ClearAll also clears what the task executes.
	ClearAll bool `json:"clear_all"`
	// DeleteOutputModels is true when absent.
	DeleteOutputModels *bool `json:"delete_output_models"`
	ReturnFileURLs     bool  `json:"return_file_urls"`
	// WithFiles also removes the files. Off by default: clients remove them themselves.
	WithFiles bool `json:"delete_external_artifacts"`
}

// cleaned is what was deleted with a task, and the files that are not referred to any more.
type cleaned struct {
	DeletedModels   int           `json:"deleted_models"`
	UpdatedModels   int           `json:"updated_models"`
	UpdatedChildren int           `json:"updated_children"`
	Events          counts        `json:"events,omitempty"`
	URLs            *fileURLs     `json:"urls,omitempty"`
	Files           *removedFiles `json:"files,omitempty"`
}

type fileURLs struct {
	Model    []string `json:"model_urls"`
	Event    []string `json:"event_urls"`
	Artifact []string `json:"artifact_urls"`
}

// resetTask returns a task to its state before it ran.
func (s *Server) resetTask(ctx context.Context, c *Call, req deleteTaskRequest) (any, error) {
	var answer struct {
		updated
		cleaned
	}
	err := s.change(ctx, c, store.Task, req.Task, func(w *work, doc store.Doc) error {
		if doc.Text("status") == "published" && !req.Force {
			return wrongStatus(doc, "any but published, or force")
		}
		if err := w.leaveQueue(ctx, doc); err != nil {
			return err
		}
		var err error
		if answer.cleaned, err = w.cleanUp(ctx, doc, req); err != nil {
			return err
		}
		if err := moveTo(doc, "created", true, w.Now); err != nil {
			return err
		}
		clearRun(doc, req.ClearAll)
		answer.updated = updated{Updated: 1, Fields: w.statusFields(doc)}
		return nil
	})
	if err == nil {
		s.removeFilesOf(ctx, req, &answer.cleaned)
	}
	return answer, err
}

// removeFilesOf removes the files of what was deleted, if the request says so.
func (s *Server) removeFilesOf(ctx context.Context, req deleteTaskRequest, gone *cleaned) {
	if req.WithFiles {
		gone.Files = s.removeFiles(ctx, gone.URLs.all())
	}
	if !req.ReturnFileURLs {
		gone.URLs = nil
	}
}

// clearRun removes the results of a run from its task.
func clearRun(doc store.Doc, all bool) {
	doc["status_reason"], doc["status_message"] = "", ""
	for _, key := range []string{"started", "completed", "published", "active_duration", "last_worker", "last_worker_report"} {
		delete(doc, key)
	}
	doc["last_iteration"], doc["last_metrics"] = documents.Number(0), map[string]any{}
	doc["runtime"] = map[string]any{}
	doc.Object("models")["output"] = []any{}
	delete(doc.Object("output"), "error")
	if all {
		doc["execution"], doc["script"] = map[string]any{}, map[string]any{}
		return
	}
	execution := doc.Object("execution")
	delete(execution, "queue")
	dropItems(execution, "artifacts", isOutput)
}

// isOutput says whether an artifact was made by its task.
func isOutput(artifact map[string]any) bool { return artifact["mode"] != "input" }

// deleteTask removes a task, its reports, and its draft models.
func (s *Server) deleteTask(ctx context.Context, c *Call, req deleteTaskRequest) (any, error) {
	answer := struct {
		Deleted bool `json:"deleted"`
		cleaned
	}{Deleted: true}
	err := s.write(ctx, c, func(w *work) error {
		doc, err := w.Find(ctx, store.Task, req.Task)
		if err != nil {
			return err
		}
		if !req.Force {
			if err := w.guardDelete(ctx, doc); err != nil {
				return err
			}
		}
		answer.cleaned, err = w.deleteTask(ctx, doc, req)
		return err
	})
	if err == nil {
		s.removeFilesOf(ctx, req, &answer.cleaned)
	}
	return answer, err
}

func (w *work) deleteTask(ctx context.Context, doc store.Doc, req deleteTaskRequest) (cleaned, error) {
	if err := w.leaveQueue(ctx, doc); err != nil {
		return cleaned{}, err
	}
	gone, err := w.cleanUp(ctx, doc, req)
	if err != nil {
		return cleaned{}, err
	}
	// Its children and models lose what refers to it.
	gone.UpdatedChildren, err = w.Each(ctx, store.Task, documents.Is(doc.ID(), "parent"), func(child store.Doc) error {
		delete(child, "parent")
		return nil
	})
	if err != nil {
		return cleaned{}, err
	}
	gone.UpdatedModels, err = w.Each(ctx, store.Model, documents.Is(doc.ID(), "task"), func(model store.Doc) error {
		delete(model, "task")
		return nil
	})
	if err != nil {
		return cleaned{}, err
	}
	if err := w.removeEdits(ctx, store.Query{Where: documents.Is(doc.ID(), "task")}); err != nil {
		return cleaned{}, err
	}
	return gone, w.Remove(ctx, store.Task, doc.ID())
}

// guardDelete refuses to delete a task that may be in use.
func (w *work) guardDelete(ctx context.Context, doc store.Doc) error {
	cannot := func(reason string) error {
		return documents.Refuse(subTaskNotDeletable, "Task cannot be deleted: task=%s, %s: archive it first or use force", doc.ID(), reason)
	}
	if status := doc.Text("status"); status != "created" && !documents.HasTag(doc, "system_tags", archivedTag) {
		return cannot("status=" + status)
	}
	children, err := w.Count(ctx, store.Task, store.And{documents.Is(doc.ID(), "parent"), documents.Is("published", "status")})
	if err == nil && children > 0 {
		err = cannot("it has published children")
	}
	if err != nil {
		return err
	}
	models, err := w.Count(ctx, store.Model, store.And{documents.Is(doc.ID(), "task"), documents.Is(true, "ready")})
	if err == nil && models > 0 {
		err = cannot("it has published output models")
	}
	return err
}

// cleanUp removes a task's reports and its draft models, except those that are inputs of
// another task.
func (w *work) cleanUp(ctx context.Context, doc store.Doc, req deleteTaskRequest) (cleaned, error) {
	var gone cleaned
	if req.ReturnFileURLs || req.WithFiles {
		gone.URLs = &fileURLs{Model: []string{}, Event: []string{}, Artifact: artifactURLs(doc)}
		events, err := w.Events(ctx, store.EventQuery{Tasks: []string{doc.ID()}, Types: []string{eventImage}})
		if err != nil {
			return cleaned{}, err
		}
		seen := map[string]bool{"": true}
		for _, event := range events {
			if url := event.Body.Text("url"); !seen[url] {
				seen[url] = true
				gone.URLs.Event = append(gone.URLs.Event, url)
			}
		}
	}
	deleted, err := w.DeleteEvents(ctx, store.EventQuery{Tasks: []string{doc.ID()}})
	if err != nil {
		return cleaned{}, err
	}
	gone.Events = counts{"deleted": deleted}
	if req.DeleteOutputModels != nil && !*req.DeleteOutputModels {
		return gone, nil
	}
	drafts, err := w.All(ctx, store.Model, store.And{documents.Is(doc.ID(), "task"), store.Not{Expr: documents.Is(true, "ready")}})
	if err != nil {
		return cleaned{}, err
	}
	for _, model := range drafts {
		users, err := w.Count(ctx, store.Task, store.And{
			documents.Is(model.ID(), "models", "input", "model"), store.Not{Expr: documents.Is(doc.ID(), "id")},
		})
		if err != nil {
			return cleaned{}, err
		}
		if users > 0 {
			continue
		}
		if err := w.removeModel(ctx, model); err != nil {
			return cleaned{}, err
		}
		gone.DeletedModels++
		if uri := model.Text("uri"); uri != "" && gone.URLs != nil {
			gone.URLs.Model = append(gone.URLs.Model, uri)
		}
	}
	return gone, nil
}

func artifactURLs(doc store.Doc) []string {
	urls := []string{}
	for _, artifact := range doc.Objects("execution", "artifacts") {
		if uri := artifact.Text("uri"); uri != "" && artifact["mode"] != "input" {
			urls = append(urls, uri)
		}
	}
	return urls
}

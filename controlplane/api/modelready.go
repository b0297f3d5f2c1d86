package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

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

// publishTaskOf publishes the task that made a model, if there is one left to publish.
func (w *work) publishTaskOf(ctx context.Context, model store.Doc, force bool) (*publishedTask, error) {
	id := model.Text("task")
	if id == "" {
		return nil, nil
	}
	task, err := store.IfThere(w.Get(ctx, store.Task, id))
	if task.Text("status") == "published" || task == nil {
		return nil, err
	}
	withModel := false
	if err := w.publishTask(ctx, task, statusRequest{Force: force, PublishModel: &withModel}); err != nil {
		return nil, err
	}
	if err := w.Save(ctx, store.Task, task); err != nil {
		return nil, err
	}
	return &publishedTask{ID: id, Data: updated{Updated: 1, Fields: w.statusFields(task)}}, nil
}

type deleteModelRequest struct {
	Model string `json:"model"`
	Force bool   `json:"force"`
	// WithFiles also removes the model's file. Not when it is absent, as clients remove it
	// by themselves.
	WithFiles bool `json:"delete_external_artifacts"`
}

type deleteModelAnswer struct {
	Deleted bool          `json:"deleted"`
	URL     string        `json:"url,omitempty"`
	Files   *removedFiles `json:"files,omitempty"`
}

// deleteModel removes a model that nothing depends on, or any with force. The answer
// tells where its file is, or what became of it.
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

package api

import (
	"context"

	"clearmlserving/controlplane/store"
)

// archivedTag marks what is hidden from people's lists; no call leaves it out by itself.
const archivedTag = "archived"

// manyAnswer is the answer of a call on several documents: each succeeds or fails by
// itself, and the call succeeds even when all have failed.
type manyAnswer struct {
	Succeeded []map[string]any `json:"succeeded"`
	Failed    []failure        `json:"failed"`
}

type failure struct {
	ID    string       `json:"id"`
	Error failureError `json:"error"`
}

type failureError struct {
	Codes [2]int `json:"codes"`
	Msg   string `json:"msg"`
}

// many runs one change for each id. Trouble of our own ends the call.
func many(ids []string, one func(id string) (map[string]any, error)) (manyAnswer, error) {
	answer := manyAnswer{Succeeded: []map[string]any{}, Failed: []failure{}}
	if len(ids) == 0 {
		return answer, missing("ids")
	}
	for _, id := range ids {
		done, err := one(id)
		if err != nil {
			told, trouble := asError(err)
			if trouble {
				return answer, err
			}
			answer.Failed = append(answer.Failed, failure{id, failureError{[2]int{told.Code, told.Subcode}, told.Msg}})
			continue
		}
		done["id"] = id
		answer.Succeeded = append(answer.Succeeded, done)
	}
	return answer, nil
}

type manyRequest struct {
	IDs                []string `json:"ids"`
	Force              bool     `json:"force"`
	StatusReason       string   `json:"status_reason"`
	StatusMessage      string   `json:"status_message"`
	ClearAll           bool     `json:"clear_all"`
	DeleteOutputModels *bool    `json:"delete_output_models"`
	ReturnFileURLs     bool     `json:"return_file_urls"`
	WithFiles          bool     `json:"delete_external_artifacts"`
	PublishModel       *bool    `json:"publish_model"`
	PublishTask        *bool    `json:"publish_task"`
	ForcePublishTask   bool     `json:"force_publish_task"`
	Queue              string   `json:"queue"`
	QueueName          string   `json:"queue_name"`
}

// status is the request for one of the tasks.
func (r manyRequest) status(id string) statusRequest {
	return statusRequest{
		Task: id, Force: r.Force, StatusReason: r.StatusReason, StatusMessage: r.StatusMessage,
		PublishModel: r.PublishModel, Queue: r.Queue, QueueName: r.QueueName,
	}
}

func (r manyRequest) cleaning(id string) deleteTaskRequest {
	return deleteTaskRequest{
		Task: id, Force: r.Force, ClearAll: r.ClearAll, DeleteOutputModels: r.DeleteOutputModels, ReturnFileURLs: r.ReturnFileURLs, WithFiles: r.WithFiles,
	}
}

// archive sets or takes away the system tag that hides a document.
func (s *Server) archive(ctx context.Context, c *Call, kind store.Kind, id string, on bool) (map[string]any, error) {
	err := s.write(ctx, c, func(w *work) error {
		return w.change(ctx, kind, id, func(doc store.Doc) error {
			setSystemTag(doc, archivedTag, on)
			if kind != store.Task || !on || doc.Text("status") != "queued" {
				return nil
			}
			if err := w.leaveQueue(ctx, doc); err != nil {
				return err
			}
			return moveTo(doc, "created", true, w.now)
		})
	})
	if on {
		return map[string]any{"archived": true}, err
	}
	return map[string]any{"unarchived": true}, err
}

// archiveManyTasks hides tasks.
func (s *Server) archiveManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Task, id, true) })
}

// unarchiveManyTasks brings hidden tasks back.
func (s *Server) unarchiveManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Task, id, false) })
}

// archiveTasks is archiveManyTasks for callers who want all or an error.
func (s *Server) archiveTasks(ctx context.Context, c *Call, req tasksRequest) (map[string]any, error) {
	for _, id := range req.Tasks {
		if _, err := s.archive(ctx, c, store.Task, id, true); err != nil {
			return nil, err
		}
	}
	return map[string]any{"archived": len(req.Tasks)}, nil
}

// unarchiveTasks is unarchiveManyTasks for callers who want all or an error.
func (s *Server) unarchiveTasks(ctx context.Context, c *Call, req tasksRequest) (map[string]any, error) {
	for _, id := range req.Tasks {
		if _, err := s.archive(ctx, c, store.Task, id, false); err != nil {
			return nil, err
		}
	}
	return map[string]any{"unarchived": len(req.Tasks)}, nil
}

// deleteManyTasks deletes tasks.
func (s *Server) deleteManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) {
		done, err := s.deleteTask(ctx, c, req.cleaning(id))
		return map[string]any{
			"deleted": done.Deleted, "deleted_models": done.DeletedModels,
			"updated_children": done.UpdatedChildren, "updated_models": done.UpdatedModels, "urls": done.URLs,
			"files": done.Files,
		}, err
	})
}

// resetManyTasks resets tasks.
func (s *Server) resetManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) {
		done, err := s.resetTask(ctx, c, req.cleaning(id))
		return map[string]any{
			"updated": done.Updated, "fields": done.Fields, "deleted_models": done.DeletedModels, "urls": done.URLs, "files": done.Files,
		}, err
	})
}

// publishManyTasks publishes tasks.
func (s *Server) publishManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return s.manyStatus(ctx, c, req, s.publishTask)
}

// stopManyTasks stops tasks.
func (s *Server) stopManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return s.manyStatus(ctx, c, req, s.stopTask)
}

// enqueueManyTasks puts tasks into a queue.
func (s *Server) enqueueManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return s.manyStatus(ctx, c, req, s.enqueueTask)
}

// dequeueManyTasks takes tasks out of their queues.
func (s *Server) dequeueManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return s.manyStatus(ctx, c, req, s.dequeueTask)
}

func (s *Server) manyStatus(ctx context.Context, c *Call, req manyRequest, one func(context.Context, *Call, statusRequest) (statusAnswer, error)) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) {
		done, err := one(ctx, c, req.status(id))
		return map[string]any{"updated": done.Updated, "fields": done.Fields}, err
	})
}

// archiveManyModels hides models.
func (s *Server) archiveManyModels(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Model, id, true) })
}

// unarchiveManyModels brings hidden models back.
func (s *Server) unarchiveManyModels(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Model, id, false) })
}

// deleteManyModels deletes models.
func (s *Server) deleteManyModels(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) {
		done, err := s.deleteModel(ctx, c, deleteModelRequest{Model: id, Force: req.Force, WithFiles: req.WithFiles})
		return map[string]any{"deleted": done.Deleted, "url": done.URL, "files": done.Files}, err
	})
}

// publishManyModels publishes models.
func (s *Server) publishManyModels(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) {
		done, err := s.setModelReady(ctx, c, readyRequest{Model: id, PublishTask: req.PublishTask, ForcePublishTask: req.ForcePublishTask})
		return map[string]any{"updated": done.Updated, "published_task": done.PublishedTask}, err
	})
}

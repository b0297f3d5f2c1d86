package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

type queueTaskRequest struct {
	Queue string `json:"queue"`
	Task  string `json:"task"`
}

// addQueueTask puts a task into a queue, as tasks.enqueue does.
func (s *Server) addQueueTask(ctx context.Context, c *Call, req queueTaskRequest) (map[string]any, error) {
	if req.Queue == "" {
		return nil, documents.Missing("queue")
	}
	_, err := s.enqueueTask(ctx, c, statusRequest{Task: req.Task, Queue: req.Queue})
	return map[string]any{"added": 1}, err
}

// removeQueueTask takes a task out of the queue that it waits in.
func (s *Server) removeQueueTask(ctx context.Context, c *Call, req queueTaskRequest) (map[string]any, error) {
	task, err := s.store.Get(ctx, store.Task, req.Task)
	if err != nil {
		return nil, documents.NotFound(err, store.Task, req.Task)
	}
	if task.Text("status") != "queued" || task.Text("execution", "queue") != req.Queue {
		return map[string]any{"removed": 0}, nil
	}
	_, err = s.dequeueTask(ctx, c, statusRequest{Task: req.Task})
	return map[string]any{"removed": 1}, err
}

// nextQueueTask takes the task that waits longest out of a queue. The task stays queued
// until whoever took it says that it has started.
func (s *Server) nextQueueTask(ctx context.Context, c *Call, req queueTaskRequest) (map[string]any, error) {
	var entry any
	err := s.write(ctx, c, func(w *work) error {
		entry = nil
		return w.Change(ctx, store.Queue, req.Queue, func(doc store.Doc) error {
			entries, _ := doc["entries"].([]any)
			if len(entries) > 0 {
				entry, doc["entries"] = entries[0], entries[1:]
				doc["last_update"] = w.Now
			}
			return nil
		})
	})
	if err != nil || entry == nil {
		return map[string]any{}, err
	}
	return map[string]any{"entry": entry}, nil
}

package api

import (
	"context"
	"maps"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// queueCalls lists the calls of the queues service.
func (s *Server) queueCalls() []callEntry {
	return []callEntry{
		{"queues.create", mayWrite, typed(s.createQueue)},
		{"queues.get_by_id", mayRead, typed(s.getQueue)},
		{"queues.get_all", mayRead, typed(s.getQueues)},
		{"queues.get_default", mayRead, typed(s.getDefaultQueue)},
		{"queues.get_num_entries", mayRead, typed(s.countQueueEntries)},
		{"queues.delete", mayWrite, typed(s.deleteQueue)},

		// queueentries.go
		{"queues.add_task", mayWrite, typed(s.addQueueTask)},
		{"queues.remove_task", mayWrite, typed(s.removeQueueTask)},
		{"queues.get_next_task", mayWrite, typed(s.nextQueueTask)},
	}
}

// queueShapes are the fields that calls may set on a queue.
var queueShapes = map[string]documents.Shape{"name": documents.AName, "display_name": documents.AText, "tags": documents.Tags, "system_tags": documents.Tags}

// defaultTag marks the queue of tasks that are enqueued without naming one.
const defaultTag = "default"

// createQueue makes an empty queue.
func (s *Server) createQueue(ctx context.Context, c *Call, req documents.Fields) (idAnswer, error) {
	fields, err := documents.Take(req, queueShapes)
	if err != nil {
		return idAnswer{}, err
	}
	if fields["name"] == nil {
		return idAnswer{}, documents.Missing("name")
	}
	var answer idAnswer
	err = s.write(ctx, c, func(w *work) error {
		taken, err := w.Count(ctx, store.Queue, documents.Is(fields["name"], "name"))
		if err != nil {
			return err
		}
		if taken > 0 {
			return documents.Refuse(subUniqueData, "Value combination already exists (unique field already contains this value): name=%s", fields["name"])
		}
		answer.ID, err = w.addQueue(ctx, fields)
		return err
	})
	return answer, err
}

func (w *work) addQueue(ctx context.Context, fields documents.Fields) (string, error) {
	doc := store.Doc{"entries": []any{}}
	maps.Copy(doc, fields)
	return w.Add(ctx, store.Queue, doc)
}

// queueFor finds the queue for a task: by id, by name (made when it is missing), or the
// default one.
func (w *work) queueFor(ctx context.Context, id, name string) (store.Doc, error) {
	if id != "" {
		return w.Find(ctx, store.Queue, id)
	}
	where := documents.Is(defaultTag, "system_tags")
	if name != "" {
		where = documents.Is(name, "name")
	}
	found, err := w.All(ctx, store.Queue, where)
	switch {
	case err != nil:
		return nil, err
	case len(found) > 0:
		return found[0], nil
	case name == "":
		return nil, documents.Refuse(subNoDefaultQueue, "No default queue was found: name a queue")
	}
	checked, err := documents.CheckName("queue_name", name)
	if err != nil {
		return nil, err
	}
	made, err := w.addQueue(ctx, documents.Fields{"name": checked})
	if err != nil {
		return nil, err
	}
	return w.Get(ctx, store.Queue, made)
}

type queueRequest struct {
	Queue string `json:"queue"`
	Force bool   `json:"force"`
}

type queueAnswer struct {
	Queue store.Doc `json:"queue"`
}

func (s *Server) queueByID(ctx context.Context, id string) (store.Doc, error) {
	if id == "" {
		return nil, documents.Missing("queue")
	}
	doc, err := s.store.Get(ctx, store.Queue, id)
	return doc, documents.NotFound(err, store.Queue, id)
}

// getQueue returns a queue with its entries. The SDK asks with a name first and takes
// 400/701 as the answer that it was none.
func (s *Server) getQueue(ctx context.Context, _ *Call, req queueRequest) (queueAnswer, error) {
	doc, err := s.queueByID(ctx, req.Queue)
	return queueAnswer{doc}, err
}

// getQueues lists queues.
func (s *Server) getQueues(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
	return s.lists.List(ctx, documents.QueueEntity, req, nil, false)
}

// getDefaultQueue returns the queue of tasks that are enqueued without naming one.
func (s *Server) getDefaultQueue(ctx context.Context, _ *Call, _ none) (map[string]any, error) {
	found, err := s.store.Query(ctx, store.Queue, store.Query{Where: documents.Is(defaultTag, "system_tags"), Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, documents.Refuse(subNoDefaultQueue, "No default queue was found")
	}
	return map[string]any{"id": found[0].ID(), "name": found[0].Text("name")}, nil
}

// countQueueEntries says how many tasks wait in a queue.
func (s *Server) countQueueEntries(ctx context.Context, _ *Call, req queueRequest) (map[string]any, error) {
	doc, err := s.queueByID(ctx, req.Queue)
	if err != nil {
		return nil, err
	}
	entries, _ := doc["entries"].([]any)
	return map[string]any{"num": len(entries)}, nil
}

// deleteQueue removes an empty queue, or any with force; its tasks are created again.
func (s *Server) deleteQueue(ctx context.Context, c *Call, req queueRequest) (deletedAnswer, error) {
	err := s.write(ctx, c, func(w *work) error {
		doc, err := w.Find(ctx, store.Queue, req.Queue)
		if err != nil {
			return err
		}
		entries, _ := doc["entries"].([]any)
		if len(entries) > 0 && !req.Force {
			return documents.Refuse(subQueueNotEmpty, "Queue is not empty: id=%s: use force", doc.ID())
		}
		waiting, err := w.All(ctx, store.Task, store.And{documents.Is("queued", "status"), documents.Is(doc.ID(), "execution", "queue")})
		if err != nil {
			return err
		}
		for _, task := range waiting {
			if err := moveTo(task, "created", true, w.Now); err != nil {
				return err
			}
			if err := w.Save(ctx, store.Task, task); err != nil {
				return err
			}
		}
		return w.Remove(ctx, store.Queue, doc.ID())
	})
	return deletedAnswer{1}, err
}

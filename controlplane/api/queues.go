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
		{"queues.get_by_id", mayRead, s.byID(store.Queue)}, // the SDK asks with a name first and takes 400/701 as the answer that it was none
		{"queues.get_all", mayRead, s.list(documents.QueueEntity, false)},
		{"queues.get_default", mayRead, typed(s.getDefaultQueue)},
		{"queues.get_num_entries", mayRead, typed(s.countQueueEntries)},
		{"queues.delete", mayWrite, typed(s.deleteQueue)},
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
	fields, err := documents.Take(req, queueShapes, "name")
	if err != nil {
		return idAnswer{}, err
	}
	var answer idAnswer
	err = s.write(ctx, c, func(w *work) error {
		if err := refuseTaken(ctx, w, store.Queue, fields["name"]); err != nil {
			return err
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

// queueFor finds the queue for a task: by id, by name (made if it is missing), or the
// default one.
func (w *work) queueFor(ctx context.Context, id, name string) (store.Doc, error) {
	if id != "" {
		return w.Find(ctx, store.Queue, id)
	}
	if name == "" {
		return defaultQueue(ctx, w)
	}
	found, err := w.All(ctx, store.Queue, documents.Is(name, "name"))
	if err != nil || len(found) > 0 {
		return firstOf(found), err
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

func defaultQueue(ctx context.Context, from store.Reader) (store.Doc, error) {
	found, err := from.Query(ctx, store.Queue, store.Query{Where: documents.Is(defaultTag, "system_tags"), Limit: 1})
	if err == nil && len(found) == 0 {
		err = documents.Refuse(subNoDefaultQueue, "No default queue was found: name a queue")
	}
	return firstOf(found), err
}

func firstOf(docs []store.Doc) store.Doc {
	if len(docs) == 0 {
		return nil
	}
	return docs[0]
}

type queueRequest struct {
	Queue string `json:"queue" required:"true"`
	Task  string `json:"task"`
	Force bool   `json:"force"`
}

// getDefaultQueue returns the queue of tasks that are enqueued without naming one.
func (s *Server) getDefaultQueue(ctx context.Context, _ *Call, _ none) (map[string]string, error) {
	queue, err := defaultQueue(ctx, s.store)
	return map[string]string{"id": queue.ID(), "name": queue.Text("name")}, err
}

// entriesOf are the tasks that wait in a queue, the next one first.
func entriesOf(queue store.Doc) []any {
	entries, _ := queue["entries"].([]any)
	return entries
}

// countQueueEntries says how many tasks wait in a queue.
func (s *Server) countQueueEntries(ctx context.Context, _ *Call, req queueRequest) (counts, error) {
	queue, err := s.find(ctx, store.Queue, req.Queue)
	return counts{"num": len(entriesOf(queue))}, err
}

// deleteQueue removes an empty queue, or any with force; its tasks are created again.
func (s *Server) deleteQueue(ctx context.Context, c *Call, req queueRequest) (counts, error) {
	return counts{"deleted": 1}, s.write(ctx, c, func(w *work) error {
		queue, err := w.Find(ctx, store.Queue, req.Queue)
		if err != nil {
			return err
		}
		if len(entriesOf(queue)) > 0 && !req.Force {
			return documents.Refuse(subQueueNotEmpty, "Queue is not empty: id=%s: use force", queue.ID())
		}
		waiting := store.And{documents.Is("queued", "status"), documents.Is(queue.ID(), "execution", "queue")}
		_, err = w.Each(ctx, store.Task, waiting, func(task store.Doc) error { return moveTo(task, "created", true, w.Now) })
		if err != nil {
			return err
		}
		return w.Remove(ctx, store.Queue, queue.ID())
	})
}

// addQueueTask puts a task into a queue, as tasks.enqueue does.
func (s *Server) addQueueTask(ctx context.Context, c *Call, req queueRequest) (counts, error) {
	_, err := s.enqueueTask(ctx, c, statusRequest{Task: req.Task, Queue: req.Queue})
	return counts{"added": 1}, err
}

// removeQueueTask takes a task out of the queue that it waits in.
func (s *Server) removeQueueTask(ctx context.Context, c *Call, req queueRequest) (counts, error) {
	task, err := s.find(ctx, store.Task, req.Task)
	if err != nil || task.Text("status") != "queued" || task.Text("execution", "queue") != req.Queue {
		return counts{"removed": 0}, err
	}
	_, err = s.dequeueTask(ctx, c, statusRequest{Task: req.Task})
	return counts{"removed": 1}, err
}

// nextQueueTask takes the task that waits longest out of a queue. The task stays queued
// until the caller says that it has started.
func (s *Server) nextQueueTask(ctx context.Context, c *Call, req queueRequest) (map[string]any, error) {
	var answer map[string]any
	err := s.change(ctx, c, store.Queue, req.Queue, func(w *work, queue store.Doc) error {
		answer = map[string]any{}
		if entries := entriesOf(queue); len(entries) > 0 {
			answer["entry"], queue["entries"], queue["last_update"] = entries[0], entries[1:], w.Now
		}
		return nil
	})
	return answer, err
}

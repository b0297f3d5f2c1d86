package api

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// transitions are the allowed changes of a task's status. A task may always keep its status;
// with force every change is allowed.
var transitions = map[string][]string{
	"created":     {"queued", "in_progress"},
	"queued":      {"created", "in_progress", "stopped"},
	"in_progress": {"stopped", "failed", "created", "completed"},
	"stopped":     {"closed", "created", "failed", "queued", "in_progress", "published", "publishing", "completed"},
	"closed":      {"created", "failed", "published", "publishing", "stopped"},
	"failed":      {"created", "stopped", "published", "queued"},
	"completed":   {"published", "in_progress", "created"},
	"publishing":  {"published"},
	"published":   {},
}

// developmentTag marks tasks that were started by hand and not from a queue.
const developmentTag = "development"

// moveTo changes a task's status and the time of the change.
func moveTo(doc store.Doc, to string, force bool, now string) error {
	from := doc.Text("status")
	if _, known := transitions[to]; !known {
		return documents.Invalid("status %q is none of ClearML's", to)
	}
	if from != to && !force && !slices.Contains(transitions[from], to) {
		allowed := cmp.Or(strings.Join(transitions[from], ", "), "none")
		return documents.Refuse(subTaskStatus, "Invalid task status: task=%s, current_status=%s, new_status=%s, allowed=%s", doc.ID(), from, to, allowed)
	}
	if from == "in_progress" {
		noteDuration(doc, now)
	}
	doc["status"], doc["status_changed"], doc["last_update"] = to, now, now
	return nil
}

type statusRequest struct {
	Task          string `json:"task"`
	Force         bool   `json:"force"`
	StatusReason  string `json:"status_reason"`
	StatusMessage string `json:"status_message"`
	Publish       bool   `json:"publish"`
	PublishModel  *bool  `json:"publish_model"`
	Queue         string `json:"queue"`
	QueueName     string `json:"queue_name"`
	NewStatus     string `json:"new_status"`
}

// setStatus changes the status with the reason and message of the request, which replace the
// old ones even if they are empty.
func (r statusRequest) setStatus(doc store.Doc, to, now string) error {
	if err := moveTo(doc, to, r.Force, now); err != nil {
		return err
	}
	doc["status_reason"], doc["status_message"] = r.StatusReason, r.StatusMessage
	return nil
}

// statusFields are the fields that a change of status may have written.
func (w *work) statusFields(doc store.Doc) map[string]any {
	out := w.ChangedBy()
	for _, key := range []string{"status", "status_reason", "status_message", "status_changed", "last_update", "started", "completed", "published"} {
		if doc[key] != nil {
			out[key] = doc[key]
		}
	}
	return out
}

// answer is the answer of a call that changes a status: the updates, and what the call adds.
type answer map[string]any

// changeStatus runs a change of one task's status.
func (s *Server) changeStatus(ctx context.Context, c *Call, id string, change func(w *work, doc store.Doc) error) (answer, error) {
	out := answer{"updated": 1}
	err := s.change(ctx, c, store.Task, id, func(w *work, doc store.Doc) error {
		if err := change(w, doc); err != nil {
			return err
		}
		out["fields"] = w.statusFields(doc)
		return nil
	})
	return out, err
}

// startedTask says that a task runs.
func (s *Server) startedTask(ctx context.Context, c *Call, req statusRequest) (answer, error) {
	out, err := s.changeStatus(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := w.leaveQueue(ctx, doc); err != nil {
			return err
		}
		if began := doc.Text("started"); began == "" || began > w.Now {
			doc["started"] = w.Now
		}
		return req.setStatus(doc, "in_progress", w.Now)
	})
	out["started"] = 1
	return out, err
}

// status answers a call that changes one task's status.
func (s *Server) status(change func(w *work, ctx context.Context, doc store.Doc, req statusRequest) error) handler {
	return typed(func(ctx context.Context, c *Call, req statusRequest) (answer, error) {
		return s.changeStatus(ctx, c, req.Task, func(w *work, doc store.Doc) error { return change(w, ctx, doc, req) })
	})
}

// endedTask answers a call that says how a task ended.
func (s *Server) endedTask(how string) handler {
	return s.status(func(w *work, ctx context.Context, doc store.Doc, req statusRequest) error {
		return w.end(ctx, doc, req, how)
	})
}

// completedTask says that a task has done its work, and publishes it if asked to.
func (s *Server) completedTask(ctx context.Context, c *Call, req statusRequest) (answer, error) {
	published := 0
	out, err := s.changeStatus(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		err := w.end(ctx, doc, req, "completed")
		if err == nil && req.Publish {
			published = 1
			err = w.publishTask(ctx, doc, req)
		}
		return err
	})
	out["published"] = published
	return out, err
}

// end moves a task to a status in which it does not run any more.
func (w *work) end(ctx context.Context, doc store.Doc, req statusRequest, to string) error {
	if err := w.leaveQueue(ctx, doc); err != nil {
		return err
	}
	if err := req.setStatus(doc, to, w.Now); err != nil {
		return err
	}
	doc["completed"] = w.Now
	return nil
}

// stopTask requests a running task to stop. A task without a worker is stopped at once: the
// SDK of a development task reads the new status itself.
func (w *work) stopTask(ctx context.Context, doc store.Doc, req statusRequest) error {
	if documents.HasTag(doc, "system_tags", developmentTag) || doc.Text("last_worker") == "" || doc.Text("status") != "in_progress" {
		return w.end(ctx, doc, req, "stopped")
	}
	doc["status_reason"], doc["status_message"] = req.StatusReason, "stopping"
	doc["last_update"] = w.Now
	return nil
}

// publishTask makes a task final and its last output model ready, unless the request
// says not to.
func (w *work) publishTask(ctx context.Context, doc store.Doc, req statusRequest) error {
	if doc.Text("status") == "published" && !req.Force {
		return wrongStatus(doc, "not published, or force")
	}
	if err := req.setStatus(doc, "published", w.Now); err != nil {
		return err
	}
	if doc.Text("published") == "" {
		doc["published"] = w.Now
	}
	output := modelIDs(doc, "output")
	if len(output) == 0 || (req.PublishModel != nil && !*req.PublishModel) {
		return nil
	}
	model, err := store.IfThere(w.Get(ctx, store.Model, output[len(output)-1]))
	if model == nil || documents.Truth(model["ready"]) {
		return err
	}
	return w.publishModel(ctx, model)
}

// modelIDs returns the ids of a task's input or output models, in order.
func modelIDs(doc store.Doc, direction string) []string {
	var ids []string
	for _, entry := range doc.Objects("models", direction) {
		ids = append(ids, entry.Text("model"))
	}
	return ids
}

// enqueueTask puts a task into a queue; a task in another queue moves.
func (s *Server) enqueueTask(ctx context.Context, c *Call, req statusRequest) (answer, error) {
	if req.Queue != "" && req.QueueName != "" {
		return nil, documents.Invalid("give queue or queue_name, not both")
	}
	queued := ""
	out, err := s.changeStatus(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		queue, err := w.queueFor(ctx, req.Queue, req.QueueName)
		if err != nil {
			return err
		}
		if waitsIn(queue, doc.ID()) {
			return documents.Refuse(subTaskAlreadyQueued, "Task is queued already: task=%s, queue=%s", doc.ID(), queue.ID())
		}
		if doc.Text("execution", "queue") != queue.ID() {
			if err := w.leaveQueue(ctx, doc); err != nil {
				return err
			}
		}
		before := doc.Text("status")
		if err := req.setStatus(doc, "queued", w.Now); err != nil {
			return err
		}
		if before != "queued" {
			doc["enqueue_status"] = before
		}
		documents.SetSystemTag(doc, developmentTag, false)
		queued = queue.ID()
		doc.Object("execution")["queue"] = queued
		queue["entries"] = append(entriesOf(queue), map[string]any{"task": doc.ID(), "added": w.Now})
		queue["last_update"] = w.Now
		return w.Save(ctx, store.Queue, queue)
	})
	if err != nil {
		return nil, err
	}
	out["queued"], out["fields"].(map[string]any)["execution.queue"] = 1, queued
	return out, nil
}

// waitsIn says whether a queue holds a task.
func waitsIn(queue store.Doc, task string) bool {
	return slices.ContainsFunc(queue.Objects("entries"), func(entry store.Doc) bool { return entry["task"] == task })
}

// dequeueTask takes a task out of its queue, to the status of the request or the one before.
// It does nothing for a task that neither waits nor runs.
func (s *Server) dequeueTask(ctx context.Context, c *Call, req statusRequest) (answer, error) {
	changed := false
	out, err := s.changeStatus(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		status := doc.Text("status")
		if changed = status == "queued" || status == "in_progress"; !changed {
			return nil
		}
		if err := w.leaveQueue(ctx, doc); err != nil {
			return err
		}
		to := cmp.Or(req.NewStatus, doc.Text("enqueue_status"), "created")
		delete(doc, "enqueue_status")
		req.Force = true
		return req.setStatus(doc, to, w.Now)
	})
	out["dequeued"] = 1
	if !changed {
		out["updated"], out["fields"] = 0, map[string]any{}
	}
	return out, err
}

// leaveQueue takes a task out of its queue, if it waits in one.
func (w *work) leaveQueue(ctx context.Context, doc store.Doc) error {
	id := doc.Text("execution", "queue")
	if doc.Text("status") != "queued" || id == "" {
		return nil
	}
	queue, err := store.IfThere(w.Get(ctx, store.Queue, id))
	if queue == nil {
		return err
	}
	dropItems(queue, "entries", func(entry map[string]any) bool { return entry["task"] == doc.ID() })
	queue["last_update"] = w.Now
	return w.Save(ctx, store.Queue, queue)
}

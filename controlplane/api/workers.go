package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// workerCalls lists the calls of the workers service: machines that run tasks from queues,
// mostly with clearml-agent, report themselves, and autoscalers list them.
func (s *Server) workerCalls() []callEntry {
	return []callEntry{
		{"workers.register", mayWrite, typed(s.registerWorker)},
		{"workers.unregister", mayWrite, typed(s.unregisterWorker)},
		{"workers.status_report", mayWrite, typed(s.reportWorker)},
		{"workers.get_all", mayRead, typed(s.getWorkers)},
	}
}

const (
	// workerLife is how long a worker stays registered after its last report, by default.
	workerLife = 10 * time.Minute
	// workerSeen is the age of a worker's last report up to which it is listed, by default.
	workerSeen = time.Hour
)

// workerShapes are the fields of a worker's reports.
var workerShapes = map[string]documents.Shape{
	"worker": documents.AText, "task": documents.AText, "queue": documents.AText, "queues": documents.Texts, "tags": documents.Tags, "system_tags": documents.Tags,
	"timeout": documents.ANumber, "timestamp": documents.ANumber, "machine_stats": documents.AnObject,
}

// takeWorker reads a report of a worker.
func takeWorker(req documents.Fields, required ...string) (documents.Fields, error) {
	fields, err := documents.Take(req, workerShapes, append(required, "worker")...)
	if err != nil {
		return nil, err
	}
	if err := documents.AtMost("queues", len(documents.ListOf(fields["queues"])), maxTogether); err != nil {
		return nil, err
	}
	return fields, nil
}

// workerKey is the id of a worker's document: two users may have workers of the same name.
func workerKey(who Identity, worker string) string {
	return "worker_" + who.Company + "_" + who.User + "_" + worker
}

// registerWorker lists a worker until it sends no report for its timeout.
func (s *Server) registerWorker(ctx context.Context, c *Call, req documents.Fields) (none, error) {
	fields, err := takeWorker(req)
	if err != nil {
		return none{}, err
	}
	life := workerLife
	if fields["timeout"] != nil {
		life = seconds(fields["timeout"])
	}
	if life == 0 {
		return none{}, documents.Refuse(subWorkerRegistration, "Worker registration failed: timeout must be more than 0 seconds, not %v", fields["timeout"])
	}
	return none{}, s.write(ctx, c, func(w *work) error {
		doc := newWorker(c, documents.AsText(fields["worker"]), w.Now)
		doc["register_timeout"] = documents.Number(int64(max(life, time.Second) / time.Second))
		describeWorker(doc, fields)
		for _, queue := range doc.Strings("queues") {
			if _, err := w.Find(ctx, store.Queue, queue); err != nil {
				return err
			}
		}
		return s.keepWorker(ctx, w, doc)
	})
}

func newWorker(c *Call, worker, now string) store.Doc {
	return store.Doc{
		"id": workerKey(c.Identity, worker), "worker": worker,
		"user": c.User, "user_name": c.UserName, "company": c.Company, "company_name": c.CompanyName,
		"ip": hostOf(c.HTTP.RemoteAddr), "created": now, "last_update": now,
		"register_timeout": documents.Number(int64(workerLife.Seconds())), "queues": []any{},
	}
}

// describeWorker copies the queues and tags of a report to the worker's document.
func describeWorker(doc store.Doc, fields documents.Fields) {
	for _, key := range []string{"queues", "tags", "system_tags"} {
		if fields[key] != nil {
			doc[key] = fields[key]
		}
	}
}

// keepWorker stores a worker under its key and removes workers without a report for a day.
func (s *Server) keepWorker(ctx context.Context, w *work, doc store.Doc) error {
	if err := w.Who.MayChange(store.Worker, doc); err != nil {
		return err
	}
	return store.Keep(ctx, w, store.Worker, documents.Tidy(store.Worker, doc), s.now().Add(-24*time.Hour))
}

// isRegistered says whether a worker's last report is within its timeout.
func (s *Server) isRegistered(doc store.Doc) bool {
	return s.sawWorkerWithin(doc, seconds(doc["register_timeout"]))
}

// seconds reads a duration of a request, from 0 to ten years.
func seconds(v any) time.Duration {
	const most = 10 * 365 * 24 * 3600
	return time.Duration(min(max(asFloat(v), 0), most) * float64(time.Second))
}

func (s *Server) sawWorkerWithin(doc store.Doc, d time.Duration) bool {
	seen, err := store.ParseTime(doc.Text("last_update"))
	return err == nil && s.now().Sub(seen).Abs() <= d // a future time is from before the clock was set back
}

// unregisterWorker removes a worker from the list; an unknown worker is no error.
func (s *Server) unregisterWorker(ctx context.Context, c *Call, req struct {
	Worker string `json:"worker" required:"true"`
},
) (none, error) {
	return none{}, s.write(ctx, c, func(w *work) error {
		err := w.Remove(ctx, store.Worker, workerKey(c.Identity, req.Worker))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
}

// reportWorker stores the state of a worker, and registers an unknown one. The task that it
// runs gets its name.
func (s *Server) reportWorker(ctx context.Context, c *Call, req documents.Fields) (none, error) {
	fields, err := takeWorker(req, "timestamp")
	if err != nil {
		return none{}, err
	}
	worker := documents.AsText(fields["worker"])
	return none{}, s.write(ctx, c, func(w *work) error {
		doc, err := store.IfThere(w.Get(ctx, store.Worker, workerKey(c.Identity, worker)))
		if err != nil {
			return err
		}
		if !s.isRegistered(doc) {
			doc = newWorker(c, worker, w.Now)
		}
		describeWorker(doc, fields)
		doc["ip"], doc["last_update"], doc["last_report_time"] = hostOf(c.HTTP.RemoteAddr), w.Now, w.Now
		for _, key := range []string{"task", "queue"} {
			delete(doc, key) // absent in the report: not true any more
			if id := documents.AsText(fields[key]); id != "" {
				doc[key] = id
			}
		}
		if err := s.keepWorker(ctx, w, doc); err != nil {
			return err
		}
		return w.noteWorker(ctx, doc.Text("task"), worker)
	})
}

// noteWorker stores the worker of a task. Like a ping it does not ring the change feed.
func (w *work) noteWorker(ctx context.Context, id, worker string) error {
	if id == "" {
		return nil
	}
	task, err := w.Find(ctx, store.Task, id)
	if err != nil {
		return err
	}
	task["last_worker"], task["last_worker_report"], task["last_update"], task["last_change"] = worker, w.Now, w.Now, w.Now
	return w.Put(ctx, store.Task, task)
}

type workersRequest struct {
	// LastSeen is in seconds; 0 lists all registered workers.
	LastSeen   *json.Number `json:"last_seen"`
	Tags       []any        `json:"tags"`
	SystemTags []any        `json:"system_tags"`
}

// getWorkers lists the registered workers with a recent report, in the order of their
// registration.
func (s *Server) getWorkers(ctx context.Context, _ *Call, req workersRequest) (map[string]any, error) {
	seen := workerSeen
	if req.LastSeen != nil {
		seen = seconds(*req.LastSeen)
	}
	var where store.And
	for key, values := range map[string][]any{"tags": req.Tags, "system_tags": req.SystemTags} {
		expr, err := documents.ListFilter(key, values)
		if err != nil {
			return nil, err
		}
		if expr != nil {
			where = append(where, expr)
		}
	}
	docs, err := s.store.Query(ctx, store.Worker, store.Query{Where: where, Order: []store.Order{{Path: store.Path{"created"}}}})
	workers := []any{}
	for _, doc := range docs {
		if s.isRegistered(doc) && (seen == 0 || s.sawWorkerWithin(doc, max(seen, time.Second))) {
			workers = append(workers, workerEntry(doc))
		}
	}
	return map[string]any{"workers": workers}, err
}

// workerEntry is a worker as it is listed, with the ids of its queues and of its task.
func workerEntry(doc store.Doc) map[string]any {
	queues := []any{}
	for _, id := range doc.Strings("queues") {
		queues = append(queues, map[string]any{"id": id})
	}
	entry := map[string]any{
		"key": doc.ID(), "id": doc.Text("worker"), "ip": doc.Text("ip"), "queues": queues,
		"user":          map[string]any{"id": doc.Text("user"), "name": doc.Text("user_name")},
		"company":       map[string]any{"id": doc.Text("company"), "name": doc.Text("company_name")},
		"register_time": doc.Text("created"), "last_activity_time": doc.Text("last_update"),
		"tags": anyTexts(doc.Strings("tags")), "system_tags": anyTexts(doc.Strings("system_tags")),
	}
	if reported := doc.Text("last_report_time"); reported != "" {
		entry["last_report_time"] = reported
	}
	for _, key := range []string{"queue", "task"} {
		if id := doc.Text(key); id != "" {
			entry[key] = map[string]any{"id": id}
		}
	}
	return entry
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// workerCalls lists the calls of the workers service: machines that run tasks out of
// queues, clearml-agent's above all, report themselves, and autoscalers list them.
func (s *Server) workerCalls() []callEntry {
	return []callEntry{
		{"workers.register", mayWrite, typed(s.registerWorker)},
		{"workers.unregister", mayWrite, typed(s.unregisterWorker)},
		{"workers.status_report", mayWrite, typed(s.reportWorker)},
		{"workers.get_all", mayRead, typed(s.getWorkers)},
	}
}

const (
	// workerLife is how long a worker stays registered after its last report, unless it
	// asks for another time.
	workerLife = 10 * time.Minute
	// workerSeen is how long ago a worker's last report may be for it to be listed, unless
	// the caller asks for another time.
	workerSeen = time.Hour
)

// workerShapes are the fields that a worker says of itself.
var workerShapes = map[string]documents.Shape{
	"worker": documents.AText, "task": documents.AText, "queue": documents.AText, "queues": documents.Texts, "tags": documents.Tags, "system_tags": documents.Tags,
	"timeout": documents.ANumber, "timestamp": documents.ANumber, "machine_stats": documents.AnObject,
}

// takeWorker reads what a worker says of itself.
func takeWorker(req documents.Fields) (documents.Fields, error) {
	fields, err := documents.Take(req, workerShapes)
	if err != nil {
		return nil, err
	}
	if documents.AsText(fields["worker"]) == "" {
		return nil, documents.Missing("worker")
	}
	if err := documents.AtMost("queues", len(documents.ListOf(fields["queues"])), maxTogether); err != nil {
		return nil, err
	}
	return fields, nil
}

// workerKey is the id of a worker's document: two users may have workers of one name.
func workerKey(who Identity, worker string) string {
	return "worker_" + who.Company + "_" + who.User + "_" + worker
}

// registerWorker lists a worker until it is silent for its timeout.
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
		"ip": callerIP(c), "created": now, "last_update": now,
		"register_timeout": documents.Number(int64(workerLife.Seconds())), "queues": []any{},
	}
}

func callerIP(c *Call) string {
	host, _, err := net.SplitHostPort(c.HTTP.RemoteAddr)
	if err != nil {
		return c.HTTP.RemoteAddr
	}
	return host
}

// describeWorker lays what a worker says of its queues and tags over its document.
func describeWorker(doc store.Doc, fields documents.Fields) {
	for _, key := range []string{"queues", "tags", "system_tags"} {
		if fields[key] != nil {
			doc[key] = fields[key]
		}
	}
}

// keepWorker stores a worker under its key and forgets those that are silent for a day.
func (s *Server) keepWorker(ctx context.Context, w *work, doc store.Doc) error {
	if err := w.Who.MayChange(store.Worker, doc); err != nil {
		return err
	}
	err := w.Put(ctx, store.Worker, documents.Tidy(store.Worker, doc))
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	before := store.FormatTime(s.now().Add(-24 * time.Hour))
	silent, err := w.Query(ctx, store.Worker, store.Query{Where: store.Compare{Path: store.Path{"last_update"}, Op: store.Less, Value: before}, Limit: 100})
	if err != nil {
		return err
	}
	for _, old := range silent {
		if err := w.Delete(ctx, store.Worker, old.ID()); err != nil {
			return err
		}
	}
	return w.Insert(ctx, store.Worker, documents.Tidy(store.Worker, doc))
}

// isRegistered says whether a worker's last sign of life is within its timeout.
func (s *Server) isRegistered(doc store.Doc) bool {
	return s.sawWorkerWithin(doc, seconds(doc["register_timeout"]))
}

// seconds reads a time that a client names, from 0 to ten years.
func seconds(v any) time.Duration {
	const most = 10 * 365 * 24 * 3600
	return time.Duration(min(max(asFloat(v), 0), most) * float64(time.Second))
}

func (s *Server) sawWorkerWithin(doc store.Doc, d time.Duration) bool {
	seen, err := store.ParseTime(doc.Text("last_update"))
	return err == nil && s.now().Sub(seen).Abs() <= d // of the future: from before our clock was set back
}

type workerRequest struct {
	Worker string `json:"worker"`
}

// unregisterWorker takes a worker off the list; one that is not on it is no error.
func (s *Server) unregisterWorker(ctx context.Context, c *Call, req workerRequest) (none, error) {
	if req.Worker == "" {
		return none{}, documents.Missing("worker")
	}
	key := workerKey(c.Identity, req.Worker)
	return none{}, s.write(ctx, c, func(w *work) error {
		err := w.Remove(ctx, store.Worker, key)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
}

// reportWorker says how a worker is and what it runs; one that isn't registered is so by
// its report. The task it runs shows who works on it.
func (s *Server) reportWorker(ctx context.Context, c *Call, req documents.Fields) (none, error) {
	fields, err := takeWorker(req)
	if err != nil {
		return none{}, err
	}
	if fields["timestamp"] == nil {
		return none{}, documents.Missing("timestamp")
	}
	worker := documents.AsText(fields["worker"])
	return none{}, s.write(ctx, c, func(w *work) error {
		doc, err := w.Get(ctx, store.Worker, workerKey(c.Identity, worker))
		if errors.Is(err, store.ErrNotFound) || err == nil && !s.isRegistered(doc) {
			doc, err = newWorker(c, worker, w.Now), nil
		}
		if err != nil {
			return err
		}
		describeWorker(doc, fields)
		doc["ip"], doc["last_update"], doc["last_report_time"] = callerIP(c), w.Now, w.Now
		for _, key := range []string{"task", "queue"} {
			delete(doc, key) // what a report doesn't name isn't so any more
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

// noteWorker writes onto a task who runs it. Like a ping it rings for nobody.
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
	// LastSeen is in seconds; 0 lists all that are registered.
	LastSeen   *json.Number `json:"last_seen"`
	Tags       []any        `json:"tags"`
	SystemTags []any        `json:"system_tags"`
}

// workers lists the registered ones that were seen lately, in the order of their
// registration.
func (s *Server) workers(ctx context.Context, req workersRequest) ([]store.Doc, error) {
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
	if err != nil {
		return nil, err
	}
	var found []store.Doc
	for _, doc := range docs {
		if s.isRegistered(doc) && (seen == 0 || s.sawWorkerWithin(doc, max(seen, time.Second))) {
			found = append(found, doc)
		}
	}
	return found, nil
}

// getWorkers lists workers with the names of what they work on.
func (s *Server) getWorkers(ctx context.Context, _ *Call, req workersRequest) (map[string]any, error) {
	docs, err := s.workers(ctx, req)
	if err != nil {
		return nil, err
	}
	workers := []any{}
	for _, doc := range docs {
		entry, err := s.workerEntry(ctx, doc)
		if err != nil {
			return nil, err
		}
		workers = append(workers, entry)
	}
	return map[string]any{"workers": workers}, nil
}

// workerEntry is a worker as it is listed.
func (s *Server) workerEntry(ctx context.Context, doc store.Doc) (map[string]any, error) {
	entry := map[string]any{
		"key": doc.ID(), "id": doc.Text("worker"), "ip": doc.Text("ip"),
		"user":          map[string]any{"id": doc.Text("user"), "name": doc.Text("user_name")},
		"company":       map[string]any{"id": doc.Text("company"), "name": doc.Text("company_name")},
		"register_time": doc.Text("created"), "last_activity_time": doc.Text("last_update"),
		"tags": anyTexts(doc.Strings("tags")), "system_tags": anyTexts(doc.Strings("system_tags")),
	}
	if reported := doc.Text("last_report_time"); reported != "" {
		entry["last_report_time"] = reported
	}
	var err error
	queues := []any{}
	for _, id := range doc.Strings("queues") {
		queue, failed := s.queueEntry(ctx, id)
		err = errors.Join(err, failed)
		queues = append(queues, queue)
	}
	entry["queues"] = queues
	if id := doc.Text("queue"); id != "" {
		queue, failed := s.queueEntry(ctx, id)
		err = errors.Join(err, failed)
		entry["queue"] = queue
	}
	if id := doc.Text("task"); id != "" {
		failed := s.addWorkerTask(ctx, entry, id)
		err = errors.Join(err, failed)
	}
	return entry, err
}

// addWorkerTask adds the task that a worker runs, and its project.
func (s *Server) addWorkerTask(ctx context.Context, entry map[string]any, id string) error {
	current := map[string]any{"id": id}
	entry["task"] = current
	task, err := s.ifThere(ctx, store.Task, id)
	if task == nil {
		return err
	}
	current["name"], current["last_iteration"] = task.Text("name"), documents.Number(task.Int("last_iteration"))
	running := int64(0)
	if started, err := store.ParseTime(task.Text("started")); err == nil {
		running = max(s.now().Sub(started).Milliseconds(), 0)
	}
	current["running_time"] = documents.Number(running)
	project, err := s.ifThere(ctx, store.Project, task.Text("project"))
	if project != nil {
		entry["project"] = map[string]any{"id": project.ID(), "name": project.Text("name")}
	}
	return err
}

// queueEntry is a queue as workers list it: how many tasks wait, and which is next.
func (s *Server) queueEntry(ctx context.Context, id string) (map[string]any, error) {
	entry := map[string]any{"id": id}
	queue, err := s.ifThere(ctx, store.Queue, id)
	if queue == nil {
		return entry, err
	}
	waiting, _ := queue["entries"].([]any)
	entry["name"], entry["num_tasks"] = queue.Text("name"), len(waiting)
	if len(waiting) == 0 {
		return entry, nil
	}
	first, _ := waiting[0].(map[string]any)
	next, err := s.ifThere(ctx, store.Task, documents.AsText(first["task"]))
	if next != nil {
		entry["next_task"] = map[string]any{"id": next.ID(), "name": next.Text("name")}
	}
	return entry, err
}

// ifThere reads a document that may have been removed: it is nil then.
func (s *Server) ifThere(ctx context.Context, kind store.Kind, id string) (store.Doc, error) {
	if id == "" {
		return nil, nil
	}
	doc, err := s.store.Get(ctx, kind, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return doc, err
}

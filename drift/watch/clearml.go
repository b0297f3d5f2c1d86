package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/drift"
	"clearmlserving/serving"
)

// TaskType is the type of the tasks that hold the reports of services, children of the service's task.
const TaskType = "qc"

// ClearML is the services on a ClearML server.
type ClearML struct {
	Client *clearml.Client
	// Service is the id of the only service to watch. Empty: all.
	Service string

	tasks  map[string]string // by service
	models map[serving.ModelID]modelReference
}

type modelReference struct {
	text string
	read time.Time
}

// modelsEvery is the time after which the metadata of a model are read again.
const modelsEvery = 5 * time.Minute

// Load implements Services.
func (c *ClearML) Load(ctx context.Context) ([]Service, error) {
	stored, err := c.Client.LoadServices(ctx)
	if err != nil {
		return nil, err
	}
	if c.Service != "" {
		stored = slices.DeleteFunc(stored, func(s clearml.Service) bool { return s.ID != c.Service })
	}
	configs := make([]serving.Service, len(stored))
	used := map[serving.ModelID]bool{}
	for i := range stored {
		configs[i] = stored[i].Configuration().Decode()
		for _, e := range endpoints(configs[i]) {
			if e.ModelID != "" {
				used[e.ModelID] = true
			}
		}
	}
	if err := c.readModels(ctx, used); err != nil {
		return nil, err
	}
	services := make([]Service, len(stored))
	for i := range stored {
		services[i] = Service{ID: stored[i].ID, Variables: c.variables(configs[i])}
	}
	return services, nil
}

// endpoints are the endpoints of a service by URL: the static ones, and those made by monitoring.
func endpoints(s serving.Service) map[serving.EndpointURL]serving.Endpoint {
	all := map[serving.EndpointURL]serving.Endpoint{}
	for _, e := range s.MonitoringEndpoints {
		all[e.URL()] = e
	}
	for key, e := range s.Endpoints {
		all[serving.CleanURL(key)] = e
	}
	return all
}

// readModels reads the references of models that are not known yet, or not any more.
func (c *ClearML) readModels(ctx context.Context, used map[serving.ModelID]bool) error {
	if c.models == nil {
		c.models = map[serving.ModelID]modelReference{}
	}
	maps.DeleteFunc(c.models, func(id serving.ModelID, m modelReference) bool { return !used[id] || time.Since(m.read) > modelsEvery })
	var ids []string
	for id := range used {
		if _, known := c.models[id]; !known {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	for chunk := range slices.Chunk(ids, 500) { // the server's maximum per answer
		models, err := c.Client.Models(ctx, clearml.ModelFilter{IDs: chunk, WithArchived: true})
		if err != nil {
			return fmt.Errorf("read the references of models: %w", err)
		}
		for _, id := range chunk {
			c.models[serving.ModelID(id)] = modelReference{read: time.Now()}
		}
		for _, m := range models {
			c.models[serving.ModelID(m.ID)] = modelReference{m.Metadata[serving.MetadataReference], time.Now()}
		}
	}
	return nil
}

// variables are the watched variables of a service, in the order of their names. A reference that cannot be
// used is a problem that instances report.
func (c *ClearML) variables(s serving.Service) (all []Variable) {
	found := endpoints(s)
	for _, url := range slices.Sorted(maps.Keys(found)) {
		e, settings := found[url], s.DriftFor(url)
		text := []byte(settings.Reference)
		if text == nil {
			text = []byte(c.models[e.ModelID].text)
		}
		if len(text) == 0 || len(text) > serving.MaxReference {
			continue
		}
		reference, err := drift.Decode(text)
		if err != nil {
			continue
		}
		endpoint, version := LabelsOf(url, e)
		for _, name := range reference.Names() {
			if settings.Watches(name) {
				all = append(all, Variable{Endpoint: endpoint, Version: version, Name: name, Of: reference.Variables[name], Settings: SettingsOf(settings)})
			}
		}
	}
	return all
}

// LabelsOf are the labels of an endpoint's metrics.
func LabelsOf(url serving.EndpointURL, e serving.Endpoint) (endpoint, version string) {
	if e.Version == "" {
		return string(url), ""
	}
	return string(serving.CleanURL(e.ServingURL)), e.Version
}

// SettingsOf fills in the defaults.
func SettingsOf(d serving.DriftSettings) drift.Settings {
	s := drift.DefaultSettings()
	if d.FalseAlarms != nil {
		s.FalseAlarms = *d.FalseAlarms
	}
	if d.Days != nil {
		s.Period = time.Duration(*d.Days * 24 * float64(time.Hour))
	}
	if d.MinPSI != nil {
		s.MinPSI = *d.MinPSI
	}
	return s
}

// Report implements Services: it keeps the report on a task of its own, so that it never meets an edit of the
// service.
func (c *ClearML) Report(ctx context.Context, service string, report drift.Report) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("report of drift: %w", err)
	}
	id, err := c.task(ctx, service)
	if err != nil {
		return err
	}
	if err := c.Client.ReportInstance(ctx, id, string(text)); err != nil {
		if errors.Is(err, clearml.ErrNotFound) { // it was deleted
			delete(c.tasks, service)
		}
		return err
	}
	return c.Client.PingTask(ctx, id)
}

// task opens the task of a service's reports, or continues that of an earlier process.
func (c *ClearML) task(ctx context.Context, service string) (string, error) {
	if id := c.tasks[service]; id != "" {
		return id, nil
	}
	if c.tasks == nil {
		c.tasks = map[string]string{}
	}
	doc, err := c.Client.LoadService(ctx, service)
	if err != nil {
		return "", err
	}
	earlier, err := c.Client.Tasks(ctx, clearml.TaskFilter{
		ParentIDs: []string{service}, Types: []string{TaskType}, Hidden: true, Fields: []string{"id", "status", "started"}, OrderBy: []string{"-started"}, Limit: 1,
	})
	if err != nil {
		return "", err
	}
	if len(earlier) > 0 {
		if err := c.Client.ContinueInstance(ctx, doc, earlier[0].ID); err == nil {
			c.tasks[service] = earlier[0].ID
			return earlier[0].ID, nil
		}
	}
	id, err := c.Client.OpenInstance(ctx, doc, "drift", TaskType)
	if err != nil {
		return "", err
	}
	c.tasks[service] = id
	return id, nil
}

// Tell implements Services.
func (c *ClearML) Tell(ctx context.Context, service string, event drift.Event) error {
	level := "info"
	if event.Began {
		level = "warning"
	}
	return c.Client.LogLines(ctx, service, level, []string{event.String()})
}

// Close implements Services: the tasks have ended.
func (c *ClearML) Close(ctx context.Context) {
	for _, id := range c.tasks {
		_ = c.Client.StopTask(ctx, id, "the watcher of drift has ended")
	}
}

// Last returns the last report on a service, an error if there is none.
func Last(ctx context.Context, client *clearml.Client, service string) (drift.Report, error) {
	tasks, err := client.Tasks(ctx, clearml.TaskFilter{
		ParentIDs: []string{service}, Types: []string{TaskType}, Hidden: true, Fields: []string{"id", "configuration"}, OrderBy: []string{"-last_update"}, Limit: 5,
	})
	if err != nil {
		return drift.Report{}, fmt.Errorf("read the report of drift: %w", err)
	}
	var last drift.Report
	for _, t := range tasks {
		text := clearml.ReportOf(t)
		if text == "" {
			continue
		}
		r, err := drift.ParseReport(text)
		if err == nil && r.At.After(last.At) {
			last = r
		}
	}
	if last.At.IsZero() {
		return last, ErrNoReport
	}
	return last, nil
}

// ErrNoReport says that no watcher has reported on a service.
var ErrNoReport = errors.New("no report of drift yet")

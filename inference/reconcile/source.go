package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"sync/atomic"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// ClearMLSource reads a service's configuration from a ClearML server, and writes back the version
// numbers of monitored models, so that all instances use the same numbers, also after restarts.
type ClearMLSource struct {
	Client *clearml.Client
	// ServiceID, or else ServiceName, selects the service; if both are empty: the one of the last
	// state, or else the first active one. Once selected, a service is kept.
	ServiceID, ServiceName string
	Logger                 *slog.Logger

	chosen   string
	selected atomic.Pointer[string] // the service of the last reading; any goroutine may read it
	// unwritable is the last reason why numbers could not be written back, so that it is logged
	// once.
	unwritable string
}

// maxConflicts bounds the retries when another instance has stored numbers first.
const maxConflicts = 5

// Load implements Source.
func (c *ClearMLSource) Load(ctx context.Context, last *State) (*State, error) {
	id, err := c.choose(ctx, last)
	if err != nil {
		return nil, err
	}
	c.selected.Store(&id)
	for attempt := 1; ; attempt++ {
		state, doc, err := c.read(ctx, id, last)
		if err == nil {
			err = c.number(ctx, state, doc)
		}
		if errors.Is(err, clearml.ErrConflict) && attempt < maxConflicts {
			continue
		}
		if err != nil {
			return nil, err
		}
		return state, nil
	}
}

// choose selects the service. Once selected it is kept, even if another becomes the first, and
// after a restart: last has it.
func (c *ClearMLSource) choose(ctx context.Context, last *State) (string, error) {
	if c.ServiceID != "" {
		return c.ServiceID, nil
	}
	if c.chosen != "" {
		return c.chosen, nil
	}
	known, err := c.servedBefore(ctx, last)
	if err != nil || known != "" {
		c.chosen = known
		return known, err
	}
	services, err := c.Client.ListServices(ctx)
	if err != nil {
		return "", err
	}
	if c.ServiceName != "" {
		services = slices.DeleteFunc(services, func(s clearml.Service) bool { return s.Name != c.ServiceName })
		if len(services) == 0 {
			return "", fmt.Errorf("no active serving service is named %q; waiting for it: %w", c.ServiceName, ErrNoService)
		}
	}
	if len(services) == 0 {
		return "", ErrNoService
	}
	if len(services) > 1 {
		c.Logger.Warn("several serving services are active, serving the first", "service_id", services[0].ID, "service", services[0].Name, "others", len(services)-1)
	}
	c.chosen = services[0].ID
	return c.chosen, nil
}

// servedBefore is the service of the last state, if it still matches: "" if there is none, or if
// another service now has the configured name. A server may not list it any more, for example
// because it stopped the task while no instance ran. That is no reason to serve another service.
func (c *ClearMLSource) servedBefore(ctx context.Context, last *State) (string, error) {
	if last == nil || last.ServiceID == "" {
		return "", nil
	}
	doc, err := c.Client.LoadService(ctx, last.ServiceID)
	switch {
	case errors.Is(err, clearml.ErrNotFound) && c.ServiceName == "":
		return "", &GoneError{ID: last.ServiceID, Name: last.ServiceName}
	case errors.Is(err, clearml.ErrNotFound), err == nil && c.ServiceName != "" && doc.Name != c.ServiceName:
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read serving service %s: %w", last.ServiceID, err)
	}
	return doc.ID, nil
}

// GoneError says that the previous service does not exist any more. It is not replaced
// automatically.
type GoneError struct{ ID, Name string }

func (e *GoneError) Error() string {
	return fmt.Sprintf("serving service %s (%q), which was served from this data folder before, does not exist on the ClearML server; "+
		"no other is served in its place: name one with --id or --name", e.ID, e.Name)
}

// read builds the state from the present configuration.
func (c *ClearMLSource) read(ctx context.Context, id string, last *State) (*State, *clearml.Service, error) {
	doc, err := c.Client.LoadService(ctx, id)
	if err != nil {
		return nil, nil, fmt.Errorf("read serving service %s: %w", id, err)
	}
	configuration := doc.Configuration()
	state := &State{
		ServiceID: doc.ID, ServiceName: doc.Name, Project: doc.Project, Changed: doc.Changed, Sections: configuration.Sections, General: doc.General,
		Unreadable: configuration.Unreadable, Artifacts: map[string]Artifact{}, Models: map[serving.ModelID]Model{},
		Found: map[string][]serving.MonitoredModel{}, Trouble: map[string]string{},
	}
	for name, a := range doc.Artifacts {
		state.Artifacts[name] = Artifact{URI: a.URI, SHA256: a.Hash, Folder: a.Type == "archive" || isArchive(a.URI)}
	}
	state.Keep(last)
	service := state.service()
	if err := c.monitored(ctx, state, service, last); err != nil {
		return nil, nil, err
	}
	return state, doc, c.models(ctx, state, service)
}

// monitored queries the models of each monitoring. If the server refuses one of the queries, its
// previous models stay; if the server cannot be reached, the reading fails.
func (c *ClearMLSource) monitored(ctx context.Context, state *State, service serving.Service, last *State) error {
	numbered := service.Known()
	for _, key := range slices.Sorted(maps.Keys(service.Monitoring)) {
		m := service.Monitoring[key]
		found, err := c.query(ctx, m, numbered[string(serving.CleanURL(m.BaseServingURL))], servedModels(key, m, service, last))
		switch {
		case err == nil:
			state.Found[key] = found
		case errors.Is(err, clearml.ErrNotFound):
			state.Trouble[key] = fmt.Sprintf("project %q does not exist yet", m.Project)
		case errors.Is(err, clearml.ErrUnavailable) || ctx.Err() != nil:
			return err
		default:
			state.Trouble[key] = err.Error()
			if last != nil && last.ServiceID == state.ServiceID && len(last.Found[key]) > 0 {
				state.Found[key] = last.Found[key]
				state.Trouble[key] += "; the models found last stay"
			}
		}
	}
	return nil
}

// spareModels is the number of additional models in a query, because models that are still being
// uploaded do not count.
const spareModels = 20

// servedModels are the models that are served already: one of them stays in service if all newer ones
// are refused.
func servedModels(key string, m serving.Monitoring, service serving.Service, last *State) map[serving.ModelID]bool {
	served := map[serving.ModelID]bool{}
	for _, e := range service.MonitoringEndpoints {
		if e.ModelID != "" && serving.CleanURL(e.ServingURL) == serving.CleanURL(m.BaseServingURL) {
			served[e.ModelID] = true
		}
	}
	if last != nil {
		for _, model := range last.Found[key] {
			served[model.ID] = true
		}
	}
	return served
}

// query returns the newest models, and older ones that have a number already: one of them serves if
// a newer one is refused. The served ones are among them even if many newer ones exist.
func (c *ClearMLSource) query(ctx context.Context, m serving.Monitoring, numbered map[serving.ModelID]int, served map[serving.ModelID]bool) ([]serving.MonitoredModel, error) {
	filter := clearml.ModelFilter{Tags: m.Tags, PublishedOnly: m.OnlyPublished, NewestFirst: true}
	if m.MaxVersions > 0 {
		filter.Limit = m.MaxVersions + spareModels
	}
	if m.Name != "" {
		filter.Name = "^" + clearml.QuotePattern(m.Name) + "$"
	}
	if m.Project != "" {
		project, err := c.Client.FindProject(ctx, m.Project)
		if err != nil {
			return nil, err
		}
		filter.ProjectID = project.ID
	}
	models, err := c.Client.Models(ctx, filter)
	if err != nil {
		return nil, err
	}
	if filter.Limit > 0 && len(models) >= filter.Limit {
		for _, model := range models {
			delete(served, serving.ModelID(model.ID))
		}
		for id := range served {
			filter.IDs = append(filter.IDs, string(id))
		}
		if len(filter.IDs) > 0 {
			older, err := c.Client.Models(ctx, filter)
			if err != nil {
				return nil, err
			}
			models = append(models, older...)
		}
	}
	var found []serving.MonitoredModel
	for _, model := range models {
		if placeholder(model.URI) != "" {
			continue
		}
		if _, known := numbered[serving.ModelID(model.ID)]; m.MaxVersions > 0 && len(found) >= m.MaxVersions && !known {
			continue
		}
		found = append(found, serving.MonitoredModel{ID: serving.ModelID(model.ID), Created: model.Created.Time, URI: model.URI, Code: serving.CodeOf(model.Metadata)})
	}
	return found, nil
}

// models looks up every model that an endpoint names.
func (c *ClearMLSource) models(ctx context.Context, state *State, service serving.Service) error {
	var ids []string
	for _, e := range service.Endpoints {
		if e.ModelID != "" {
			ids = append(ids, string(e.ModelID))
		}
	}
	for _, found := range state.Found {
		for _, m := range found {
			ids = append(ids, string(m.ID))
		}
	}
	for _, h := range service.Revisions {
		if good, ok := h.LastGood(); ok && h.Removed.IsZero() && good.Endpoint.ModelID != "" {
			ids = append(ids, string(good.Endpoint.ModelID))
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for chunk := range slices.Chunk(ids, 500) { // the server's maximum per answer
		models, err := c.Client.Models(ctx, clearml.ModelFilter{IDs: chunk, WithArchived: true})
		if err != nil {
			return fmt.Errorf("look up the models of the endpoints: %w", err)
		}
		for _, m := range models {
			state.Models[serving.ModelID(m.ID)] = Model{Name: m.Name, URI: m.URI, Changed: m.LastUpdate.String(), Framework: m.Framework, Missing: placeholder(m.URI), Reference: m.Metadata[serving.MetadataReference]}
		}
	}
	return nil
}

// placeholder says why a model whose URI is not that of a file cannot be fetched yet.
func placeholder(uri string) string {
	switch path.Base(uri) {
	case "uploading_file":
		return "the model's file is still being uploaded"
	case "failed_uploading":
		return "the model's file failed to upload: train or upload it again"
	}
	if uri == "" || uri == "." {
		return "the model has no file"
	}
	return ""
}

// number gives version numbers to new monitored models and writes them back before they are served.
// Read-only credentials do not stop serving: the numbers, given in the order of creation, are then
// the same at each start.
func (c *ClearMLSource) number(ctx context.Context, state *State, doc *clearml.Service) error {
	service := state.service()
	state.Versions = service.Known()
	given := false
	for _, key := range slices.Sorted(maps.Keys(state.Found)) {
		base := string(serving.CleanURL(service.Monitoring[key].BaseServingURL))
		next, changed := state.Versions.Assign(base, state.Found[key])
		state.Versions, given = next, given || changed
	}
	var writes []serving.Section
	if given {
		writes = append(writes, serving.SectionVersions)
	}
	known := func(url serving.EndpointURL) serving.History { return service.Revisions[string(url)] }
	nowhere := func(serving.EndpointURL) bool { return false } // what one instance serves is not for all
	records := serving.Resolve(service, state.judged(service, known, nowhere), state.Versions).MonitoringRecords()
	after := service
	after.Versions, after.MonitoringEndpoints = state.Versions, records
	if !sameRecords(service, after) {
		writes = append(writes, serving.SectionMonitoringEndpoints)
	}
	if len(writes) == 0 {
		return nil
	}
	texts := map[serving.Section]string{}
	var unwritable error
	for _, section := range writes {
		text, err := after.Encode(section)
		if err != nil { // the stored value cannot be read, so it is kept
			unwritable = err
			continue
		}
		texts[section] = text
	}
	if len(texts) > 0 {
		err := c.Client.SaveSections(ctx, doc, texts)
		switch {
		case errors.Is(err, clearml.ErrConflict) || errors.Is(err, clearml.ErrUnavailable) || ctx.Err() != nil:
			return err
		case err != nil:
			unwritable = err
		default:
			for section, text := range texts {
				state.Sections[section] = json.RawMessage(text)
			}
		}
	}
	if unwritable == nil {
		c.unwritable = ""
		return nil
	}
	if c.unwritable != unwritable.Error() {
		c.unwritable = unwritable.Error()
		c.Logger.Warn("version numbers cannot be written back to the serving service", "service_id", state.ServiceID, "err", unwritable)
	}
	return nil
}

// sameRecords reports whether the records of monitoring are written back already.
func sameRecords(before, after serving.Service) bool {
	a, errA := before.Encode(serving.SectionMonitoringEndpoints)
	b, errB := after.Encode(serving.SectionMonitoringEndpoints)
	return errA == nil && errB == nil && a == b
}

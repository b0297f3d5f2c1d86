package ui

import (
	"net/url"
	"slices"
	"strings"

	"clearmlserving/serving"
)

// filters are what a list was asked for, shown again in its form.
type filters struct {
	Search, Project, Tags, Framework, State, Archived, Kind string
	Any                                                     bool // something is filtered by
}

// readFilters reads the query of a list, and makes the API's words of it.
func readFilters(q url.Values) (filters, map[string]any) {
	f := filters{
		Search: strings.TrimSpace(q.Get("search")), Project: q.Get("project"), Tags: q.Get("tags"),
		Framework: q.Get("framework"), State: q.Get("state"), Archived: q.Get("archived"), Kind: q.Get("type"),
	}
	query := map[string]any{"system_tags": []string{"-archived"}}
	if f.Search != "" {
		query["search_text"] = f.Search
	}
	if f.Project != "" {
		query["project"], query["include_subprojects"] = []string{f.Project}, true
	}
	if tags := words(f.Tags); len(tags) > 0 {
		query["tags"] = append([]string{"__$all"}, tags...)
	}
	if f.Framework != "" {
		query["framework"] = []string{f.Framework}
	}
	if f.Archived != "" {
		query["system_tags"] = []string{"archived"}
	}
	f.Any = f != filters{}
	return f, query
}

type modelsPage struct {
	Filters    filters
	Projects   []ref
	Frameworks []string
	Models     list[modelDoc]
}

func (p *Pages) models(v *visit) error {
	var page modelsPage
	var query map[string]any
	page.Filters, query = readFilters(v.r.URL.Query())
	switch page.Filters.State {
	case "published":
		query["ready"] = true
	case "draft":
		query["ready"] = false
	}
	query["only_fields"] = []string{"id", "name", "project.name", "framework", "tags", "ready", "created", "system_tags", "task.name", "task.type"}
	var err error
	if page.Models, err = readList[modelDoc](v, "models.get_all_ex", "models", query); err != nil {
		return err
	}
	if page.Projects, err = v.projects(); err != nil {
		return err
	}
	if page.Frameworks, err = v.frameworksInUse(page.Filters.Framework); err != nil {
		return err
	}
	return v.render("models", "Models", page)
}

// frameworksInUse are those that a model has, and the one that is asked for.
func (v *visit) frameworksInUse(chosen string) ([]string, error) {
	found, err := take[[]string](v, "models.get_frameworks", "frameworks", nil)
	if chosen != "" && !slices.Contains(found, chosen) {
		found = append(found, chosen)
	}
	slices.Sort(found)
	return found, err
}

// frameworks are the names that ClearML's SDK gives.
func frameworks() []string {
	return []string{"ScikitLearn", "XGBoost", "LightGBM", "PyTorch", "TensorFlow", "Keras", "ONNX", "Catboost", "MegEngine", "Custom"}
}

type modelPage struct {
	Model modelDoc
	Uses  []use
	// Tasks are experiments that have taken the model as input, the newest.
	Tasks []ref
	// Edited is the text of the tags' form.
	Edited string
}

// use is an endpoint that serves a model.
type use struct {
	Service  string
	Name     string
	Endpoint string
	How      string // "endpoint", or "monitoring"
}

func (p *Pages) model(v *visit) error {
	m, err := v.readModel(v.id())
	if err != nil {
		return err
	}
	uses, err := v.usesOf(serving.ModelID(m.ID))
	if err != nil {
		return err
	}
	tasks, err := v.tasksWith(m.ID)
	if err != nil {
		return err
	}
	return v.render("model", m.Name, modelPage{Model: m, Uses: uses, Tasks: tasks, Edited: strings.Join(m.Tags, ", ")})
}

// tasksWith finds experiments that have taken a model as input. Services are told by their
// endpoints.
func (v *visit) tasksWith(model string) ([]ref, error) {
	const most = 20
	return take[[]ref](v, "tasks.get_all", "tasks", map[string]any{
		"models.input.model": []string{model}, "type": []string{"-service", "-inference"}, "only_fields": []string{"id", "name"},
		"order_by": []string{"-created"}, "page": 0, "page_size": most,
	})
}

// usesOf finds the endpoints of all services that serve a model.
func (v *visit) usesOf(id serving.ModelID) ([]use, error) {
	services, err := v.openServices()
	if err != nil {
		return nil, err
	}
	var uses []use
	for _, s := range services {
		for _, kind := range []struct {
			how       string
			endpoints map[string]serving.Endpoint
		}{{"endpoint", s.Config.Endpoints}, {"monitoring", s.Config.MonitoringEndpoints}} {
			for _, url := range sortedKeys(kind.endpoints) {
				if kind.endpoints[url].ModelID == id {
					uses = append(uses, use{Service: s.Doc.ID, Name: s.Doc.Name, Endpoint: url, How: kind.how})
				}
			}
		}
	}
	return uses, nil
}

func (p *Pages) publishModel(v *visit) error {
	err := v.api.Call(v.r.Context(), "models.set_ready", map[string]any{"model": v.id(), "publish_task": false}, nil)
	if err != nil {
		return err
	}
	return v.done("/models/"+v.id(), "The model is published.")
}

// setModelMetadata adds, changes, or removes one value.
func (p *Pages) setModelMetadata(v *visit) error {
	key := strings.TrimSpace(v.r.PostForm.Get("key"))
	if key == "" {
		return refusal{400, "The value needs a name: fill in the field “name”."}
	}
	if v.r.PostForm.Get("remove") != "" {
		err := v.api.Call(v.r.Context(), "models.delete_metadata", map[string]any{"model": v.id(), "keys": []string{key}}, nil)
		if err != nil {
			return err
		}
		return v.done("/models/"+v.id(), "Removed "+key+".")
	}
	value := map[string]string{"key": key, "type": "str", "value": v.r.PostForm.Get("value")}
	err := v.api.Call(v.r.Context(), "models.add_or_update_metadata", map[string]any{"model": v.id(), "metadata": []any{value}}, nil)
	if err != nil {
		return err
	}
	return v.done("/models/"+v.id(), "Stored "+key+".")
}

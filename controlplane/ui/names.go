package ui

import (
	"encoding/json"

	"clearmlserving/serving"
)

// name is something that the search leads to.
type name struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Of   string `json:"of,omitempty"` // the service that it belongs to
	Link string `json:"link"`
}

// searchedModels is how many models the search knows, the newest; the list of models finds others.
const searchedModels = 200

// names lists what the search finds.
func (p *Pages) names(v *visit) error {
	all := []name{
		{"page", "Overview", "", "/"},
		{"page", "Models", "", "/models"},
		{"page", "Experiments", "", "/experiments"},
		{"page", "Serving services", "", "/services"},
		{"page", "Settings", "", "/settings"},
		{"page", "Docs", "", "/docs"},
	}
	if v.user.MayWrite() {
		all = append(all, name{"page", "Add endpoint", "", "/deploy"}, name{"page", "Upload a model", "", "/models/upload"})
	}
	services, err := v.openServices()
	if err != nil {
		return err
	}
	var ids []string
	called := map[string]string{}
	for _, s := range services {
		ids = append(ids, s.Doc.ID)
		called[s.Doc.ID] = s.Doc.Name
		all = append(all, name{"service", s.Doc.Name, "", "/services/" + s.Doc.ID}, name{"history", "History of " + s.Doc.Name, "", "/services/" + s.Doc.ID + "/history"},
			name{"playground", "Playground of " + s.Doc.Name, "", "/services/" + s.Doc.ID + "/playground"})
		add := func(kind, key string) {
			url := string(serving.CleanURL(key))
			all = append(all, name{kind, url, s.Doc.Name, endpointLink(s.Doc.ID, url)})
		}
		for _, key := range sortedKeys(s.Config.Endpoints) {
			add("endpoint", key)
		}
		for _, key := range sortedKeys(s.Config.MonitoringEndpoints) {
			add("endpoint", key)
		}
		for _, key := range sortedKeys(s.Config.Monitoring) {
			add("monitoring rule", key)
		}
		for _, key := range sortedKeys(s.Config.Canaries) {
			add("canary", key)
		}
	}
	instances, err := v.instances(ids...)
	if err != nil {
		return err
	}
	for _, i := range instances {
		all = append(all, name{"instance", i.Name(), called[i.ServiceID], "/services/" + i.ServiceID + "/instances/" + i.TaskID})
	}
	models, err := v.newestModels(searchedModels)
	if err != nil {
		return err
	}
	for _, m := range models {
		all = append(all, name{"model", m.Name, "", "/models/" + m.ID})
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	_, _ = v.w.Write(text) // an error means that the browser is gone
	return nil
}

// newestModels are the models that were made last, without those that are archived.
func (v *visit) newestModels(most int) ([]ref, error) {
	return take[[]ref](v, "models.get_all", "models", map[string]any{
		"only_fields": []string{"id", "name"}, "order_by": []string{"-created"}, "page": 0, "page_size": most, "system_tags": []string{"-archived"},
	})
}

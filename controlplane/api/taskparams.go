package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// propertiesSection is the section that users may edit in every status.
const propertiesSection = "properties"

// checkHyperParams normalises {section: {name: {…}}}: each parameter has its section and
// name, and holds only texts. The SDK drops a whole task if it finds a number there.
func checkHyperParams(sections map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for section, v := range sections {
		params, ok := v.(map[string]any)
		if !ok {
			return nil, documents.Invalid("hyperparams.%s must be an object", section)
		}
		key, err := sectionName(section)
		if err != nil {
			return nil, err
		}
		into := map[string]any{}
		for name, v := range params {
			item, ok := v.(map[string]any)
			if !ok {
				return nil, documents.Invalid("hyperparams.%s.%s must be an object", section, name)
			}
			param, err := checkParam(item, key, name)
			if err != nil {
				return nil, err
			}
			into[param["name"].(string)] = param
		}
		out[key] = into
	}
	return out, nil
}

// checkParam checks one parameter; section and name are what it is stored under.
func checkParam(item map[string]any, section, name string) (map[string]any, error) {
	if name = strings.TrimSpace(name); name == "" {
		return nil, documents.Invalid("a hyper-parameter of section %q has no name", section)
	}
	param, err := takeTexts(item, "hyper-parameter "+section+"/"+name, "value", "type", "description")
	param["section"], param["name"] = section, name
	return param, err
}

func sectionName(section string) (string, error) {
	section = strings.TrimSpace(section)
	if section == "" {
		return "", documents.Invalid("a hyper-parameter has no section")
	}
	if strings.EqualFold(section, propertiesSection) {
		return propertiesSection, nil
	}
	return section, nil
}

type paramsRequest struct {
	Task    string           `json:"task"`
	Params  []map[string]any `json:"hyperparams" required:"true"`
	Replace string           `json:"replace_hyperparams"`
	Force   bool             `json:"force"`
}

// changeParams changes the hyper-parameters of a task. In a task that runs or has ended, user
// properties are all that may change without force.
func (s *Server) changeParams(ctx context.Context, c *Call, req paramsRequest, onlyProperties bool, do func(doc store.Doc)) (counts, error) {
	return s.changeContent(ctx, c, store.Task, req.Task, func(_ *work, doc store.Doc) error {
		if !onlyProperties {
			if err := guardRunning(doc, req.Force); err != nil {
				return err
			}
		}
		do(doc)
		return nil
	})
}

// editHyperParams adds and changes hyper-parameters one by one.
func (s *Server) editHyperParams(ctx context.Context, c *Call, req paramsRequest) (counts, error) {
	if !slices.Contains([]string{"", "none", "section", "all"}, req.Replace) {
		return nil, documents.Invalid("replace_hyperparams must be none, section, or all")
	}
	onlyProperties := req.Replace != "all"
	changed := map[string]map[string]any{}
	for _, item := range req.Params {
		section, err := sectionName(documents.AsText(item["section"]))
		if err != nil {
			return nil, err
		}
		if item["value"] == nil {
			return nil, documents.Invalid("hyper-parameter %s/%s lacks its value", section, documents.AsText(item["name"]))
		}
		param, err := checkParam(item, section, documents.AsText(item["name"]))
		if err != nil {
			return nil, err
		}
		if changed[section] == nil {
			changed[section] = map[string]any{}
		}
		changed[section][param["name"].(string)] = param
		onlyProperties = onlyProperties && section == propertiesSection
	}
	return s.changeParams(ctx, c, req, onlyProperties, func(doc store.Doc) {
		if req.Replace == "all" {
			doc["hyperparams"] = map[string]any{}
		}
		sections := store.Doc(doc.Object("hyperparams"))
		for section, params := range changed {
			if req.Replace == "section" {
				delete(sections, section)
			}
			maps.Copy(sections.Object(section), params)
		}
	})
}

// deleteHyperParams removes hyper-parameters; one without a name means its section.
func (s *Server) deleteHyperParams(ctx context.Context, c *Call, req paramsRequest) (counts, error) {
	onlyProperties := true
	var gone [][2]string
	for _, item := range req.Params {
		section, err := sectionName(documents.AsText(item["section"]))
		if err != nil {
			return nil, err
		}
		gone = append(gone, [2]string{section, strings.TrimSpace(documents.AsText(item["name"]))})
		onlyProperties = onlyProperties && section == propertiesSection
	}
	_, err := s.changeParams(ctx, c, req, onlyProperties, func(doc store.Doc) {
		sections := store.Doc(doc.Object("hyperparams"))
		for _, param := range gone {
			section, name := param[0], param[1]
			if _, ok := sections[section]; !ok {
				continue
			}
			delete(sections.Object(section), name)
			if name == "" || len(sections.Object(section)) == 0 {
				delete(sections, section)
			}
		}
	})
	return counts{"deleted": 1}, err
}

type tasksRequest struct {
	Tasks       []string `json:"tasks" required:"true"`
	ModelEvents bool     `json:"model_events"`
}

type paramsOf struct {
	Task        string `json:"task"`
	HyperParams []any  `json:"hyperparams"`
}

// getHyperParams returns the hyper-parameters of tasks, by section and name. The tasks must all exist.
func (s *Server) getHyperParams(ctx context.Context, _ *Call, req tasksRequest) (map[string]any, error) {
	if err := documents.AtMost("tasks", len(req.Tasks), documents.MaxValues); err != nil {
		return nil, err
	}
	docs, err := s.store.Query(ctx, store.Task, store.Query{Where: store.In{Path: store.Path{"id"}, Values: anyTexts(req.Tasks)}})
	if err != nil {
		return nil, err
	}
	found := setOf(docIDs(docs))
	for _, id := range req.Tasks {
		if !found[id] {
			return nil, documents.NotFound(store.ErrNotFound, store.Task, id)
		}
	}
	answer := []any{}
	for _, doc := range docs {
		list := []any{}
		sections := store.Doc(doc.Object("hyperparams"))
		for _, section := range slices.Sorted(maps.Keys(sections)) {
			params := sections.Object(section)
			for _, name := range slices.Sorted(maps.Keys(params)) {
				list = append(list, params[name])
			}
		}
		answer = append(answer, paramsOf{doc.ID(), list})
	}
	return map[string]any{"params": answer}, nil
}

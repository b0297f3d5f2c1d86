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

// paramFields are the fields of a hyper-parameter; all are texts.
var paramFields = []string{"section", "name", "value", "type", "description"}

// checkHyperParams brings {section: {name: {…}}} to its form: each parameter knows its
// section and name, and holds texts only. The SDK drops a whole task when it finds a
// number there.
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
	param := map[string]any{"section": section, "name": name}
	for _, key := range paramFields[2:] {
		if item[key] == nil {
			continue
		}
		if _, ok := item[key].(string); !ok {
			return nil, documents.Invalid("%s of hyper-parameter %s/%s must be a text", key, section, name)
		}
		param[key] = item[key]
	}
	return param, nil
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

type editParamsRequest struct {
	Task    string           `json:"task"`
	Params  []map[string]any `json:"hyperparams"`
	Replace string           `json:"replace_hyperparams"`
	Force   bool             `json:"force"`
}

type countAnswer struct {
	Updated int `json:"updated"`
}

type deletedAnswer struct {
	Deleted int `json:"deleted"`
}

// editHyperParams adds and changes hyper-parameters one by one.
func (s *Server) editHyperParams(ctx context.Context, c *Call, req editParamsRequest) (countAnswer, error) {
	if !slices.Contains([]string{"", "none", "section", "all"}, req.Replace) {
		return countAnswer{}, documents.Invalid("replace_hyperparams must be none, section, or all")
	}
	if len(req.Params) == 0 {
		return countAnswer{}, documents.Missing("hyperparams")
	}
	var params []map[string]any
	for _, item := range req.Params {
		section, err := sectionName(documents.AsText(item["section"]))
		if err != nil {
			return countAnswer{}, err
		}
		if item["value"] == nil {
			return countAnswer{}, documents.Invalid("hyper-parameter %s/%s lacks its value", section, documents.AsText(item["name"]))
		}
		param, err := checkParam(item, section, documents.AsText(item["name"]))
		if err != nil {
			return countAnswer{}, err
		}
		params = append(params, param)
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if req.Replace == "all" || !onlyProperties(params) {
			if err := guardRunning(doc, req.Force); err != nil {
				return err
			}
		}
		if req.Replace == "all" {
			doc["hyperparams"] = map[string]any{}
		}
		sections := store.Doc(doc.Object("hyperparams"))
		if req.Replace == "section" {
			for _, param := range params {
				delete(sections, documents.AsText(param["section"]))
			}
		}
		for _, param := range params {
			sections.Object(documents.AsText(param["section"]))[documents.AsText(param["name"])] = param
		}
		doc["last_update"] = w.Now
		return nil
	})
	return countAnswer{1}, err
}

// onlyProperties says whether all of the parameters are user properties.
func onlyProperties(params []map[string]any) bool {
	return !slices.ContainsFunc(params, func(param map[string]any) bool { return param["section"] != propertiesSection })
}

type paramsOf struct {
	Task        string `json:"task"`
	HyperParams []any  `json:"hyperparams"`
}

type paramsAnswer struct {
	Params []paramsOf `json:"params"`
}

// getHyperParams returns the hyper-parameters of tasks, by section and name.
func (s *Server) getHyperParams(ctx context.Context, _ *Call, req tasksRequest) (paramsAnswer, error) {
	docs, err := s.tasksByID(ctx, req.Tasks)
	if err != nil {
		return paramsAnswer{}, err
	}
	answer := paramsAnswer{Params: []paramsOf{}}
	for _, doc := range docs {
		of := paramsOf{Task: doc.ID(), HyperParams: []any{}}
		sections := store.Doc(doc.Object("hyperparams"))
		for _, section := range slices.Sorted(maps.Keys(sections)) {
			params := sections.Object(section)
			for _, name := range slices.Sorted(maps.Keys(params)) {
				of.HyperParams = append(of.HyperParams, params[name])
			}
		}
		answer.Params = append(answer.Params, of)
	}
	return answer, nil
}

// tasksByID returns the tasks with the ids, which must all exist.
func (s *Server) tasksByID(ctx context.Context, ids []string) ([]store.Doc, error) {
	if len(ids) == 0 {
		return nil, documents.Missing("tasks")
	}
	if err := documents.AtMost("tasks", len(ids), documents.MaxValues); err != nil {
		return nil, err
	}
	docs, err := s.store.Query(ctx, store.Task, store.Query{Where: store.In{Path: store.Path{"id"}, Values: anyTexts(ids)}})
	if err != nil {
		return nil, err
	}
	found := setOf(docIDs(docs))
	for _, id := range ids {
		if !found[id] {
			return nil, documents.Refuse(documents.SubInvalidTask, "Invalid task id: id=%s", id)
		}
	}
	return docs, nil
}

// deleteHyperParams removes hyper-parameters; one without a name means its section.
func (s *Server) deleteHyperParams(ctx context.Context, c *Call, req editParamsRequest) (deletedAnswer, error) {
	if len(req.Params) == 0 {
		return deletedAnswer{}, documents.Missing("hyperparams")
	}
	params := make([]map[string]any, 0, len(req.Params))
	for _, item := range req.Params {
		section, err := sectionName(documents.AsText(item["section"]))
		if err != nil {
			return deletedAnswer{}, err
		}
		params = append(params, map[string]any{"section": section, "name": strings.TrimSpace(documents.AsText(item["name"]))})
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if !onlyProperties(params) {
			if err := guardRunning(doc, req.Force); err != nil {
				return err
			}
		}
		sections := store.Doc(doc.Object("hyperparams"))
		for _, param := range params {
			section, name := documents.AsText(param["section"]), documents.AsText(param["name"])
			if _, ok := sections[section]; !ok {
				continue
			}
			delete(sections.Object(section), name)
			if name == "" || len(sections.Object(section)) == 0 {
				delete(sections, section)
			}
		}
		doc["last_update"] = w.Now
		return nil
	})
	return deletedAnswer{1}, err
}

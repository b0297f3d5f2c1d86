package api

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// projectCalls lists the calls of the projects service.
func (s *Server) projectCalls() []callEntry {
	return []callEntry{
		{"projects.create", mayWrite, typed(s.createProject)},
		{"projects.get_by_id", mayRead, s.byID(store.Project)},
		{"projects.get_all", mayRead, typed(s.getProjects)},
		{"projects.update", mayWrite, typed(s.updateProject)},
		{"projects.delete", mayWrite, typed(s.deleteProject)}, // projectdelete.go
	}
}

// projectShapes are the fields that calls may set on a project.
var projectShapes = map[string]documents.Shape{
	"name": documents.AText, "description": documents.AText, "tags": documents.Tags, "system_tags": documents.Tags, "default_output_destination": documents.AText,
}

// createProject makes a project, and the projects above it that are missing.
func (s *Server) createProject(ctx context.Context, c *Call, req documents.Fields) (idAnswer, error) {
	if req["name"] == nil { // unlike other calls, with this subcode
		return idAnswer{}, documents.Refuse(subMissingFields, "Missing required field: name")
	}
	fields, err := documents.Take(req, projectShapes)
	if err != nil {
		return idAnswer{}, err
	}
	name, err := wholeProjectName(documents.AsText(fields["name"]))
	if err != nil {
		return idAnswer{}, err
	}
	var answer idAnswer
	err = s.write(ctx, c, func(w *work) error {
		if err := refuseTaken(ctx, w, store.Project, name); err != nil {
			return err
		}
		answer.ID, err = w.addProject(ctx, name, fields)
		return err
	})
	return answer, err
}

// projectName checks a name and trims its parts.
func projectName(name string) (string, error) {
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		if parts[i] = strings.TrimSpace(part); parts[i] == "" {
			return "", documents.Refuse(subInvalidProjectName, "Invalid project name: %q has an empty part between its slashes", name)
		}
	}
	return strings.Join(parts, "/"), nil
}

// wholeProjectName is projectName with the minimal length of a new name.
func wholeProjectName(name string) (string, error) {
	name, err := projectName(name)
	if err == nil && len([]rune(name)) < documents.MinName {
		err = documents.Invalid("name %q is too short: it needs %d characters", name, documents.MinName)
	}
	return name, err
}

// addProject stores a new project below its parents, which are created if missing.
func (w *work) addProject(ctx context.Context, name string, fields documents.Fields) (string, error) {
	doc := store.Doc{"description": ""}
	maps.Copy(doc, fields)
	doc["name"], doc["basename"] = name, name
	if at := strings.LastIndexByte(name, '/'); at >= 0 {
		parent, err := w.projectFor(ctx, "", name[:at])
		if err != nil {
			return "", err
		}
		doc["basename"], doc["parent"] = name[at+1:], parent
	}
	return w.Add(ctx, store.Project, doc)
}

// projectFor finds a project by id, or by name, in which case a missing one is created.
// Without either it is "".
func (w *work) projectFor(ctx context.Context, id, name string) (string, error) {
	if id != "" {
		_, err := w.Find(ctx, store.Project, id)
		return id, err
	}
	if name == "" {
		return "", nil
	}
	name, err := projectName(name)
	if err != nil {
		return "", err
	}
	found, err := w.All(ctx, store.Project, documents.Is(name, "name"))
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return found[0].ID(), nil
	}
	return w.addProject(ctx, name, documents.Fields{})
}

// getProjects lists projects. A filter by parent finds those anywhere below it, unless
// the search is shallow.
func (s *Server) getProjects(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
	var also store.Expr
	switch shallow, parent := documents.Truth(req["shallow_search"]), req["parent"]; {
	case shallow && parent == nil:
		also = store.Missing{Path: store.Path{"parent"}}
	case !shallow && parent != nil:
		var err error
		if also, err = s.belowProjects(ctx, documents.ListOf(parent)); err != nil {
			return nil, err
		}
		delete(req, "parent")
	}
	return s.lists.List(ctx, documents.ProjectEntity, req, also, false)
}

// belowProjects is the filter for projects anywhere below some others.
func (s *Server) belowProjects(ctx context.Context, ids []any) (store.Expr, error) {
	above, err := s.store.Query(ctx, store.Project, store.Query{Where: store.In{Path: store.Path{"id"}, Values: ids}})
	if err != nil {
		return nil, err
	}
	below := store.Or{}
	for _, doc := range above {
		below = append(below, belowProject(doc))
	}
	return below, nil
}

// belowProject is the filter for projects anywhere below one: their names begin with its
// name.
func belowProject(project store.Doc) store.Expr {
	return store.Regexp{
		Path:    store.Path{"name"},
		Pattern: regexp.MustCompile("^" + regexp.QuoteMeta(project.Text("name")+"/")), // quoted: always valid
	}
}

// withSubprojects adds the projects below to a filter by project, if the request says so.
func (s *Server) withSubprojects(ctx context.Context, req documents.Fields) (documents.Fields, error) {
	ids := documents.ListOf(req["project"])
	if !documents.Truth(req["include_subprojects"]) || len(ids) == 0 {
		return req, nil
	}
	var plainIDs []any
	for _, id := range ids {
		if text, ok := id.(string); ok && text != "" && !strings.HasPrefix(text, documents.OpPrefix) && text[0] != '-' {
			plainIDs = append(plainIDs, text)
		}
	}
	below, err := s.belowProjects(ctx, plainIDs)
	if err != nil {
		return nil, err
	}
	docs, err := s.store.Query(ctx, store.Project, store.Query{Where: below})
	if err != nil {
		return nil, err
	}
	req["project"] = append(slices.Clone(ids), anyTexts(docIDs(docs))...)
	return req, nil
}

// updateProject changes a project. A new name must stay below the same parent; the
// projects below it are renamed too.
func (s *Server) updateProject(ctx context.Context, c *Call, req documents.Fields) (updated, error) {
	fields, err := documents.Take(req, projectShapes)
	if err != nil {
		return updated{}, err
	}
	answer := updated{Updated: 1, Fields: fields}
	err = s.write(ctx, c, func(w *work) error {
		doc, err := w.Find(ctx, store.Project, documents.AsText(req["project"]))
		if err != nil {
			return err
		}
		if name := documents.AsText(fields["name"]); name != "" {
			if err := w.renameProject(ctx, doc, name); err != nil {
				return err
			}
		}
		for key, v := range fields {
			if key != "name" {
				doc[key] = v
			}
		}
		doc["last_update"] = w.Now
		answer.Fields = maps.Clone(fields)
		answer.Fields["last_update"] = w.Now
		return w.Save(ctx, store.Project, doc)
	})
	return answer, err
}

func (w *work) renameProject(ctx context.Context, doc store.Doc, name string) error {
	name, err := wholeProjectName(name)
	if err != nil {
		return err
	}
	old := doc.Text("name")
	if name == old {
		return nil
	}
	cut := strings.LastIndexByte(name, '/') + 1
	if name[:cut] != old[:strings.LastIndexByte(old, '/')+1] {
		return documents.Refuse(subProjectLocation, "Cannot update project location: name=%s: only the part behind the last slash can change", name)
	}
	if err := refuseTaken(ctx, w, store.Project, name); err != nil {
		return err
	}
	_, err = w.Each(ctx, store.Project, belowProject(doc), func(child store.Doc) error {
		child["name"] = name + strings.TrimPrefix(child.Text("name"), old)
		return nil
	})
	doc["name"], doc["basename"] = name, name[cut:]
	return err
}

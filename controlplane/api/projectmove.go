package api

import (
	"context"
	"strings"

	"clearmlserving/controlplane/store"
)

type moveProjectRequest struct {
	Project string `json:"project"`
	// NewLocation is the name of the project above, "" for none; it is made when missing.
	NewLocation string `json:"new_location"`
	// ProjectInto takes the contents of a merge.
	ProjectInto string `json:"destination_project"`
}

type moveProjectAnswer struct {
	Moved           int `json:"moved"`
	MovedEntities   int `json:"moved_entities"`
	MovedProjects   int `json:"moved_projects"`
	CreatedProjects int `json:"created_projects,omitempty"`
}

// moveProject puts a project, and those below it, below another.
func (s *Server) moveProject(ctx context.Context, c *Call, req moveProjectRequest) (moveProjectAnswer, error) {
	var answer moveProjectAnswer
	err := s.write(ctx, c, func(w *work) error {
		doc, err := w.get(ctx, store.Project, req.Project)
		if err != nil {
			return err
		}
		name := doc.Text("name")
		base := name[strings.LastIndexByte(name, '/')+1:]
		to := base
		parent := ""
		if req.NewLocation != "" {
			location, err := projectName(req.NewLocation)
			if err != nil {
				return err
			}
			if location == name || strings.HasPrefix(location, name+"/") {
				return refuse(subProjectLocation, "Project can't be moved below itself: name=%s, new_location=%s", name, location)
			}
			if parent, err = w.projectFor(ctx, "", location); err != nil {
				return err
			}
			to = location + "/" + base
		}
		n, err := w.relocate(ctx, doc, to, parent)
		answer = moveProjectAnswer{Moved: n, MovedProjects: n}
		return err
	})
	return answer, err
}

// relocate gives a project a name in any place and takes those below it along. It
// returns how many there were.
func (w *work) relocate(ctx context.Context, doc store.Doc, name, parent string) (int, error) {
	old := doc.Text("name")
	if name == old {
		return 0, nil
	}
	if _, taken, err := w.projectNamed(ctx, name); err != nil || taken {
		if taken {
			return 0, refuse(subUniqueData, "Value combination already exists (unique field already contains this value): name=%s", name)
		}
		return 0, err
	}
	children, err := w.all(ctx, store.Project, belowProject(doc))
	if err != nil {
		return 0, err
	}
	for _, child := range children {
		child["name"], child["last_update"] = name+strings.TrimPrefix(child.Text("name"), old), w.now
		if err := w.put(ctx, store.Project, child); err != nil {
			return 0, err
		}
	}
	doc["name"], doc["basename"], doc["last_update"] = name, name[strings.LastIndexByte(name, '/')+1:], w.now
	delete(doc, "parent")
	if parent != "" {
		doc["parent"] = parent
	}
	return len(children) + 1, w.put(ctx, store.Project, doc)
}

// mergeProject puts the contents of a project into another and removes it.
func (s *Server) mergeProject(ctx context.Context, c *Call, req moveProjectRequest) (moveProjectAnswer, error) {
	var answer moveProjectAnswer
	err := s.write(ctx, c, func(w *work) error {
		answer = moveProjectAnswer{}
		from, err := w.get(ctx, store.Project, req.Project)
		if err != nil {
			return err
		}
		into, err := w.get(ctx, store.Project, req.ProjectInto)
		if err != nil {
			return err
		}
		if into.ID() == from.ID() || strings.HasPrefix(into.Text("name"), from.Text("name")+"/") {
			return refuse(subProjectLocation, "Project can't be merged into itself or below: project=%s, destination_project=%s", from.ID(), into.ID())
		}
		if err := w.mergeBelow(ctx, from, into, &answer); err != nil {
			return err
		}
		for _, kind := range []store.Kind{store.Task, store.Model} {
			docs, err := w.all(ctx, kind, is(from.ID(), "project"))
			if err != nil {
				return err
			}
			for _, doc := range docs {
				doc["project"] = into.ID()
				if err := w.put(ctx, kind, doc); err != nil {
					return err
				}
			}
			answer.MovedEntities += len(docs)
		}
		return w.remove(ctx, store.Project, from.ID())
	})
	return answer, err
}

// mergeBelow moves the projects directly below one to below another.
func (w *work) mergeBelow(ctx context.Context, from, into store.Doc, answer *moveProjectAnswer) error {
	children, err := w.all(ctx, store.Project, is(from.ID(), "parent"))
	if err != nil {
		return err
	}
	for _, child := range children {
		name := child.Text("name")
		n, err := w.relocate(ctx, child, into.Text("name")+name[strings.LastIndexByte(name, '/'):], into.ID())
		if err != nil {
			return err
		}
		answer.MovedProjects += n
	}
	return nil
}

// validateDeleteProject says what projects.delete would meet.
func (s *Server) validateDeleteProject(ctx context.Context, _ *Call, req projectRequest) (map[string]any, error) {
	answer, err := s.getProject(ctx, nil, req)
	if err != nil {
		return nil, err
	}
	projects, err := s.store.Query(ctx, store.Project, store.Query{Where: belowProject(answer.Project)})
	if err != nil {
		return nil, err
	}
	inside := store.In{Path: store.Path{"project"}, Values: anyTexts(docIDs(append(projects, answer.Project)))}
	out := map[string]any{"reports": 0, "non_archived_reports": 0, "datasets": 0, "pipelines": 0}
	for name, kind := range map[string]store.Kind{"tasks": store.Task, "models": store.Model} {
		all, err := s.store.Count(ctx, kind, inside)
		if err != nil {
			return nil, err
		}
		visible, err := s.store.Count(ctx, kind, store.And{inside, store.Not{Expr: is(archivedTag, "system_tags")}})
		if err != nil {
			return nil, err
		}
		out[name], out["non_archived_"+name] = all, visible
	}
	return out, nil
}

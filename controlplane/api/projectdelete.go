package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

type deleteProjectAnswer struct {
	Deleted            int           `json:"deleted"`
	DisassociatedTasks int           `json:"disassociated_tasks"`
	DeletedTasks       int           `json:"deleted_tasks"`
	DeletedModels      int           `json:"deleted_models"`
	URLs               *fileURLs     `json:"urls,omitempty"`
	Files              *removedFiles `json:"files,omitempty"`
}

// deleteProject removes a project and those below it. Without force they must be empty
// but for what is archived; what is left in them loses its project, or is deleted with
// delete_contents.
func (s *Server) deleteProject(ctx context.Context, c *Call, req struct {
	Project        string `json:"project"`
	Force          bool   `json:"force"`
	DeleteContents bool   `json:"delete_contents"`
	WithFiles      bool   `json:"delete_external_artifacts"`
},
) (deleteProjectAnswer, error) {
	var answer deleteProjectAnswer
	err := s.write(ctx, c, func(w *work) error {
		answer = deleteProjectAnswer{}
		doc, err := w.Find(ctx, store.Project, req.Project)
		if err != nil {
			return err
		}
		projects, err := w.All(ctx, store.Project, belowProject(doc))
		if err != nil {
			return err
		}
		projects = append(projects, doc)
		inside := store.In{Path: store.Path{"project"}, Values: anyTexts(docIDs(projects))}
		if !req.Force {
			if err := w.guardEmpty(ctx, doc, inside); err != nil {
				return err
			}
		}
		if req.DeleteContents {
			err = w.deleteContents(ctx, inside, &answer)
		} else {
			err = w.emptyProjects(ctx, inside, &answer)
		}
		if err != nil {
			return err
		}
		for _, project := range projects {
			if err := w.Remove(ctx, store.Project, project.ID()); err != nil {
				return err
			}
		}
		answer.Deleted = len(projects)
		return nil
	})
	if err == nil && req.WithFiles {
		answer.Files = s.removeFiles(ctx, answer.URLs.all())
	}
	return answer, err
}

func (w *work) guardEmpty(ctx context.Context, doc store.Doc, inside store.Expr) error {
	for _, of := range []struct {
		kind    store.Kind
		subcode int
	}{{store.Task, subProjectHasTasks}, {store.Model, subProjectHasModels}} {
		n, err := w.Count(ctx, of.kind, store.And{inside, store.Not{Expr: documents.Is(archivedTag, "system_tags")}})
		if err != nil {
			return err
		}
		if n > 0 {
			return documents.Refuse(of.subcode, "Project has %d %ss: id=%s: archive them or use force", n, of.kind, doc.ID())
		}
	}
	return nil
}

// emptyProjects takes tasks and models out of projects.
func (w *work) emptyProjects(ctx context.Context, inside store.Expr, answer *deleteProjectAnswer) (err error) {
	leave := func(doc store.Doc) error {
		delete(doc, "project")
		return nil
	}
	if answer.DisassociatedTasks, err = w.Each(ctx, store.Task, inside, leave); err != nil {
		return err
	}
	_, err = w.Each(ctx, store.Model, inside, leave)
	return err
}

// deleteContents deletes the tasks and models of projects.
func (w *work) deleteContents(ctx context.Context, inside store.Expr, answer *deleteProjectAnswer) error {
	urls := &fileURLs{Model: []string{}, Event: []string{}, Artifact: []string{}}
	answer.URLs = urls
	tasks, err := w.All(ctx, store.Task, inside)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		gone, err := w.deleteTask(ctx, task, deleteTaskRequest{ReturnFileURLs: true})
		if err != nil {
			return err
		}
		answer.DeletedTasks++
		answer.DeletedModels += gone.DeletedModels
		urls.Model = append(urls.Model, gone.URLs.Model...)
		urls.Event = append(urls.Event, gone.URLs.Event...)
		urls.Artifact = append(urls.Artifact, gone.URLs.Artifact...)
	}
	models, err := w.All(ctx, store.Model, inside) // after the tasks, which some of them are deleted with
	if err != nil {
		return err
	}
	for _, model := range models {
		answer.DeletedModels++
		if uri := model.Text("uri"); uri != "" {
			urls.Model = append(urls.Model, uri)
		}
		if err := w.removeModel(ctx, model); err != nil {
			return err
		}
	}
	return nil
}

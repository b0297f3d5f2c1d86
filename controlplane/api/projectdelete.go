package api

import (
	"context"
	"errors"

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
func (s *Server) deleteProject(ctx context.Context, c *Call, req projectRequest) (deleteProjectAnswer, error) {
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
		if err := w.emptyProjects(ctx, inside, req.DeleteContents, &answer); err != nil {
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
	inUse := store.And{inside, store.Not{Expr: documents.Is(archivedTag, "system_tags")}}
	tasks, err := w.Count(ctx, store.Task, inUse)
	if err != nil {
		return err
	}
	if tasks > 0 {
		return documents.Refuse(subProjectHasTasks, "Project has %d tasks: id=%s: archive them or use force", tasks, doc.ID())
	}
	models, err := w.Count(ctx, store.Model, inUse)
	if err != nil {
		return err
	}
	if models > 0 {
		return documents.Refuse(subProjectHasModels, "Project has %d models: id=%s: archive them or use force", models, doc.ID())
	}
	return nil
}

// emptyProjects takes tasks and models out of projects, or deletes them.
func (w *work) emptyProjects(ctx context.Context, inside store.Expr, deleteThem bool, answer *deleteProjectAnswer) error {
	tasks, err := w.All(ctx, store.Task, inside)
	if err != nil {
		return err
	}
	if deleteThem {
		answer.URLs = &fileURLs{Model: []string{}, Event: []string{}, Artifact: []string{}}
	}
	for _, task := range tasks {
		if deleteThem {
			err = w.deleteTask(ctx, task, answer)
		} else {
			delete(task, "project")
			answer.DisassociatedTasks++
			err = w.Save(ctx, store.Task, task)
		}
		if err != nil {
			return err
		}
	}
	models, err := w.All(ctx, store.Model, inside) // after the tasks: some of them went with those
	if err != nil {
		return err
	}
	for _, model := range models {
		if deleteThem {
			answer.DeletedModels++
			if uri := model.Text("uri"); uri != "" {
				answer.URLs.Model = append(answer.URLs.Model, uri)
			}
			err = w.removeModel(ctx, model)
		} else {
			delete(model, "project")
			err = w.Save(ctx, store.Model, model)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteTask removes a task of a project that is deleted with its contents.
func (w *work) deleteTask(ctx context.Context, task store.Doc, answer *deleteProjectAnswer) error {
	gone, err := w.cleanUp(ctx, task, deleteTaskRequest{ReturnFileURLs: true})
	if err != nil {
		return err
	}
	if err := w.leaveRelatives(ctx, task, &gone); err != nil {
		return err
	}
	answer.DeletedTasks++
	answer.DeletedModels += gone.DeletedModels
	answer.URLs.Model = append(answer.URLs.Model, gone.URLs.Model...)
	answer.URLs.Event = append(answer.URLs.Event, gone.URLs.Event...)
	answer.URLs.Artifact = append(answer.URLs.Artifact, gone.URLs.Artifact...)
	if err := w.removeEdits(ctx, store.Query{Where: documents.Is(task.ID(), "task")}); err != nil {
		return err
	}
	err = w.Remove(ctx, store.Task, task.ID())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

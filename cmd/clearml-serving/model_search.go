package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// queryText is a query in the flags' words on a terminal, else as the original prints it, a
// Python dict.
func (a *app) queryText(q operations.ModelQuery) string {
	if !a.original {
		var words []string
		for _, flag := range []struct{ name, value string }{{"name", q.Name}, {"project", q.Project}} {
			if flag.value != "" {
				words = append(words, "--"+flag.name+" "+shellWord(flag.value))
			}
		}
		for _, tag := range q.Tags {
			words = append(words, "--tags "+shellWord(tag))
		}
		if q.Published {
			words = append(words, "--published")
		}
		return strings.Join(words, " ")
	}
	var tags any
	if q.Tags != nil {
		tags = q.Tags
	}
	return pyRepr(object{
		{"project_name", orNull(q.Project)},
		{"model_name", orNull(q.Name)},
		{"tags", tags},
		{"only_published", q.Published},
		{"include_archived", false},
	})
}

// matches are the words for a model whose name is not the one that was asked for.
var matches = map[operations.NameMatch]string{
	operations.MatchTask:    "taking the newest that a task of this name has made",
	operations.MatchPattern: "taking the newest that matches it as a regular expression",
}

// searchModel finds the newest model that a query describes.
func (a *app) searchModel(ctx context.Context, client *clearml.Client, q operations.ModelQuery) (serving.ModelID, error) {
	found, match, err := q.Find(ctx, client)
	switch {
	case errors.Is(err, operations.ErrNoProject):
		return "", hint(notFound("No projects found when searching for `%s`", q.Project), "%s", a.nearModels(ctx, client, q))
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", hint(notFound("Could not find any Model to serve %s", a.queryText(q)), "%s", a.nearModels(ctx, client, q))
	case match != operations.MatchExact:
		a.print.notice("Notice: no model is named '%s', %s: '%s' id=%s", q.Name, matches[match], found[0].Name, found[0].ID)
	case len(found) > 1:
		a.print.notice("Warning: Found multiple Models for '%s', selecting id=%s", a.queryText(q), found[0].ID)
	}
	return serving.ModelID(found[0].ID), nil
}

// nearModels is the next step for a query that selects nothing: what it may have meant, and
// why a training may have registered no model.
func (a *app) nearModels(ctx context.Context, client *clearml.Client, q operations.ModelQuery) string {
	text := "Try: clearml-serving models   (lists the registered models, and their ids for --model-id)"
	near, err := q.Near(ctx, client, 5)
	if err != nil {
		return text // the query's own error is told already
	}
	projects, err := projectNames(ctx, client, near)
	if err != nil {
		return text
	}
	if len(near) > 0 {
		text += "\nThe nearest of them:"
	}
	for _, m := range near {
		text += fmt.Sprintf("\n  --name %s --project %s   (id=%s, %s)", shellWord(m.Name), shellWord(projects[m.ProjectID]), m.ID, age(m.Created.Time))
	}
	task, err := q.TaskWithoutModel(ctx, client)
	if err == nil && task.ID != "" {
		text += fmt.Sprintf("\nTask '%s' id=%s has registered no model. %s", task.Name, task.ID, unregistered)
	}
	return text
}

// unregistered tells why a training has no model. docs/command-line.md has all cases.
const unregistered = `A plain joblib.dump(model, "model.pkl")
is not registered by the SDK, and neither is pickle.dump. This is:
  joblib.dump(model, "model.pkl", compress=3)
or, from the file:  clearml-serving model upload --name … --project … --path model.pkl`

// monitoredName is the name that a monitoring is stored with. It must be exact,
// because the original's instances match it so; a name that means "what that
// task has made" is replaced by the model's own.
func (a *app) monitoredName(ctx context.Context, s *operations.Service, q operations.ModelQuery) string {
	if q.Name == "" {
		return ""
	}
	q.Published = false // a published one may come later
	found, match, err := q.Find(ctx, s.Client)
	switch {
	case err == nil && len(found) == 0:
		a.print.notice("Notice: no model is named '%s' yet, the first will be served as soon as it is there", q.Name)
	case err == nil && match != operations.MatchExact:
		a.print.notice("Notice: no model is named '%s', monitoring the name of the newest that matches it: '%s'", q.Name, found[0].Name)
		return found[0].Name
	}
	return q.Name // the project may come later, too
}

// checkModel warns of an id that no model has. It is no error, as in the
// original: the model may come later.
func (a *app) checkModel(ctx context.Context, s *operations.Service, id serving.ModelID) error {
	_, err := s.Client.Model(ctx, string(id))
	if errors.Is(err, clearml.ErrNotFound) {
		a.print.notice("Warning: Model ID=%s could not be found, the endpoint answers once it exists", id)
		return nil
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// modelQuery describes a model in a person's words.
type modelQuery struct {
	project, name string
	tags          []string
	published     bool
}

func (q modelQuery) empty() bool { return q.project == "" && q.name == "" && len(q.tags) == 0 }

// String is the query as the original prints it, a Python dict.
func (q modelQuery) String() string {
	var tags any
	if q.tags != nil {
		tags = q.tags
	}
	return pyRepr(object{
		{"project_name", orNull(q.project)},
		{"model_name", orNull(q.name)},
		{"tags", tags},
		{"only_published", q.published},
		{"include_archived", false},
	})
}

// namePatterns are the ways to read a name, in the order in which they are
// tried: exactly; as the task that made the model, because the SDK calls a
// model "<task name> - <file>"; as a regular expression if it looks like one.
func (q modelQuery) namePatterns() []namePattern {
	if q.name == "" {
		return []namePattern{{}}
	}
	exact := clearml.QuotePattern(q.name)
	patterns := []namePattern{
		{pattern: "^" + exact + "$"},
		{pattern: "^" + exact + " - ", notice: "no model is named '%s', taking the newest that a task of this name has made: '%s' id=%s"},
	}
	if regexp.QuoteMeta(q.name) != q.name {
		if _, err := regexp.Compile(q.name); err == nil {
			patterns = append(patterns, namePattern{pattern: q.name, notice: "no model is named '%s', taking the newest that matches it as a regular expression: '%s' id=%s"})
		}
	}
	return patterns
}

type namePattern struct {
	pattern string
	notice  string // of the name, the found model's name and its id; "" when the name is what was asked for
}

// searchModel finds the newest model that a query describes.
func (a *app) searchModel(ctx context.Context, client *clearml.Client, q modelQuery) (serving.ModelID, error) {
	filter, err := q.filter(ctx, client)
	if err != nil {
		return "", err
	}
	for _, p := range q.namePatterns() {
		filter.Name = p.pattern
		found, err := client.Models(ctx, filter)
		if err != nil {
			return "", fmt.Errorf("search for the model: %w", err)
		}
		if len(found) == 0 {
			continue
		}
		if p.notice != "" {
			a.print.notice("Notice: "+p.notice, q.name, found[0].Name, found[0].ID)
		} else if len(found) > 1 {
			a.print.notice("Warning: Found multiple Models for '%s', selecting id=%s", q, found[0].ID)
		}
		return serving.ModelID(found[0].ID), nil
	}
	err = notFound("Could not find any Model to serve %s", q)
	return "", hint(err, "Try: --model-id with the id of the model, or a --name and --project as the server's model page shows them")
}

// filter is the part of the query that does not depend on how the name is read.
func (q modelQuery) filter(ctx context.Context, client *clearml.Client) (clearml.ModelFilter, error) {
	filter := clearml.ModelFilter{Tags: q.tags, PublishedOnly: q.published, NewestFirst: true, Limit: 2}
	if q.project == "" {
		return filter, nil
	}
	project, err := client.FindProject(ctx, q.project)
	if errors.Is(err, clearml.ErrNotFound) {
		return filter, notFound("No projects found when searching for `%s`", q.project)
	}
	filter.ProjectID = project.ID
	return filter, err
}

// monitoredName is the name that a monitoring is stored with. It must be exact,
// because the original's instances match it so; a name that means "what that
// task has made" is replaced by the model's own.
func (a *app) monitoredName(ctx context.Context, s *operations.Service, q modelQuery) string {
	if q.name == "" {
		return ""
	}
	filter, err := q.filter(ctx, s.Client)
	if err != nil {
		return q.name // the project may come later
	}
	filter.PublishedOnly = false // a published one may come later
	for _, p := range q.namePatterns() {
		filter.Name = p.pattern
		found, err := s.Client.Models(ctx, filter)
		if err != nil || len(found) == 0 {
			continue
		}
		if p.notice == "" {
			return q.name
		}
		a.print.notice("Notice: no model is named '%s', monitoring the name of the newest that matches it: '%s'", q.name, found[0].Name)
		return found[0].Name
	}
	a.print.notice("Notice: no model is named '%s' yet, the first will be served as soon as it is there", q.name)
	return q.name
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

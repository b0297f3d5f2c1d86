package clearml

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Project groups tasks and models. Its name includes the names of its parents: "parent/child".
type Project struct {
	ID                string   `json:"id"`
	Name              string   `json:"name"`
	Description       string   `json:"description"`
	Tags              []string `json:"tags"`
	SystemTags        []string `json:"system_tags"`
	OutputDestination string   `json:"default_output_destination"`
}

// Projects lists the projects with the given ids, or all projects for none.
func (c *Client) Projects(ctx context.Context, ids []string) ([]Project, error) {
	q := query{"search_hidden": true, "shallow_search": false}
	q.list("id", ids)
	return c.projects(ctx, q, 0)
}

func (c *Client) projects(ctx context.Context, q query, limit int) ([]Project, error) {
	return getAll(ctx, c, "projects.get_all", q, limit, func(p Project) string { return p.ID })
}

// Project reads a project's document.
func (c *Client) Project(ctx context.Context, id string) (Project, error) {
	return byID(ctx, c, "projects.get_by_id", id, func(p Project) string { return p.ID })
}

// FindProject returns a project by its exact name; the error is ErrNotFound if there is none.
func (c *Client) FindProject(ctx context.Context, name string) (Project, error) {
	found, err := c.projects(ctx, query{
		"name": "^" + QuotePattern(name) + "$", "search_hidden": true, "shallow_search": false,
		"only_fields": []string{"id", "name", "default_output_destination"},
	}, 2)
	if err != nil {
		return Project{}, err
	}
	for _, p := range found {
		if p.Name == name || p.Name == "" {
			p.Name = name
			return p, nil
		}
	}
	return Project{}, fmt.Errorf("project %q: %w", name, ErrNotFound)
}

// EnsureProject returns a project by its exact name and creates it if there is none.
func (c *Client) EnsureProject(ctx context.Context, name string) (Project, error) {
	p, err := c.FindProject(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return p, err
	}
	if err := checkName("project", name); err != nil {
		return Project{}, err
	}
	id, err := c.create(ctx, "projects.create", map[string]string{"name": name, "description": ""})
	if errors.Is(err, ErrExists) { // another client was faster
		return c.FindProject(ctx, name)
	}
	return Project{ID: id, Name: name}, err
}

// ProjectNames returns the names of projects by their ids, which may repeat or be "".
func (c *Client) ProjectNames(ctx context.Context, ids []string) (map[string]string, error) {
	names := map[string]string{}
	ids = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(ids))), func(id string) bool { return id == "" })
	if len(ids) == 0 {
		return names, nil
	}
	projects, err := c.Projects(ctx, ids)
	for _, p := range projects {
		names[p.ID] = p.Name
	}
	return names, err
}

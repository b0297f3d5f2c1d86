package clearml

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Task is a task's document, with the fields that serving needs.
type Task struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Type          string   `json:"type"`
	Status        string   `json:"status"`
	StatusReason  string   `json:"status_reason"`
	StatusMessage string   `json:"status_message"`
	Comment       string   `json:"comment"`
	ProjectID     string   `json:"project"`
	ParentID      string   `json:"parent"`
	User          string   `json:"user"`
	Tags          []string `json:"tags"`
	SystemTags    []string `json:"system_tags"`
	Created       Time     `json:"created"`
	Started       Time     `json:"started"`
	LastUpdate    Time     `json:"last_update"`
	LastChange    Time     `json:"last_change"`
	Output        struct {
		Destination string `json:"destination"`
	} `json:"output"`
	Execution struct {
		Artifacts []Artifact `json:"artifacts"`
	} `json:"execution"`
	// Parameters by section and name.
	Parameters    map[string]map[string]Parameter `json:"hyperparams"`
	Configuration map[string]ConfigObject         `json:"configuration"`
	Models        struct {
		Input  []TaskModel `json:"input"`
		Output []TaskModel `json:"output"`
	} `json:"models"`
	// Runtime holds any JSON scalars, exactly as stored.
	Runtime map[string]json.RawMessage `json:"runtime"`
}

// Parameter is one parameter of a task.
type Parameter struct {
	Section     string `json:"section,omitempty"`
	Name        string `json:"name,omitempty"`
	Value       Text   `json:"value"`
	Type        string `json:"type,omitempty"`
	Description string `json:"description,omitempty"`
}

// ConfigObject is a configuration object of a task: a text under a name.
type ConfigObject struct {
	Name        string `json:"name,omitempty"`
	Value       Text   `json:"value"`
	Type        string `json:"type,omitempty"`
	Description string `json:"description,omitempty"`
}

// TaskModel is a model that a task uses or has made, under the task's own name for it.
type TaskModel struct {
	Name    string `json:"name"`
	ModelID string `json:"model"`
}

// Direction distinguishes a task's input models from its output models.
type Direction string

// The directions of a task's models.
const (
	ModelInput  Direction = "input"
	ModelOutput Direction = "output"
)

// The statuses of a task that callers use.
const (
	StatusCreated    = "created"
	StatusInProgress = "in_progress"
	StatusStopped    = "stopped"
	StatusCompleted  = "completed"
	StatusFailed     = "failed"
)

// TaskFilter selects tasks; its conditions are joined by "and", empty ones are ignored.
type TaskFilter struct {
	IDs        []string
	Name       string // a regular expression, see QuotePattern
	Types      []string
	Statuses   []string
	ProjectIDs []string
	ParentIDs  []string
	SystemTags []string
	Hidden     bool     // also hidden ones
	Fields     []string // dotted paths to return, empty for everything
	OrderBy    []string // "-" in front: descending
	Limit      int      // 0: all
}

// Tasks lists the tasks that a filter selects.
func (c *Client) Tasks(ctx context.Context, f TaskFilter) ([]Task, error) {
	query := query{"search_hidden": f.Hidden}
	query.list("id", f.IDs)
	query.text("name", f.Name)
	query.list("type", f.Types)
	query.list("status", f.Statuses)
	query.list("project", f.ProjectIDs)
	query.list("parent", f.ParentIDs)
	query.list("system_tags", f.SystemTags)
	query.list("only_fields", f.Fields)
	query.list("order_by", f.OrderBy)
	return getAll(ctx, c, "tasks.get_all", query, f.Limit, func(t Task) string { return t.ID })
}

// Task reads a task's document.
func (c *Client) Task(ctx context.Context, id string) (Task, error) {
	return byID(ctx, c, "tasks.get_by_id", id, func(t Task) string { return t.ID })
}

// NewTask describes a task to create.
type NewTask struct {
	Name          string                  `json:"name"`
	Type          string                  `json:"type"`
	ProjectID     string                  `json:"project,omitempty"`
	ParentID      string                  `json:"parent,omitempty"`
	Comment       string                  `json:"comment,omitempty"`
	Tags          []string                `json:"tags,omitempty"`
	SystemTags    []string                `json:"system_tags,omitempty"`
	Configuration map[string]ConfigObject `json:"configuration,omitempty"`
	Runtime       map[string]any          `json:"runtime,omitempty"`
}

// CreateTask creates a task in status created and returns its id.
func (c *Client) CreateTask(ctx context.Context, t NewTask) (string, error) {
	if err := checkName("task", t.Name); err != nil {
		return "", err
	}
	return c.create(ctx, "tasks.create", t)
}

func (c *Client) create(ctx context.Context, call string, req any) (string, error) {
	var data struct {
		ID string `json:"id"`
	}
	if err := c.Call(ctx, call, req, &data); err != nil {
		return "", err
	}
	if data.ID == "" {
		return "", fmt.Errorf("%s: the answer has no id", call)
	}
	return data.ID, nil
}

// checkName explains names that a real server would refuse with an unclear message.
func checkName(what, name string) error {
	if utf8.RuneCountInString(strings.TrimSpace(name)) < 3 {
		return fmt.Errorf("%s name %q is too short: the server requires at least 3 characters", what, name)
	}
	return nil
}

// EditTask replaces top-level fields of a task in any status. The maps
// hyperparams, configuration, runtime and container are replaced as a whole.
func (c *Client) EditTask(ctx context.Context, id string, fields map[string]any) error {
	req := make(map[string]any, len(fields)+2)
	maps.Copy(req, fields)
	req["task"], req["force"] = id, true
	return c.Call(ctx, "tasks.edit", req, nil)
}

// EditConfiguration stores configuration objects of a task by name and keeps the others. ifMatch
// may have, per name, the SHA-256 of the text that the edit is based on ("" for none); if one is
// stale nothing is stored and the error is ErrConflict. Servers without the extension
// "conditional_configuration" ignore it.
func (c *Client) EditConfiguration(ctx context.Context, id string, objects []ConfigObject, ifMatch map[string]string) error {
	req := map[string]any{"task": id, "configuration": objects, "force": true}
	if len(ifMatch) > 0 {
		req["if_match"] = ifMatch
	}
	return c.Call(ctx, "tasks.edit_configuration", req, nil)
}

// EditParameters stores parameters of a task and keeps the others.
func (c *Client) EditParameters(ctx context.Context, id string, parameters []Parameter) error {
	return c.Call(ctx, "tasks.edit_hyper_params", map[string]any{
		"task": id, "hyperparams": parameters, "replace_hyperparams": "none", "force": true,
	}, nil)
}

// AddTaskModel enters a model under a name in a task's models; an entry of that
// name is replaced.
func (c *Client) AddTaskModel(ctx context.Context, id string, direction Direction, name, modelID string) error {
	return c.Call(ctx, "tasks.add_or_update_model", map[string]any{
		"task": id, "type": direction, "name": name, "model": modelID,
	}, nil)
}

// DeleteTaskModels removes entries of a task's models; it is no error if there are none.
func (c *Client) DeleteTaskModels(ctx context.Context, id string, direction Direction, names []string) error {
	if len(names) == 0 {
		return nil
	}
	entries := make([]map[string]any, len(names))
	for i, name := range names {
		entries[i] = map[string]any{"name": name, "type": direction}
	}
	return c.Call(ctx, "tasks.delete_models", map[string]any{"task": id, "models": entries}, nil)
}

// StartTask sets the status of a task to in_progress. force starts one that has ended.
func (c *Client) StartTask(ctx context.Context, id string, force bool) error {
	return c.Call(ctx, "tasks.started", map[string]any{"task": id, "force": force}, nil)
}

// StopTask sets the status of a task to stopped.
func (c *Client) StopTask(ctx context.Context, id, reason string) error {
	return c.Call(ctx, "tasks.stopped", map[string]any{"task": id, "force": true, "status_reason": reason}, nil)
}

// PingTask tells the server that the task is alive.
func (c *Client) PingTask(ctx context.Context, id string) error {
	return c.Call(ctx, "tasks.ping", map[string]any{"task": id}, nil)
}

// QuotePattern escapes a text so that a pattern matches it literally; put ^ and
// $ around it for the exact name.
func QuotePattern(name string) string { return regexp.QuoteMeta(name) }

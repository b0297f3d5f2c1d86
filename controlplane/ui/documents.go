package ui

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"clearmlserving/clearml"
)

// ref is a reference to another document: an id, or an object where the call expands it.
type ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"` // of a task
}

// UnmarshalJSON takes both forms; what is neither is no reference.
func (r *ref) UnmarshalJSON(text []byte) error {
	*r = ref{}
	if json.Unmarshal(text, &r.ID) == nil {
		return nil
	}
	type plain ref
	_ = json.Unmarshal(text, (*plain)(r)) // an odd reference never costs the document
	return nil
}

// Label is the name, or the id of what has none.
func (r ref) Label() string {
	if r.Name != "" {
		return r.Name
	}
	return shortID(r.ID)
}

// modelDoc is a model as pages show it.
type modelDoc struct {
	clearml.Model
	Project ref            `json:"project"`
	Task    ref            `json:"task"`
	Parent  ref            `json:"parent"`
	User    ref            `json:"user"`
	Labels  map[string]any `json:"labels"`
}

// State is published, or draft.
func (m modelDoc) State() string {
	if m.Ready {
		return "published"
	}
	return "draft"
}

// MadeBy is the experiment that made the model. A serving service is entered on what its command
// line uploads, and makes no models.
func (m modelDoc) MadeBy() ref {
	if m.Task.Type == "service" {
		return ref{}
	}
	return m.Task
}

// Archived says that lists leave it out.
func (m modelDoc) Archived() bool { return slices.Contains(m.SystemTags, "archived") }

// taskDoc is a task as pages show it.
type taskDoc struct {
	clearml.Task
	Project       ref            `json:"project"`
	Parent        ref            `json:"parent"`
	User          ref            `json:"user"`
	Completed     clearml.Time   `json:"completed"`
	LastIteration clearml.Text   `json:"last_iteration"`
	LastWorker    string         `json:"last_worker"`
	Runtime       map[string]any `json:"runtime"`
	Script        struct {
		Repository string `json:"repository"`
		Branch     string `json:"branch"`
		Version    string `json:"version_num"`
		EntryPoint string `json:"entry_point"`
		WorkingDir string `json:"working_dir"`
		Diff       string `json:"diff"`
		Packages   struct {
			Pip clearml.Text `json:"pip"`
		} `json:"requirements"`
	} `json:"script"`
	Models struct {
		Input  []taskModel `json:"input"`
		Output []taskModel `json:"output"`
	} `json:"models"`
}

// taskModel is a model that a task has used or made.
type taskModel struct {
	Name  string `json:"name"`
	Model ref    `json:"model"`
}

// Archived says that lists leave it out.
func (t taskDoc) Archived() bool { return slices.Contains(t.SystemTags, "archived") }

// fit cuts the configuration so that a page has room for it.
func (t *taskDoc) fit() {
	const all, longest, value = 140 << 10, 24 << 10, 2 << 10
	left := room(all)
	for _, section := range sortedKeys(t.Parameters) {
		for name, p := range t.Parameters[section] {
			p.Value = clearml.Text(left.take(string(p.Value), value))
			t.Parameters[section][name] = p
		}
	}
	for _, name := range sortedKeys(t.Configuration) {
		object := t.Configuration[name]
		object.Value = clearml.Text(left.take(prettyJSON(string(object.Value)), longest))
		t.Configuration[name] = object
	}
	t.Script.Packages.Pip = clearml.Text(left.take(string(t.Script.Packages.Pip), longest))
	t.Script.Diff = left.take(t.Script.Diff, longest)
}

// State is the status. Services and their instances are in progress for as long as they run.
func (t taskDoc) State() string {
	if t.Status == "in_progress" && (t.Type == "service" || t.Type == "inference") {
		return "running"
	}
	return t.Status
}

// Took is how long the task ran.
func (t taskDoc) Took() string {
	end := t.Completed.Time
	if end.IsZero() {
		end = t.LastUpdate.Time
	}
	if t.Started.IsZero() || end.Before(t.Started.Time) {
		return "–"
	}
	return formatDuration(end.Sub(t.Started.Time))
}

// taskFields and modelFields are what the documents above hold. References become objects
// where a field of theirs is asked for.
func taskFields() []string {
	return []string{
		"id", "name", "type", "status", "status_reason", "status_message", "project.name", "parent.name", "user.name", "comment",
		"tags", "system_tags", "created", "started", "completed", "last_update", "last_iteration", "last_worker", "runtime", "script",
		"execution.artifacts", "hyperparams", "configuration", "models",
	}
}

func modelFields() []string {
	return []string{
		"id", "name", "project.name", "task.name", "task.type", "parent.name", "user.name", "framework", "uri", "comment", "tags", "system_tags",
		"ready", "created", "last_update", "labels", "metadata",
	}
}

// readTask reads one task with the names of what it refers to.
func (v *visit) readTask(id string) (taskDoc, error) {
	found, err := take[[]taskDoc](v, "tasks.get_all_ex", "tasks", map[string]any{
		"id": []string{id}, "search_hidden": true, "only_fields": taskFields(),
	})
	if err == nil && len(found) == 0 {
		err = refusal{404, "There is no experiment with the id " + id + "."}
	}
	if err != nil {
		return taskDoc{}, err
	}
	return found[0], nil
}

// readModel reads one model with the names of what it refers to.
func (v *visit) readModel(id string) (modelDoc, error) {
	models, err := v.readModels([]string{id})
	if err == nil && len(models) == 0 {
		err = refusal{404, "There is no model with the id " + id + "."}
	}
	if err != nil {
		return modelDoc{}, err
	}
	return models[0], nil
}

func (v *visit) readModels(ids []string) ([]modelDoc, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return take[[]modelDoc](v, "models.get_all_ex", "models", map[string]any{"id": ids, "only_fields": modelFields()})
}

// projects lists every project by name, for the filters.
func (v *visit) projects() ([]ref, error) {
	return take[[]ref](v, "projects.get_all", "projects", map[string]any{"only_fields": []string{"id", "name"}, "order_by": []string{"name"}, "page": 0, "page_size": 500})
}

// take calls the API and returns one field of the answer, the zero value if it is missing.
func take[T any](v *visit, call, name string, query any) (found T, err error) {
	var answer map[string]json.RawMessage
	if err := v.api.Call(v.r.Context(), call, query, &answer); err != nil || answer[name] == nil {
		return found, err
	}
	if err := json.Unmarshal(answer[name], &found); err != nil {
		return found, fmt.Errorf("%s: read the answer: %w", call, err)
	}
	return found, nil
}

// kind is what the forms of models and of experiments have in common.
type kind struct {
	calls, page, noun string // of the API, the path of the pages, and for people
	tags              func(v *visit) ([]string, error)
}

func modelKind() kind {
	return kind{"models", "/models/", "model", func(v *visit) ([]string, error) {
		m, err := v.readModel(v.id())
		return m.Tags, err
	}}
}

func taskKind() kind {
	return kind{"tasks", "/experiments/", "experiment", func(v *visit) ([]string, error) {
		t, err := v.readTask(v.id())
		return t.Tags, err
	}}
}

// setTags stores the tags of the form.
func (k kind) setTags(v *visit) error {
	before, err := k.tags(v)
	if err != nil {
		return err
	}
	add, remove := tagChange(before, words(v.r.PostForm.Get("tags")))
	err = v.api.Call(v.r.Context(), k.calls+".update_tags", map[string]any{"ids": []string{v.id()}, "add_tags": add, "remove_tags": remove}, nil)
	if err != nil {
		return err
	}
	return v.done(k.page+v.id(), "Tags stored.")
}

// archive removes a document from the lists, or with undo puts it back.
func (k kind) archive(v *visit) error {
	call, notice := ".archive_many", "The "+k.noun+" is archived: it can be found with the filter “archived”."
	if v.r.PostForm.Get("undo") != "" {
		call, notice = ".unarchive_many", "The "+k.noun+" is back in the lists."
	}
	if err := v.api.Call(v.r.Context(), k.calls+call, map[string]any{"ids": []string{v.id()}}, nil); err != nil {
		return err
	}
	return v.done(k.page+v.id(), notice)
}

// words splits a field into tags: by commas, or by line.
func words(text string) []string {
	var found []string
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if part = strings.TrimSpace(part); part != "" && !slices.Contains(found, part) {
			found = append(found, part)
		}
	}
	return found
}

// tagChange is what makes one list of tags of another.
func tagChange(before, after []string) (add, remove []string) {
	add, remove = []string{}, []string{}
	for _, tag := range after {
		if !slices.Contains(before, tag) {
			add = append(add, tag)
		}
	}
	for _, tag := range before {
		if !slices.Contains(after, tag) {
			remove = append(remove, tag)
		}
	}
	return add, remove
}

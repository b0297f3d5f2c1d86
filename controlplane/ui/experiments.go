package ui

import (
	"cmp"
	"slices"
	"strings"
)

type experimentsPage struct {
	Filters  filters
	Projects []ref
	Types    []string
	States   []string
	Tasks    list[taskDoc]
}

// taskStates are the statuses that a task may be in.
func taskStates() []string {
	return []string{"created", "queued", "in_progress", "stopped", "completed", "failed", "published"}
}

func (p *Pages) experiments(v *visit) error {
	page := experimentsPage{States: taskStates()}
	var query map[string]any
	page.Filters, query = readFilters(v.r.URL.Query())
	delete(query, "framework")
	if page.Filters.State != "" {
		query["status"] = []string{page.Filters.State}
	}
	if page.Filters.Kind != "" {
		query["type"] = []string{page.Filters.Kind}
	}
	query["only_fields"] = []string{"id", "name", "project.name", "type", "status", "tags", "created", "started", "completed", "last_update", "last_iteration", "user.name", "system_tags"}
	var err error
	if page.Tasks, err = readList[taskDoc](v, "tasks.get_all_ex", "tasks", query); err != nil {
		return err
	}
	if page.Projects, err = v.projects(); err != nil {
		return err
	}
	if page.Types, err = take[[]string](v, "tasks.get_types", "types", nil); err != nil {
		return err
	}
	return v.render("experiments", "Experiments", page)
}

// tab is one view of an experiment.
type tab struct {
	Name, Label string
}

func tabs() []tab {
	return []tab{
		{"overview", "Overview"},
		{"scalars", "Scalars"},
		{"plots", "Plots"},
		{"images", "Images"},
		{"configuration", "Configuration"},
		{"artifacts", "Artifacts"},
		{"console", "Console"},
	}
}

type experimentPage struct {
	Task    taskDoc
	Tabs    []tab
	Tab     string
	Edited  string
	Values  []singleValue
	Metrics []scalarMetric
	Plots   []plot
	Part    part // of Metrics or Plots
	Images  []debugImage
	Console console
	// Files are the output artifacts and models.
	Made, Used []modelDoc
}

// shownFigures is how many figures are on one page.
const shownFigures = 40

func (p *Pages) experiment(v *visit) error {
	page := experimentPage{Tabs: tabs(), Tab: v.r.PathValue("tab")}
	page.Tab = cmp.Or(page.Tab, "overview")
	if !slices.ContainsFunc(page.Tabs, func(t tab) bool { return t.Name == page.Tab }) {
		return p.unknown(v)
	}
	var err error
	if page.Task, err = v.readTask(v.id()); err != nil {
		return err
	}
	page.Edited = strings.Join(page.Task.Tags, ", ")
	switch page.Tab {
	case "overview":
		if page.Values, err = v.singleValues(page.Task.ID); err == nil {
			page.Used, page.Made, err = v.modelsOf(page.Task)
		}
	case "scalars":
		if page.Values, err = v.singleValues(page.Task.ID); err == nil {
			page.Metrics, err = v.scalarMetrics([]string{page.Task.ID})
			page.Metrics, page.Part = partOf(v, page.Metrics, shownFigures)
		}
	case "plots":
		page.Plots, err = v.plots(page.Task.ID)
		page.Plots, page.Part = partOf(v, page.Plots, shownFigures)
	case "images":
		page.Images, err = v.debugImages(page.Task.ID)
	case "configuration":
		page.Task.fit()
	case "console":
		page.Console, err = v.console(page.Task.ID)
	}
	if err != nil {
		return err
	}
	return v.render("experiment", page.Task.Name, page)
}

// modelsOf reads the models that a task has used and made.
func (v *visit) modelsOf(t taskDoc) (used, made []modelDoc, err error) {
	ids := func(models []taskModel) (ids []string) {
		for _, m := range models {
			if m.Model.ID != "" {
				ids = append(ids, m.Model.ID)
			}
		}
		return ids
	}
	if used, err = v.readModels(ids(t.Models.Input)); err != nil {
		return nil, nil, err
	}
	made, err = v.readModels(ids(t.Models.Output))
	return used, made, err
}

// debugImage is one picture that a task has reported.
type debugImage struct {
	Metric  string `json:"metric"`
	Variant string `json:"variant"`
	URL     string `json:"url"`
	Iter    int64  `json:"iter"`
}

// The images of a page: those of the newest iterations, looked for among the newest reports.
const (
	imageIterations = 3
	newestImages    = 500
)

// debugImages reads the newest images of a task. It does not scroll with
// events.debug_images: a scroll is stored, and a page must show on a full disk too.
func (v *visit) debugImages(task string) ([]debugImage, error) {
	images, err := take[[]debugImage](v, "events.get_task_events", "events", map[string]any{
		"task": task, "event_type": "training_debug_image", "order": "desc", "batch_size": newestImages,
	})
	slices.SortStableFunc(images, func(a, b debugImage) int {
		return cmp.Or(cmp.Compare(b.Iter, a.Iter), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Variant, b.Variant))
	})
	iterations := 0
	for i := range images {
		if i == 0 || images[i].Iter != images[i-1].Iter {
			iterations++
		}
		if iterations > imageIterations {
			return images[:i], err
		}
	}
	return images, err
}

package ui

import (
	"fmt"
	"net/http"
	"slices"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// maxCompared is how many experiments stand side by side.
const maxCompared = 4

type comparePage struct {
	Tasks  []comparedTask
	Groups []comparedGroup
	// Metrics are the charts, with the lines of all experiments in each.
	Metrics  []scalarMetric
	OnlyDiff bool
	Toggle   string
}

// Columns is how many columns the table has.
func (p comparePage) Columns() int { return len(p.Tasks) + 1 }

// comparedTask is an experiment with the letter that its lines bear.
type comparedTask struct {
	Letter string
	Task   taskDoc
}

// comparedGroup is a section of values, one column for each experiment.
type comparedGroup struct {
	Name string
	Rows []comparedRow
}

type comparedRow struct {
	Name    string
	Values  []string
	Differs bool
}

// compare shows experiments side by side: ?ids=a&ids=b.
func (p *Pages) compare(v *visit) error {
	q := v.r.URL.Query()
	var ids []string
	for _, value := range q["ids"] {
		ids = append(ids, words(value)...)
	}
	if len(ids) < 2 || len(ids) > maxCompared {
		return refusal{http.StatusBadRequest, fmt.Sprintf("Choose 2 to %d experiments in the list, then “Compare”.", maxCompared)}
	}
	page := comparePage{OnlyDiff: q.Get("all") == ""}
	for i, id := range ids {
		t, err := v.readTask(id)
		if err != nil {
			return err
		}
		page.Tasks = append(page.Tasks, comparedTask{string(rune('A' + i)), t})
	}
	q.Set("all", "1")
	if !page.OnlyDiff {
		q.Del("all")
	}
	page.Toggle = "/experiments/compare?" + q.Encode()
	var err error
	if page.Metrics, err = v.scalarMetrics(ids); err != nil {
		return err
	}
	page.Groups = compareTasks(page.Tasks, page.OnlyDiff)
	return v.render("compare", "Compare experiments", page)
}

// compareTasks lays the values of experiments side by side, by section and name.
func compareTasks(tasks []comparedTask, onlyDiff bool) []comparedGroup {
	columns := make([]map[string]map[string]string, len(tasks))
	sections := map[string]map[string]bool{}
	for i, t := range tasks {
		columns[i] = valuesOf(t.Task)
		for section, values := range columns[i] {
			if sections[section] == nil {
				sections[section] = map[string]bool{}
			}
			for name := range values {
				sections[section][name] = true
			}
		}
	}
	var groups []comparedGroup
	for _, section := range sortedKeys(sections) {
		group := comparedGroup{Name: section}
		for _, name := range sortedKeys(sections[section]) {
			row := comparedRow{Name: name}
			for _, column := range columns {
				row.Values = append(row.Values, column[section][name])
			}
			row.Differs = slices.ContainsFunc(row.Values, func(value string) bool { return value != row.Values[0] })
			if row.Differs || !onlyDiff {
				group.Rows = append(group.Rows, row)
			}
		}
		if len(group.Rows) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// valuesOf are the values of an experiment that can be compared, by section and name.
func valuesOf(t taskDoc) map[string]map[string]string {
	values := map[string]map[string]string{"Experiment": {
		"status": t.Status, "type": t.Type, "took": t.Took(), "entry point": t.Script.EntryPoint, "commit": t.Script.Version,
		"branch": t.Script.Branch,
	}}
	for section, parameters := range t.Parameters {
		column := map[string]string{}
		for name, p := range parameters {
			column[name] = string(p.Value)
		}
		values["Parameters: "+section] = column
	}
	column := map[string]string{}
	for name, object := range t.Configuration {
		column[name] = clip(string(object.Value))
	}
	values["Configuration"] = column
	artifacts := map[string]string{}
	for _, a := range t.Execution.Artifacts {
		artifacts[a.Key] = describeArtifact(a)
	}
	values["Artifacts"] = artifacts
	return values
}

// clip keeps a cell of a table small.
func clip(text string) string { return serving.Shorten(text, 400) }

func describeArtifact(a clearml.Artifact) string {
	return a.Type + ", " + formatBytes(a.Size) + ", " + shortID(a.Hash)
}

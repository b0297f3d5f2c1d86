package ui

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

type historyPage struct {
	Doc   *clearml.Service
	Edits []configurationEdit
	// Open is the edit whose differences are shown.
	Open string
	// Supported says that the server keeps a history at all.
	Supported bool
}

// configurationEdit is one change of a service's configuration.
type configurationEdit struct {
	ID         string              `json:"id"`
	Created    clearml.Time        `json:"created"`
	User       ref                 `json:"user"`
	Client     string              `json:"client"`
	Call       string              `json:"call"`
	Reverted   string              `json:"reverted"`
	Revertible bool                `json:"revertible"`
	Sections   []configurationStep `json:"sections"`
	// Overtaken says that a section was changed again since, so that taking this edit
	// back loses those changes too.
	Overtaken bool `json:"-"`
}

// Revert says that the page offers to take the edit back.
func (e configurationEdit) Revert() bool {
	return e.Revertible && slices.ContainsFunc(e.Sections, func(s configurationStep) bool { return !s.ByItself() })
}

// configurationStep is what an edit did to one section.
type configurationStep struct {
	Section string  `json:"section"`
	Action  string  `json:"action"`
	Before  *string `json:"before"`
	After   *string `json:"after"`
}

// Written says who wrote the change: the web pages, the command line, or another program.
func (e configurationEdit) Written() string {
	switch {
	case strings.HasPrefix(e.Client, "clearml-serving-web"):
		return "web page"
	case strings.HasPrefix(e.Client, "clearml-serving"):
		return "command line or instance"
	}
	return e.Client
}

// ByItself says that instances write this section on their own, so that taking a change of
// it back would not last.
func (s configurationStep) ByItself() bool {
	return s.Section == string(serving.SectionMonitoringEndpoints) || s.Section == string(serving.SectionVersions) || s.Section == string(serving.SectionRevisions)
}

// sectionNoun is what the records of a section are.
func sectionNoun(section string) string {
	return cmp.Or(map[serving.Section]string{
		serving.SectionEndpoints:           "endpoint",
		serving.SectionCanary:              "canary",
		serving.SectionMonitoring:          "monitoring rule",
		serving.SectionMetrics:             "metrics of",
		serving.SectionMonitoringEndpoints: "monitored endpoint",
		serving.SectionVersions:            "version numbers of",
		serving.SectionOptions:             "options of",
		serving.SectionAccess:              "key",
		serving.SectionRevisions:           "revisions of",
		serving.SectionRollouts:            "steps of",
	}[serving.Section(section)], section)
}

// Summary says in words which records an edit of a section has touched.
func (s configurationStep) Summary() string {
	var said, removed []string
	for _, r := range s.records() {
		text := sectionNoun(s.Section) + " " + r.key + " " + r.what
		if s.Section == string(serving.SectionAccess) && r.key == "service" { // the record of the section that is not a key
			text = "keys turned off"
			if keysRequired(r.after) {
				text = "keys turned on"
			}
		}
		if r.what == "removed" {
			removed = append(removed, text)
		} else {
			said = append(said, text)
		}
	}
	if said = append(said, removed...); len(said) == 0 {
		return s.Section + " " + s.Action
	}
	return strings.Join(said, ", ")
}

// recordChange is what an edit did to one record of a section: added, changed, or removed.
type recordChange struct {
	key, what     string
	before, after json.RawMessage
}

// records are the records that an edit of a section has touched, by their keys.
func (s configurationStep) records() []recordChange {
	read := func(text *string) map[string]json.RawMessage {
		found := map[string]json.RawMessage{}
		if text != nil {
			_ = json.Unmarshal([]byte(*text), &found) // of a text in another form no record is named
		}
		return found
	}
	before, after := read(s.Before), read(s.After)
	all := map[string]recordChange{}
	for key, now := range after {
		old, was := before[key]
		switch {
		case !was:
			all[key] = recordChange{key, "added", nil, now}
		case string(old) != string(now):
			all[key] = recordChange{key, "changed", old, now}
		}
	}
	for key, old := range before {
		if _, stays := after[key]; !stays {
			all[key] = recordChange{key, "removed", old, nil}
		}
	}
	changes := make([]recordChange, 0, len(all))
	for _, key := range sortedKeys(all) {
		changes = append(changes, all[key])
	}
	return changes
}

func keysRequired(record json.RawMessage) bool {
	var settings struct {
		Required bool `json:"required"`
	}
	_ = json.Unmarshal(record, &settings) // what cannot be read requires none by itself
	return settings.Required
}

// Lines is the difference of a section, line by line, as far as a page has room for it.
func (s configurationStep) Lines() []diffLine {
	text := func(t *string) string {
		if t == nil {
			return ""
		}
		return prettyJSON(*t)
	}
	return clipLines(difference(text(s.Before), text(s.After)))
}

// clipLines bounds how much of a difference is shown.
func clipLines(lines []diffLine) []diffLine {
	const most, longest = 300, 300
	if len(lines) > most {
		lines = append(lines[:most:most], diffLine{"…", fmt.Sprintf("%d more lines", len(lines)-most)})
	}
	for i := range lines {
		lines[i].Text = serving.Shorten(lines[i].Text, longest)
	}
	return lines
}

// edits are the newest changes of a service's configuration, the newest first.
func (v *visit) edits(service string) ([]configurationEdit, error) {
	return take[[]configurationEdit](v, "tasks.get_configuration_history", "edits", map[string]any{"task": service, "page_size": 50})
}

func (p *Pages) history(v *visit, s *operations.Service) error {
	page := historyPage{Doc: s.Doc, Supported: true, Open: v.r.URL.Query().Get("edit")}
	edits, err := v.edits(s.Doc.ID)
	if errors.Is(err, clearml.ErrUnsupported) {
		page.Supported, err = false, nil
	}
	if err != nil {
		return err
	}
	changedSince := map[string]bool{}
	for _, edit := range edits { // the newest first
		for _, step := range edit.Sections {
			edit.Overtaken = edit.Overtaken || changedSince[step.Section]
		}
		for _, step := range edit.Sections {
			changedSince[step.Section] = true
		}
		page.Edits = append(page.Edits, edit)
	}
	return v.render("history", "History of "+s.Doc.Name, page)
}

// revert takes one change back. One that was overtaken by others is only taken back when
// the visitor has said that those may be lost.
func (p *Pages) revert(v *visit) error {
	form := v.r.PostForm
	err := v.api.Call(v.r.Context(), "tasks.revert_configuration", map[string]any{
		"task": v.id(), "edit": form.Get("edit"), "force": form.Get("force") != "",
	}, nil)
	if errors.Is(err, clearml.ErrConflict) {
		return refusal{409, "A section of this change was changed again since. Go back and choose “Revert anyway” to lose those later changes too."}
	}
	if err != nil {
		return err
	}
	return v.done(fmt.Sprintf("/services/%s/history", v.id()), "The change is taken back; instances follow now.")
}

// diffLine is a line of a difference: " ", "+", "-", or "…" for unchanged lines that are left out.
type diffLine struct {
	Mark, Text string
}

// difference compares two texts by line.
func difference(before, after string) []diffLine {
	var lines []diffLine
	unified := string(diff.Diff("before", []byte(endLine(before)), "after", []byte(endLine(after))))
	for i, line := range strings.Split(strings.TrimSuffix(unified, "\n"), "\n") {
		switch {
		case i <= 3: // the header, and the place of the first change
		case strings.HasPrefix(line, "@@"):
			lines = append(lines, diffLine{"…", ""})
		default:
			lines = append(lines, diffLine{line[:1], line[1:]})
		}
	}
	return lines
}

// endLine ends the last line of a text.
func endLine(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}

package api_test

import (
	"fmt"
	"strings"
	"testing"

	"clearmlserving/controlplane/store"
)

// history returns the edits of a task's configuration, newest first.
func history(t *testing.T, w *wire, task, more string) []store.Doc {
	t.Helper()
	list, _ := w.must(t, "tasks.get_configuration_history", `{"task":"`+task+`"`+more+`}`)["edits"].([]any)
	edits := make([]store.Doc, len(list))
	for i, item := range list {
		edits[i] = item.(map[string]any)
	}
	return edits
}

// told says in short what an edit did: "+a", "-a", "a:x>y".
func told(edit store.Doc) string {
	var out []string
	for _, item := range edit["sections"].([]any) {
		section := store.Doc(item.(map[string]any))
		out = append(out, fmt.Sprintf("%s %s %s>%s", section.Text("action"), section.Text("section"), section.Text("before"), section.Text("after")))
	}
	return strings.Join(out, ", ")
}

func TestEachEditOfAConfigurationIsKeptWithWhoWhatAndWhen(t *testing.T) {
	w := newWire(t)
	id := w.create(t, "tasks.create", `{"name":"service","type":"service"}`)
	edit := func(call, body string) { w.must(t, call, `{"task":"`+id+`",`+body+`}`) }
	edit("tasks.edit_configuration", `"configuration":[{"name":"endpoints","value":"1"},{"name":"canary","value":"c"}]`)
	edit("tasks.edit_configuration", `"configuration":[{"name":"endpoints","value":"2"}]`)
	edit("tasks.edit_configuration", `"configuration":[{"name":"endpoints","value":"2"}]`) // nothing changes
	edit("tasks.edit", `"comment":"said"`)                                                 // nor here
	edit("tasks.edit_configuration", `"configuration":[{"name":"endpoints","value":"2"}],"replace_configuration":true`)
	edit("tasks.edit", `"configuration":{"endpoints":{"value":"3"}}`)

	edits := history(t, w, id, "")
	var got []string
	for _, e := range edits {
		got = append(got, e.Text("call")+": "+told(e))
		if e.Text("created") == "" || e.Text("user", "id") != "user1" || e.Text("client") == "" || e["revertible"] != true {
			t.Errorf("an edit lacks who or when: %v", e)
		}
	}
	want := []string{
		"tasks.edit: changed endpoints 2>3",
		"tasks.edit_configuration: removed canary c>",
		"tasks.edit_configuration: changed endpoints 1>2",
		"tasks.edit_configuration: added canary >c, added endpoints >1",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("history:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if canary := history(t, w, id, `,"names":["canary"]`); len(canary) != 2 {
		t.Errorf("%d edits touched the canary, want 2", len(canary))
	}
	if second := history(t, w, id, `,"page":1,"page_size":1`); len(second) != 1 || second[0].ID() != edits[1].ID() {
		t.Errorf("the second page of one: %v", second)
	}

	w.must(t, "tasks.delete", `{"task":"`+id+`","force":true}`)
	if n, err := w.store.Count(t.Context(), store.ConfigurationEdit, nil); err != nil || n != 0 {
		t.Errorf("%d edits outlive their task, %v", n, err)
	}
}

func TestAnEditIsTakenBackUnlessItsSectionsChangedSince(t *testing.T) {
	w := newWire(t)
	id := w.create(t, "tasks.create", `{"name":"service","type":"service"}`)
	write := func(name, value string) string {
		w.must(t, "tasks.edit_configuration", fmt.Sprintf(`{"task":%q,"configuration":[{"name":%q,"value":%q,"type":"json"}]}`, id, name, value))
		return history(t, w, id, "")[0].ID()
	}
	value := func(name string) string { return w.read(t, "task", id).Text("configuration", name, "value") }
	revert := func(edit, more string) string {
		return w.call(t, "tasks.revert_configuration", fmt.Sprintf(`{"task":%q,"edit":%q%s}`, id, edit, more)).code()
	}
	added := write("endpoints", "1")
	changed := write("endpoints", "2")
	write("other", "x")
	if code := revert(added, ""); code != "400/122" || value("endpoints") != "2" {
		t.Errorf("an edit that was overwritten since: %s, endpoints %q, want a refusal", code, value("endpoints"))
	}
	if code := revert(changed, ""); code != "200/0" || value("endpoints") != "1" || value("other") != "x" {
		t.Errorf("the newest edit of its section: %s, endpoints %q", code, value("endpoints"))
	}
	newest := history(t, w, id, "")[0]
	if newest.Text("reverted") != changed || newest.Text("call") != "tasks.revert_configuration" {
		t.Errorf("taking back is no edit of its own: %v", newest)
	}
	if kept := w.read(t, "task", id).Text("configuration", "endpoints", "type"); kept != "json" {
		t.Errorf("type is now %q", kept)
	}
	if code := revert(newest.ID(), ""); code != "200/0" || value("endpoints") != "2" {
		t.Errorf("taking back a taking back: %s, endpoints %q", code, value("endpoints"))
	}
	if code := revert(added, `,"force":true`); code != "200/0" {
		t.Errorf("with force: %s", code)
	}
	if _, there := w.read(t, "task", id).Object("configuration")["endpoints"]; there {
		t.Error("a section that the edit had added is still there")
	}
	other := w.task(t, "")
	for body, want := range map[string]string{
		`{"task":"` + other + `","edit":"` + added + `"}`: "400/10",
		`{"task":"` + id + `","edit":"none"}`:             "400/10",
		`{"task":"` + id + `"}`:                           "400/12",
		`{"task":"none","edit":"` + added + `"}`:          "400/101",
	} {
		if got := w.call(t, "tasks.revert_configuration", body).code(); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestHistoryOfAConfigurationIsBounded(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	for i := range 205 {
		w.must(t, "tasks.edit_configuration", fmt.Sprintf(`{"task":%q,"configuration":[{"name":"n","value":"%d"}]}`, id, i))
	}
	edits := history(t, w, id, `,"page_size":500`)
	if len(edits) != 200 || told(edits[0]) != "changed n 203>204" || told(edits[199]) != "changed n 4>5" {
		t.Errorf("%d edits are kept, from %q to %q, want the newest 200", len(edits), told(edits[0]), told(edits[len(edits)-1]))
	}
	long := strings.Repeat("x", 300<<10)
	w.must(t, "tasks.edit_configuration", fmt.Sprintf(`{"task":%q,"configuration":[{"name":"n","value":%q}]}`, id, long))
	newest := history(t, w, id, `,"page_size":1`)[0]
	if newest["revertible"] != false || told(newest) != "changed n >" {
		t.Errorf("a long text was kept: %.200s", told(newest))
	}
	if code := w.call(t, "tasks.revert_configuration", fmt.Sprintf(`{"task":%q,"edit":%q}`, id, newest.ID())).code(); code != "400/0" {
		t.Errorf("taking back what wasn't kept: %s", code)
	}
}

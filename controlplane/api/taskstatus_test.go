package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// statuses are all statuses that a task can have.
var statuses = []string{"created", "queued", "in_progress", "stopped", "closed", "failed", "completed", "publishing", "published"}

func TestStatusMachine(t *testing.T) {
	allowed := map[string][]string{
		"created":     {"queued", "in_progress"},
		"queued":      {"created", "in_progress", "stopped"},
		"in_progress": {"stopped", "failed", "created", "completed"},
		"stopped":     {"closed", "created", "failed", "queued", "in_progress", "published", "publishing", "completed"},
		"closed":      {"created", "failed", "published", "publishing", "stopped"},
		"failed":      {"created", "stopped", "published", "queued"},
		"completed":   {"published", "in_progress", "created"},
		"publishing":  {"published"},
	}
	calls := map[string]string{
		"in_progress": "tasks.started", "stopped": "tasks.stopped", "failed": "tasks.failed",
		"completed": "tasks.completed", "published": "tasks.publish",
	}
	w := newWire(t)
	for _, from := range statuses {
		for to, call := range calls {
			id := w.task(t, "")
			w.must(t, "tasks.edit", fmt.Sprintf(`{"task":%q,"force":true,"status":%q}`, id, from))
			r := w.call(t, call, fmt.Sprintf(`{"task":%q,"status_reason":"why","status_message":"what"}`, id))
			if want := from == to && to != "published" || slices.Contains(allowed[from], to); (r.code() == "200/0") != want {
				t.Errorf("%s from %s: %s", call, from, r.code())
			} else if !want && (r.code() != "400/110" || w.read(t, "task", id).Text("status") != from) {
				t.Errorf("%s from %s: %s, then %s", call, from, r.code(), w.read(t, "task", id).Text("status"))
			}
			w.must(t, call, fmt.Sprintf(`{"task":%q,"force":true,"status_reason":"why"}`, id))
			doc := w.read(t, "task", id)
			if doc.Text("status") != to || doc.Text("status_reason") != "why" || doc.Text("status_message") != "" {
				t.Errorf("%s from %s with force: %v", call, from, doc)
			}
		}
	}
}

func TestAPublishedTaskIsPublishedAgainByForceOnly(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	w.run(t, []step{
		{call: "tasks.publish", body: `{"task":"` + id + `","force":true}`},
		{call: "tasks.publish", body: `{"task":"` + id + `"}`, want: "400/110"},
		{call: "tasks.publish", body: `{"task":"` + id + `","force":true}`},
	})
}

func TestTimesOfATaskFollowItsStatus(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	w.must(t, "tasks.started", `{"task":"`+id+`"}`)
	first := w.read(t, "task", id)
	if first.Text("started") == "" || first.Text("started") != first.Text("status_changed") {
		t.Errorf("started %q, status changed %q", first.Text("started"), first.Text("status_changed"))
	}
	w.must(t, "tasks.ping", `{"task":"`+id+`"}`)
	pinged := w.read(t, "task", id)
	if pinged.Text("last_update") <= first.Text("last_update") || pinged.Int("active_duration") != 1 {
		t.Errorf("after the ping: %v", pinged)
	}
	w.must(t, "tasks.completed", `{"task":"`+id+`"}`)
	w.must(t, "tasks.started", `{"task":"`+id+`"}`)
	again := w.read(t, "task", id)
	if again.Text("started") != first.Text("started") || again.Text("completed") == "" {
		t.Errorf("started again: %v", again)
	}
	for body, want := range map[string]string{`{"task":"gone"}`: "200/0", `{}`: "400/12"} {
		if r := w.call(t, "tasks.ping", body); r.code() != want {
			t.Errorf("ping %s: %s, want %s", body, r.code(), want)
		}
	}
}

func TestWriteGuards(t *testing.T) {
	w := newWire(t)
	model := w.model(t, "")
	calls := []struct{ call, body, rule string }{
		{"tasks.edit", `"comment":"c"`, "created or force"},
		{"tasks.edit_hyper_params", `"hyperparams":[{"section":"s","name":"n","value":"v"}]`, "running with force"},
		{"tasks.delete_hyper_params", `"hyperparams":[{"section":"s"}]`, "running with force"},
		{"tasks.edit_configuration", `"configuration":[{"name":"n","value":"v"}]`, "running with force"},
		{"tasks.add_or_update_artifacts", `"artifacts":[{"key":"k","type":"custom"}]`, "running"},
		{"tasks.delete_artifacts", `"artifacts":[{"key":"k"}]`, "running"},
		{"tasks.add_or_update_model", `"name":"n","type":"input","model":"` + model + `"`, "running"},
		{"tasks.delete_models", `"models":[{"name":"n","type":"input"}]`, "running"},
		{"tasks.update", `"comment":"c"`, "always"},
		{"tasks.set_requirements", `"requirements":{"pip":"x"}`, "always"},
		{"tasks.edit_hyper_params", `"hyperparams":[{"section":"Properties","name":"n","value":"v"}]`, "always"},
	}
	for _, status := range statuses {
		id := w.task(t, "")
		w.must(t, "tasks.edit", fmt.Sprintf(`{"task":%q,"force":true,"status":%q}`, id, status))
		for _, c := range calls {
			for _, force := range []bool{false, true} {
				want := "400/110"
				switch {
				case status == "created" || c.rule == "always",
					c.rule == "created or force" && force,
					c.rule == "running with force" && status == "in_progress" && force,
					c.rule == "running" && status == "in_progress":
					want = "200/0"
				}
				if r := w.call(t, c.call, fmt.Sprintf(`{"task":%q,"force":%v,%s}`, id, force, c.body)); r.code() != want {
					t.Errorf("%s of a task that is %s, force=%v: %s, want %s", c.call, status, force, r.code(), want)
				}
			}
		}
	}
}

func TestResetForgetsTheRunOnly(t *testing.T) {
	w := newWire(t)
	draft := w.model(t, "")
	id := w.task(t, `,"script":{"binary":"python"},"hyperparams":{"A":{"x":{"value":"1"}}},"runtime":{"x":1},
		"execution":{"framework":"f","artifacts":[{"key":"in","mode":"input","uri":"u1"},{"key":"out","uri":"u2"}]},"system_tags":["development"]`)
	mine := w.model(t, `,"task":"`+id+`"`)
	published := w.create(t, "models.create", `{"name":"ready one","uri":"u3","ready":true,"task":"`+id+`"}`)
	used := w.model(t, `,"task":"`+id+`"`)
	w.task(t, `,"models":{"input":[{"name":"m","model":"`+used+`"}]}`)
	w.run(t, []step{
		{call: "tasks.started", body: `{"task":"` + id + `"}`},
		{call: "tasks.add_or_update_model", body: `{"task":"` + id + `","name":"o","type":"output","model":"` + mine + `","iteration":7}`},
		{call: "tasks.add_or_update_model", body: `{"task":"` + id + `","name":"i","type":"input","model":"` + draft + `"}`},
		{call: "tasks.stopped", body: `{"task":"` + id + `"}`},
		{call: "tasks.reset", body: `{"task":"` + id + `","return_file_urls":true}`, has: []string{`"deleted_models":1`, `"artifact_urls":["u2"]`, `"model_urls":["http://f/m"]`, `"updated":1`}},
		{call: "models.get_by_id", body: `{"model":"` + mine + `"}`, want: "400/201"},
		{call: "models.get_by_id", body: `{"model":"` + published + `"}`},
		{call: "models.get_by_id", body: `{"model":"` + used + `"}`},
	})
	doc := w.read(t, "task", id)
	if doc.Text("status") != "created" || doc.Text("script", "binary") != "python" || doc.Text("execution", "framework") != "f" {
		t.Errorf("after the reset: %v", doc)
	}
	for _, key := range []string{"started", "completed", "published", "last_worker"} {
		if doc[key] != nil {
			t.Errorf("%s is still %v", key, doc[key])
		}
	}
	got, _ := json.Marshal([]any{doc["runtime"], doc["models"], doc.At("execution", "artifacts"), doc["last_iteration"], doc["hyperparams"]})
	for _, part := range []string{`[{},{"input":[{"model":"` + draft, `"output":[]}`, `[{"key":"in","mode":"input","uri":"u1"}],0,{"A":`} {
		if !strings.Contains(string(got), part) {
			t.Errorf("after the reset %s lacks %s", got, part)
		}
	}
	w.must(t, "tasks.reset", `{"task":"`+id+`","clear_all":true}`)
	doc = w.read(t, "task", id)
	left := doc.Object("execution")
	if artifacts, _ := left["artifacts"].([]any); len(doc.Object("script")) != 0 || len(left) != 1 || len(artifacts) != 0 {
		t.Errorf("after clearing all: %v", doc)
	}
	w.run(t, []step{
		{call: "tasks.publish", body: `{"task":"` + id + `","force":true}`},
		{call: "tasks.reset", body: `{"task":"` + id + `"}`, want: "400/110"},
		{call: "tasks.reset", body: `{"task":"` + id + `","force":true}`},
	})
}

func TestDeleteGuardsWhatIsInUse(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	child := w.task(t, `,"parent":"`+id+`"`)
	draft := w.model(t, `,"task":"`+id+`"`)
	ready := w.create(t, "models.create", `{"name":"ready one","uri":"u","task":"`+id+`"}`)
	w.run(t, []step{
		{call: "tasks.started", body: `{"task":"` + id + `"}`},
		{call: "tasks.delete", body: `{"task":"` + id + `"}`, want: "400/123"},
		{call: "tasks.stopped", body: `{"task":"` + id + `"}`},
		{call: "tasks.archive_many", body: `{"ids":["` + id + `"]}`, has: []string{`"archived":true`}},
		{call: "tasks.delete", body: `{"task":"` + id + `"}`, want: "400/123"},
		{call: "models.delete", body: `{"model":"` + ready + `"}`},
		{call: "tasks.publish", body: `{"task":"` + child + `","force":true}`},
		{call: "tasks.delete", body: `{"task":"` + id + `"}`, want: "400/123"},
		{call: "tasks.delete", body: `{"task":"` + id + `","force":true}`, has: []string{`"deleted":true`, `"deleted_models":1`, `"updated_children":1`}},
		{call: "tasks.get_by_id", body: `{"task":"` + id + `"}`, want: "400/101"},
		{call: "tasks.delete", body: `{"task":"` + id + `","force":true}`, want: "400/101"},
		{call: "models.get_by_id", body: `{"model":"` + draft + `"}`, want: "400/201"},
		{call: "models.delete", body: `{"model":"` + draft + `"}`, want: "400/201"},
	})
	if doc := w.read(t, "task", child); doc["parent"] != nil {
		t.Errorf("the child still has a parent: %v", doc["parent"])
	}
}

func TestPublishingATaskPublishesItsLastModel(t *testing.T) {
	w := newWire(t)
	first, last := w.model(t, ""), w.model(t, "")
	id := w.task(t, `,"models":{"output":[{"name":"a","model":"`+first+`"},{"name":"b","model":"`+last+`"}]}`)
	w.run(t, []step{
		{call: "tasks.started", body: `{"task":"` + id + `"}`, has: []string{`"started":1`}},
		{call: "tasks.publish", body: `{"task":"` + id + `"}`, want: "400/110"},
		{call: "tasks.completed", body: `{"task":"` + id + `","publish":true}`, has: []string{`"published":1`, `"status":"published"`}},
	})
	if doc := w.read(t, "task", id); doc.Text("published") == "" || doc.Text("status") != "published" {
		t.Errorf("task: %v", doc)
	}
	if w.read(t, "model", first)["ready"] != false || w.read(t, "model", last)["ready"] != true {
		t.Error("not the last model was published")
	}
	if r := w.call(t, "tasks.started", `{"task":"`+id+`"}`); r.code() != "400/110" {
		t.Errorf("starting a published task: %s", r.code())
	}
}

func TestStopAsksOnlyWorkers(t *testing.T) {
	w := newWire(t)
	byHand, worked := w.task(t, `,"system_tags":["development"]`), w.task(t, "")
	for _, id := range []string{byHand, worked} {
		w.must(t, "tasks.started", `{"task":"`+id+`"}`)
		w.must(t, "events.add_batch", `{"type":"log","task":"`+id+`","msg":"x","worker":"agent"}`)
		w.must(t, "tasks.stop", `{"task":"`+id+`"}`)
	}
	if doc := w.read(t, "task", byHand); doc.Text("status") != "stopped" {
		t.Errorf("the development task is %s", doc.Text("status"))
	}
	if doc := w.read(t, "task", worked); doc.Text("status") != "in_progress" || doc.Text("status_message") != "stopping" {
		t.Errorf("the worker's task is %s %q", doc.Text("status"), doc.Text("status_message"))
	}
}

package api_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestTagsFrameworksAndNamesInUseAreListed(t *testing.T) {
	w := newWire(t)
	top := w.create(t, "projects.create", `{"name":"top"}`)
	below := w.create(t, "projects.create", `{"name":"top/below"}`)
	parent := w.task(t, `,"tags":["t1"],"project":"`+top+`"`)
	w.task(t, `,"tags":["t2","t1"],"project":"`+below+`","parent":"`+parent+`","hyperparams":{"Args":{"lr":{"value":"0.1"}}}`)
	w.task(t, `,"system_tags":["archived"]`)
	model := w.model(t, `,"tags":["m1"],"framework":"ONNX","project":"`+below+`"`)
	w.must(t, "models.add_or_update_metadata", `{"model":"`+model+`","metadata":[{"key":"k","value":"v"}]}`)
	w.must(t, "events.add", `{"type":"training_stats_scalar","task":"`+parent+`","metric":"loss","variant":"train","iter":1,"value":1}`)
	for _, c := range []struct{ call, body, has, lacks string }{
		{"organization.get_tags", `{}`, `"tags":["m1","t1","t2"]`, "system_tags"},
		{"organization.get_tags", `{"include_system":true}`, `"tags":["m1","t1","t2"],"system_tags":["archived"]`, "hidden"},
		{"organization.get_user_companies", `{}`, `"companies":[{`, "secret"},
		{"projects.get_task_tags", `{"projects":["` + top + `"]}`, `"tags":["t1","t2"]`, "m1"},
		{"projects.get_task_tags", `{"projects":["` + top + `"],"include_subprojects":false}`, `"tags":["t1"]`, "t2"},
		{"projects.get_model_tags", `{"projects":["` + top + `"]}`, `"tags":["m1"]`, "t1"},
		{"projects.get_task_parents", `{"projects":["` + below + `"]}`, `"id":"` + parent + `"`, "t2"},
		{"projects.get_hyper_parameters", `{"project":"` + top + `"}`, `{"name":"lr","section":"Args"}`, `"total":0`},
		{"projects.get_hyperparam_values", `{"projects":["` + top + `"],"section":"Args","name":"lr"}`, `"values":["0.1"]`, `"total":0`},
		{"projects.get_model_metadata_keys", `{"project":"` + below + `"}`, `"keys":["k"]`, `"total":0`},
		{"projects.get_unique_metric_variants", `{"project":"` + top + `"}`, `"metric":"loss"`, `"metrics":[]`},
		{"models.get_frameworks", `{}`, `"frameworks":["ONNX"]`, "null"},
		{"models.get_frameworks", `{"projects":["` + top + `"],"include_subprojects":false}`, `"frameworks":[]`, "ONNX"},
	} {
		if text := w.call(t, c.call, c.body).text; !strings.Contains(text, c.has) || strings.Contains(strings.SplitN(text, `"data":`, 2)[1], c.lacks) {
			t.Errorf("%s %s: %s; want %s and not %s", c.call, c.body, text, c.has, c.lacks)
		}
	}
}

func TestProjectsMoveAndMergeWithWhatIsInThem(t *testing.T) {
	w := newWire(t)
	a := w.create(t, "projects.create", `{"name":"aaa"}`)
	ab := w.create(t, "projects.create", `{"name":"aaa/bbb"}`)
	abc := w.create(t, "projects.create", `{"name":"aaa/bbb/ccc"}`)
	other := w.create(t, "projects.create", `{"name":"other"}`)
	task := w.task(t, `,"project":"`+ab+`"`)
	model := w.model(t, `,"project":"`+abc+`"`)
	w.run(t, []step{
		{call: "projects.move", body: `{"project":"` + ab + `","new_location":"new/place"}`, has: []string{`"moved":2`}},
		{call: "projects.get_by_id", body: `{"project":"` + abc + `"}`, has: []string{`"name":"new/place/bbb/ccc"`}},
		{call: "projects.move", body: `{"project":"` + ab + `","new_location":"new/place/bbb/ccc"}`, want: "400/408"},
		{call: "projects.move", body: `{"project":"` + ab + `","new_location":""}`},
		{call: "projects.get_by_id", body: `{"project":"` + ab + `"}`, has: []string{`"name":"bbb"`}, lacks: []string{`"parent":`}},
		{call: "projects.move", body: `{"project":"none","new_location":"x/y"}`, want: "400/401"},
		{call: "projects.validate_delete", body: `{"project":"` + ab + `"}`, has: []string{`"tasks":1`, `"models":1`, `"non_archived_tasks":1`}},
		{call: "projects.merge", body: `{"project":"` + ab + `","destination_project":"` + abc + `"}`, want: "400/408"},
		{call: "projects.merge", body: `{"project":"` + ab + `","destination_project":"` + other + `"}`, has: []string{`"moved_entities":1`, `"moved_projects":1`}},
		{call: "projects.get_by_id", body: `{"project":"` + ab + `"}`, want: "400/401"},
		{call: "projects.get_by_id", body: `{"project":"` + abc + `"}`, has: []string{`"name":"other/ccc"`, `"parent":"` + other + `"`}},
		{call: "projects.get_by_id", body: `{"project":"` + a + `"}`},
	})
	if got := w.read(t, "task", task).Text("project"); got != other {
		t.Errorf("the task is in %s, want %s", got, other)
	}
	if got := w.read(t, "model", model).Text("project"); got != abc {
		t.Errorf("the model is in %s, want %s", got, abc)
	}
}

func TestBatchOfUpdatesIsAllOrNothing(t *testing.T) {
	w := newWire(t)
	one, two := w.task(t, ""), w.task(t, "")
	lines := func(second string) string {
		return fmt.Sprintf("{\"task\":%q,\"name\":\"first\"}\n{\"task\":%q,\"name\":\"second\"}", one, second)
	}
	send := func(body string) string {
		return w.send(t, "POST", "/tasks.update_batch", body, "Content-Type", "application/json-lines").code()
	}
	if code := send(lines("none")); code != "400/101" || w.read(t, "task", one).Text("name") != "a task" {
		t.Errorf("with an unknown task: %s, and the first is %q", code, w.read(t, "task", one).Text("name"))
	}
	if code := send(lines(two)); code != "200/0" || w.read(t, "task", two).Text("name") != "second" {
		t.Errorf("both: %s", code)
	}
	if code := send(""); code != "400/17" {
		t.Errorf("without any: %s", code)
	}
}

func TestWhatIsPublicStaysAsItIs(t *testing.T) {
	w := newWire(t)
	task, model := w.task(t, ""), w.model(t, "")
	w.run(t, []step{
		{call: "tasks.make_public", body: `{"ids":["` + task + `"]}`, has: []string{`"updated":1`}},
		{call: "tasks.make_private", body: `{"ids":["` + task + `"]}`, has: []string{`"updated":1`}},
		{call: "models.make_public", body: `{"ids":["` + model + `"]}`, has: []string{`"updated":1`}},
		{call: "models.make_private", body: `{"ids":["` + model + `"]}`, has: []string{`"updated":1`}},
		{call: "tasks.make_public", body: `{"ids":["none"]}`, want: "400/101"},
		{call: "models.make_public", body: `{}`, want: "400/11"},
	})
}

func TestQueuesGiveTheirTasksOutInOrder(t *testing.T) {
	w := newWire(t)
	one, two := w.task(t, ""), w.task(t, "")
	queue := w.create(t, "queues.create", `{"name":"queue"}`)
	w.run(t, []step{
		{call: "queues.add_task", body: `{"queue":"` + queue + `","task":"` + one + `"}`, has: []string{`"added":1`}},
		{call: "queues.add_task", body: `{"queue":"` + queue + `","task":"` + two + `"}`},
		{call: "queues.get_next_task", body: `{"queue":"` + queue + `"}`, has: []string{one}},
		{call: "queues.remove_task", body: `{"queue":"` + queue + `","task":"` + two + `"}`, has: []string{`"removed":1`}},
		{call: "queues.remove_task", body: `{"queue":"` + queue + `","task":"` + two + `"}`, has: []string{`"removed":0`}},
		{call: "queues.get_next_task", body: `{"queue":"` + queue + `"}`, lacks: []string{"entry"}},
		{call: "queues.get_next_task", body: `{"queue":"none"}`, want: "400/701"},
		{call: "queues.add_task", body: `{"task":"` + one + `"}`, want: "400/11"},
	})
}

func TestCallsOfPagesThatDifferByNameOnlyAnswerToo(t *testing.T) {
	w := newWire(t)
	task, model := w.task(t, ""), w.model(t, "")
	w.must(t, "queues.create", `{"name":"queue"}`)
	w.run(t, []step{
		{call: "tasks.get_by_id_ex", body: `{"id":["` + task + `"]}`, has: []string{`"tasks":[{`, task}},
		{call: "models.get_by_id_ex", body: `{"id":["` + model + `"]}`, has: []string{`"models":[{`, model}},
		{call: "users.get_all_ex", body: `{}`, has: []string{`"users":[`}},
		{call: "tasks.enqueue_many", body: `{"ids":["` + task + `"],"queue_name":"queue"}`, has: []string{`"failed":[]`}},
		{call: "tasks.dequeue_many", body: `{"ids":["` + task + `","none"]}`, has: []string{`"updated":1`, `"codes":[400,101]`}},
		{call: "tasks.get_by_id", body: `{"task":"` + task + `"}`, has: []string{`"status":"created"`}},
		{call: "tasks.get_configuration_history", body: `{"task":"` + task + `"}`, has: []string{`"total":0`, `"edits":[]`}},
		{call: "tasks.get_configuration_history", body: `{"task":"none"}`, want: "400/101"},
		{call: "tasks.get_configuration_history", body: `{"task":"` + task + `","page":-1}`, want: "400/12"},
	})
}

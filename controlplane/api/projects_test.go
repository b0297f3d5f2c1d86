package api_test

import (
	"strings"
	"sync"
	"testing"
)

func TestProjectsAreMadeWithThoseAboveThem(t *testing.T) {
	w := newWire(t)
	ids := w.run(t, []step{
		{call: "projects.create", body: `{"name":" a / b /low ","description":""}`, save: "LOW"},
		{call: "projects.get_by_id", body: `{"project":"$LOW"}`, has: []string{`"name":"a/b/low"`, `"basename":"low"`, `"description":""`, `"tags":[]`}},
		{call: "projects.get_all", body: `{"name":"^a/b$"}`, has: []string{`"basename":"b"`}},
		{call: "projects.create", body: `{"name":"a/b/low"}`, want: "400/801"},
		{call: "projects.create", body: `{"name":"a/b"}`, want: "400/801"},
		{call: "projects.create", body: `{"name":"ab"}`, want: "400/12"},
		{call: "projects.create", body: `{}`, want: "400/11"},
		{call: "projects.create", body: `{"name":"a//b"}`, want: "400/407"},
		{call: "projects.create", body: `{"name":"a/ /b"}`, want: "400/407"},
		{call: "projects.create", body: `{"name":"a/b/other"}`, save: "OTHER"},
		{call: "projects.get_all", body: `{}`, has: []string{`"name":"a"`, `"name":"a/b"`}},
	})
	low, other := w.read(t, "project", ids["LOW"]), w.read(t, "project", ids["OTHER"])
	if low.Text("parent") == "" || low.Text("parent") != other.Text("parent") {
		t.Errorf("parents %q and %q", low.Text("parent"), other.Text("parent"))
	}
}

func TestTwoWhoMakeTheSameProjectGetOne(t *testing.T) {
	w := newWire(t)
	var wg sync.WaitGroup
	codes := make(chan string, 10)
	for range 10 {
		wg.Go(func() { codes <- w.call(t, "projects.create", `{"name":"same/one"}`).code() })
	}
	wg.Wait()
	close(codes)
	made := 0
	for code := range codes {
		switch code {
		case "200/0":
			made++
		case "400/801":
		default:
			t.Errorf("got %s", code)
		}
	}
	if made != 1 {
		t.Errorf("%d were made", made)
	}
	if n := len(w.must(t, "projects.get_all", "")["projects"].([]any)); n != 2 {
		t.Errorf("there are %d projects, want 2", n)
	}
}

func TestRenamedProjectTakesItsChildrenAlong(t *testing.T) {
	w := newWire(t)
	w.run(t, []step{
		{call: "projects.create", body: `{"name":"top/mid/low"}`, save: "LOW"},
		{call: "projects.create", body: `{"name":"top/midway"}`, save: "NEAR"},
		{call: "projects.create", body: `{"name":"top/taken"}`, save: "TAKEN"},
		{call: "projects.get_all", body: `{"name":"^top/mid$"}`, has: []string{"top/mid"}},
	})
	mid := w.must(t, "projects.get_all", `{"name":"^top/mid$"}`)["projects"].([]any)[0].(map[string]any)["id"].(string)
	w.run(t, []step{
		{call: "projects.update", body: `{"project":"` + mid + `","name":"other/mid"}`, want: "400/408"},
		{call: "projects.update", body: `{"project":"` + mid + `","name":"top/taken"}`, want: "400/801"},
		{call: "projects.update", body: `{"project":"` + mid + `","name":"top/new","description":"d","tags":["x"]}`, has: []string{`"updated":1`}},
		{call: "projects.get_by_id", body: `{"project":"` + mid + `"}`, has: []string{`"name":"top/new"`, `"basename":"new"`, `"description":"d"`, `"tags":["x"]`}},
		{call: "projects.get_all", body: `{"name":"low"}`, has: []string{`"name":"top/new/low"`}},
		{call: "projects.get_all", body: `{"name":"midway"}`, has: []string{`"name":"top/midway"`}},
		{call: "projects.update", body: `{"project":"gone","name":"abc"}`, want: "400/401"},
	})
}

func TestDeletingProjects(t *testing.T) {
	w := newWire(t)
	ids := w.run(t, []step{
		{call: "projects.create", body: `{"name":"top"}`, save: "TOP"},
		{call: "projects.create", body: `{"name":"top/low"}`, save: "LOW"},
		{call: "tasks.create", body: `{"name":"task","type":"custom","project":"$LOW"}`, save: "T"},
		{call: "models.create", body: `{"name":"model","uri":"u1","ready":false,"project":"$LOW"}`, save: "M"},
		{call: "projects.delete", body: `{"project":"$TOP"}`, want: "400/402"},
		{call: "tasks.archive_many", body: `{"ids":["$T"]}`},
		{call: "projects.delete", body: `{"project":"$TOP"}`, want: "400/405"},
		{call: "projects.delete", body: `{"project":"$TOP","force":true}`, has: []string{`"deleted":2`, `"disassociated_tasks":1`}},
		{call: "projects.get_by_id", body: `{"project":"$LOW"}`, want: "400/401"},
		{call: "tasks.get_by_id", body: `{"task":"$T"}`, lacks: []string{`"project"`}},
		{call: "models.get_by_id", body: `{"model":"$M"}`, lacks: []string{`"project"`}},
		{call: "projects.create", body: `{"name":"again"}`, save: "A"},
		{call: "tasks.create", body: `{"name":"task","type":"custom","project":"$A"}`, save: "T2"},
		{call: "models.create", body: `{"name":"model","uri":"u2","ready":false,"task":"$T2","project":"$A"}`, save: "M2"},
		{call: "models.create", body: `{"name":"model","uri":"u3","project":"$A"}`, save: "M3"},
		{call: "projects.delete", body: `{"project":"$A","force":true,"delete_contents":true}`, has: []string{`"deleted_tasks":1`, `"deleted_models":2`, `"model_urls":["u2","u3"]`}},
		{call: "tasks.get_by_id", body: `{"task":"$T2"}`, want: "400/101"},
		{call: "models.get_by_id", body: `{"model":"$M3"}`, want: "400/201"},
		{call: "projects.delete", body: `{"project":"$A"}`, want: "400/401"},
	})
	if ids["T"] == "" {
		t.Error("no task")
	}
}

func TestQueuesHoldTasksInOrder(t *testing.T) {
	w := newWire(t)
	ids := w.run(t, []step{
		{call: "tasks.create", body: `{"name":"abc","type":"custom","system_tags":["development"]}`, save: "T"},
		{call: "tasks.enqueue", body: `{"task":"$T"}`, want: "400/707"},
		{call: "queues.get_default", body: `{}`, want: "400/707"},
		{call: "tasks.enqueue", body: `{"task":"$T","queue":"gone"}`, want: "400/701"},
		{call: "queues.create", body: `{"name":"default","system_tags":["default"]}`, save: "Q"},
		{call: "queues.create", body: `{"name":"default"}`, want: "400/801"},
		{call: "queues.create", body: `{}`, want: "400/12"},
		{call: "queues.create", body: `{"name":"x"}`, want: "400/800"},
		{call: "queues.get_default", body: `{}`, has: []string{`"id":"$Q"`}},
		{call: "queues.get_all", body: `{"name":"^default$","only_fields":["id"],"search_hidden":true}`, has: []string{`"queues":[{"id":"$Q"}]`}},
		{call: "queues.get_by_id", body: `{"queue":"$Q"}`, has: []string{`"name":"default"`, `"entries":[]`}},
		{call: "tasks.enqueue", body: `{"task":"$T"}`, has: []string{`"queued":1`, `"updated":1`}},
		{call: "tasks.enqueue", body: `{"task":"$T"}`, want: "400/706"},
		{call: "tasks.enqueue", body: `{"task":"$T","queue":"$Q","queue_name":"default"}`, want: "400/12"},
		{call: "tasks.enqueue", body: `{"task":"$T","queue_name":"elsewhere"}`, has: []string{`"queued":1`, `"execution.queue":"`, `"last_changed_by":"user1"`}},
		{call: "queues.get_num_entries", body: `{"queue":"$Q"}`, has: []string{`"num":0`}},
		{call: "tasks.enqueue", body: `{"task":"$T","queue":"$Q"}`, has: []string{`"execution.queue":"$Q"`}},
		{call: "queues.get_all", body: `{"name":"^elsewhere$"}`, has: []string{`"entries":[]`}},
		{call: "tasks.get_by_id", body: `{"task":"$T"}`, has: []string{`"status":"queued"`, `"system_tags":[]`, `"queue":"$Q"`}},
		{call: "queues.get_num_entries", body: `{"queue":"$Q"}`, has: []string{`"num":1`}},
		{call: "queues.delete", body: `{"queue":"$Q"}`, want: "400/702"},
		{call: "tasks.dequeue", body: `{"task":"$T"}`, has: []string{`"dequeued":1`}},
		{call: "tasks.dequeue", body: `{"task":"$T"}`, has: []string{`"dequeued":1`, `"updated":0`}},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"status":"stopped"}`},
		{call: "tasks.enqueue", body: `{"task":"$T"}`},
		{call: "tasks.dequeue", body: `{"task":"$T","new_status":"in_progress"}`, has: []string{`"status":"in_progress"`}},
		{call: "tasks.dequeue", body: `{"task":"$T","new_status":"done"}`, want: "400/12"},
		{call: "tasks.stopped", body: `{"task":"$T"}`},
		{call: "tasks.enqueue", body: `{"task":"$T"}`},
		{call: "tasks.dequeue", body: `{"task":"$T"}`, has: []string{`"status":"stopped"`}},
		{call: "tasks.reset", body: `{"task":"$T"}`},
		{call: "queues.get_num_entries", body: `{"queue":"$Q"}`, has: []string{`"num":0`}},
		{call: "tasks.enqueue", body: `{"task":"$T","queue_name":"made for it"}`},
		{call: "tasks.started", body: `{"task":"$T"}`},
		{call: "queues.get_all", body: `{"name":"made"}`, has: []string{`"entries":[]`}},
		{call: "tasks.reset", body: `{"task":"$T"}`},
		{call: "tasks.enqueue", body: `{"task":"$T","queue":"$Q"}`},
		{call: "queues.delete", body: `{"queue":"$Q","force":true}`, has: []string{`"deleted":1`}},
		{call: "tasks.get_by_id", body: `{"task":"$T"}`, has: []string{`"status":"created"`}},
		{call: "tasks.enqueue", body: `{"task":"$T","queue_name":"made for it"}`},
		{call: "tasks.archive_many", body: `{"ids":["$T"]}`},
		{call: "tasks.get_by_id", body: `{"task":"$T"}`, has: []string{`"status":"created"`, `"system_tags":["archived"]`}},
	})
	if r := w.call(t, "queues.get_all", `{}`); strings.Contains(r.text, ids["T"]) {
		t.Errorf("a queue still holds the task: %s", r.text)
	}
}

func TestDeletingAProjectWithItsContentsTakesItsTasksOutOfQueues(t *testing.T) {
	newWire(t).run(t, []step{
		{call: "projects.create", body: `{"name":"the project"}`, save: "P"},
		{call: "queues.create", body: `{"name":"the queue"}`, save: "Q"},
		{call: "tasks.create", body: `{"name":"waiting","type":"training","project":"$P"}`, save: "T"},
		{call: "tasks.enqueue", body: `{"task":"$T","queue":"$Q"}`},
		{call: "queues.get_num_entries", body: `{"queue":"$Q"}`, has: []string{`"num":1`}},
		{call: "projects.delete", body: `{"project":"$P","force":true,"delete_contents":true}`, has: []string{`"deleted_tasks":1`}},
		{call: "queues.get_num_entries", body: `{"queue":"$Q"}`, has: []string{`"num":0`}},
	})
}

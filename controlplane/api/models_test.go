package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBadModelsAreRefused(t *testing.T) {
	w := newWire(t)
	for _, c := range []struct{ body, want, msg string }{
		{`{"uri":"u"}`, "400/12", "name"},
		{`{"name":"abc"}`, "400/12", "uri"},
		{`{"name":"ab","uri":"u"}`, "400/800", "3 characters"},
		{`{"name":"abc","uri":"u","labels":{"cat":"1"}}`, "400/12", "cat"},
		{`{"name":"abc","uri":"u","labels":{"cat":1.5}}`, "400/12", "cat"},
		{`{"name":"abc","uri":"u","metadata":{"k":{"value":1}}}`, "400/12", "k"},
		{`{"name":"abc","uri":"u","metadata":"x"}`, "400/12", "metadata"},
		{`{"name":"abc","uri":"u","ready":"yes"}`, "400/12", "ready"},
		{`{"name":"abc","uri":"u","project":"gone"}`, "400/401", "gone"},
		{`{"name":"abc","uri":"u","task":"gone"}`, "400/101", "gone"},
		{`{"name":"abc","uri":"u","parent":"gone"}`, "400/201", "gone"},
	} {
		r := w.call(t, "models.create", c.body)
		if r.code() != c.want || !strings.Contains(r.Meta.ResultMsg, c.msg) {
			t.Errorf("%s: %s %q, want %s and %q", c.body, r.code(), r.Meta.ResultMsg, c.want, c.msg)
		}
	}
}

func TestModelIsReadyUnlessSaidOtherwise(t *testing.T) {
	w := newWire(t)
	ready := w.create(t, "models.create", `{"name":"abc","uri":"u"}`)
	if doc := w.read(t, "model", ready); doc["ready"] != true {
		t.Errorf("ready is %v", doc["ready"])
	}
	draft := w.read(t, "model", w.model(t, ""))
	got, _ := json.Marshal([]any{draft["ready"], draft["labels"], draft["metadata"], draft["tags"], draft["system_tags"], draft["framework"]})
	if string(got) != `[false,{},{},[],[],null]` {
		t.Errorf("a new model has %s", got)
	}
}

func TestModelEditReplacesKeyByKey(t *testing.T) {
	w := newWire(t)
	task := w.task(t, "")
	id := w.model(t, `,"tags":["a"],"labels":{"cat":1},"framework":"x","task":"`+task+`"`)
	before := w.read(t, "model", id)
	w.must(t, "models.edit", `{"model":"`+id+`","name":"new name","comment":"c"}`)
	after := w.read(t, "model", id)
	if after.Text("last_update") != before.Text("last_update") || after.Text("name") != "new name" {
		t.Errorf("an edit of the name: %v", after)
	}
	w.must(t, "models.edit", `{"model":"`+id+`","uri":"http://f/x","tags":[],"labels":{},"design":{"design":"d"},"metadata":{"a.b":{"key":"a.b","type":"str","value":"v"}},"iteration":5,"framework":null}`)
	after = w.read(t, "model", id)
	got, _ := json.Marshal([]any{after["uri"], after["tags"], after["labels"], after["design"], after["metadata"], after["framework"], after["last_update"] != before["last_update"]})
	if diff := cmp.Diff(`["http://f/x",[],{},{"design":"d"},{"a.b":{"key":"a.b","type":"str","value":"v"}},"x",true]`, string(got)); diff != "" {
		t.Error(diff)
	}
	if w.read(t, "task", task).Int("last_iteration") != 5 {
		t.Error("the iteration did not reach the task")
	}
	w.must(t, "models.edit", `{"model":"`+id+`","iteration":3}`)
	if w.read(t, "task", task).Int("last_iteration") != 5 {
		t.Error("a lower iteration replaced the higher one")
	}
	w.run(t, []step{
		{call: "models.edit", body: `{"model":"gone","name":"abc"}`, want: "400/201"},
		{call: "models.edit", body: `{"model":"` + id + `","project":"gone"}`, want: "400/16"},
		{call: "models.edit", body: `{"model":"` + id + `","name":"ab"}`, want: "400/800"},
		{call: "models.edit", body: `{"name":"abc"}`, want: "400/12"},
	})
}

func TestPublishingAModel(t *testing.T) {
	w := newWire(t)
	task := w.task(t, "")
	alone, made, kept := w.model(t, ""), w.model(t, `,"task":"`+task+`"`), w.model(t, `,"task":"`+task+`"`)
	w.run(t, []step{
		{call: "models.set_ready", body: `{"model":"` + alone + `"}`, has: []string{`"updated":1`}, lacks: []string{"published_task"}},
		{call: "models.set_ready", body: `{"model":"` + alone + `"}`, want: "400/203"},
		{call: "models.set_ready", body: `{"model":"` + kept + `","publish_task":false}`, lacks: []string{"published_task"}},
		{call: "models.set_ready", body: `{"model":"` + made + `"}`, want: "400/110"},
		{call: "models.get_by_id", body: `{"model":"` + made + `"}`, has: []string{`"ready":false`}},
		{call: "models.set_ready", body: `{"model":"` + made + `","force_publish_task":true}`, has: []string{`"published_task":{"id":"` + task, `"status":"published"`}},
		{call: "models.set_ready", body: `{"model":"gone"}`, want: "400/201"},
	})
}

func TestDeletingAModel(t *testing.T) {
	w := newWire(t)
	task := w.task(t, "")
	used, made, free := w.model(t, ""), w.model(t, `,"task":"`+task+`"`), w.model(t, "")
	w.run(t, []step{
		{call: "tasks.add_or_update_model", body: `{"task":"` + task + `","name":"i","type":"input","model":"` + used + `"}`},
		{call: "tasks.add_or_update_model", body: `{"task":"` + task + `","name":"o","type":"output","model":"` + made + `"}`},
		{call: "models.delete", body: `{"model":"` + used + `"}`, want: "400/205"},
		{call: "models.delete", body: `{"model":"` + used + `","force":true}`, has: []string{`"deleted":true`, `"url":"http://f/m"`}},
		{call: "tasks.publish", body: `{"task":"` + task + `","force":true,"publish_model":false}`},
		{call: "models.delete", body: `{"model":"` + made + `"}`, want: "400/206"},
		{call: "models.delete", body: `{"model":"` + made + `","force":true}`, has: []string{`"url":"http://f/m"`}},
		{call: "tasks.get_by_id", body: `{"task":"` + task + `"}`, has: []string{`"output":[]`}},
		{call: "models.delete", body: `{"model":"` + free + `"}`},
		{call: "models.delete", body: `{"model":"` + free + `"}`, want: "400/201"},
	})
}

func TestArchivedModelsStayUntilUnarchived(t *testing.T) {
	w := newWire(t)
	id := w.model(t, "")
	before := w.read(t, "model", id).Text("last_update")
	w.run(t, []step{
		{call: "models.archive_many", body: `{"ids":["` + id + `","gone"]}`, has: []string{`{"archived":true,"id":"` + id + `"}`, `"codes":[400,201]`}},
		{call: "models.get_all", body: `{"system_tags":["-archived"]}`, has: []string{`"models":[]`}},
		{call: "models.get_all", body: `{}`, has: []string{id}},
		{call: "models.unarchive_many", body: `{"ids":["` + id + `"]}`},
		{call: "models.get_all", body: `{"system_tags":["-archived"]}`, has: []string{id}},
	})
	if got := w.read(t, "model", id); got.Text("last_change") == got.Text("created") || before == "" {
		t.Error("archiving didn't move last_change")
	}
}

func TestMetadataIsKeptByKey(t *testing.T) {
	w := newWire(t)
	id := w.model(t, "")
	w.run(t, []step{
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[{"key":"a.b","type":"str","value":"1"},{"key":" $c ","type":"str","value":"2"}]}`, has: []string{`"updated":1`}},
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[{"key":"a.b","type":"str","value":"3"}],"replace_metadata":false}`},
		{call: "models.get_by_id", body: `{"model":"` + id + `"}`, has: []string{`"metadata":{"$c":{"key":"$c","type":"str","value":"2"},"a.b":{"key":"a.b","type":"str","value":"3"}}`}},
		{call: "models.delete_metadata", body: `{"model":"` + id + `","keys":["a.b","gone"]}`},
		{call: "models.get_by_id", body: `{"model":"` + id + `"}`, has: []string{`"metadata":{"$c":{"key":"$c","type":"str","value":"2"}}`}},
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[{"key":"new","type":"str","value":"4"}],"replace_metadata":true}`},
		{call: "models.get_by_id", body: `{"model":"` + id + `"}`, has: []string{`"metadata":{"new":{"key":"new","type":"str","value":"4"}}`}},
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[{"type":"str","value":"4"}]}`, want: "400/12"},
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[{"key":"k","value":"4"}]}`, want: "400/12"},
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[{"key":"k","type":"str"}]}`, want: "400/12"},
		{call: "models.add_or_update_metadata", body: `{"model":"` + id + `","metadata":[]}`, want: "400/12"},
		{call: "models.delete_metadata", body: `{"model":"` + id + `"}`, want: "400/12"},
	})
}

package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

// These sequences are what the Python SDK 1.17 and the CLI of ClearML Serving 1.3 were
// seen to send; what they read from the answers is asserted.

func statusPoll(id string) step {
	return step{
		call: "tasks.get_all", body: `{"id":["` + id + `"],"only_fields":["status","status_message","id"],"search_hidden":false}`,
		has: []string{`"id":"` + id + `"`, `"status":"`},
	}
}

func TestTraceOfATrainingRun(t *testing.T) {
	w := newWire(t)
	ids := w.run(t, []step{
		{call: "projects.get_all", body: `{"name":"^P\\ one$","only_fields":["id"],"search_hidden":true,"shallow_search":false}`, has: []string{`"projects":[]`}},
		{call: "projects.create", body: `{"name":"P one","description":""}`, save: "P"},
		{call: "projects.get_all", body: `{"name":"^P\\ one$","only_fields":["id"],"search_hidden":true,"shallow_search":false}`, has: []string{`"projects":[{"id":"$P"}]`}},
		{call: "tasks.create", body: `{"name":"T [a]","type":"training","project":"$P","comment":"Auto-generated at now by user@host","system_tags":["development"]}`, save: "T"},
		{call: "tasks.get_by_id", body: `{"task":"$T"}`, has: []string{`"output":{}`, `"script":{}`}},
		{call: "tasks.started", body: `{"task":"$T","force":false}`, has: []string{`"started":1`}},
		{call: "projects.get_by_id", body: `{"project":"$P"}`, has: []string{`"name":"P one"`}},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"script":{"binary":"python","repository":"","branch":"","version_num":"","entry_point":"train.py","working_dir":".","diff":"code"}}`},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"output_dest":"http://files:8081"}`},
		{call: "events.add_batch", body: `{"type":"log","task":"$T","level":"info","msg":"hello\nworld","timestamp":1795441216000,"worker":"w","allow_locked":false,"model_event":false}`, has: []string{`"added":1`}},
		{call: "tasks.set_requirements", body: `{"task":"$T","requirements":{"pip":"numpy","conda":""}}`},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"runtime":{"CLEARML VERSION":"clearml-1.17.0","CLI":"/usr/bin/python","progress":"0"}}`},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"runtime":{"CLEARML VERSION":"clearml-1.17.0","progress":"0","cpu_cores":2,"gpu":false}}`},
		{call: "models.create", body: `{"uri":"http://files:8081/uploading_file","name":"Anonymous model 1","labels":{},"ready":false,"public":false,"project":"$P"}`, save: "M"},
		{call: "models.get_by_id", body: `{"model":"$M"}`, has: []string{`"ready":false`}},
		{call: "models.edit", body: `{"model":"$M","uri":"http://files:8081/uploading_file","name":"T [a] - sk model","comment":"Created by task id: $T","tags":[],"system_tags":[],"framework":"ScikitLearn","design":{"design":""},"labels":{},"project":"$P","task":"$T"}`},
		{call: "tasks.add_or_update_model", body: `{"task":"$T","name":"sk model","model":"$M","type":"output"}`},
		{call: "tasks.get_all", body: `{"id":["$T"],"only_fields":["last_iteration"]}`, has: []string{`"tasks":[{"id":"$T","last_iteration":0}]`}},
		{call: "models.edit", body: `{"model":"$M","uri":"http://files:8081/P%20one/T%20%5Ba%5D.T/models/sk%20model.pkl","name":"T [a] - sk model","comment":"Created by task id: $T","tags":[],"system_tags":[],"framework":"ScikitLearn","design":{"design":""},"labels":{},"project":"$P","task":"$T"}`},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"hyperparams":{"General":{"a":{"section":"General","name":"a","value":"1","type":"int","description":""},"b/c":{"section":"General","name":"b/c","value":"","description":""}}}}`},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"$T","artifacts":[{"key":"art","type":"dict","mode":"output","uri":"http://files:8081/a.json","hash":"00","content_size":14,"timestamp":1795441216,"type_data":{"preview":"{'x': 1}","content_type":"application/json"},"display_data":[["k","v"]]}],"force":true}`},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"configuration":{"cfg":{"name":"cfg","value":"a = 1\nb {\n  c = \"d\"\n}\n"}}}`},
		{call: "events.add_batch", body: `{"type":"training_stats_scalar","task":"$T","metric":"t","variant":"s","value":1.5,"iter":3,"timestamp":1795441217000}`},
		{call: "tasks.edit", body: `{"task":"$T","force":true,"runtime":{"CLEARML VERSION":"clearml-1.17.0","progress":"100","cpu_cores":2,"gpu":false}}`},
		{call: "tasks.completed", body: `{"task":"$T","force":false,"status_reason":"completed","publish":false}`, has: []string{`"published":0`}},
	})
	w.run(t, []step{statusPoll(ids["T"])})
	doc := w.read(t, "task", ids["T"])
	for _, c := range []struct {
		path []string
		want string
	}{
		{[]string{"status"}, "completed"},
		{[]string{"status_reason"}, "completed"},
		{[]string{"script", "entry_point"}, "train.py"},
		{[]string{"script", "requirements", "pip"}, "numpy"},
		{[]string{"output", "destination"}, "http://files:8081"},
		{[]string{"hyperparams", "General", "b/c", "name"}, "b/c"},
		{[]string{"configuration", "cfg", "value"}, "a = 1\nb {\n  c = \"d\"\n}\n"},
	} {
		if got := doc.Text(c.path...); got != c.want {
			t.Errorf("%v is %q, want %q", c.path, got, c.want)
		}
	}
	if diff := cmp.Diff(store.Doc{"CLEARML VERSION": "clearml-1.17.0", "progress": "100", "cpu_cores": json.Number("2"), "gpu": false}, store.Doc(doc.Object("runtime"))); diff != "" {
		t.Error(diff)
	}
	if doc.Int("last_iteration") != 3 || len(doc.Object("last_metrics")) != 1 {
		t.Errorf("last iteration %v, metrics %v", doc["last_iteration"], doc["last_metrics"])
	}
	model := w.read(t, "model", ids["M"])
	if model.Text("task") != ids["T"] || model.Text("framework") != "ScikitLearn" || !strings.HasSuffix(model.Text("uri"), "sk%20model.pkl") {
		t.Errorf("model: %v", model)
	}

	// The same script again within 72 hours takes the task up again.
	w.run(t, []step{
		{call: "tasks.get_all", body: `{"id":["` + ids["T"] + `"],"only_fields":["id","name","project","type"]}`, has: []string{`"type":"training"`, ids["P"]}},
		{call: "tasks.reset", body: `{"task":"` + ids["T"] + `","force":false,"clear_all":false,"delete_external_artifacts":true}`},
		{call: "tasks.edit", body: `{"task":"` + ids["T"] + `","force":true,"system_tags":["development"],"comment":"again","output_dest":"","execution":{"parameters":{},"model_desc":{},"model_labels":{},"artifacts":[]},"script":{"binary":"python"},"hyperparams":{},"configuration":{},"models":{"input":[],"output":[]},"container":{"image":null}}`},
		{call: "tasks.started", body: `{"task":"` + ids["T"] + `","force":false}`},
		{call: "models.get_by_id", body: `{"model":"` + ids["M"] + `"}`, want: "400/201"},
	})
	doc = w.read(t, "task", ids["T"])
	got, _ := json.Marshal([]any{doc["status"], doc["hyperparams"], doc["configuration"], doc["output"], doc["runtime"], doc["execution"]})
	if diff := cmp.Diff(`["in_progress",{},{},{"destination":""},{},{"artifacts":[],"model_desc":{},"model_labels":{},"parameters":{}}]`, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestTraceOfTheReadingHelpers(t *testing.T) {
	w := newWire(t)
	w.run(t, []step{
		{call: "projects.create", body: `{"name":"P one","description":""}`, save: "P"},
		{call: "tasks.create", body: `{"name":"made","type":"training","project":"$P","system_tags":["development"]}`, save: "T"},
		{call: "models.create", body: `{"name":"m [1]","uri":"http://f/m","ready":false,"project":"$P","task":"$T","tags":["prod"]}`, save: "M"},
		// Task.get_task by id and by name
		{call: "tasks.get_by_id", body: `{"task":"nope"}`, want: "400/101"},
		{call: "projects.get_all", body: `{"name":"^P\\ one$","only_fields":["id","name","last_update"],"search_hidden":false,"shallow_search":false}`, has: []string{`"name":"P one"`, `"last_update":"`}},
		{call: "tasks.get_all", body: `{"name":"^made$","project":["$P"],"only_fields":["id","name","last_update","system_tags"],"search_hidden":false}`, has: []string{`"id":"$T"`, `+00:00"`, `"system_tags":["development"]`}},
		// Task.query_tasks
		{call: "tasks.get_all", body: `{"page":0,"page_size":500,"only_fields":["id","name"],"tags":["x"],"search_hidden":false}`, has: []string{`"tasks":[]`}},
		// Task.clone and enqueue
		{call: "tasks.clone", body: `{"task":"$T","new_task_name":"copy","new_task_parent":"$T"}`, save: "C"},
		{call: "tasks.get_by_id", body: `{"task":"$C"}`, has: []string{`"parent":"$T"`, `"name":"copy"`}},
		{call: "queues.get_by_id", body: `{"queue":"default"}`, want: "400/701"},
		{call: "queues.get_all", body: `{"name":"^default$","only_fields":["id"],"search_hidden":true}`, has: []string{`"queues":[]`}},
		{call: "tasks.enqueue", body: `{"task":"$C","queue_name":"default"}`, has: []string{`"queued":1`}},
		// user properties
		{call: "tasks.edit_hyper_params", body: `{"task":"$T","hyperparams":[{"section":"properties","name":"color","value":"red","type":"str"}],"replace_hyperparams":"none"}`},
		{call: "tasks.get_hyper_params", body: `{"tasks":["$T"]}`, has: []string{`"params":[{"task":"$T","hyperparams":[{"name":"color","section":"properties","type":"str","value":"red"}]}]`}},
		// task.models
		{call: "models.get_all", body: `{"task":["$T"],"order_by":["created"],"only_fields":["id"]}`, has: []string{`"models":[{"id":"$M"}]`}},
		// Model.query_models
		{call: "models.get_all", body: `{"name":"^m\\ \\[1\\]$","tags":["prod"],"system_tags":["-archived"],"project":["$P"],"only_fields":["id","created","system_tags"],"order_by":["-created"],"page":0,"page_size":2}`, has: []string{`"id":"$M"`, `"system_tags":[]`}},
		{call: "models.get_all", body: `{"ready":true,"page":0,"page_size":2}`, has: []string{`"models":[]`}},
		// InputModel.import_model
		{call: "models.get_all", body: `{"uri":["http://f/m"],"system_tags":["-archived"],"only_fields":["id","name","created"]}`, has: []string{`"id":"$M"`}},
		// OutputModel.publish, Model.archive, set_metadata, tags
		{call: "models.set_ready", body: `{"model":"$M","publish_task":false}`},
		{call: "models.set_ready", body: `{"model":"$M","publish_task":false}`, want: "400/203"},
		{call: "models.archive_many", body: `{"ids":["$M"]}`},
		{call: "models.add_or_update_metadata", body: `{"model":"$M","metadata":[{"key":"k","type":"str","value":"v"}],"replace_metadata":false}`, has: []string{`"updated":1`}},
		{call: "models.get_all", body: `{"metadata.k.value":"v"}`, has: []string{`"$M"`}},
		{call: "models.get_by_id", body: `{"model":"$M"}`, has: []string{`"metadata":{"k":{"key":"k","type":"str","value":"v"}}`, `"system_tags":["archived"]`}},
		// Task.delete and Model.remove
		{call: "models.get_all", body: `{"task":["$T"],"only_fields":["id","uri"]}`},
		{call: "events.get_task_events", body: `{"task":"$T","batch_size":5000}`, has: []string{`"events":[]`, `"returned":0`}},
		{call: "tasks.delete", body: `{"task":"$T","force":true,"delete_output_models":true}`, has: []string{`"deleted":true`}},
		{call: "models.delete", body: `{"model":"$M","force":true}`, has: []string{`"deleted":true`}},
		{call: "models.delete", body: `{"model":"$M","force":true}`, want: "400/201"},
	})
}

func TestTraceOfTheServingCLI(t *testing.T) {
	w := newWire(t)
	find := step{
		call: "tasks.get_all", body: `{"type":["service"],"status":["created","in_progress"],"system_tags":["serving-control-plane"],"page":0,"page_size":500,"only_fields":["id","name","last_update","system_tags"],"search_hidden":false}`,
		has: []string{`"tasks":[{"id":"$SID"`},
	}
	store4 := func(section, value string) []step {
		return []step{
			{call: "tasks.get_by_id", body: `{"task":"$SID"}`},
			{call: "tasks.edit", body: `{"task":"$SID","force":true,"configuration":{"endpoints":{"name":"endpoints","value":"{}"},` + section + `:{"name":` + section + `,"value":` + value + `}}}`},
		}
	}
	steps := []step{
		{call: "projects.get_all", body: `{"name":"^DevOps$","only_fields":["id"],"search_hidden":true,"shallow_search":false}`},
		{call: "projects.create", body: `{"name":"DevOps","description":""}`, save: "P"},
		{call: "tasks.create", body: `{"name":"Serving Service","type":"service","project":"$P","system_tags":["development"]}`, save: "SID"},
		{call: "tasks.edit", body: `{"task":"$SID","force":true,"system_tags":["serving-control-plane"]}`},
		{call: "tasks.edit", body: `{"task":"$SID","force":true,"tags":["prod"]}`},
		{call: "tasks.edit", body: `{"task":"$SID","force":true,"runtime":{"version":"1.3.2"}}`},
		{call: "tasks.create", body: `{"name":"Other Service","type":"service","project":"$P","system_tags":["serving-control-plane"]}`, save: "OTHER"},
		find,
		// config
		{call: "tasks.edit", body: `{"task":"$SID","force":true,"hyperparams":{"General":{"serving_base_url":{"section":"General","name":"serving_base_url","value":"http://127.0.0.1:8080/serve","type":"str","description":""}}}}`},
		// model upload
		{call: "models.create", body: `{"uri":"http://files:8081/uploading_file","name":"train sklearn model","labels":{},"ready":false,"public":false,"project":"$P"}`, save: "M"},
		{call: "tasks.add_or_update_model", body: `{"task":"$SID","name":"sklearn-model","model":"$M","type":"output"}`},
		{call: "models.edit", body: `{"model":"$M","uri":"http://files:8081/DevOps/Serving%20Service.SID/models/sklearn-model.pkl","iteration":0,"framework":"scikitlearn","comment":"snapshot x stored\n"}`},
		{call: "models.set_ready", body: `{"model":"$M","publish_task":false}`},
		// model add
		{call: "tasks.add_or_update_artifacts", body: `{"task":"$SID","artifacts":[{"key":"py_code_test_model_sklearn","type":"custom","mode":"output","uri":"http://files:8081/p.py","hash":"aa","content_size":3,"timestamp":1}],"force":true}`},
		{call: "tasks.add_or_update_model", body: `{"task":"$SID","name":"test_model_sklearn","model":"$M","type":"input"}`},
		{call: "tasks.edit", body: `{"task":"$SID","force":true,"execution":{"model_labels":{},"artifacts":[{"key":"py_code_test_model_sklearn","type":"custom","mode":"output","uri":"http://files:8081/p.py","hash":"aa","content_size":3,"timestamp":1}]}}`},
	}
	const sections = `"{\n  test_q/2 {\n    version = \"1\"\n  }\n}"`
	steps = append(steps, store4(`"canary"`, sections)...)
	steps = append(steps, store4(`"metric_logging"`, `"{}"`)...)
	steps = append(
		steps,
		// model remove names the input by url and version, which add didn't: nothing happens
		step{call: "tasks.delete_models", body: `{"task":"$SID","models":[{"name":"test_model_sklearn/1","type":"input"}]}`},
		// the inference container
		step{call: "tasks.started", body: `{"task":"$SID","force":true}`},
		step{call: "tasks.ping", body: `{"task":"$SID"}`},
		find,
		step{call: "tasks.started", body: `{"task":"$SID","force":true}`},
		step{call: "tasks.edit", body: `{"task":"$SID","force":true,"configuration":{"endpoints":{"name":"endpoints","value":"{}"},"canary":{"name":"canary","value":` + sections + `},"model_monitoring_eps":{"name":"model_monitoring_eps","value":"{}"}}}`},
		// a stopped service is not found any more
		step{call: "tasks.stopped", body: `{"task":"$OTHER","force":true}`},
		find,
	)
	ids := w.run(t, steps)
	doc := w.read(t, "task", ids["SID"])
	got, _ := json.Marshal([]any{
		doc["status"], doc["system_tags"], doc["tags"], doc["runtime"],
		doc.Text("configuration", "canary", "value"), doc.At("configuration", "metric_logging"), len(doc.At("models", "input").([]any)),
	})
	if diff := cmp.Diff(`["in_progress",["serving-control-plane"],["prod"],{"version":"1.3.2"},`+sections+`,null,1]`, string(got)); diff != "" {
		t.Error(diff)
	}
}

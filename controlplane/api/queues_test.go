package api_test

import "testing"

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
		{call: "queues.add_task", body: `{"task":"` + one + `"}`, want: "400/12"},
	})
}

// The agent for Kubernetes puts a task back that it has taken out.
func TestATaskThatWasTakenOutCanBePutBack(t *testing.T) {
	w := newWire(t)
	task, queue := w.task(t, ""), w.create(t, "queues.create", `{"name":"queue"}`)
	w.run(t, []step{
		{call: "tasks.enqueue", body: `{"task":"` + task + `","queue":"` + queue + `"}`},
		{call: "queues.add_task", body: `{"queue":"` + queue + `","task":"` + task + `"}`, want: "400/706"},
		{call: "queues.get_next_task", body: `{"queue":"` + queue + `"}`, has: []string{task}},
		{call: "queues.add_task", body: `{"queue":"` + queue + `","task":"` + task + `"}`, has: []string{`"added":1`}},
		{call: "queues.get_next_task", body: `{"queue":"` + queue + `"}`, has: []string{task}},
	})
}

func TestFrameworksInUseAreListed(t *testing.T) {
	w := newWire(t)
	empty, project := w.create(t, "projects.create", `{"name":"empty"}`), w.create(t, "projects.create", `{"name":"project"}`)
	w.model(t, `,"framework":"ONNX","project":"`+project+`"`)
	w.run(t, []step{
		{call: "models.get_frameworks", body: `{}`, has: []string{`"frameworks":["ONNX"]`}},
		{call: "models.get_frameworks", body: `{"projects":["` + empty + `"]}`, has: []string{`"frameworks":[]`}},
		{call: "models.get_frameworks", body: `{"projects":["` + empty + `","` + project + `"]}`, has: []string{`"frameworks":["ONNX"]`}},
	})
}

func TestATaskWithoutEditsHasAnEmptyHistory(t *testing.T) {
	w := newWire(t)
	task := w.task(t, "")
	w.run(t, []step{
		{call: "tasks.get_configuration_history", body: `{"task":"` + task + `"}`, has: []string{`"total":0`, `"edits":[]`}},
		{call: "tasks.get_configuration_history", body: `{"task":"none"}`, want: "400/101"},
		{call: "tasks.get_configuration_history", body: `{"task":"` + task + `","page":-1}`, want: "400/12"},
	})
}

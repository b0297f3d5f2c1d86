package main

import "fmt"

// question is one kind of call that is measured. body gives its n-th form.
type question struct {
	name, call string
	body       func(n int) string
	list       bool // a page of a list, which has a limit
}

// questions are what pages, the SDK, and ClearML Serving ask.
func questions(o options) []question {
	const visible = `"system_tags":["-archived"],"page_size":25,"only_fields":["id","name","status","tags","project.name","last_update"]`
	const newest = visible + `,"order_by":["-last_update"]`
	list := func(name, call, format string, args func(n int) []any) question {
		return question{name: name, call: call, list: true, body: func(n int) string {
			if args == nil {
				return "{" + format + "}"
			}
			return "{" + fmt.Sprintf(format, args(n)...) + "}"
		}}
	}
	one := func(of int) func(int) []any { return func(n int) []any { return []any{n * 7919 % of} } }
	return []question{
		list("tasks: newest page", "tasks.get_all_ex", newest, nil),
		list("tasks: page 1,000", "tasks.get_all_ex", newest+`,"page":1000`, nil),
		list("tasks: first 500, ids and names", "tasks.get_all", `"page":0,"page_size":500,"only_fields":["id","name"]`, nil),
		list("tasks: by name", "tasks.get_all_ex", visible+`,"order_by":["name"]`, nil),
		list("tasks: of a project, newest", "tasks.get_all_ex", newest+`,"project":["%s"]`, func(n int) []any { return []any{projectID(n)} }),
		list("tasks: of a project with a tag", "tasks.get_all_ex", newest+`,"project":["%s"],"tags":["t%d"]`, func(n int) []any { return []any{projectID(n), n % 10} }),
		list("tasks: with a rare tag", "tasks.get_all_ex", newest+`,"tags":["rare"]`, nil),
		list("tasks: with a common tag", "tasks.get_all_ex", newest+`,"tags":["t3"]`, nil),
		list("tasks: of a status", "tasks.get_all_ex", newest+`,"status":["completed"]`, nil),
		list("tasks: running services", "tasks.get_all", `"type":["service"],"status":["created","in_progress"],"system_tags":["serving-control-plane"],"page_size":500,"only_fields":["id","name"]`, nil),
		list("tasks: exact name in a project", "tasks.get_all", `"name":"^resnet\\ training\\ %d\\ of\\ iris$","project":["%s"],"only_fields":["id"]`, func(n int) []any { return []any{n * 70 % o.tasks, projectID(n * 70)} }),
		list("tasks: part of a name, few match", "tasks.get_all_ex", newest+`,"name":"training %d "`, one(o.tasks)),
		list("tasks: part of a name, many match", "tasks.get_all_ex", newest+`,"name":"vision"`, nil),
		list("tasks: any case, few match", "tasks.get_all_ex", newest+`,"name":"(?i)TRAINING %d OF"`, one(o.tasks)),
		list("tasks: pattern with a rare end", "tasks.get_all_ex", newest+`,"name":"(?i)IRIS .* \\d*%d77 of"`, one(90)),
		list("tasks: search in name, id, comment", "tasks.get_all_ex", newest+`,"_any_":{"fields":["name","id","comment"],"pattern":"run %d"}`, one(o.tasks*7)),
		list("tasks: search for nothing", "tasks.get_all_ex", newest+`,"search_text":"no such text %d"`, one(1000)),
		list("models: newest page", "models.get_all_ex", newest, nil),
		list("models: published of a project", "models.get_all", newest+`,"ready":true,"project":["%s"]`, func(n int) []any { return []any{projectID(n)} }),
		list("models: part of a name", "models.get_all_ex", newest+`,"name":"model %d"`, one(o.models)),
		list("models: of a task", "models.get_all", `"task":["%s"],"order_by":["created"],"only_fields":["id"]`, func(n int) []any { return []any{taskID(n * 31 % o.tasks)} }),
		list("models: by address", "models.get_all", `"uri":["http://files:8081/project/model-%d/model.pkl"],"only_fields":["id"]`, one(o.models)),
		list("projects: all", "projects.get_all_ex", `"page_size":100`, nil),
		list("tags in use", "organization.get_tags", ``, nil),
		{name: "one task in full", call: "tasks.get_by_id", body: func(n int) string { return fmt.Sprintf(`{"task":%q}`, taskID(n*31%o.tasks)) }},
		{name: "write: ping a task", call: "tasks.ping", body: func(n int) string { return fmt.Sprintf(`{"task":%q}`, taskID(n*31%o.tasks)) }},
		{name: "write: edit a name", call: "tasks.update", body: func(n int) string {
			return fmt.Sprintf(`{"task":%q,"name":"vision training %d edited"}`, taskID(n*31%o.tasks), n)
		}},
	}
}

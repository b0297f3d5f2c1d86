package main

import (
	"fmt"
	"net/url"
	"strings"
)

// question is one kind of call, or one web page, that is measured. body returns the n-th form of a
// call, page the n-th address of a page.
type question struct {
	name, call string
	body, page func(n int) string
	list       bool // a page of a list, which has a limit
}

// webPages are the pages whose work depends on the amount of content: lists with their filters, and
// pages that search for references.
func webPages(o options) []question {
	page := func(name, format string, args func(n int) []any) question {
		return question{name: "page: " + name, list: true, page: func(n int) string {
			if args == nil {
				return format
			}
			return fmt.Sprintf(format, args(n)...)
		}}
	}
	one := func(of int) func(int) []any { return func(n int) []any { return []any{n * 7919 % of} } }
	project := func(n int) []any { return []any{steadyProject(n)} }
	old := func(n int) []any { return []any{oldProject(n % 4)} }
	oldTag := func(n int) []any { return []any{n % 4} }
	// deep is the position at which the thousandth page begins.
	deep := func(kind string, of int) func(int) []any {
		return func(n int) []any {
			i := max(of-50_000-n, 0)
			return []any{url.QueryEscape(stamp(i) + "," + id(kind, i))}
		}
	}
	return []question{
		page("overview", "/", nil),
		page("models", "/models", nil),
		page("models, page 1,000", "/models?page=1000&after=%s", deep("0b", o.models)),
		page("models, the last page", "/models?before=end", nil),
		page("models, search, few match", "/models?search=model+%d", one(o.models)),
		page("models, search, many match", "/models?search=vision", nil),
		page("models, search for nothing", "/models?search=nothing+like+%d", one(1000)),
		page("models, of a project", "/models?project=%s", project),
		page("models, of an old project", "/models?project=%s", old),
		page("models, search in an old project", "/models?search=vision&project=%s", old),
		page("models, with an old tag", "/models?tags=era+%d", oldTag),
		page("models, search with an old tag", "/models?search=vision&tags=era+%d", oldTag),
		page("models, with a tag", "/models?tags=m3", nil),
		page("models, with a tag, far behind", "/models?tags=m3&page=1000&after=%s", deep("0b", o.models)),
		page("models, with two tags that never meet", "/models?tags=m3,m4", nil),
		page("models, of a framework", "/models?framework=ONNX", nil),
		page("models, of a framework that none has", "/models?framework=Keras", nil),
		page("models, published", "/models?state=published", nil),
		page("models, archived", "/models?archived=1", nil),
		page("models, by everything", "/models?search=vision&project=%s&tags=m7&framework=ONNX&state=draft", project),
		page("a model with its lineage", "/models/%s", func(n int) []any { return []any{id("0b", n*31%o.models)} }),
		page("deploy a model", "/models/%s/deploy", func(n int) []any { return []any{id("0b", n*31%o.models)} }),
		page("experiments", "/experiments", nil),
		page("experiments, page 1,000", "/experiments?page=1000&after=%s", deep("0a", o.tasks)),
		page("experiments, the last page", "/experiments?before=end", nil),
		page("experiments, search, few match", "/experiments?search=training+%d+of", one(o.tasks)),
		page("experiments, search, many match", "/experiments?search=vision", nil),
		page("experiments, search for nothing", "/experiments?search=nothing+like+%d", one(1000)),
		page("experiments, of a project", "/experiments?project=%s", project),
		page("experiments, of an old project", "/experiments?project=%s", old),
		page("experiments, completed, of an old project", "/experiments?state=completed&project=%s", old),
		page("experiments, with an old tag", "/experiments?tags=era+%d", oldTag),
		page("experiments, with an old tag, the last page", "/experiments?tags=era+%d&before=end", func(n int) []any { return []any{(o.tasks-1)/era - n%4} }),
		page("experiments, with a tag", "/experiments?tags=t3", nil),
		page("experiments, with a rare tag", "/experiments?tags=rare", nil),
		page("experiments, completed", "/experiments?state=completed", nil),
		page("experiments, failed (none)", "/experiments?state=failed", nil),
		page("experiments, services", "/experiments?type=service", nil),
		page("experiments, archived", "/experiments?archived=1", nil),
		page("experiments, completed, the last page", "/experiments?state=completed&before=end", nil),
		page("experiments, by everything", "/experiments?search=vision&project=%s&tags=t7&state=completed&type=training", project),
		page("an experiment", "/experiments/%s", func(n int) []any { return []any{taskID(n * 31 % o.tasks)} }),
		page("serving services", "/services", nil),
		page("a serving service", "/services/%s", func(n int) []any { return []any{taskID(n * 2000 % o.tasks)} }),
	}
}

// questions are the queries of the pages, the SDK, and ClearML Serving.
func questions(o options) []question {
	const visible = `"system_tags":["-archived"],"page_size":25,"only_fields":["id","name","status","tags","project.name","last_update"]`
	const newest = visible + `,"order_by":["-last_update"]`
	newestModels := strings.Replace(newest, `"status",`, "", 1)
	list := func(name, call, format string, args func(n int) []any) question {
		return question{name: name, call: call, list: true, body: func(n int) string {
			if args == nil {
				return "{" + format + "}"
			}
			return "{" + fmt.Sprintf(format, args(n)...) + "}"
		}}
	}
	one := func(of int) func(int) []any { return func(n int) []any { return []any{n * 7919 % of} } }
	return append([]question{
		list("tasks: newest page", "tasks.get_all_ex", newest, nil),
		list("tasks: page 1,000", "tasks.get_all_ex", newest+`,"page":1000`, nil),
		list("tasks: first 500, ids and names", "tasks.get_all", `"page":0,"page_size":500,"only_fields":["id","name"]`, nil),
		list("tasks: by name", "tasks.get_all_ex", visible+`,"order_by":["name"]`, nil),
		list("tasks: of a project, newest", "tasks.get_all_ex", newest+`,"project":["%s"]`, func(n int) []any { return []any{steadyProject(n)} }),
		list("tasks: of a project with a tag", "tasks.get_all_ex", newest+`,"project":["%s"],"tags":["t%d"]`, func(n int) []any { return []any{steadyProject(n), n % 10} }),
		list("tasks: with a rare tag", "tasks.get_all_ex", newest+`,"tags":["rare"]`, nil),
		list("tasks: with a common tag", "tasks.get_all_ex", newest+`,"tags":["t3"]`, nil),
		list("tasks: of a status", "tasks.get_all_ex", newest+`,"status":["completed"]`, nil),
		list("tasks: running services", "tasks.get_all", `"type":["service"],"status":["created","in_progress"],"system_tags":["serving-control-plane"],"page_size":500,"only_fields":["id","name"]`, nil),
		list("tasks: exact name in a project", "tasks.get_all", `"name":"^resnet\\ training\\ %d\\ of\\ iris$","project":["%s"],"only_fields":["id"]`, func(n int) []any { return []any{n * 70 % o.tasks, projectOf(n * 70 % o.tasks)} }),
		list("tasks: part of a name, few match", "tasks.get_all_ex", newest+`,"name":"training %d "`, one(o.tasks)),
		list("tasks: part of a name, many match", "tasks.get_all_ex", newest+`,"name":"vision"`, nil),
		list("tasks: any case, few match", "tasks.get_all_ex", newest+`,"name":"(?i)TRAINING %d OF"`, one(o.tasks)),
		list("tasks: pattern with a rare end", "tasks.get_all_ex", newest+`,"name":"(?i)IRIS .* \\d*%d77 of"`, one(90)),
		list("tasks: search in name, id, comment", "tasks.get_all_ex", newest+`,"_any_":{"fields":["name","id","comment"],"pattern":"run %d"}`, one(o.tasks*7)),
		list("tasks: search for nothing", "tasks.get_all_ex", newest+`,"search_text":"no such text %d"`, one(1000)),
		list("models: newest page", "models.get_all_ex", newestModels, nil),
		list("models: published of a project", "models.get_all_ex", newestModels+`,"ready":true,"project":["%s"]`, func(n int) []any { return []any{steadyProject(n)} }),
		list("models: part of a name", "models.get_all_ex", newestModels+`,"name":"model %d"`, one(o.models)),
		list("models: of a task", "models.get_all", `"task":["%s"],"order_by":["created"],"only_fields":["id"]`, func(n int) []any { return []any{taskID(n * 31 % o.tasks)} }),
		list("models: by address", "models.get_all", `"uri":["http://files:8081/project/model-%d/model.pkl"],"only_fields":["id"]`, one(o.models)),
		list("projects: all", "projects.get_all", `"page_size":100`, nil),
		{name: "one task in full", call: "tasks.get_by_id", body: func(n int) string { return fmt.Sprintf(`{"task":%q}`, taskID(n*31%o.tasks)) }},
		{name: "write: ping a task", call: "tasks.ping", body: func(n int) string { return fmt.Sprintf(`{"task":%q}`, taskID(n*31%o.tasks)) }},
		{name: "write: edit a name", call: "tasks.update", body: func(n int) string {
			return fmt.Sprintf(`{"task":%q,"name":"vision training %d edited"}`, taskID(n*31%o.tasks), n)
		}},
	}, webPages(o)...)
}

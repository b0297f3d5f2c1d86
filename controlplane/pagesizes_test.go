package controlplane_test

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"clearmlserving/controlplane"
)

var (
	innerLink = regexp.MustCompile(`(?:href|hx-get|data-charts)="([/?][^"#]*)`)
	anyID     = regexp.MustCompile(`[0-9a-f]{32}|\d+`)
)

// kindOf is what pages of one kind have in common: the path without ids, numbers and names, and the names of
// the fields of the query.
func kindOf(path string) string {
	at, query, _ := strings.Cut(path, "?")
	at = anyID.ReplaceAllString(at, "0")
	for _, root := range []string{"/endpoints/", "/revisions/"} {
		if before, _, found := strings.Cut(at, root); found {
			at = before + root
		}
	}
	var fields []string
	for field := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(field, "=")
		fields = append(fields, name)
	}
	return at + "?" + strings.Join(fields, "&")
}

// Every page that a link leads to is small, on a server with much of everything.
func TestNoPageThatALinkLeadsToHasMoreThan200KB(t *testing.T) {
	const page, most, ofKind = 200_000, 500, 2
	r := start(t, controlplane.Options{Series: ramp{}})
	m := r.furnish(t, "plain")
	long := strings.Repeat(`why "it" failed & more `, 20)
	type object = map[string]any
	endpoints, canaries, rules, metrics := object{}, object{}, object{}, object{}
	var targets []string
	var weights []float64
	variables := object{}
	for i := range 120 {
		name := fmt.Sprintf("department/of/wine/%d", i)
		endpoints[name] = object{"engine_type": "custom", "serving_url": "department/of/wine", "version": fmt.Sprint(i), "auxiliary_cfg": long}
		rules[fmt.Sprint("rule", i)] = object{"engine_type": "custom", "base_serving_url": fmt.Sprint("rule", i), "monitor_project": long, "monitor_tags": []string{long, long}}
		targets, weights = append(targets, name), append(weights, 1)
		variables[fmt.Sprint("variable ", i, " ", long)] = object{"type": "scalar", "buckets": []float64{1, 2, 3, 4, 5, 6, 7, 8}}
	}
	for i := range 100 {
		name := fmt.Sprintf("department/of/wine/%d", i)
		metrics[name] = object{"endpoint": name, "log_frequency": 1, "metrics": object{"x": object{"type": "value"}}}
		canaries[fmt.Sprint("canary", i)] = object{"endpoint": fmt.Sprint("canary", i), "weights": weights[:2], "load_endpoints": targets[:2]}
	}
	for i := range 2 {
		name := fmt.Sprintf("department/of/wine/%d", i)
		metrics[name] = object{"endpoint": name, "log_frequency": 1, "metrics": variables}
	}
	canaries["canary1"] = object{"endpoint": "canary1", "weights": weights, "load_endpoints": targets}
	for name, records := range map[string]object{"endpoints": endpoints, "canary": canaries, "model_monitoring": rules, "metric_logging": metrics} {
		text, err := json.Marshal(records)
		if err != nil {
			t.Fatal(err)
		}
		r.call(t, "tasks.edit_configuration", object{"task": m.service, "configuration": []any{object{"name": name, "value": string(text)}}, "force": true}, nil)
	}
	var reports []any
	for i := range 120 {
		reports = append(reports, object{
			"endpoint": fmt.Sprintf("department/of/wine/%d", i), "state": "failed", "failure": object{"step": "load", "reason": long},
			"model": object{"state": "failed", "reason": long, "warnings": []string{long, long}, "last_death": long},
		})
	}
	var problems []any
	for i := range 300 {
		problems = append(problems, object{"section": "endpoints", "key": fmt.Sprint(i), "text": long})
	}
	report, err := json.Marshal(object{"instance": "host:1", "serve_url": "http://host:1", "endpoints": reports, "problems": problems})
	if err != nil {
		t.Fatal(err)
	}
	var log []string
	for range 2 {
		task := r.reportOf(t, m.service, string(report))
		for i := range 300 {
			text := fmt.Sprintf("2026-11-30 12:00:00.000 ERROR endpoint says endpoint=department/of/wine/1\n  text:\n    | request r: Exception %d\n    | %s", i, strings.Repeat(long, 4))
			log = append(log, `{"type":"log","task":"`+task+`","msg":`+quoted(text)+`,"level":"ERROR"}`)
		}
	}
	if status, _, text := r.send(t, "POST", r.api+"/events.add_batch", strings.Join(log, "\n"), "Content-Type", "application/json-lines"); status != http.StatusOK {
		t.Fatal(text)
	}

	v := r.visit(t)
	begun := time.Now()
	seen, kinds := map[string]bool{}, map[string]int{}
	queue := append(m.pages(), "/services/"+m.service+"/endpoints/department/of/wine/1", "/services/"+m.service+"/endpoints/canary1")
	for len(queue) > 0 && len(seen) < most {
		at := queue[0]
		queue = queue[1:]
		kind := kindOf(at)
		if seen[at] || kinds[kind] >= ofKind || strings.HasPrefix(at, "/assets/") || strings.HasPrefix(at, "/files/") {
			continue
		}
		seen[at] = true
		kinds[kind]++
		_, text := v.get(at)
		if len(text) > page && !strings.Contains(at, ".json") {
			t.Errorf("%s has %d bytes", at, len(text))
		}
		base, _, _ := strings.Cut(at, "?")
		for _, link := range innerLink.FindAllStringSubmatch(text, -1) {
			to := html.UnescapeString(link[1])
			if to[0] == '?' {
				to = base + to
			}
			queue = append(queue, to)
		}
	}
	if len(kinds) < 40 {
		t.Errorf("only %d kinds of pages were found: %v", len(kinds), kinds)
	}
	t.Logf("%d pages of %d kinds in %s", len(seen), len(kinds), time.Since(begun).Round(time.Millisecond))
}

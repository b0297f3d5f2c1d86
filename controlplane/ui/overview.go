package ui

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"clearmlserving/operations"
)

// maxTroubles is how much of what is wrong the first page lists.
const maxTroubles = 30

// overviewPage is the first page: what runs, what was made last, and what to do next.
type overviewPage struct {
	Troubles   []trouble
	Services   []serviceRow
	Models     []modelDoc
	Tasks      []taskDoc
	API, Files string
}

func (p *Pages) overview(v *visit) error {
	page := overviewPage{API: p.opts.APIURL, Files: p.opts.FilesURL}
	ctx := v.r.Context()
	newest := map[string]any{"only_fields": []string{"id", "name", "framework", "created"}, "order_by": []string{"-created"}, "page": 0, "page_size": 6, "system_tags": []string{"-archived"}}
	var models struct {
		Models []modelDoc `json:"models"`
	}
	if err := v.api.Call(ctx, "models.get_all_ex", newest, &models); err != nil {
		return err
	}
	var tasks struct {
		Tasks []taskDoc `json:"tasks"`
	}
	newest["only_fields"], newest["type"] = []string{"id", "name", "status", "created"}, []string{"-service", "-inference"}
	if err := v.api.Call(ctx, "tasks.get_all_ex", newest, &tasks); err != nil {
		return err
	}
	page.Models, page.Tasks = models.Models, tasks.Tasks
	var err error
	if page.Services, err = v.serviceRows(); err != nil {
		return err
	}
	for _, row := range page.Services {
		page.Troubles = append(page.Troubles, row.Troubles...)
	}
	if len(page.Troubles) > maxTroubles {
		page.Troubles = append(page.Troubles[:maxTroubles:maxTroubles], trouble{What: fmt.Sprintf("and %d more", len(page.Troubles)-maxTroubles), Link: "/services"})
	}
	return v.render("overview", "Overview", page)
}

// trouble is something that is wrong, with the page that tells more.
type trouble struct{ What, Why, Link string }

// troublesOf lists what is wrong with a service: configuration that cannot be used, endpoints that
// fail, and instances that are lost.
func troublesOf(s *operations.Service, instances []instance) []trouble {
	var all []trouble
	link := "/services/" + s.Doc.ID
	for _, b := range s.Config.Broken {
		all = append(all, trouble{s.Doc.Name + ": " + strings.TrimSpace(string(b.Section)+" "+b.Key) + " cannot be used", b.Err.Error(), link})
	}
	running := map[string]bool{}
	for _, i := range instances {
		if i.Alive() {
			running[i.Name()] = true
		}
	}
	if urls := len(s.Config.Endpoints) + len(s.Config.MonitoringEndpoints); len(running) == 0 && urls > 0 {
		all = append(all, trouble{s.Doc.Name + " is not served", "no instance of it is running: start one with  clearml-serving --id " + s.Doc.ID + " inference", link})
	}
	on := map[trouble][]string{} // the instances of each
	tell := func(i instance, what, why, link string) {
		first, _, _ := strings.Cut(why, "\n")
		on[trouble{what, first, link}] = append(on[trouble{what, first, link}], i.Name())
	}
	for _, i := range instances {
		if !i.Alive() {
			if !running[i.Name()] { // else it was started again
				all = append(all, trouble{"instance " + i.Name() + " of " + s.Doc.Name + " is lost", "its last sign of life was at " + i.Seen.UTC().Format(time.DateTime+" MST"), link + "/instances/" + i.TaskID})
			}
			continue
		}
		for _, e := range i.Report.Endpoints {
			if state := string(e.State); stateClass(state) == "bad" || e.Failure != nil {
				tell(i, string(e.URL)+" of "+s.Doc.Name+" is "+state, e.Note(), endpointLink(s.Doc.ID, string(e.URL)))
			}
		}
		for _, c := range i.Report.Canaries {
			if c.Problem != "" {
				tell(i, "canary "+string(c.URL)+" of "+s.Doc.Name, c.Problem, endpointLink(s.Doc.ID, string(c.URL)))
			}
		}
		for _, problem := range i.Report.Problems {
			tell(i, s.Doc.Name+": "+string(problem.Section)+" "+problem.Key, problem.Text, link)
		}
	}
	for _, one := range slices.SortedFunc(maps.Keys(on), func(a, b trouble) int { return cmp.Or(strings.Compare(a.What, b.What), strings.Compare(a.Why, b.Why)) }) {
		names := on[one]
		one.Why += " (on " + strings.Join(names, ", ") + ")"
		all = append(all, one)
	}
	return all
}

// serviceRows says of each service how much of it there is, and what is wrong.
func (v *visit) serviceRows() ([]serviceRow, error) {
	services, err := v.openServices()
	if err != nil {
		return nil, err
	}
	rows := make([]serviceRow, len(services))
	place := map[string]int{}
	var ids []string
	for i, s := range services {
		rows[i] = serviceRow{
			Doc: *s.Doc, Endpoints: len(s.Config.Endpoints) + len(s.Config.MonitoringEndpoints), Canaries: len(s.Config.Canaries),
			Unreadable: len(s.Config.Broken),
		}
		place[s.Doc.ID] = i
		ids = append(ids, s.Doc.ID)
	}
	instances, err := v.instances(ids...)
	own := make([][]instance, len(services))
	for _, i := range instances {
		at, ok := place[i.ServiceID]
		if !ok {
			continue
		}
		own[at] = append(own[at], i)
		if i.Alive() && i.Report.Role == "" {
			rows[at].Instances++
			for _, e := range i.Report.Endpoints {
				rows[at].Add(e.Counts)
			}
		}
	}
	for at, s := range services {
		rows[at].Troubles = troublesOf(s, own[at])
	}
	return rows, err
}

package ui

import (
	"fmt"
	"strings"
	"time"

	"clearmlserving/serving"
)

// overviewPage is the first page: what runs, what was made last, and what to do next.
type overviewPage struct {
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
	return v.render("overview", "Overview", page)
}

// serviceRows says of each service how much of it there is.
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
	of := map[string][]instance{}
	for _, i := range instances {
		if at, ok := place[i.ServiceID]; ok && i.Alive() {
			rows[at].Instances++
		}
		of[i.ServiceID] = append(of[i.ServiceID], i)
	}
	for i := range rows {
		rows[i].Wrong = wrong(of[rows[i].Doc.ID])
	}
	return rows, err
}

// wrong says what is not as it should be with the instances of a service: endpoints that fail,
// and instances that have gone without a word.
func wrong(instances []instance) []string {
	var told []string
	running := map[string]bool{}
	for _, i := range instances {
		if i.Alive() {
			running[i.Name()] = true
		}
	}
	reasons := map[string][]string{} // the instances of each trouble
	for _, i := range instances {
		switch {
		case i.Alive():
			for _, e := range i.Report.Endpoints {
				if e.State == serving.StateFailed || e.State == serving.StateDegraded || e.Failure != nil {
					text := fmt.Sprintf("%s is %s: %s", e.URL, e.State, firstLine(e.Reason()))
					reasons[text] = append(reasons[text], i.Name())
				}
			}
		case !running[i.Name()]: // else it was started again
			told = append(told, fmt.Sprintf("the instance %s is gone: it gave its last sign of life at %s", i.Name(), i.Seen.UTC().Format(time.DateTime+" MST")))
		}
	}
	for _, text := range sortedKeys(reasons) {
		told = append(told, fmt.Sprintf("%s (on %s)", text, strings.Join(reasons[text], ", ")))
	}
	return told
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

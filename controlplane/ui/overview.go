package ui

import "clearmlserving/clearml"

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
	newest := map[string]any{"only_fields": []string{"id", "name", "framework", "status", "created"}, "order_by": []string{"-created"}, "page": 0, "page_size": 6, "system_tags": []string{"-archived"}}
	var models struct {
		Models []modelDoc `json:"models"`
	}
	if err := v.api.Call(ctx, "models.get_all_ex", newest, &models); err != nil {
		return err
	}
	var tasks struct {
		Tasks []taskDoc `json:"tasks"`
	}
	newest["type"] = []string{"-service", "-inference"}
	if err := v.api.Call(ctx, "tasks.get_all_ex", newest, &tasks); err != nil {
		return err
	}
	page.Models, page.Tasks = models.Models, tasks.Tasks
	listed, err := v.api.ListServices(ctx)
	if err != nil {
		return err
	}
	page.Services, err = v.serviceRows(listed)
	if err != nil {
		return err
	}
	return v.render("overview", "Overview", page)
}

// serviceRows says of each service how much of it there is.
func (v *visit) serviceRows(listed []clearml.Service) ([]serviceRow, error) {
	var rows []serviceRow
	for _, doc := range listed {
		s, err := v.openService(doc.ID)
		if err != nil {
			return nil, err
		}
		row := serviceRow{
			Doc: doc, Endpoints: len(s.config.Endpoints) + len(s.config.MonitoringEndpoints), Canaries: len(s.config.Canaries),
			Unreadable: len(s.config.Broken),
		}
		instances, err := v.instances(doc.ID)
		if err != nil {
			return nil, err
		}
		for _, i := range instances {
			if i.Alive() {
				row.Instances++
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

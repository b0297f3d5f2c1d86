package ui

import (
	"encoding/json"
	"net/http"
)

// plot is a Plotly figure that a task has reported. The page's script draws it.
type plot struct {
	Metric  string `json:"metric"`
	Variant string `json:"variant"`
	Iter    int64  `json:"iter"`
	Text    string `json:"plot_str"`
	// Download is the path of the figure as it was reported.
	Download string `json:"-"`
}

// figure is the part of a Plotly figure that the server reads or writes; the script reads the rest.
type figure struct {
	Data   []trace `json:"data"`
	Layout struct {
		XAxis struct {
			Title struct {
				Text string `json:"text"`
			} `json:"title"`
		} `json:"xaxis"`
	} `json:"layout"`
}

// trace is a line of a figure.
type trace struct {
	Name string        `json:"name"`
	X    []json.Number `json:"x"`
	Y    []json.Number `json:"y"`
}

// Pictures are the addresses of the images that the figure consists of.
func (p plot) Pictures() []string {
	var figure struct {
		Layout struct {
			Images []struct {
				Source string `json:"source"`
			} `json:"images"`
		} `json:"layout"`
	}
	if json.Unmarshal([]byte(p.Text), &figure) != nil {
		return nil // the script shows why it cannot be drawn
	}
	var sources []string
	for _, image := range figure.Layout.Images {
		if image.Source != "" {
			sources = append(sources, image.Source)
		}
	}
	return sources
}

// plots lists the newest figures of a task; metrics may choose some of them.
func (v *visit) plots(task string, metrics ...any) ([]plot, error) {
	var answer struct {
		Plots []plot `json:"plots"`
	}
	query := map[string]any{"task": task, "iters": 1}
	if len(metrics) > 0 {
		query["metrics"] = metrics
	}
	err := v.api.Call(v.r.Context(), "events.get_task_plots", query, &answer)
	for i, p := range answer.Plots {
		answer.Plots[i].Download = withQuery("/experiments/"+task+"/plot.json", "metric", p.Metric, "variant", p.Variant)
	}
	return answer.Plots, err
}

// plotJSON sends a figure as it was reported.
func (p *Pages) plotJSON(v *visit) error {
	q := v.r.URL.Query()
	plots, err := v.plots(v.id(), map[string]any{"metric": q.Get("metric"), "variants": []string{q.Get("variant")}})
	if err != nil {
		return err
	}
	if len(plots) == 0 {
		return refusal{http.StatusNotFound, "There is no such plot."}
	}
	h := v.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", `attachment; filename="plot.json"`)
	_, _ = v.w.Write([]byte(plots[len(plots)-1].Text)) // an error means that the browser is gone
	return nil
}

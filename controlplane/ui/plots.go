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

// figure is a Plotly figure as the server makes it of scalars.
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

// picture is an image of a figure.
type picture struct {
	Source string `json:"source"`
}

// Pictures are the images that the figure consists of.
func (p plot) Pictures() []picture {
	var figure struct {
		Layout struct {
			Images []picture `json:"images"`
		} `json:"layout"`
	}
	_ = json.Unmarshal([]byte(p.Text), &figure) // the page's script says what cannot be drawn
	return figure.Layout.Images
}

// plots lists the newest figures of a task; metrics may choose some of them.
func (v *visit) plots(task string, metrics ...any) ([]plot, error) {
	query := map[string]any{"task": task, "iters": 1}
	if len(metrics) > 0 {
		query["metrics"] = metrics
	}
	plots, err := take[[]plot](v, "events.get_task_plots", "plots", query)
	for i, p := range plots {
		plots[i].Download = withQuery("/experiments/"+task+"/plot.json", "metric", p.Metric, "variant", p.Variant)
	}
	return plots, err
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

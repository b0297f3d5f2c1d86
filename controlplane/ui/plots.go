package ui

import (
	"encoding/json"
	"net/http"
	"strings"
)

// plot is a Plotly figure that a task has reported, in the form in which the page shows
// it: one of Chart, Table, and Pictures, or none of them when its kind is not drawn here.
type plot struct {
	Metric, Variant string
	Iter            int64
	Title           string
	Chart           *chart
	Table           *plotTable
	Pictures        []string
	// Kinds are the kinds of traces that are not drawn.
	Kinds string
	// Download is where the figure is as it was reported.
	Download string
}

// plotEvent is the report of a plot.
type plotEvent struct {
	Metric  string `json:"metric"`
	Variant string `json:"variant"`
	Iter    int64  `json:"iter"`
	Text    string `json:"plot_str"`
}

func (v *visit) plotEvents(task string, metrics []any) ([]plotEvent, error) {
	var answer struct {
		Plots []plotEvent `json:"plots"`
	}
	query := map[string]any{"task": task, "iters": 1}
	if len(metrics) > 0 {
		query["metrics"] = metrics
	}
	err := v.api.Call(v.r.Context(), "events.get_task_plots", query, &answer)
	return answer.Plots, err
}

func (v *visit) plots(task string) ([]plot, error) {
	events, err := v.plotEvents(task, nil)
	plots := make([]plot, 0, len(events))
	for _, e := range events {
		one := draw(e)
		one.Download = withQuery("/experiments/"+task+"/plot.json", "metric", e.Metric, "variant", e.Variant)
		plots = append(plots, one)
	}
	return plots, err
}

// plotJSON sends a figure as it was reported.
func (p *Pages) plotJSON(v *visit) error {
	q := v.r.URL.Query()
	metric, variant := q.Get("metric"), q.Get("variant")
	events, err := v.plotEvents(v.id(), []any{map[string]any{"metric": metric, "variants": []string{variant}}})
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return refusal{http.StatusNotFound, "There is no such plot."}
	}
	h := v.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", `attachment; filename="plot.json"`)
	_, _ = v.w.Write([]byte(events[len(events)-1].Text)) // a visitor that went away has no use for the error
	return nil
}

// figure is as much of a Plotly figure as is drawn.
type figure struct {
	Data   []trace `json:"data"`
	Layout struct {
		Title  titleText `json:"title"`
		XAxis  axis      `json:"xaxis"`
		YAxis  axis      `json:"yaxis"`
		Images []struct {
			Source string `json:"source"`
		} `json:"images"`
	} `json:"layout"`
}

type axis struct {
	Title titleText `json:"title"`
}

// titleText is a title as a text or as an object with one.
type titleText string

// UnmarshalJSON never fails: a title never costs the figure.
func (t *titleText) UnmarshalJSON(text []byte) error {
	var plain string
	if json.Unmarshal(text, &plain) == nil {
		*t = titleText(plain)
		return nil
	}
	var object struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(text, &object) // an odd title is none
	*t = titleText(object.Text)
	return nil
}

// trace is one part of a figure.
type trace struct {
	Type        string          `json:"type"`
	Mode        string          `json:"mode"`
	Name        string          `json:"name"`
	Orientation string          `json:"orientation"`
	X           vector          `json:"x"`
	Y           vector          `json:"y"`
	Z           matrix          `json:"z"`
	Text        json.RawMessage `json:"text"`
	Header      struct {
		Values []vector `json:"values"`
	} `json:"header"`
	Cells struct {
		Values []vector `json:"values"`
	} `json:"cells"`
}

// draw chooses how a figure is shown.
func draw(e plotEvent) plot {
	p := plot{Metric: e.Metric, Variant: e.Variant, Iter: e.Iter, Title: e.Variant}
	var f figure
	if json.Unmarshal([]byte(e.Text), &f) != nil {
		p.Kinds = "no figure that can be read"
		return p
	}
	if f.Layout.Title != "" {
		p.Title = string(f.Layout.Title)
	}
	for _, image := range f.Layout.Images {
		if strings.HasPrefix(image.Source, "data:image/") || strings.HasPrefix(image.Source, "http") {
			p.Pictures = append(p.Pictures, image.Source)
		}
	}
	if len(p.Pictures) > 0 {
		return p
	}
	var kinds []string
	counts := map[string]int{}
	for _, t := range f.Data {
		kind := kindOf(t)
		if counts[kind]++; counts[kind] == 1 {
			kinds = append(kinds, kind)
		}
	}
	switch {
	case len(f.Data) > 0 && counts["line"]+counts["bar"] == len(f.Data):
		p.Chart = drawXY(f)
	case len(f.Data) > 0 && counts["heatmap"] == len(f.Data):
		p.Chart = drawHeatmap(f.Data[0], f)
	case len(f.Data) > 0 && counts["table"] == len(f.Data):
		p.Table = drawTable(f.Data[0])
	}
	if p.Chart == nil && p.Table == nil {
		p.Kinds = strings.Join(kinds, ", ")
	}
	return p
}

func kindOf(t trace) string {
	switch t.Type {
	case "", "scatter", "scattergl":
		return "line"
	case "bar", "histogram":
		return "bar"
	}
	return t.Type
}

// plotTable is a table that a task has reported.
type plotTable struct {
	Header []string
	Rows   [][]string
	// Left is how many more rows there are than are shown.
	Left int
}

const tableRows = 200

// drawTable turns columns, as Plotly keeps them, into rows.
func drawTable(t trace) *plotTable {
	table := &plotTable{}
	for _, head := range t.Header.Values {
		table.Header = append(table.Header, strings.Join(head.Texts(), " "))
	}
	rows := 0
	for _, column := range t.Cells.Values {
		rows = max(rows, len(column.Labels))
	}
	table.Left = max(0, rows-tableRows)
	for i := range min(rows, tableRows) {
		var row []string
		for _, column := range t.Cells.Values {
			cell := ""
			if i < len(column.Labels) {
				cell = column.Labels[i]
			}
			row = append(row, cell)
		}
		table.Rows = append(table.Rows, row)
	}
	return table
}

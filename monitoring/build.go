package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// board is one dashboard.
type board struct {
	uid, title, about string
	variables         []variable
	rows              []row
}

// row is a titled row of panels.
type row struct {
	title  string
	panels []panel
}

// variable is a template variable whose values are those of a label.
type variable struct {
	name, label string
	values      string // a label_values() query
	multi       bool   // several values and "All" can be chosen
}

// The kinds of panels.
const (
	lines   = iota // one line per series
	stacked        // areas on top of each other
	number         // the last value, large
	heat           // a histogram over time
	rows           // a table of the labels and values at the end of the time range
)

// panel is one panel; its width is in the 24 columns of Grafana's grid.
type panel struct {
	title, about string
	kind         int
	unit         string
	width        uint32
	queries      []query
}

type query struct {
	expr, legend string
}

func (b board) file() string { return strings.TrimPrefix(b.uid, uidPrefix) + ".json" }

// uidPrefix begins the uids of all dashboards.
const uidPrefix = "clearml-serving-"

const (
	panelHeight  = 8
	numberHeight = 4
)

// json is the dashboard as Grafana imports it, with the same bytes for the same board.
func (b board) json() ([]byte, error) {
	//nolint:staticcheck // the newer format is understood by Grafana 12 and later only
	d := dashboard.NewDashboardBuilder(b.title).Uid(b.uid).Description(b.about).Tags([]string{"clearml-serving"}).
		Timezone("browser").Time("now-1h", "now").Refresh("10s").Tooltip(dashboard.DashboardCursorSyncCrosshair).Editable().
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		Link(dashboard.NewDashboardLinkBuilder("ClearML Serving").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"clearml-serving"}).AsDropdown(true).IncludeVars(true).KeepTime(true))
	for _, v := range b.variables {
		q := dashboard.NewQueryVariableBuilder(v.name).Label(v.label).Datasource(source).
			Query(dashboard.StringOrMap{String: &v.values}).Definition(v.values).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortNaturalAsc)
		if v.multi {
			q.Multi(true).IncludeAll(true).AllValue(".*").
				Current(dashboard.VariableOption{Text: dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}}, Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}}})
		}
		d.WithVariable(q)
	}
	for _, r := range b.rows {
		d.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			built, err := p.build()
			if err != nil {
				return nil, fmt.Errorf("panel %q: %w", p.title, err)
			}
			d.WithPanel(built)
		}
	}
	built, err := d.Build()
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(built, "", "  ")
	return append(text, '\n'), err
}

// source is the data source of every panel and variable: the one that the viewer chose.
var source = common.DataSourceRef{Type: new("prometheus"), Uid: new("${datasource}")}

func (p panel) build() (cog.Builder[dashboard.Panel], error) {
	switch p.kind {
	case lines, stacked:
		b := timeseries.NewPanelBuilder().Title(p.title).Description(p.about).Unit(p.unit).Span(p.width).Height(panelHeight).
			Datasource(source).Min(0).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
			Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)).
			Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
		if p.kind == stacked {
			b.Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal)).FillOpacity(40)
		}
		for i, q := range p.queries {
			b.WithTarget(q.target(i).Range())
		}
		return b, nil
	case number:
		b := stat.NewPanelBuilder().Title(p.title).Description(p.about).Unit(p.unit).Span(p.width).Height(numberHeight).
			Datasource(source).GraphMode(common.BigValueGraphModeArea).ColorMode(common.BigValueColorModeNone).
			ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
		for i, q := range p.queries {
			b.WithTarget(q.target(i).Range())
		}
		return b, nil
	case heat:
		b := heatmap.NewPanelBuilder().Title(p.title).Description(p.about).Span(p.width).Height(panelHeight).Datasource(source).
			Calculate(false).YAxis(heatmap.NewYAxisConfigBuilder().Unit(p.unit)).
			Color(heatmap.NewHeatmapColorOptionsBuilder().Mode(heatmap.HeatmapColorModeScheme).Scheme("Blues").Steps(32))
		for i, q := range p.queries {
			b.WithTarget(q.target(i).Range().Format(prometheus.PromQueryFormatHeatmap))
		}
		return b, nil
	case rows:
		b := table.NewPanelBuilder().Title(p.title).Description(p.about).Unit(p.unit).Span(p.width).Height(panelHeight).Datasource(source).
			Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{}))
		for i, q := range p.queries {
			b.WithTarget(q.target(i).Instant().Format(prometheus.PromQueryFormatTable))
		}
		return b, nil
	}
	return nil, fmt.Errorf("unknown kind %d", p.kind)
}

func (q query) target(i int) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Datasource(source).Expr(q.expr).LegendFormat(q.legend)
}

package instance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// layoutEvents are the original's two plots on an instance's task:
// a table of the endpoints, and the flow of requests to them. There are none
// without an endpoint.
func layoutEvents(task string, plan serving.Plan) ([]clearml.Event, error) {
	if len(plan.Endpoints) == 0 {
		return nil, nil
	}
	var events []clearml.Event
	for _, p := range []struct {
		metric, variant string
		figure          map[string]any
	}{
		{"Serving Endpoint Configuration", "Details", endpointTable(plan)},
		{"Serving Endpoints Layout", "plot", endpointFlow(plan)},
	} {
		text, err := json.Marshal(p.figure)
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", p.metric, err)
		}
		iteration := int64(0)
		events = append(events, clearml.Event{Type: clearml.EventPlot, Task: task, Metric: p.metric, Variant: p.variant, Iter: &iteration, PlotStr: string(text)})
	}
	return events, nil
}

// endpointTable is a Plotly table with the original's columns.
func endpointTable(plan serving.Plan) map[string]any {
	columns := []string{"endpoint"}
	for name := range serving.Fields(serving.Endpoint{}) {
		columns = append(columns, name)
	}
	cells := make([][]string, len(columns))
	for _, url := range slices.Sorted(maps.Keys(plan.Endpoints)) {
		row := []any{url}
		for _, value := range serving.Fields(plan.Endpoints[url].Endpoint) {
			row = append(row, value)
		}
		for i, v := range row {
			cells[i] = append(cells[i], cellText(v))
		}
	}
	return map[string]any{
		"data":   []any{map[string]any{"type": "table", "header": map[string]any{"values": columns}, "cells": map[string]any{"values": cells}}},
		"layout": map[string]any{"title": "Details"},
	}
}

func cellText(v any) string {
	text := fmt.Sprint(v)
	if text == "[]" || text == "<nil>" {
		return ""
	}
	return text
}

// endpointFlow is a Plotly Sankey: requests to endpoints, monitoring rules to their
// versions, canaries to their targets by share.
func endpointFlow(plan serving.Plan) map[string]any {
	var labels []string
	index := map[string]int{}
	node := func(label string) int {
		if i, ok := index[label]; ok {
			return i
		}
		index[label] = len(labels)
		labels = append(labels, label)
		return index[label]
	}
	var sources, targets []int
	var values []float64
	link := func(from, to string, value float64) {
		sources, targets, values = append(sources, node(from)), append(targets, node(to)), append(values, value)
	}
	for _, url := range slices.Sorted(maps.Keys(plan.Endpoints)) {
		e := plan.Endpoints[url]
		if e.Monitoring == "" {
			link("external", string(url), 1)
			continue
		}
		link("external", strings.Trim(e.Monitoring, "/")+"/*", 1)
		link(strings.Trim(e.Monitoring, "/")+"/*", string(url), 1)
	}
	for _, url := range slices.Sorted(maps.Keys(plan.Canaries)) {
		c := plan.Canaries[url]
		link("external", "canary "+string(url), 1)
		for i, target := range c.Targets {
			link("canary "+string(url), string(target), c.Shares[i])
		}
	}
	return map[string]any{
		"data": []any{map[string]any{
			"type": "sankey", "node": map[string]any{"label": labels},
			"link": map[string]any{"source": sources, "target": targets, "value": values},
		}},
		"layout": map[string]any{"title": "Serving Endpoints Layout"},
	}
}

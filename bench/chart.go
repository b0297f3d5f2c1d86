package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"math"
	"slices"
	"text/template"
)

//go:embed chart.svg.tmpl
var chartText string

// chart is a picture of bars, ours first.
type chart struct {
	File, Title, Unit string
	Bars              []bar
}

// bar is one server's figure; low and high are the extremes of its rounds.
type bar struct {
	Label            string
	Value, low, high float64
	Ours             bool
	// for the template, in pixels
	Y, Width, Low, High, TextX int
	Text                       string
}

// pictures are the charts of the page whose rows were measured.
var pictures = []struct {
	file, title, metric, unit string
	key
}{
	{"bench-null.svg", "Null endpoint, 64 connections: requests a second", "requests/s", "more is better", key{"null", 2, 64}},
	{"bench-lr.svg", "Logistic regression, 64 connections: requests a second", "requests/s", "more is better", key{"lr", 2, 64}},
	{"bench-lr-batched.svg", "Logistic regression, micro-batched: requests a second", "requests/s", "more is better", key{"lr_batched", 2, 64}},
	{"bench-rf-batched.svg", "Random forest, micro-batched: requests a second", "requests/s", "more is better", key{"rf_batched", 2, 64}},
	{"bench-cpu.svg", "Logistic regression: CPU time of a request, microseconds", "CPU us/request", "less is better", key{"lr", 2, 64}},
	{"bench-p99.svg", "Logistic regression: 99th percentile, microseconds", "p99 us", "less is better", key{"lr", 2, 64}},
}

func chartsOf(rows []row) []chart {
	var all []chart
	for _, p := range pictures {
		c := chart{File: p.file, Title: p.title, Unit: p.unit}
		for i := range rows {
			r := &rows[i]
			if r.key() != p.key || r.Metric != p.metric || r.Against == constantCase {
				continue
			}
			if len(c.Bars) == 0 {
				c.Bars = append(c.Bars, barOf(ours, r, 0))
			}
			c.Bars = append(c.Bars, barOf(r.Against, r, 1))
		}
		if len(c.Bars) > 1 {
			all = append(all, c)
		}
	}
	return all
}

func barOf(label string, r *row, side int) bar {
	b := bar{Label: label, Value: r.Ours, Ours: side == 0, low: math.Inf(1)}
	if side == 1 {
		b.Value = r.Theirs
	}
	for _, pair := range r.Rounds {
		b.low, b.high = min(b.low, pair[side]), max(b.high, pair[side])
	}
	return b
}

const (
	barLeft  = 250 // where bars begin
	barRoom  = 400 // length of the longest
	barTop   = 52
	barPitch = 30
)

// Height is the height of the picture.
func (c chart) Height() int { return barTop + barPitch*len(c.Bars) + 12 }

// draw renders the picture.
func (c chart) draw() ([]byte, error) {
	t, err := template.New("chart").Parse(chartText)
	if err != nil {
		return nil, err
	}
	longest := 0.0
	for _, b := range c.Bars {
		longest = max(longest, b.Value, b.high)
	}
	c.Bars = slices.Clone(c.Bars)
	for i := range c.Bars {
		b := &c.Bars[i]
		pixels := func(v float64) int { return int(math.Round(v / longest * barRoom)) }
		b.Y, b.Width, b.Text = barTop+barPitch*i, max(1, pixels(b.Value)), number(b.Value)
		b.Low, b.High = barLeft+pixels(b.low), barLeft+pixels(b.high)
		b.TextX = max(b.High, barLeft+b.Width) + 8
	}
	var picture bytes.Buffer
	if err := t.Execute(&picture, c); err != nil {
		return nil, fmt.Errorf("draw %s: %w", c.File, err)
	}
	return picture.Bytes(), nil
}

package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
)

//go:embed page.md.tmpl
var pageText string

// page is the data of docs/benchmarks.md for the template.
type page struct {
	Rounds   string // "5", or "3 to 5"
	Machines []string
	Versions []string
	Dates    string
	Goals    []goalLine
	Met      int
	Judged   int
	Tables   []table
	Streams  []streamLine
	Others   []otherLine
	Charts   []chart
	Doubtful bool
}

// goalLine is a row of the table of goals.
type goalLine struct {
	Case, Against, Metric, Ours, Theirs, Value, Spread, Goal, Met string
}

// table is one case under load.
type table struct {
	Title string
	Lines []loadLine
}

type loadLine struct {
	Connections                                         int
	Against, Rate, RateRatio, Spread, P50, P99, CPU, By string
}

// streamLine is a case of streams, with ours and theirs in each cell.
type streamLine struct {
	Case, Against                                        string
	Rate, Chunks, First50, First99, Between50, Between99 string
}

// otherLine is a row of a measurement without load.
type otherLine struct{ Case, Against, Metric, Ours, Theirs, Value string }

func pageOf(rows []row, charts []chart) ([]byte, error) {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, err
	}
	p := page{Charts: charts}
	p.about(rows)
	p.judge(rows)
	p.tables(rows)
	var text bytes.Buffer
	if err := t.Execute(&text, p); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// about has date, machine and versions of the rows.
func (p *page) about(rows []row) {
	fewest, most := 0, 0
	var dates []string
	for i := range rows {
		r := &rows[i]
		if fewest == 0 || len(r.Rounds) < fewest {
			fewest = len(r.Rounds)
		}
		most = max(most, len(r.Rounds))
		dates = append(dates, r.Date[:min(10, len(r.Date))])
		if !slices.Contains(p.Machines, r.Machine) {
			p.Machines = append(p.Machines, r.Machine)
		}
		for name, version := range r.Versions {
			if text := name + " " + version; !slices.Contains(p.Versions, text) {
				p.Versions = append(p.Versions, text)
			}
		}
		p.Doubtful = p.Doubtful || r.Doubtful
	}
	slices.Sort(p.Versions)
	slices.Sort(dates)
	dates = slices.Compact(dates)
	if len(dates) > 0 {
		p.Dates = dates[0]
		if last := dates[len(dates)-1]; last != dates[0] {
			p.Dates += " to " + last
		}
	}
	p.Rounds = fmt.Sprint(most)
	if fewest != most {
		p.Rounds = fmt.Sprintf("%d to %d", fewest, most)
	}
}

// judge builds the table of goals, including those that were not measured.
func (p *page) judge(rows []row) {
	for i := range goals {
		g := &goals[i]
		line := goalLine{Case: g.key.String(), Against: g.against, Metric: g.metric, Goal: g.String(), Met: "not measured"}
		if j := slices.IndexFunc(rows, func(r row) bool { return goalOf(r.key(), r.Against, r.Metric) == g }); j >= 0 {
			r := &rows[j]
			line.Ours, line.Value, line.Met = number(r.Ours), r.value(), "doubtful"
			if r.Theirs > 0 {
				line.Theirs = number(r.Theirs)
				if !g.added { // the spread is that of ratios
					line.Spread = spreadText(r)
				}
			}
			if r.Met != nil {
				p.Judged++
				line.Met = "**no**"
				if *r.Met {
					p.Met++
					line.Met = "yes"
				}
			}
		}
		p.Goals = append(p.Goals, line)
	}
}

func (p *page) tables(rows []row) {
	for _, g := range groups {
		for _, c := range g.cases {
			if g.name == streamGroup {
				p.streams(rows, g, c)
				continue
			}
			t := table{Title: fmt.Sprintf("%s: %s, %d worker processes", c.name, c.about, g.workers)}
			if g.workers == 1 {
				t.Title = fmt.Sprintf("%s: %s, one worker process", c.name, c.about)
			}
			for _, connections := range c.connections {
				k := key{c.name, g.workers, connections}
				for _, one := range sides[1:] {
					for _, against := range []string{one.name, directly(one.name)} {
						if line, found := lineOf(rows, k, against, c.beside[against]); found {
							t.Lines = append(t.Lines, line)
						}
					}
				}
				if line, found := lineOf(rows, k, callItself, ""); found {
					t.Lines = append(t.Lines, line)
				}
			}
			if len(t.Lines) > 0 {
				p.Tables = append(p.Tables, t)
			}
		}
	}
	for i := range rows {
		r := &rows[i]
		if r.Connections == 0 || r.Name == "neighbour" || r.Name == "change" || r.Name == embeddingCase || r.Name == ocrCase || r.Name == ocrTensors {
			line := otherLine{Case: r.Case, Against: r.Against, Metric: r.Metric, Ours: number(r.Ours), Value: r.value()}
			if r.Theirs > 0 {
				line.Theirs = number(r.Theirs)
			} else {
				line.Value = ""
			}
			p.Others = append(p.Others, line)
		}
	}
}

// streams are the lines of a case of streams.
func (p *page) streams(rows []row, g group, c loadCase) {
	for _, connections := range c.connections {
		k := key{c.name, g.workers, connections}
		cells := map[string]string{}
		line := streamLine{Case: k.String(), Against: directly(c.against[0])}
		for i := range rows {
			if r := &rows[i]; r.key() == k && r.Against == line.Against {
				cells[r.Metric] = number(r.Ours) + " / " + number(r.Theirs)
				if r.Doubtful {
					line.Case = k.String() + " (doubtful)"
				}
			}
		}
		if len(cells) > 0 {
			line.Rate, line.Chunks = cells[tokensPerSecond], cells[tokenChunks]
			line.First50, line.First99 = cells[firstP50], cells[firstP99]
			line.Between50, line.Between99 = cells[betweenP50], cells[betweenP99]
			p.Streams = append(p.Streams, line)
		}
	}
}

func lineOf(rows []row, k key, against, beside string) (line loadLine, found bool) {
	line = loadLine{Connections: k.Connections, Against: against}
	if beside != "" {
		line.Against += " (" + beside + ")"
	}
	for i := range rows {
		r := &rows[i]
		if r.key() != k || r.Against != against {
			continue
		}
		found = true
		both := number(r.Ours) + " / " + number(r.Theirs)
		switch r.Metric {
		case "requests/s":
			line.Rate, line.RateRatio, line.Spread = both, fmt.Sprintf("%.2f", r.Ratio), spreadText(r)
			if r.Doubtful {
				line.Against += " (doubtful)"
			}
		case "p50 us":
			line.P50 = both
		case "p99 us":
			line.P99 = both
		case "CPU us/request":
			line.CPU, line.By = both, fmt.Sprintf("%.2f", r.Ratio)
		}
	}
	return line, found
}

func spreadText(r *row) string {
	low, high := r.spread()
	return fmt.Sprintf("%.2f-%.2f", low, high)
}

// number formats a figure with thousands separators and its significant digits.
func number(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.1f", v)
	case v < 10_000:
		return fmt.Sprintf("%.0f", v)
	}
	digits := fmt.Sprintf("%.0f", v)
	var b strings.Builder
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

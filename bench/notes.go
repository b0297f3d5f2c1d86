package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// key names one row of the measurements.
type key struct {
	Case        string
	Workers     int
	Connections int // 0 without load
}

func (k key) String() string {
	text := fmt.Sprintf("%s, %d workers", k.Case, k.Workers)
	if k.Workers == 1 {
		text = k.Case + ", 1 worker"
	}
	switch k.Connections {
	case 0:
		return text
	case 1:
		return text + ", 1 connection"
	}
	return fmt.Sprintf("%s, %d connections", text, k.Connections)
}

// notes are the pairs of figures of a group's rounds.
type notes struct {
	order  []place
	series map[place]*series
	out    []string // omitted servers, with reasons
}

type place struct {
	key
	against, metric string
}

type series struct {
	rounds   [][2]float64
	doubtful int // rounds
}

func newNotes() *notes { return &notes{series: map[place]*series{}} }

// add records one round of a row: our figure and theirs, 0 without another side.
func (n *notes) add(k key, against, metric string, ours, theirs float64, doubtful bool) {
	p := place{k, against, metric}
	s := n.series[p]
	if s == nil {
		s = &series{}
		n.series[p] = s
		n.order = append(n.order, p)
	}
	s.rounds = append(s.rounds, [2]float64{figure(ours), figure(theirs)})
	if doubtful {
		s.doubtful++
	}
}

func (n *notes) leftOut(group, name string, err error) {
	text := err.Error()
	n.out = append(n.out, fmt.Sprintf("%s in %s: %s", name, group, text[:min(len(text), 300)]))
}

// row is one line of results.json; its form is the same for all benchmarks. The fields after
// Versions are for the page.
type row struct {
	Case     string            `json:"case"`
	Against  string            `json:"against"`
	Metric   string            `json:"metric"`
	Ours     float64           `json:"ours"`
	Theirs   float64           `json:"theirs"`
	Ratio    float64           `json:"ratio"`
	Goal     string            `json:"goal"`
	Met      *bool             `json:"met"` // null without a goal, and for a doubtful row
	Rounds   [][2]float64      `json:"rounds"`
	Versions map[string]string `json:"versions"`

	Name        string `json:"name"`
	Workers     int    `json:"workers"`
	Connections int    `json:"connections"`
	Doubtful    bool   `json:"doubtful"`
	Date        string `json:"date"`
	Machine     string `json:"machine"`
}

func (r *row) key() key { return key{r.Name, r.Workers, r.Connections} }

// rows turns the rounds into medians, and the medians into ratios and verdicts.
func (n *notes) rows(versions map[string]string) []row {
	all := make([]row, 0, len(n.order))
	for _, p := range n.order {
		s := n.series[p]
		one := row{
			Case: p.key.String(), Against: p.against, Metric: p.metric, Rounds: s.rounds, Versions: versions,
			Name: p.Case, Workers: p.Workers, Connections: p.Connections,
			Doubtful: 2*s.doubtful > len(s.rounds), Date: time.Now().UTC().Format(time.RFC3339), Machine: machine(),
		}
		one.Ours, one.Theirs = s.median(0), s.median(1)
		if one.Theirs > 0 {
			one.Ratio = math.Round(1000*one.Ours/one.Theirs) / 1000
		}
		if g := goalOf(p.key, p.against, p.metric); g != nil {
			one.Goal = g.String()
			if !one.Doubtful { // a doubtful row decides no goal
				met := g.met(&one)
				one.Met = &met
			}
		}
		all = append(all, one)
	}
	return all
}

func (s *series) median(side int) float64 {
	var values []float64
	for _, pair := range s.rounds {
		values = append(values, pair[side])
	}
	return figure(median(values))
}

// spread is the smallest and the largest ratio of a round.
func (r *row) spread() (low, high float64) {
	low = math.Inf(1)
	for _, pair := range r.Rounds {
		if pair[1] > 0 {
			low, high = min(low, pair[0]/pair[1]), max(high, pair[0]/pair[1])
		}
	}
	if high == 0 {
		return 0, 0
	}
	return low, high
}

// figure rounds a number to its significant digits.
func figure(v float64) float64 { return math.Round(v*10) / 10 }

// median is the middle of the values, or the mean of the middle two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// summary is the output of a run at its end: the goals, then the comparison with each server.
func summary(rows []row) string {
	var b strings.Builder
	b.WriteString("\nGoals of the cases that were measured:\n")
	met, judged := 0, 0
	for i := range rows {
		r := &rows[i]
		if r.Goal == "" {
			continue
		}
		verdict := "doubtful"
		if r.Met != nil {
			judged++
			verdict = "MISSED"
			if *r.Met {
				met++
				verdict = "met"
			}
		}
		fmt.Fprintf(&b, "  %-8s %-42s %-34s %-20s %s (goal %s)\n", verdict, r.Case, r.Against, r.Metric, r.value(), r.Goal)
	}
	fmt.Fprintf(&b, "  %d of %d met\n\nThroughput, ours to theirs:\n", met, judged)
	for i := range rows {
		if r := &rows[i]; r.Metric == "requests/s" && r.Goal == "" {
			fmt.Fprintf(&b, "  %-42s %-34s %s\n", r.Case, r.Against, r.value())
		}
	}
	return b.String()
}

// value is a row's ratio, or our figure if there is no other side; the difference if that is what the goal bounds.
func (r *row) value() string {
	if r.Theirs == 0 {
		return fmt.Sprintf("%g", r.Ours)
	}
	if g := goalOf(r.key(), r.Against, r.Metric); g != nil && g.added {
		return fmt.Sprintf("%+.1f", r.Ours-r.Theirs)
	}
	return fmt.Sprintf("%.2fx", r.Ratio)
}

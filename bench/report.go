package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// key names one row of the measurements.
type key struct {
	Case        string
	Workers     int
	Connections int
}

// measured is what one round saw.
type measured struct {
	PerSecond, P50, P99, CPU float64 // requests a second, microseconds
	Others                   float64 // share of the machine that went to other programs
	Worst                    string  // of those, the command that used the most
	Failed                   int
}

// row is one line of results.json; its form is the same for all benchmarks.
type row struct {
	Case     string            `json:"case"`
	Against  string            `json:"against"`
	Metric   string            `json:"metric"`
	Ours     float64           `json:"ours"`
	Theirs   float64           `json:"theirs"`
	Ratio    float64           `json:"ratio"`
	Goal     string            `json:"goal"`
	Met      *bool             `json:"met"` // null where there is no goal, or the machine was not quiet
	Rounds   [][2]float64      `json:"rounds"`
	Versions map[string]string `json:"versions"`
}

// metric is one of the figures of a round, and the goal for its ratio.
type metric struct {
	name string
	of   func(measured) float64
	// goal is the bound of ours/theirs, from below (atLeast) or above; 0 is none.
	goal func(key) float64
	more bool // more is better
}

// Goals for the null case are for our layer alone, with a standard HTTP front:
// they were set from throw-away trials before anything was built. In the sklearn
// case scikit-learn's own predict takes most of either side's time (0.2-0.4 ms),
// so there the goal is never to be behind.
var metrics = []metric{
	{"requests/s", func(m measured) float64 { return m.PerSecond }, func(k key) float64 {
		switch {
		case k.Case != "null":
			return 1
		case k.Workers == 1 && k.Connections == 64:
			return 3.5
		case k.Connections >= 16:
			return 2
		}
		return 0
	}, true},
	{"p50 us", func(m measured) float64 { return m.P50 }, func(k key) float64 {
		if k.Connections == 1 {
			return 0.9
		}
		return 0
	}, false},
	{"p99 us", func(m measured) float64 { return m.P99 }, func(k key) float64 {
		switch {
		case k.Connections < 64:
			return 0
		case k.Case != "null":
			return 1
		}
		return 0.2
	}, false},
	{"CPU us/request", func(m measured) float64 { return m.CPU }, func(k key) float64 {
		switch {
		case k.Connections < 64:
			return 0
		case k.Case != "null":
			return 1
		}
		return 0.4
	}, false},
}

type report struct {
	setup  *setup
	order  []key
	rounds map[key]map[string][]measured
	rows   []row
}

func newReport(s *setup) *report {
	return &report{setup: s, rounds: map[key]map[string][]measured{}}
}

func (r *report) add(side string, k key, m measured) {
	if r.rounds[k] == nil {
		r.rounds[k] = map[string][]measured{}
		r.order = append(r.order, k)
	}
	r.rounds[k][side] = append(r.rounds[k][side], m)
}

// tolerable is how much of the machine other programs may use before the page
// says that its figures are doubtful.
const tolerable = 0.05

// others is the share of the machine that other programs used: the median of all
// rounds, and the worst.
func (r *report) others() (typical, worst float64) {
	var all []float64
	for _, sides := range r.rounds {
		for _, rounds := range sides {
			for _, m := range rounds {
				all = append(all, m.Others)
				worst = max(worst, m.Others)
			}
		}
	}
	return median(all), worst
}

// finish turns the rounds into rows: medians, and the ratio of the medians.
func (r *report) finish() {
	for _, k := range r.order {
		ours, theirs := r.rounds[k]["ours"], r.rounds[k]["fastapi"]
		for _, m := range metrics {
			one := row{
				Case:    fmt.Sprintf("%s, %d workers, %d connections", k.Case, k.Workers, k.Connections),
				Against: "fastapi", Metric: m.name, Versions: r.setup.versions,
			}
			var a, b []float64
			for i := range min(len(ours), len(theirs)) {
				a, b = append(a, m.of(ours[i])), append(b, m.of(theirs[i]))
				one.Rounds = append(one.Rounds, [2]float64{round(a[i]), round(b[i])})
			}
			one.Ours, one.Theirs = round(median(a)), round(median(b))
			if one.Theirs > 0 {
				one.Ratio = math.Round(100*one.Ours/one.Theirs) / 100
			}
			if goal := m.goal(k); goal > 0 {
				one.Goal = goalText(m, goal)
				if r.doubtful(k) {
					r.rows = append(r.rows, one) // a goal is neither met nor missed by accident
					continue
				}
				met := one.Ratio >= goal
				if !m.more {
					met = one.Ratio <= goal
				}
				one.Met = &met
			}
			r.rows = append(r.rows, one)
		}
	}
}

func goalText(m metric, goal float64) string {
	if m.more {
		return fmt.Sprintf(">= %gx", goal)
	}
	return fmt.Sprintf("<= %gx", goal)
}

// doubtful tells whether other programs used the machine while one of the two
// sides was measured, in most of its rounds.
func (r *report) doubtful(k key) bool {
	for _, rounds := range r.rounds[k] {
		var others []float64
		for _, m := range rounds {
			others = append(others, m.Others)
		}
		if median(others) > tolerable {
			return true
		}
	}
	return false
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// write prints the table and writes the files that have a name.
func (r *report) write(results, history, page string) error {
	text := r.page()
	fmt.Print(text)
	if page != "" {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if results != "" {
		data, err := json.MarshalIndent(r.rows, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(results, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if history == "" {
		return nil
	}
	return r.appendHistory(history)
}

// appendHistory keeps what a later run is compared with: a line for each ratio.
func (r *report) appendHistory(file string) (err error) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	out := json.NewEncoder(f)
	for _, one := range r.rows {
		low, high := math.Inf(1), 0.0
		for _, pair := range one.Rounds {
			if pair[1] > 0 {
				low, high = min(low, pair[0]/pair[1]), max(high, pair[0]/pair[1])
			}
		}
		if high == 0 {
			low = 0
		}
		err := out.Encode(map[string]any{
			"date": time.Now().UTC().Format(time.RFC3339), "version": r.setup.versions["clearml-serving"], "machine": machine(),
			"case": one.Case, "metric": one.Metric, "ratio": one.Ratio, "spread": []float64{round(low), round(high)},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// page is docs/benchmarks.md. It is made, never edited.
func (r *report) page() string {
	var b strings.Builder
	rounds := 0
	for _, one := range r.rows {
		rounds = max(rounds, len(one.Rounds))
	}
	fmt.Fprintf(&b, `<!-- Made by "make bench"; not edited by hand. -->
# Benchmarks

Our endpoints beside a plain FastAPI + uvicorn server (bench/fastapi/server.py) that runs the same
user code around the same model, with the same number of worker processes. Both are started afresh
for each round and asked in alternation by the load generator in bench/load, which shares the
machine's cores with them; medians of %d rounds, each the quietest of up to %d attempts. A ratio is ours divided by theirs. CPU is the time
that all processes of the server used for a request: the figure that carries over to other machines.

%s, %s.

%s

| case | workers | connections | requests/s ours / FastAPI | ratio | p50 us | p99 us | CPU us/request | ratio |
|---|---|---|---|---|---|---|---|---|
`, rounds, quietAttempts, machine(), r.versionsLine(), r.quietLine())
	for i := 0; i+len(metrics) <= len(r.rows); i += len(metrics) {
		k := r.order[i/len(metrics)]
		rate, p50, p99, cpu := r.rows[i], r.rows[i+1], r.rows[i+2], r.rows[i+3]
		name := k.Case
		if r.doubtful(k) {
			name += " (doubtful)"
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %.0f / %.0f | **%.2f** | %.0f / %.0f | %.0f / %.0f | %.0f / %.0f | **%.2f** |\n",
			name, k.Workers, k.Connections, rate.Ours, rate.Theirs, rate.Ratio, p50.Ours, p50.Theirs, p99.Ours, p99.Theirs, cpu.Ours, cpu.Theirs, cpu.Ratio)
	}
	b.WriteString("\nA row is doubtful when other programs used more than 5 % of the machine in most rounds of one side;\nit is not held against a goal.\n\nGoals (ratios):\n\n| case | metric | goal | measured | met |\n|---|---|---|---|---|\n")
	for _, one := range r.rows {
		if one.Goal == "" {
			continue
		}
		verdict := "not judged"
		if one.Met != nil {
			verdict = map[bool]string{true: "yes", false: "**no**"}[*one.Met]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %s |\n", one.Case, one.Metric, one.Goal, one.Ratio, verdict)
	}
	return b.String()
}

// quietLine says how quiet the machine was.
func (r *report) quietLine() string {
	typical, worst := r.others()
	line := fmt.Sprintf("Other programs used %.0f %% of the machine meanwhile (at worst %.0f %%).", 100*typical, 100*worst)
	if typical > tolerable {
		line = "**The machine was not quiet, so these figures are doubtful.** " + line
	}
	return line
}

func (r *report) versionsLine() string {
	var parts []string
	for _, name := range []string{"clearml-serving", "python", "fastapi", "uvicorn", "scikit-learn", "numpy"} {
		if version := r.setup.versions[name]; version != "" {
			parts = append(parts, name+" "+version)
		}
	}
	return strings.Join(parts, ", ")
}

// machine describes the class of this machine, without its name.
func machine() string {
	model := runtime.GOARCH
	if out, err := exec.Command("sh", "-c", "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1").Output(); err == nil && len(out) > 0 { //nolint:noctx // reads a file
		model = strings.TrimSpace(string(out))
	}
	return fmt.Sprintf("%d cores of %s, %s", runtime.NumCPU(), model, runtime.GOOS)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// outcome is the result of one fault.
type outcome struct {
	Fault           string      `json:"fault"`
	About           string      `json:"about"`
	Hit             string      `json:"hit,omitempty"`
	Requests        int         `json:"requests"`
	Wrong           int         `json:"wrong"`
	ErrorsOnHit     int         `json:"errors_on_hit"`
	StatusesOnHit   map[int]int `json:"statuses_on_hit,omitempty"`
	ErrorsElsewhere int         `json:"errors_elsewhere"`
	SlowestMS       int64       `json:"slowest_elsewhere_ms"`
	RecoveredMS     int64       `json:"recovered_ms"`
	HealthProbes    int         `json:"health_probes"`
	HealthLies      int         `json:"health_lies"`
	Problem         string      `json:"problem,omitempty"`
}

func (o outcome) String() string {
	line := fmt.Sprintf("%-28s %6d requests  %3d errors on %s, %d elsewhere, %d wrong; slowest elsewhere %d ms, recovered in %d ms",
		o.Fault, o.Requests, o.ErrorsOnHit, orNone(o.Hit), o.ErrorsElsewhere, o.Wrong, o.SlowestMS, o.RecoveredMS)
	if o.Problem != "" {
		line += "\n  PROBLEM: " + o.Problem
	}
	return line
}

func orNone(hit string) string {
	if hit == "" {
		return "none"
	}
	return hit
}

// outcomeOf evaluates the observations during f.
func outcomeOf(f fault, w window, recovered time.Duration) outcome {
	o := outcome{
		Fault: f.name, About: f.about, Hit: f.hit, Requests: w.onHit.requests + w.elsewhere.requests,
		Wrong: w.onHit.wrong + w.elsewhere.wrong, ErrorsOnHit: w.onHit.failures(), ErrorsElsewhere: w.elsewhere.failures(),
		SlowestMS: w.elsewhere.slowest.Milliseconds(), RecoveredMS: recovered.Milliseconds(),
		HealthProbes: w.onHit.probes + w.elsewhere.probes, HealthLies: len(w.onHit.lies) + len(w.elsewhere.lies),
	}
	var problems []string
	if o.ErrorsOnHit > 0 {
		o.StatusesOnHit = w.onHit.failed
	}
	for status, n := range w.onHit.failed {
		if !slices.Contains(f.statuses, status) {
			problems = append(problems, fmt.Sprintf("%d answers of status %d on the endpoint that was hit, which may only give %v (%s)", n, status, f.statuses, w.onHit.example))
		}
	}
	if o.ErrorsElsewhere > 0 {
		problems = append(problems, fmt.Sprintf("%d failures elsewhere (%s)", o.ErrorsElsewhere, w.elsewhere.example))
	}
	if o.Wrong > 0 {
		problems = append(problems, fmt.Sprintf("%d wrong answers (%s%s)", o.Wrong, w.onHit.example, w.elsewhere.example))
	}
	for _, lie := range slices.Concat(w.onHit.lies, w.elsewhere.lies) {
		problems = append(problems, "/readyz lies: "+lie)
	}
	slices.Sort(problems)
	o.Problem = strings.Join(problems, "; ")
	return o
}

// report collects the outcomes.
type report struct {
	short    bool
	outcomes []outcome
	total    int    // right answers
	rest     window // since the last fault
}

func (r *report) add(o outcome) { r.outcomes = append(r.outcomes, o) }

func (r *report) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(format string, values ...any) {
		_, _ = fmt.Fprintf(w, format, values...) // into memory
	}
	row("fault\trequests\twrong\terrors on hit\telsewhere\tslowest elsewhere\trecovered\t\n")
	for _, o := range r.outcomes {
		mark := ""
		if o.Problem != "" {
			mark = "  <- " + o.Problem
		}
		row("%s\t%d\t%d\t%d\t%d\t%d ms\t%d ms\t%s\n", o.Fault, o.Requests, o.Wrong, o.ErrorsOnHit, o.ErrorsElsewhere, o.SlowestMS, o.RecoveredMS, mark)
	}
	if err := w.Flush(); err != nil {
		return err.Error()
	}
	fmt.Fprintf(&b, "%d kinds of fault, %d right answers, %d probes of /readyz\n", len(r.outcomes), r.total, r.probes())
	return b.String()
}

// probes is the number of health probes.
func (r *report) probes() (n int) {
	for _, o := range r.outcomes {
		n += o.HealthProbes
	}
	return n
}

// page is the documentation of the guarantees, and of the results of the last run.
func (r *report) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Faults

Written by `+"`make chaos`"+`. Clients with known answers send requests to %d endpoints; one fault after
another is injected. The guarantees: no wrong answers, no errors on endpoints that were
not hit, and only the documented statuses on the endpoint that was hit, until it has recovered by itself.
The health of each endpoint is polled ten times a second: it is never unready between two right answers
that are less than %v apart, and never ready after %v without one.

The faults hit workers, user code, clients, the control plane, deployments, the stored configuration, the
files of the data folder, the log, the machine, and the servers of models that are beside the instance. Configuration that cannot be read and a log that is not read
hit no endpoint: no error is allowed then.

| status | when, on the endpoint that was hit |
|---|---|
| 500 | the request had begun when its worker died; the answer says why it died |
| 503 + Retry-After | no worker can take it now: the endpoint starts, or its workers die repeatedly |
| 504 | its deadline passed |
| 429 + Retry-After | too many requests are waiting |

With a server beside the instance (`+"`engine-…`"+`) 500 is for a request that it worked on when it failed, 503 for all while it cannot be asked,
504 for one that it has not answered in time. The endpoint is back within 5 s of its server: that is the time in the last column. A
server under one of our roles, or under the engine vllm, is started again by that; one that somebody else runs comes back at
the same address after 10 s. Servers that are slow or send garbage are stand-ins in the same protocol. Kinds of real servers (`+"`engine-real-…`, `engine-llama…`"+`)
are left out where these are not installed.

A client that disconnects before its answer is counted neither as a request nor as an error
([workers.md](workers.md#detection-of-disconnected-clients)).

The last run of each: %d kinds of fault, %d right answers, %d probes of /readyz, all of them correct.

| fault | what was done | requests meanwhile | wrong answers | errors where it hit | errors elsewhere | slowest answer elsewhere | recovered after |
|---|---|---|---|---|---|---|---|
`, len(bystanders)+1, fresh, stale, len(r.outcomes), r.total, r.probes())
	for _, o := range r.outcomes {
		hit := []string{strconv.Itoa(o.ErrorsOnHit)}
		for _, status := range slices.Sorted(maps.Keys(o.StatusesOnHit)) {
			name := strconv.Itoa(status)
			if status == 0 {
				name = "connection"
			}
			hit = append(hit, fmt.Sprintf("%s: %d", name, o.StatusesOnHit[status]))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %s | %d | %d ms | %d ms |\n", o.Fault, o.About, o.Requests, o.Wrong, strings.Join(hit, ", "), o.ErrorsElsewhere, o.SlowestMS, o.RecoveredMS)
	}
	return b.String()
}

// verdict is nil if no guarantee was broken.
func (r *report) verdict() error {
	var errs []error
	for _, o := range r.outcomes {
		if o.Problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", o.Fault, o.Problem))
		}
	}
	if n := r.rest.elsewhere.failures() + r.rest.elsewhere.wrong; n > 0 {
		errs = append(errs, fmt.Errorf("after the last fault: %d wrong or failed answers (%s)", n, r.rest.elsewhere.example))
	}
	return errors.Join(errs...)
}

// keep adds the results of a file to those of some faults, in the order of the faults. A file that is not there has none.
func (r *report) keep(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var before []outcome
	if err == nil {
		err = json.Unmarshal(text, &before)
	}
	if err != nil {
		return fmt.Errorf("read the results before: %w", err)
	}
	known := map[string]outcome{}
	for _, o := range slices.Concat(before, r.outcomes) {
		known[o.Fault] = o
	}
	r.outcomes, r.total = nil, 0
	for _, f := range faults() {
		if o, ok := known[f.name]; ok {
			r.add(o)
			r.total += o.Requests - o.Wrong - o.ErrorsOnHit - o.ErrorsElsewhere
		}
	}
	return nil
}

func (r *report) write(file string) error {
	text, err := json.MarshalIndent(r.outcomes, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

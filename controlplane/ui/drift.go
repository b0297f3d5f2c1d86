package ui

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/drift"
	"clearmlserving/drift/watch"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// driftPart is the drift of an endpoint's variables. Its script asks for it again.
type driftPart struct {
	At        time.Time
	Problem   string
	Silent    bool // nothing watches now
	Variables []driftRow
	More      int
}

// driftRow is a variable with its chart.
type driftRow struct {
	drift.VariableReport
	Bars []driftBar
}

// Class is the class of the badge.
func (r driftRow) Class() string {
	switch r.Verdict {
	case drift.Drifting:
		return "bad"
	case drift.Steady:
		return "good"
	}
	return ""
}

// Known says that there are live values to compare.
func (r driftRow) Known() bool { return r.LiveRows > 0 }

// Chance says how often so much evidence is expected without drift.
func (r driftRow) Chance() string {
	switch days := r.ChanceDays; {
	case days >= 3650:
		return "without drift: less than once in ten years"
	case days >= 1:
		return fmt.Sprintf("without drift: at most once in %.0f days", days)
	}
	return "as expected without drift"
}

// driftBar is a bin: the share of the reference, and beside it that of the live values. The chart is
// 100 wide and 30 high.
type driftBar struct {
	drift.Bin
	X, Width, ReferenceTop, ReferenceHigh, LiveX, LiveTop, LiveHigh float64
}

func driftBars(bins []drift.Bin) []driftBar {
	most := 0.0
	for _, b := range bins {
		most = max(most, b.Reference, b.Live)
	}
	if most == 0 {
		return nil
	}
	const height, gap = 30, 0.25
	wide := 100 / float64(len(bins))
	bars := make([]driftBar, len(bins))
	round := func(f float64) float64 { return math.Round(f*100) / 100 }
	for i, b := range bins {
		bar := driftBar{Bin: b, X: round(float64(i) * wide), Width: round(wide * (1 - gap) / 2)}
		bar.LiveX = round(bar.X + bar.Width)
		bar.ReferenceHigh, bar.LiveHigh = round(height*b.Reference/most), round(height*b.Live/most)
		bar.ReferenceTop, bar.LiveTop = round(height-bar.ReferenceHigh), round(height-bar.LiveHigh)
		bars[i] = bar
	}
	return bars
}

const (
	shownDrifts = 50
	// silentAfter is the age of a report from which nothing watches.
	silentAfter = 5 * time.Minute
)

// driftOf is the drift of an endpoint's variables, those that drift first; nil if none is watched.
func (v *visit) driftOf(s *operations.Service, at serving.EndpointURL) (*driftPart, error) {
	report, err := v.driftReport(s.Doc.ID)
	if err != nil || report.At.IsZero() {
		return nil, err
	}
	part := &driftPart{At: report.At, Problem: report.Problem, Silent: v.api.ServerTime().Sub(report.At) > silentAfter}
	for _, r := range report.Variables {
		if serving.JoinURL(r.Endpoint, r.Version) == at {
			part.Variables = append(part.Variables, driftRow{r, driftBars(r.Bins)})
		}
	}
	if len(part.Variables) == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	slices.SortStableFunc(part.Variables, func(a, b driftRow) int { return rank(b) - rank(a) })
	part.More = max(0, len(part.Variables)-shownDrifts)
	part.Variables = part.Variables[:min(len(part.Variables), shownDrifts)]
	return part, nil
}

func rank(r driftRow) int {
	if r.Verdict == drift.Drifting {
		return 1
	}
	return 0
}

// driftReport is the last report on the service of the page, an empty one if there is none. It may be long,
// so it is read once.
func (v *visit) driftReport(service string) (drift.Report, error) {
	if v.watching != nil {
		return *v.watching, nil
	}
	report, err := watch.Last(v.r.Context(), v.api, service)
	if errors.Is(err, watch.ErrNoReport) || errors.Is(err, clearml.ErrNotFound) {
		report, err = drift.Report{}, nil
	}
	if err == nil {
		v.watching = &report
	}
	return report, err
}

// driftMarks are beginnings and ends of drift of some endpoints.
func (v *visit) driftMarks(s *operations.Service, urls []string, add func(t time.Time, kind, text, link string)) error {
	report, err := v.driftReport(s.Doc.ID)
	if err != nil {
		return err
	}
	for _, e := range report.Events {
		url := string(serving.JoinURL(e.Endpoint, e.Version))
		if !slices.Contains(urls, url) {
			continue
		}
		text, kind := "drift of "+e.Variable+" ended", "good"
		if e.Began {
			text, kind = fmt.Sprintf("drift of %s began: PSI %.2g", e.Variable, e.PSI), "bad"
		}
		if len(urls) > 1 {
			text = url + ": " + text
		}
		add(e.At, kind, text, endpointLink(s.Doc.ID, url)+"#drift")
	}
	return nil
}

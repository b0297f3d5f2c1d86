package ui

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// rolloutRow is what a canary's card shows of its steps.
type rolloutRow struct {
	Phase    serving.RolloutPhase
	Bad      bool // the candidate was taken back
	Steps    []rolloutStep
	Counts   [][3]string // arm, requests, errors; empty while no instance tells
	Evidence string      // against the candidate, as a share of what a rollback needs
	Worse    string      // how much worse it is at most
	Note     string
	Events   []serving.RolloutEvent // newest first
	Actions  []rolloutAction
}

type rolloutStep struct {
	Name string
	Now  bool
}

// rolloutAction is a decision that a person can make.
type rolloutAction struct{ Name, Label, Confirm string }

// shownDecisions is how many decisions a card has.
const shownDecisions = 10

// rolloutOf is the row of a canary, nil without steps. told is the report of the instance that decides,
// else of any, nil for none.
func rolloutOf(config serving.Service, url serving.EndpointURL, instances []instance) *rolloutRow {
	r, ok := serving.LookUp(config.Rollouts, string(url))
	if !ok {
		return nil
	}
	row := &rolloutRow{Phase: r.Phase, Bad: r.Phase == serving.RolloutRolledBack}
	if r.Mirror > 0 {
		row.Steps = append(row.Steps, rolloutStep{"copies", r.Active() && r.Step == serving.MirrorStep})
	}
	for i, share := range r.Steps {
		row.Steps = append(row.Steps, rolloutStep{percent(share), (r.Active() || r.Phase == serving.RolloutPromoted) && i == r.Step})
	}
	for _, e := range slices.Backward(r.Events) {
		if len(row.Events) < shownDecisions {
			row.Events = append(row.Events, e)
		}
	}
	if len(row.Events) > 0 {
		row.Note = row.Events[0].Note
	}
	if told := toldOf(url, instances); told != nil {
		row.Counts = [][3]string{
			{"candidate " + string(r.Candidate), strconv.FormatUint(told.Requests, 10), strconv.FormatUint(told.Errors, 10)},
			{"baseline " + string(r.Baseline), strconv.FormatUint(told.BaselineRequests, 10), strconv.FormatUint(told.BaselineErrors, 10)},
		}
		if told.Limit > 0 {
			row.Evidence = percent(max(0, told.Evidence/told.Limit))
		}
		if delta, ok := told.AtMostWorse["errors"]; ok {
			row.Worse = percent(delta)
		}
		if told.Note != "" {
			row.Note = told.Note
		}
	}
	if r.Active() {
		pause := rolloutAction{"pause", "Pause", ""}
		if r.Phase != serving.RolloutRunning {
			pause = rolloutAction{"resume", "Resume", ""}
		}
		row.Actions = []rolloutAction{
			pause,
			{"promote", "Promote", fmt.Sprintf("Send all requests to %s?", r.Candidate)},
			{"abort", "Take back", fmt.Sprintf("Send all requests to %s?", r.Baseline)},
		}
	}
	return row
}

// toldOf is what the instance that decides tells, else any.
func toldOf(url serving.EndpointURL, instances []instance) (told *serving.RolloutReport) {
	for _, i := range instances {
		if !i.Alive() {
			continue
		}
		for _, c := range i.Report.Canaries {
			if c.URL == url && c.Rollout != nil && (told == nil || c.Rollout.Decides) {
				told = c.Rollout
			}
		}
	}
	return told
}

func percent(share float64) string {
	return strconv.FormatFloat(math.Round(share*1e4)/1e2, 'f', -1, 64) + " %"
}

// moveCanary stores a decision of a person.
func (p *Pages) moveCanary(v *visit, s *operations.Service) error {
	url := serving.CleanURL(v.r.PostForm.Get("endpoint"))
	phases := map[string]serving.RolloutPhase{
		"pause": serving.RolloutPaused, "resume": serving.RolloutRunning, "promote": serving.RolloutPromoted, "abort": serving.RolloutRolledBack,
	}
	r, ok := serving.LookUp(s.Config.Rollouts, string(url))
	phase, known := phases[v.r.PostForm.Get("action")]
	if !ok || !known {
		return refusal{http.StatusNotFound, fmt.Sprintf("The service %s has no canary %s with steps.", s.Doc.Name, url)}
	}
	if !r.Active() {
		return refusal{http.StatusConflict, fmt.Sprintf("The canary %s has ended: it was %s.", url, r.Phase)}
	}
	s.Author = operations.Author{Name: v.user.Name}
	if _, err := s.MoveRollout(v.r.Context(), url, serving.RolloutMove{Phase: phase, By: v.user.Name, Note: strings.TrimSpace(v.r.PostForm.Get("message"))}); err != nil {
		return err
	}
	return v.done("/services/"+s.Doc.ID, fmt.Sprintf("The canary %s is %s.", url, phase))
}

package serving

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Rollout gives a canary more requests step by step, or takes them back. It is stored beside the
// canary's record, whose weights follow it, so that other products serve the same shares.
type Rollout struct {
	// ID is new for each candidate: evidence about another one does not count.
	ID        string      `record:"id,required"`
	Candidate EndpointURL `record:"candidate,required"`
	Baseline  EndpointURL `record:"baseline,required"`
	Steps     []float64   // shares of the candidate, increasing, at most 1
	StepTime  float64     `record:"step_time"` // minimum seconds of a step
	Alpha     float64     `record:"alpha"`     // see canary.Rules; 0: the default
	Tolerance float64     `record:"tolerance"`
	Deadline  float64     `record:"deadline"` // seconds since the begin after which a person is asked; 0: none
	Guards    []string    `record:"guards"`   // PromQL: the candidate is rolled back while one has a result
	Freeze    []string    `record:"freeze"`   // PromQL: nothing is decided while one has a result
	Webhook   string      `record:"webhook"`  // asked before and told after each decision
	Mirror    float64     `record:"mirror"`   // minimum seconds with copies of requests only, before the first step; 0: none

	Phase   RolloutPhase `record:"phase,required"`
	Step    int          `record:"step,always"` // index of Steps; MirrorStep while there are only copies
	Started time.Time    `record:"started"`
	Since   time.Time    `record:"since"` // of phase or step
	Events  []RolloutEvent
	Unknown map[string]json.RawMessage
}

// MirrorStep is the step before the first one, in which the candidate gets copies of requests.
const MirrorStep = -1

// RolloutPhase is what a rollout does.
type RolloutPhase string

// The phases. Promoted and RolledBack are ends.
const (
	RolloutRunning    RolloutPhase = "running"
	RolloutPaused     RolloutPhase = "paused" // by a person: no more steps, but a rollback if need be
	RolloutHeld       RolloutPhase = "held"   // it waits for a person
	RolloutFrozen     RolloutPhase = "frozen" // the baseline is bad: nothing is decided
	RolloutPromoted   RolloutPhase = "promoted"
	RolloutRolledBack RolloutPhase = "rolled back"
)

// RolloutPhases lists the phases.
func RolloutPhases() []RolloutPhase {
	return []RolloutPhase{RolloutRunning, RolloutPaused, RolloutHeld, RolloutFrozen, RolloutPromoted, RolloutRolledBack}
}

// RolloutVerdicts lists the answers of the evidence, see canary.Verdict.
func RolloutVerdicts() []string { return []string{"not known yet", "go on", "roll back"} }

// RolloutEvent is one decision.
type RolloutEvent struct {
	Time  time.Time `json:"time"`
	By    string    `json:"by"`   // CanaryAnalysis, or a user
	What  string    `json:"what"` // the phase or step that began
	Share float64   `json:"share"`
	Note  string    `json:"note,omitempty"` // why, with the evidence
}

// CanaryAnalysis is the author of decisions that no person has made.
const CanaryAnalysis = "canary analysis"

// Bounds of a rollout.
const (
	maxRolloutSteps  = 50
	maxRolloutEvents = 50
	maxRolloutRules  = 20
	maxRolloutTime   = 366 * 24 * 3600
	maxExpression    = 4000
)

// Active reports whether the rollout may still change.
func (r Rollout) Active() bool {
	return r.Phase != RolloutPromoted && r.Phase != RolloutRolledBack
}

// Share is the candidate's present share of the requests.
func (r Rollout) Share() float64 {
	switch {
	case r.Phase == RolloutPromoted:
		return 1
	case r.Phase == RolloutRolledBack, r.Step < 0, r.Step >= len(r.Steps):
		return 0
	}
	return r.Steps[r.Step]
}

// Least is the minimum time of the present step in seconds.
func (r Rollout) Least() float64 {
	if r.Step == MirrorStep {
		return r.Mirror
	}
	return r.StepTime
}

// Next is the share of the next step. Without one, ok is false: only a person can promote.
func (r Rollout) Next() (share float64, ok bool) {
	if next := r.Step + 1; next >= 0 && next < len(r.Steps) {
		return r.Steps[next], true
	}
	return 1, false
}

// Validate checks a rollout before it is stored.
func (r Rollout) Validate() error {
	wrong := func(field string, value any, why string) error {
		return &FieldError{Field: field, Value: fmt.Sprint(value), Why: why}
	}
	if r.ID == "" {
		return wrong("id", "", "is missing")
	}
	if r.Candidate == "" || r.Baseline == "" || r.Candidate == r.Baseline {
		return wrong("candidate", r.Candidate, "and baseline must be two endpoints")
	}
	if len(r.Steps) == 0 || len(r.Steps) > maxRolloutSteps {
		return wrong("steps", len(r.Steps), fmt.Sprintf("steps are not usable: give 1 to %d", maxRolloutSteps))
	}
	before := 0.0
	for i, s := range r.Steps {
		if math.IsNaN(s) || s <= before || s > 1 {
			return wrong("steps", s, "is not usable: steps are shares above 0, at most 1, each greater than the one before")
		}
		if i == 0 && s == 1 {
			return wrong("steps", s, "is not usable as the first step: it must leave requests for the baseline")
		}
		before = s
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"step_time", r.StepTime}, {"deadline", r.Deadline}, {"mirror", r.Mirror}} {
		if math.IsNaN(f.value) || f.value < 0 || f.value > maxRolloutTime {
			return wrong(f.name, f.value, "is not a number of seconds")
		}
	}
	if math.IsNaN(r.Alpha) || r.Alpha < 0 || r.Alpha > 0.5 {
		return wrong("alpha", r.Alpha, "is not usable: give a probability above 0, at most 0.5")
	}
	if math.IsNaN(r.Tolerance) || r.Tolerance != 0 && (r.Tolerance < 1 || r.Tolerance > 20) {
		return wrong("tolerance", r.Tolerance, "is not usable: give a factor from 1 to 20")
	}
	for name, list := range map[string][]string{"guards": r.Guards, "freeze": r.Freeze} {
		if len(list) > maxRolloutRules {
			return wrong(name, len(list), fmt.Sprintf("are too many: give at most %d", maxRolloutRules))
		}
		for _, expr := range list {
			if strings.TrimSpace(expr) == "" || len(expr) > maxExpression {
				return wrong(name, fmt.Sprintf("%q", expr), "is not an expression")
			}
		}
	}
	if r.Webhook != "" && !strings.HasPrefix(r.Webhook, "http://") && !strings.HasPrefix(r.Webhook, "https://") {
		return wrong("webhook", r.Webhook, "is not an http or https address")
	}
	if !slices.Contains(RolloutPhases(), r.Phase) {
		return wrong("phase", r.Phase, "is unknown")
	}
	if r.Step < MirrorStep || r.Step >= len(r.Steps) {
		return wrong("step", r.Step, "does not exist")
	}
	return nil
}

// of reports whether the rollout is that of a canary: of its two endpoints.
func (r Rollout) of(c Canary) bool {
	return len(c.LoadEndpoints) == 2 && CleanURL(c.LoadEndpoints[0]) == r.Candidate && CleanURL(c.LoadEndpoints[1]) == r.Baseline
}

// SetCanary stores a canary without a rollout, or with a new one: its first endpoint is the
// candidate, its second one the baseline.
func (s *Service) SetCanary(c Canary, r *Rollout, by string, now time.Time) (replaced bool, err error) {
	key := string(CleanURL(c.Endpoint))
	if r != nil {
		if len(c.LoadEndpoints) != 2 {
			return false, fmt.Errorf("canary %q: steps need two endpoints, the candidate and the baseline: --input-endpoints %s/2 %s/1", c.Endpoint, key, key)
		}
		next := *r
		next.Candidate, next.Baseline = CleanURL(c.LoadEndpoints[0]), CleanURL(c.LoadEndpoints[1])
		next.Phase, next.Step, next.Started, next.Since = RolloutRunning, 0, now, now
		if next.Mirror > 0 {
			next.Step = MirrorStep
		}
		if err := next.Validate(); err != nil {
			return false, fmt.Errorf("canary %q: %w", c.Endpoint, err)
		}
		next.Events = []RolloutEvent{{Time: now, By: clean(by), What: next.stepName(), Share: next.Share()}}
		c.Weights = []float64{next.Share(), 1 - next.Share()}
		r = &next
	}
	if replaced, err = s.AddCanary(c); err != nil {
		return false, err
	}
	s.ForgetRollout(key)
	if r != nil {
		if s.Rollouts == nil {
			s.Rollouts = map[string]Rollout{}
		}
		s.Rollouts[key] = *r
	}
	return replaced, nil
}

// ForgetRollout drops the steps of a canary, and reports whether there were any.
func (s *Service) ForgetRollout(url string) bool {
	key, ok := existing(s.Rollouts, string(CleanURL(url)))
	delete(s.Rollouts, key)
	return s.forget(SectionRollouts, string(CleanURL(url))) || ok
}

func (r Rollout) stepName() string {
	if r.Step == MirrorStep {
		return "mirror"
	}
	return fmt.Sprintf("step %d of %d", r.Step+1, len(r.Steps))
}

// RolloutMove is a decision about a rollout.
type RolloutMove struct {
	// From is the state that the decision is about: the move has no effect on another one. A nil
	// From stands for any active state, whose step stays: a person decides about the phase.
	From *Rollout
	// Phase is the next phase, Step the next step.
	Phase RolloutPhase
	Step  int
	By    string
	Note  string
}

// MoveRollout applies a decision to the rollout of a canary, with the weights of the canary. moved is
// false if another decision came first.
func (s *Service) MoveRollout(url EndpointURL, m RolloutMove, now time.Time) (moved bool, err error) {
	key, ok := existing(s.Rollouts, string(url))
	if !ok {
		return false, fmt.Errorf("canary '%s' has no steps: %w", url, ErrNotFound)
	}
	r := s.Rollouts[key]
	canaryKey, ok := existing(s.Canaries, string(url))
	if !ok || !r.of(s.Canaries[canaryKey]) {
		return false, fmt.Errorf("canary '%s' has other endpoints than its steps: define it anew", url)
	}
	if m.From != nil && (r.ID != m.From.ID || r.Phase != m.From.Phase || r.Step != m.From.Step) {
		return false, nil
	}
	if !r.Active() {
		if m.From == nil {
			return false, fmt.Errorf("the canary '%s' has ended: it was %s", url, r.Phase)
		}
		return false, nil
	}
	before := r
	r.Phase, r.Since = m.Phase, now
	if m.From != nil {
		r.Step = m.Step
	}
	if before.Phase == RolloutHeld && r.Phase == RolloutRunning {
		r.Started = now // the deadline begins anew
	}
	what := string(r.Phase)
	if r.Phase == RolloutRunning && r.Step != before.Step {
		what = r.stepName()
	}
	r.Events = append(slices.Clone(r.Events), RolloutEvent{Time: now, By: clean(m.By), What: what, Share: r.Share(), Note: clean(m.Note)})
	r.Events = r.Events[max(0, len(r.Events)-maxRolloutEvents):]
	if err := r.Validate(); err != nil {
		return false, err
	}
	c := s.Canaries[canaryKey]
	c.Weights = []float64{r.Share(), 1 - r.Share()}
	s.Canaries[canaryKey], s.Rollouts[key] = c, r
	return true, nil
}

// resolveRollouts plans the rollouts of the planned canaries.
func (p *Plan) resolveRollouts(s Service) {
	p.Rollouts = map[EndpointURL]Rollout{}
	for url := range p.Canaries {
		key, ok := existing(s.Rollouts, string(url))
		if !ok {
			continue
		}
		canaryKey, _ := existing(s.Canaries, string(url))
		r := s.Rollouts[key]
		if !r.of(s.Canaries[canaryKey]) {
			if r.Active() {
				p.problem(SectionRollouts, string(url), "the canary has other endpoints than its steps: nothing is decided")
			}
			continue
		}
		p.Rollouts[url] = r
		if r.Active() && r.Step == MirrorStep {
			if o := p.Options[url]; o.Shadow == nil {
				o.Shadow = &Shadow{To: string(r.Candidate), Share: 1}
				p.Options[url] = o
			}
		}
	}
}

func decodeRollout(_ string, f *fields) (r Rollout, err error) {
	r.Steps = f.numbers("steps")
	if raw, ok := f.take("events"); ok {
		if err := json.Unmarshal(raw, &r.Events); err != nil {
			return r, &FieldError{Field: "events", Why: "is not a list of events"}
		}
	}
	f.into(&r)
	r.Candidate, r.Baseline = CleanURL(string(r.Candidate)), CleanURL(string(r.Baseline))
	if f.err != nil {
		return r, f.err
	}
	return r, r.Validate()
}

func encodeRollout(r Rollout) record {
	one := recordOf(r)
	one["steps"] = nonNil(r.Steps)
	if len(r.Events) > 0 {
		one["events"] = r.Events
	}
	return one
}

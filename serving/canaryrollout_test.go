package serving_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func withSteps(t *testing.T, r serving.Rollout) *serving.Service {
	t.Helper()
	s := serving.Decode(nil, nil)
	r.ID = "1"
	_, err := s.SetCanary(serving.Canary{Endpoint: "c", LoadEndpoints: []string{"m/2", "/m/1/"}}, &r, "ann", time.Unix(1000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

func TestCanaryWithStepsBeginsWithTheFirstShare(t *testing.T) {
	s := withSteps(t, serving.Rollout{Steps: []float64{.05, .5, 1}})
	r := s.Rollouts["c"]
	if w := s.Canaries["c"].Weights; !slices.Equal(w, []float64{.05, .95}) {
		t.Errorf("weights %v", w)
	}
	if r.Candidate != "m/2" || r.Baseline != "m/1" || r.Phase != serving.RolloutRunning || len(r.Events) != 1 || r.Events[0].By != "ann" {
		t.Errorf("%+v", r)
	}
}

func TestMirrorBeginsWithoutRequests(t *testing.T) {
	s := withSteps(t, serving.Rollout{Steps: []float64{.05, 1}, Mirror: 60})
	if w := s.Canaries["c"].Weights; !slices.Equal(w, []float64{0, 1}) {
		t.Errorf("weights %v", w)
	}
	if next, ok := s.Rollouts["c"].Next(); next != .05 || !ok {
		t.Errorf("next %v %v", next, ok)
	}
}

func TestStepsThatCannotBeUsed(t *testing.T) {
	endpoints := []string{"m/2", "m/1"}
	for name, c := range map[string]struct {
		endpoints []string
		r         serving.Rollout
	}{
		"one endpoint":     {[]string{"m/2"}, serving.Rollout{Steps: []float64{.1}}},
		"three endpoints":  {[]string{"m/3", "m/2", "m/1"}, serving.Rollout{Steps: []float64{.1}}},
		"the same twice":   {[]string{"m/1", "m/1"}, serving.Rollout{Steps: []float64{.1}}},
		"none":             {endpoints, serving.Rollout{}},
		"decreasing":       {endpoints, serving.Rollout{Steps: []float64{.5, .1}}},
		"above 1":          {endpoints, serving.Rollout{Steps: []float64{.5, 5}}},
		"0":                {endpoints, serving.Rollout{Steps: []float64{0, 1}}},
		"all at once":      {endpoints, serving.Rollout{Steps: []float64{1}}},
		"NaN":              {endpoints, serving.Rollout{Steps: []float64{math.NaN()}}},
		"alpha":            {endpoints, serving.Rollout{Steps: []float64{.1}, Alpha: 2}},
		"tolerance":        {endpoints, serving.Rollout{Steps: []float64{.1}, Tolerance: .5}},
		"negative time":    {endpoints, serving.Rollout{Steps: []float64{.1}, StepTime: -1}},
		"empty guard":      {endpoints, serving.Rollout{Steps: []float64{.1}, Guards: []string{" "}}},
		"webhook":          {endpoints, serving.Rollout{Steps: []float64{.1}, Webhook: "file:///etc/passwd"}},
		"too many steps":   {endpoints, serving.Rollout{Steps: make([]float64, 51)}},
		"deadline of ages": {endpoints, serving.Rollout{Steps: []float64{.1}, Deadline: 1e12}},
	} {
		s := serving.Decode(nil, nil)
		c.r.ID = "1"
		if _, err := s.SetCanary(serving.Canary{Endpoint: "c", LoadEndpoints: c.endpoints}, &c.r, "", time.Now()); err == nil || len(s.Canaries) > 0 {
			t.Errorf("%s: %v, stored %d", name, err, len(s.Canaries))
		}
	}
}

// Two instances may decide at the same time: the second decision finds another state and does nothing.
func TestADecisionIsAppliedOnce(t *testing.T) {
	s := withSteps(t, serving.Rollout{Steps: []float64{.05, .5, 1}})
	from := s.Rollouts["c"]
	move := serving.RolloutMove{From: &from, Phase: serving.RolloutRunning, Step: 1, By: serving.CanaryAnalysis, Note: "why"}
	for i, want := range []bool{true, false} {
		moved, err := s.MoveRollout("/c", move, time.Unix(2000, 0))
		if err != nil || moved != want {
			t.Errorf("%d: moved %v, %v", i, moved, err)
		}
	}
	if w := s.Canaries["c"].Weights; !slices.Equal(w, []float64{.5, .5}) || len(s.Rollouts["c"].Events) != 2 {
		t.Errorf("weights %v, events %+v", w, s.Rollouts["c"].Events)
	}
	rollBack := serving.RolloutMove{From: &from, Phase: serving.RolloutRolledBack}
	if moved, err := s.MoveRollout("c", rollBack, time.Unix(2000, 0)); moved || err != nil {
		t.Errorf("a decision about the first step had an effect on the second: %v", err)
	}
	if moved, err := s.MoveRollout("c", serving.RolloutMove{Phase: serving.RolloutPaused}, time.Unix(2000, 0)); !moved || err != nil || s.Rollouts["c"].Step != 1 {
		t.Errorf("a pause moved %v to step %d: %v", moved, s.Rollouts["c"].Step, err)
	}
	rollBack.From = nil
	if moved, err := s.MoveRollout("c", rollBack, time.Unix(2000, 0)); !moved || err != nil {
		t.Errorf("%v %v", moved, err)
	}
	if w := s.Canaries["c"].Weights; !slices.Equal(w, []float64{0, 1}) {
		t.Errorf("weights %v", w)
	}
	if _, err := s.MoveRollout("c", serving.RolloutMove{Phase: serving.RolloutPaused}, time.Unix(2000, 0)); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("%v", err)
	}
	if _, err := s.MoveRollout("other", rollBack, time.Now()); !errors.Is(err, serving.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestStepsOfOtherEndpointsDecideNothing(t *testing.T) {
	s := withSteps(t, serving.Rollout{Steps: []float64{.05, 1}})
	s.Canaries["c"] = serving.Canary{Endpoint: "c", Weights: []float64{1, 1}, LoadEndpoints: []string{"m/3", "m/1"}}
	plan := serving.Resolve(*s, nil, nil)
	if len(plan.Rollouts) != 0 || !slices.ContainsFunc(plan.Problems, func(p serving.Problem) bool { return p.Section == serving.SectionRollouts }) {
		t.Errorf("%+v %+v", plan.Rollouts, plan.Problems)
	}
	if _, err := s.MoveRollout("c", serving.RolloutMove{Phase: serving.RolloutPromoted, Step: 1}, time.Now()); err == nil {
		t.Error("the weights of another canary were changed")
	}
}

func TestRolloutsAreStoredWithoutLoss(t *testing.T) {
	s := withSteps(t, serving.Rollout{
		Steps: []float64{.05, 1}, StepTime: 60, Alpha: .02, Tolerance: 1.5, Deadline: 3600, Guards: []string{`up{job="x"} == 0`},
		Freeze: []string{"y > 1"}, Webhook: "https://hooks.example/x", Mirror: 60, Unknown: map[string]json.RawMessage{"later": json.RawMessage(`[1]`)},
	})
	text, err := s.Encode(serving.SectionRollouts)
	if err != nil {
		t.Fatal(err)
	}
	back := serving.Decode(map[serving.Section]json.RawMessage{serving.SectionRollouts: json.RawMessage(text)}, nil)
	again, err := back.Encode(serving.SectionRollouts)
	if err != nil || again != text || len(back.Broken) > 0 {
		t.Errorf("%v %v\n%s\n%s", err, back.Broken, text, again)
	}
}

func TestCanaryWithoutStepsEndsTheRollout(t *testing.T) {
	s := withSteps(t, serving.Rollout{Steps: []float64{.05, 1}})
	replaced, err := s.SetCanary(serving.Canary{Endpoint: "c", Weights: []float64{1, 1}, LoadEndpoints: []string{"m/2", "m/1"}}, nil, "", time.Now())
	if err != nil || !replaced || len(s.Rollouts) != 0 {
		t.Errorf("%v %v %v", replaced, err, s.Rollouts)
	}
}

package rollout

import (
	"fmt"
	"math"
	"strings"
	"time"

	"clearmlserving/canary"
	"clearmlserving/serving"
)

// guardState is what the expressions of a rollout say.
type guardState struct {
	// bad and frozen are the expressions with a result, "" for none.
	bad, frozen string
	// unknown is the reason why an expression could not be evaluated, "" for none.
	unknown string
	// unasked: the expressions have not been evaluated since the start of this instance.
	unasked bool
}

// decide returns the next move of a rollout, nil for none. now is the time of the control plane.
func decide(r serving.Rollout, d canary.Decision, g guardState, now time.Time) *serving.RolloutMove {
	if !r.Active() {
		return nil
	}
	from := r
	move := func(phase serving.RolloutPhase, step int, note string) *serving.RolloutMove {
		return &serving.RolloutMove{From: &from, Phase: phase, Step: step, By: serving.CanaryAnalysis, Note: note}
	}
	switch {
	case r.Phase == serving.RolloutFrozen && (g.frozen != "" || g.unasked):
		return nil
	case g.frozen != "":
		return move(serving.RolloutFrozen, r.Step, "the condition of --freeze holds: "+g.frozen)
	case d.Verdict == canary.RollBack:
		return move(serving.RolloutRolledBack, r.Step, against(d))
	case g.bad != "":
		return move(serving.RolloutRolledBack, r.Step, "the condition of --guard holds: "+g.bad)
	case r.Phase == serving.RolloutFrozen && g.unknown == "":
		return move(serving.RolloutRunning, r.Step, "the condition of --freeze holds no more")
	case r.Phase != serving.RolloutRunning:
		return nil
	}
	share, ok := r.Next()
	if d.Verdict == canary.GoOn && g.unknown == "" && now.Sub(r.Since) >= seconds(r.Least()) {
		switch {
		case !ok:
			return move(serving.RolloutHeld, r.Step, "the last step is done: "+shownBy(d)+"; promote it or take it back")
		case share >= 1:
			return move(serving.RolloutPromoted, r.Step+1, shownBy(d))
		}
		return move(serving.RolloutRunning, r.Step+1, shownBy(d))
	}
	if r.Deadline > 0 && now.Sub(r.Started) >= seconds(r.Deadline) {
		return move(serving.RolloutHeld, r.Step, "not known at the deadline: "+waits(d, g)+"; resume it, promote it or take it back")
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// against says how strong the evidence against the candidate is.
func against(d canary.Decision) string {
	return fmt.Sprintf("%s: evidence %s : 1 against the candidate", ruleText(d.Culprit), odds(d.Evidence))
}

// odds is the evidence as a number.
func odds(log float64) string {
	if log > math.Log(1e9) {
		return "more than 1000000000"
	}
	return fmt.Sprintf("%.3g", math.Exp(log))
}

func ruleText(r canary.Rule) string {
	switch r {
	case canary.Errors:
		return "more errors than the baseline"
	case canary.ClientErrors:
		return "more answers of status 400 to 499 than the baseline"
	case canary.Slower50, canary.Slower90, canary.Slower99:
		return "slower than the baseline's " + strings.TrimPrefix(string(r), "slower_")
	}
	return string(r)
}

func shownBy(d canary.Decision) string {
	return fmt.Sprintf("not worse than the step allows, with 95 %% confidence; evidence %s : 1 against the candidate", odds(d.Evidence))
}

// waits says what the next step waits for, "" for nothing.
func waits(d canary.Decision, g guardState) string {
	var parts []string
	if len(d.Missing) > 0 {
		names := make([]string, len(d.Missing))
		for i, c := range d.Missing {
			names[i] = string(c)
		}
		parts = append(parts, "more requests are needed to compare "+strings.Join(names, ", "))
	}
	if g.unknown != "" {
		parts = append(parts, g.unknown)
	}
	return strings.Join(parts, "; ")
}

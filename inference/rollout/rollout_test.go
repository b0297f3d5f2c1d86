package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/canary"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

func running() serving.Rollout {
	begun := time.Unix(1000, 0)
	return serving.Rollout{
		ID: "1", Candidate: "m/2", Baseline: "m/1", Steps: []float64{.1, .5, 1}, StepTime: 60, Deadline: 3600,
		Phase: serving.RolloutRunning, Started: begun, Since: begun,
	}
}

func TestDecisions(t *testing.T) {
	back := canary.Decision{Verdict: canary.RollBack, Culprit: canary.Errors, Evidence: 7}
	goOn := canary.Decision{Verdict: canary.GoOn}
	unknown := canary.Decision{Verdict: canary.NotKnown, Missing: []canary.Clause{canary.Fast99}}
	for name, c := range map[string]struct {
		change func(*serving.Rollout)
		d      canary.Decision
		g      guardState
		after  time.Duration
		want   string // phase and step, "" for no decision
		note   string
	}{
		"worse":                             {nil, back, guardState{}, 0, "rolled back 0", "more errors than the baseline: evidence 1.1e+03 : 1"},
		"worse while paused":                {func(r *serving.Rollout) { r.Phase = serving.RolloutPaused }, back, guardState{}, 0, "rolled back 0", ""},
		"worse while held":                  {func(r *serving.Rollout) { r.Phase = serving.RolloutHeld }, back, guardState{}, 0, "rolled back 0", ""},
		"worse after the end":               {func(r *serving.Rollout) { r.Phase = serving.RolloutPromoted }, back, guardState{}, 0, "", ""},
		"not worse, too early":              {nil, goOn, guardState{}, 59 * time.Second, "", ""},
		"not worse":                         {nil, goOn, guardState{}, time.Minute, "running 1", "not worse than the step allows"},
		"not worse while paused":            {func(r *serving.Rollout) { r.Phase = serving.RolloutPaused }, goOn, guardState{}, time.Hour, "", ""},
		"last step":                         {func(r *serving.Rollout) { r.Step = 1 }, goOn, guardState{}, time.Minute, "promoted 2", ""},
		"last step below all":               {func(r *serving.Rollout) { r.Steps = r.Steps[:2]; r.Step = 1 }, goOn, guardState{}, time.Minute, "held 1", "promote it or take it back"},
		"copies":                            {func(r *serving.Rollout) { r.Step, r.Mirror = serving.MirrorStep, 30 }, goOn, guardState{}, 31 * time.Second, "running 0", ""},
		"copies, too early":                 {func(r *serving.Rollout) { r.Step, r.Mirror = serving.MirrorStep, 30 }, goOn, guardState{}, 29 * time.Second, "", ""},
		"no traffic":                        {nil, unknown, guardState{}, 59 * time.Minute, "", ""},
		"no traffic until the deadline":     {nil, unknown, guardState{}, time.Hour, "held 0", "more requests are needed to compare slower_p99"},
		"no deadline":                       {func(r *serving.Rollout) { r.Deadline = 0 }, unknown, guardState{}, 1000 * time.Hour, "", ""},
		"guard":                             {nil, goOn, guardState{bad: "x > 1"}, 0, "rolled back 0", "x > 1"},
		"guard not known":                   {nil, goOn, guardState{unknown: "away"}, time.Minute, "", ""},
		"worse although a guard is unknown": {nil, back, guardState{unknown: "away"}, 0, "rolled back 0", ""},
		"baseline bad":                      {nil, goOn, guardState{frozen: "y > 1"}, time.Minute, "frozen 0", "y > 1"},
		"both bad":                          {nil, back, guardState{frozen: "y > 1"}, time.Minute, "frozen 0", ""},
		"still frozen":                      {func(r *serving.Rollout) { r.Phase = serving.RolloutFrozen }, back, guardState{frozen: "y > 1"}, time.Minute, "", ""},
		"frozen no more":                    {func(r *serving.Rollout) { r.Phase = serving.RolloutFrozen }, goOn, guardState{}, time.Minute, "running 0", ""},
		"frozen, not known":                 {func(r *serving.Rollout) { r.Phase = serving.RolloutFrozen }, goOn, guardState{unknown: "away"}, time.Minute, "", ""},
	} {
		r := running()
		if c.change != nil {
			c.change(&r)
		}
		m := decide(r, c.d, c.g, r.Since.Add(c.after))
		got := ""
		if m != nil {
			changed := r
			changed.Phase, changed.Step = m.Phase, m.Step
			got = stateOf(changed)
		}
		if got != c.want || m != nil && !strings.Contains(m.Note, c.note) {
			t.Errorf("%s: %q, want %q: %+v", name, got, c.want, m)
		}
	}
}

// trialOf is a Decider with one rollout.
func trialOf(r serving.Rollout, o Options) (*Decider, *trial) {
	d := New(o)
	one := &trial{rollout: r, judge: canary.NewJudge(rules(r)), shown: canary.Reached{}, observed: time.Now()}
	d.trials["m"] = one
	return d, one
}

// The shares change while requests are under way: each request counts with the share of its draw.
func TestRequestsCountWithTheShareOfTheirDraw(t *testing.T) {
	r := running()
	d, one := trialOf(r, Options{})
	first := router.NewArms(r, .1)
	present := first
	d.Arms(func() map[serving.EndpointURL]*router.Arms { return map[serving.EndpointURL]*router.Arms{"m": present} })
	d.observe(time.Now())
	present = router.NewArms(r, .5)
	first.Done("m/2", router.Errors, 0)
	d.observe(time.Now())
	want := canary.NewJudge(canary.Rules{})
	want.Observe(canary.Batch{Share: .1, Canary: canary.Arm{Requests: 1, Errors: 1}})
	if got, expected := one.all.Rule(canary.Errors), want.Evidence.Rule(canary.Errors); got != expected {
		t.Errorf("evidence %v, want that of share 0.1, %v", got, expected)
	}
	other := running()
	other.ID = "2"
	present = router.NewArms(other, .5)
	present.Done("m/2", router.Errors, 0)
	d.observe(time.Now())
	if one.all.Canary.Requests != 1 {
		t.Error("requests of another rollout were counted")
	}
}

type answers map[string]any

func (a answers) Query(_ context.Context, expr string, _ time.Time) (model.Vector, error) {
	switch v := a[expr].(type) {
	case error:
		return nil, v
	case int:
		return make(model.Vector, v), nil
	}
	return nil, nil
}

func TestConditionsThatCannotBeEvaluatedAreNotKnown(t *testing.T) {
	r := running()
	r.Guards, r.Freeze = []string{"away", "bad"}, []string{"none", "some"}
	d, _ := trialOf(r, Options{Query: answers{"away": errors.New("no connection"), "bad": 1, "some": 2}})
	g := d.guards(t.Context(), r)
	if g.bad != "bad" || g.frozen != "some" || !strings.Contains(g.unknown, "no connection") {
		t.Errorf("%+v", g)
	}
	d, _ = trialOf(r, Options{})
	if g := d.guards(t.Context(), r); g.bad != "" || g.frozen != "" || g.unknown == "" {
		t.Errorf("without time series: %+v", g)
	}
}

func TestWebhookPermitsOrHoldsAStep(t *testing.T) {
	for name, c := range map[string]struct {
		statuses []int
		want     serving.RolloutPhase
		asked    int
	}{
		"permits":            {[]int{204}, serving.RolloutRunning, 1},
		"permits at the 2nd": {[]int{503, 200}, serving.RolloutRunning, 2},
		"refuses":            {[]int{403}, serving.RolloutHeld, 1},
		"redirects":          {[]int{302}, serving.RolloutHeld, 1},
		"broken":             {[]int{500, 500, 500}, serving.RolloutHeld, 3},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				var body hookBody
				text, _ := io.ReadAll(req.Body)
				if err := json.Unmarshal(text, &body); err != nil || body.When != "before" || body.Canary != "m" || body.Share != .5 || body.Step != 2 {
					t.Errorf("%v: %s", err, text)
				}
				if c.statuses[asked] == 302 {
					w.Header().Set("Location", "/elsewhere")
				}
				w.WriteHeader(c.statuses[asked])
				asked++
			}))
			defer server.Close()
			client := server.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			r := running()
			r.Webhook = server.URL + "/secret"
			d, _ := trialOf(r, Options{HTTP: client, Logger: slog.New(slog.DiscardHandler)})
			m := d.permitted(t.Context(), "m", serving.RolloutMove{From: &r, Phase: serving.RolloutRunning, Step: 1})
			if m.Phase != c.want || asked != c.asked {
				t.Errorf("%+v after %d requests", m, asked)
			}
			if strings.Contains(m.Note, "secret") {
				t.Errorf("the note has the address: %s", m.Note)
			}
			back := serving.RolloutMove{From: &r, Phase: serving.RolloutRolledBack}
			if m := d.permitted(t.Context(), "m", back); m.Phase != serving.RolloutRolledBack || asked != c.asked {
				t.Error("a rollback was asked for")
			}
		})
	}
}

func TestAnUnreachableWebhookIsNotNamedInTheHistory(t *testing.T) {
	for _, address := range []string{"http://127.0.0.1:1/secret", "http://user:password@127.0.0.1:1/secret"} {
		r := running()
		r.Webhook = address
		d, _ := trialOf(r, Options{HTTP: http.DefaultClient})
		m := d.permitted(t.Context(), "m", serving.RolloutMove{From: &r, Phase: serving.RolloutPromoted, Step: 2})
		if m.Phase != serving.RolloutHeld || m.Step != 0 || strings.Contains(m.Note, "secret") || !strings.Contains(m.Note, "refused") {
			t.Errorf("%+v", m)
		}
	}
}

// An instance that starts while a rollout is frozen knows nothing of the conditions yet.
func TestNothingGoesOnBeforeTheConditionsAreEvaluated(t *testing.T) {
	frozen := running()
	frozen.Phase, frozen.Freeze = serving.RolloutFrozen, []string{"some"}
	guarded := running()
	guarded.Guards = []string{"none"}
	d := New(Options{Query: answers{"some": 1}})
	plan := serving.Plan{Rollouts: map[serving.EndpointURL]serving.Rollout{"frozen": frozen, "guarded": guarded, "plain": running()}}
	moves := func(url serving.EndpointURL, v canary.Verdict) bool {
		t := d.trials[url]
		return decide(t.rollout, canary.Decision{Verdict: v}, t.guards, t.rollout.Since.Add(time.Hour-time.Second)) != nil
	}
	for _, c := range []struct {
		url           serving.EndpointURL
		verdict       canary.Verdict
		before, after bool
	}{
		{"plain", canary.GoOn, true, true},
		{"guarded", canary.GoOn, false, true},
		{"guarded", canary.RollBack, true, true},
		{"frozen", canary.GoOn, false, false},
		{"frozen", canary.RollBack, false, false},
	} {
		d.Planned(&reconcile.State{}, serving.Plan{}, false)
		d.Planned(&reconcile.State{}, plan, false)
		before := moves(c.url, c.verdict)
		d.askGuards(t.Context())
		if after := moves(c.url, c.verdict); before != c.before || after != c.after {
			t.Errorf("%s, %s: moves %t before and %t after", c.url, c.verdict, before, after)
		}
	}
}

// Package serving, which cannot import package canary, lists them for metrics.
func TestVerdictsOfReportsAreThoseOfTheRules(t *testing.T) {
	want := []string{string(canary.NotKnown), string(canary.GoOn), string(canary.RollBack)}
	if got := serving.RolloutVerdicts(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

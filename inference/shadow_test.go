package inference

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

func TestACopyThatFailsLikeItsRequestIsCountedAlike(t *testing.T) {
	for name, err := range map[string]error{
		"refused": &engine.Error{Kind: engine.KindOverloaded},
		"late":    &engine.Error{Kind: engine.KindDeadline},
		"died":    &engine.Error{Kind: engine.KindDied},
		"a panic": errors.New("panic"),
	} {
		arms := router.NewArms(serving.Rollout{Candidate: "new", Baseline: "old", Step: serving.MirrorStep}, 0)
		s := newShadows(slog.New(slog.DiscardHandler))
		s.arms = func(_, _ serving.EndpointURL) *router.Arms { return arms }
		s.answer = func(context.Context, serving.EndpointURL, copied) (*engine.Response, error) { return nil, err }
		answered := (&Failure{Kind: kindOfError(err)}).Response().Status
		s.compare(t.Context(), &pair{}, copied{exchange: serving.Exchange{Status: answered}})
		candidate, baseline := arms.Take()
		if candidate.Requests != 1 || candidate.Errors != baseline.Errors || candidate.ClientErrors != baseline.ClientErrors {
			t.Errorf("%s: %+v, but %+v of an answer with status %d", name, candidate, baseline, answered)
		}
		if failed := answered >= http.StatusInternalServerError; failed != (candidate.Errors == 1) {
			t.Errorf("%s: %+v", name, candidate)
		}
	}
}

package main

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/feedback"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// feedbackCommand is the group of commands about ground truth.
func feedbackCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "feedback",
		Short: "Compare predictions with what turned out to be true",
		Long: `Compare predictions with what turned out to be true: instances keep the predictions
of an endpoint, take the truths at POST /feedback/<endpoint>, and compute accuracy,
F1, log loss, calibration or errors for each version. docs/feedback.md describes it.`,
		Example: `  clearml-serving feedback set --endpoint test_model --prediction y
  curl -X POST http://127.0.0.1:8080/feedback/test_model -d '{"request_id": "…", "truth": 1}'
  clearml-serving feedback import truths.csv --endpoint test_model
  clearml-serving feedback show --endpoint test_model`,
	}, feedbackSetCommand(a), feedbackListCommand(a), feedbackShowCommand(a), feedbackImportCommand(a), feedbackExportCommand(a))
}

// feedbackStore makes the store of predictions and truths, and what tells it about the service.
func (a *app) feedbackStore(dir string, client *clearml.Client, identity serving.Identity, log *slog.Logger) (*feedback.Store, *feedbackFollower, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, nil, err
	}
	follower := &feedbackFollower{}
	follower.store = feedback.New(feedback.Options{
		Dir: filepath.Join(dir, "feedback"), Identity: identity, Logger: log,
		Client: &http.Client{
			Transport:     conf.Network.Transport(conf.TLS.Others(), 0),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Peers: func(ctx context.Context) ([]feedback.Peer, error) {
			id, _ := follower.service.Load().(string)
			if id == "" || client == nil {
				return nil, nil
			}
			recorded, err := client.Instances(ctx, id, "inference")
			if err != nil {
				return nil, err
			}
			var peers []feedback.Peer
			for _, l := range aliveOf(recorded, client.ServerTime()).answering() {
				peers = append(peers, feedback.Peer{URL: l.URL, Key: l.Key})
			}
			return peers, nil
		},
	})
	return follower.store, follower, nil
}

// feedbackFollower tells the store which endpoints keep predictions, and runs it.
type feedbackFollower struct {
	store   *feedback.Store
	service atomic.Value // the id of the served service
}

// Planned implements reconcile.Follower.
func (f *feedbackFollower) Planned(state *reconcile.State, plan serving.Plan, _ bool) {
	f.service.Store(state.ServiceID)
	f.store.Follow(plan)
}

// StatusChanged implements reconcile.Follower.
func (*feedbackFollower) StatusChanged(func() serving.Status) {}

// Run implements inference.FollowerRunner.
func (f *feedbackFollower) Run(ctx context.Context, _ func() serving.Status) error { //nolint:unparam // of the interface
	f.store.Run(ctx)
	return nil
}

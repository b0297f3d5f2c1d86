package inference

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Control edits the service that is served: it takes a name into service or out of it, for all instances, and returns
// the URLs of its endpoints. The instances follow the edit as any other.
type Control func(ctx context.Context, serviceID string, name serving.EndpointURL, load bool, by string) ([]serving.EndpointURL, error)

// controls reports whether clients may load and unload models.
func (s *Service) controls() bool { return s.o.Control != nil && s.gate.controls() }

// AuthorizeControl returns nil if a client may load and unload the model of the head's endpoint.
func (s *Service) AuthorizeControl(h Head) *Failure { return s.gate.admitToControl(h) }

// OverridesModel reports whether a parameter of a request to load a model brings a configuration or files of its own.
func OverridesModel(parameter string) bool {
	return parameter == "config" || strings.HasPrefix(parameter, "file:")
}

// ErrOverride refuses such a request.
const ErrOverride = "a model is loaded as the service configures it: the parameters config and file are not supported"

// RepositoryChange loads or unloads the model of the head's endpoint on all instances, and returns when this one has
// followed. A model that is loaded, or not, stays as it is.
func (s *Service) RepositoryChange(ctx context.Context, h Head, load bool) *Failure {
	if refused := s.AuthorizeControl(h); refused != nil {
		return refused
	}
	h.Endpoint, h.ID = serving.EndpointURL(strings.Clone(string(h.Endpoint))), strings.Clone(h.ID) // they are logged, and stored
	status := s.reconciler.Status()
	if s.o.Control == nil || !status.Synced {
		return &Failure{Kind: KindNotReady, Text: "model '" + string(h.Endpoint) + "' cannot be changed now: the configuration has not been read yet", RetryAfter: time.Second}
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.RequestTimeout)
	defer cancel()
	urls, err := s.o.Control(ctx, status.ServiceID, h.Endpoint, load, s.gate.clientOf(h.Key))
	switch {
	case errors.Is(err, serving.ErrNotFound):
		unknown := notAnswered(h.Endpoint, router.ErrUnknown)
		unknown.Text = fmt.Sprintf("failed to load or unload model '%s': %s", h.Endpoint, unknown.Text)
		return unknown
	case errors.Is(err, serving.ErrNotLoadable):
		return &Failure{Kind: KindBadRequest, Text: err.Error()}
	case err != nil:
		return &Failure{Kind: KindNotReady, Text: fmt.Sprintf("model '%s' cannot be changed now: %v", h.Endpoint, err)}
	}
	s.o.Logger.Info("model repository changed", "endpoint", h.Endpoint, "load", load, "request_id", h.ID)
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		done, failure := s.followed(urls, load)
		if done || failure != nil {
			return failure
		}
		select {
		case <-ctx.Done():
			return &Failure{Kind: KindDeadline, Text: fmt.Sprintf("the change of model '%s' is stored; this instance has not followed it in time", h.Endpoint)}
		case <-ticker.C:
		}
	}
}

// followEvery is how often it is looked whether this instance has followed a change.
const followEvery = 20 * time.Millisecond

// followed reports whether endpoints are loaded, or not; the failure is one that cannot be loaded.
func (s *Service) followed(urls []serving.EndpointURL, load bool) (bool, *Failure) {
	snapshot := s.router.Snapshot()
	for _, url := range urls {
		_, live := snapshot.Models[url]
		if live == load {
			continue
		}
		obstacle, known := snapshot.Waiting[url]
		if load && known && !obstacle.Loading && !obstacle.Unloaded {
			return false, &Failure{Kind: KindNotReady, Text: fmt.Sprintf("failed to load model '%s': %s", url, obstacle.Reason)}
		}
		return false, nil
	}
	return true, nil
}

package inference

import (
	"cmp"
	"maps"
	"slices"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Listed is what a client with the key for an endpoint may know about it.
type Listed struct {
	URL      serving.EndpointURL
	Engine   string // "" for a canary
	ModelID  serving.ModelID
	State    serving.State
	Reason   string // why State is not ready
	Revision int
	// Shares are the targets of a canary with their weights, nil for an endpoint.
	Shares map[serving.EndpointURL]float64
	// Signature is that of the model, or the one that all targets of a canary share; else it is empty.
	Signature engine.Signature
}

// Edition is a comparable value that changes with the routing table.
func (s *Service) Edition() any { return s.router.Snapshot() }

// Name is the name of the service, its id if it has none, "" before the configuration has been read.
func (s *Service) Name() string {
	status := s.reconciler.Status()
	return cmp.Or(status.ServiceName, status.ServiceID)
}

// Catalog lists the configured endpoints and canaries, ready or not, that are wanted, by URL.
// known is false before the configuration has been read.
func (s *Service) Catalog(wanted func(serving.EndpointURL) bool) (list []Listed, known bool) {
	status, snapshot := s.reconciler.Status(), s.router.Snapshot()
	listed := map[serving.EndpointURL]Listed{}
	for _, e := range status.Endpoints {
		if wanted(e.URL) {
			listed[e.URL] = Listed{
				URL: e.URL, Engine: e.Engine, ModelID: e.ModelID, State: e.State, Reason: e.Reason(), Revision: e.Revision,
				Signature: describedBy(snapshot.Models[e.URL]),
			}
		}
	}
	for url, obstacle := range snapshot.Waiting { // also those whose configuration cannot be used
		if _, ok := listed[url]; !ok && wanted(url) {
			listed[url] = Listed{URL: url, State: stateOf(obstacle.Loading), Reason: obstacle.Reason}
		}
	}
	for _, c := range status.Canaries { // a canary hides an endpoint of its URL
		if wanted(c.URL) {
			listed[c.URL] = listedCanary(c, snapshot)
		}
	}
	return slices.SortedFunc(maps.Values(listed), func(a, b Listed) int { return cmp.Compare(a.URL, b.URL) }), status.Synced
}

func listedCanary(c serving.CanaryReport, snapshot *router.Snapshot) Listed {
	l := Listed{URL: c.URL, State: serving.StateReady, Shares: c.Shares}
	if _, err := snapshot.Check(c.URL); err != nil {
		l.State, l.Reason = serving.StateFailed, cmp.Or(c.Problem, err.Error())
	}
	l.Signature = common(slices.Sorted(maps.Keys(c.Shares)), func(url serving.EndpointURL) engine.Signature { return describedBy(snapshot.Models[url]) })
	return l
}

// common is the signature that all targets of a canary share; it is empty if they take different bodies.
func common(targets []serving.EndpointURL, of func(serving.EndpointURL) engine.Signature) engine.Signature {
	signatures := make([]engine.Signature, len(targets))
	for i, url := range targets {
		signatures[i] = of(url)
	}
	return engine.Common(signatures)
}

func stateOf(loading bool) serving.State {
	if loading {
		return serving.StateLoading
	}
	return serving.StateFailed
}

// describedBy is empty for a model without a signature, and for none.
func describedBy(live *router.Live) engine.Signature {
	if live == nil || !live.Hold() {
		return engine.Signature{}
	}
	defer live.Release()
	signature, _ := live.Signature()
	return signature
}

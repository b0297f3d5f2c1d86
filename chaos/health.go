package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	probeEvery = 100 * time.Millisecond
	// fresh is how near two answers must be for their endpoint to be ready between
	// them: less than the second for which one without a worker still is.
	fresh = 300 * time.Millisecond
	// without is how long it must have had no worker to be unready.
	without = time.Second
	// stale is how long an endpoint that is asked all the while may give no right
	// answer and still say that it is ready: it gives itself ten seconds.
	stale = 15 * time.Second
)

// probe asks an endpoint's health all the while and holds it against what its
// clients see: never unready while answers come, never ready while none do.
func (t *traffic) probe(ctx context.Context, name string) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer c.CloseIdleConnections()
	since, at := time.Now(), t.w.serving()
	for pause(ctx, probeEvery) == nil {
		s, before, begun := t.w.serving(), t.lastGood(name), time.Now()
		if s != at {
			since, at = begun, s
		}
		status, body, err := readyz(ctx, c, s, name)
		if err != nil || t.w.serving() != s || s.ended() {
			continue // nobody is there to say anything, or it is to end, or the next one answers at its address
		}
		lie, told := "", time.Now()
		last := t.lastGood(name)
		if last.from != s {
			last.at = since
		}
		switch {
		case status == http.StatusOK && told.Sub(last.at) > stale:
			lie = fmt.Sprintf("%s says that it is ready, and has given no right answer for %v", name, stale)
		case status != http.StatusOK && before.from == s && begun.Sub(before.at) < fresh:
			// A worker that dies between two answers may well leave a gap.
			if pause(ctx, fresh) != nil {
				return
			}
			if next := t.lastGood(name); next.from == s && next.at.After(told) && next.at.Sub(told) <= fresh && next.at.Sub(before.begun) < without {
				lie = fmt.Sprintf("%s answered %v before and %v after it said that it is not ready: %d %.300s", name, begun.Sub(before.at), next.at.Sub(told), status, body)
			}
		}
		t.mu.Lock()
		seen := t.of(name)
		seen.probes++
		if lie != "" && len(seen.lies) < 5 { // they come in swarms
			seen.lies = append(seen.lies, lie)
		}
		t.mu.Unlock()
	}
}

// endpointStatus is what /status says of an endpoint.
type endpointStatus struct {
	Endpoint string
	InUse    int `json:"in_use"`
	Model    struct {
		Reason       string
		Shared       bool
		SharedReason string `json:"shared_reason"`
		Workers      []struct {
			PID int `json:"pid"`
		}
	}
}

// statusOf asks an instance what it says of one endpoint.
func (s *server) statusOf(ctx context.Context, endpoint string) (endpointStatus, error) {
	body, err := fetch(ctx, s.urls["serve"]+"/status")
	if err != nil {
		return endpointStatus{}, err
	}
	var status struct{ Endpoints []endpointStatus }
	if err := json.Unmarshal(body, &status); err != nil {
		return endpointStatus{}, fmt.Errorf("read /status: %w", err)
	}
	for _, e := range status.Endpoints {
		if e.Endpoint == endpoint {
			return e, nil
		}
	}
	return endpointStatus{}, fmt.Errorf("/status does not list %s", endpoint)
}

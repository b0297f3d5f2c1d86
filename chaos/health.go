package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	probeEvery = 100 * time.Millisecond
	// fresh is the maximum time between two answers for which the endpoint must be ready: less
	// than the second for which an endpoint without a worker is still ready.
	fresh = 300 * time.Millisecond
	// without is the time without a worker after which an endpoint is unready.
	without = time.Second
	// stale is the maximum time in which an endpoint under load may give no right answer and still
	// be ready: its own limit is ten seconds.
	stale = 15 * time.Second
	// stopping is the reason of an instance that finishes its requests before it ends.
	stopping = "the instance is stopping"
)

// probe polls an endpoint's health and compares it with what its clients see: never unready while
// there are answers, never ready while there are none.
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
			continue // the process is gone, or is being stopped, or the next one has its address
		}
		if bytes.Contains(body, []byte(stopping)) {
			continue // it still answers, and says that it will not for long
		}
		lie, told := "", time.Now()
		last := t.lastGood(name)
		if last.from != s {
			last.at = since
		}
		switch {
		case status == http.StatusOK && told.Sub(last.at) > stale:
			lie = fmt.Sprintf("%s is ready without a right answer for %v", name, stale)
		case status != http.StatusOK && before.from == s && begun.Sub(before.at) < fresh:
			// A worker that dies between two answers may leave a gap.
			if pause(ctx, fresh) != nil {
				return
			}
			if next := t.lastGood(name); next.from == s && next.at.After(told) && next.at.Sub(told) <= fresh && next.at.Sub(before.begun) < without {
				lie = fmt.Sprintf("%s answered %v before and %v after it was not ready: %d %.300s", name, begun.Sub(before.at), next.at.Sub(told), status, body)
			}
		}
		t.mu.Lock()
		seen := t.of(name)
		seen.probes++
		if lie != "" && len(seen.lies) < 5 { // they come in large numbers
			seen.lies = append(seen.lies, lie)
		}
		t.mu.Unlock()
	}
}

// endpointStatus is an endpoint's state in /status.
type endpointStatus struct {
	Endpoint string
	State    string
	Revision int
	Refused  struct {
		Revision int
		Reason   string
	} `json:"refused_revision"`
	InUse int `json:"in_use"`
	Model struct {
		Reason       string
		Shared       bool
		SharedReason string `json:"shared_reason"`
		Workers      []struct {
			PID int `json:"pid"`
		}
	}
}

// statusOf returns an instance's state of one endpoint.
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

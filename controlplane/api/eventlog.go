package api

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

const (
	defaultEventPage = 500
	maxEventPage     = 10_000
)

func eventPage(asked int) int {
	return min(cmp.Or(max(asked, 0), defaultEventPage), maxEventPage)
}

// eventsAnswer is a page of events. The scroll id leads to the next page, and at the end to
// empty pages, by which clients recognise the end.
type eventsAnswer struct {
	Events   []store.Doc `json:"events"`
	Returned int         `json:"returned"`
	Total    int         `json:"total"`
	ScrollID string      `json:"scroll_id,omitempty"`
}

type logRequest struct {
	Task            string `json:"task"`
	BatchSize       int    `json:"batch_size"`
	NavigateEarlier *bool  `json:"navigate_earlier"`
	FromTimestamp   *int64 `json:"from_timestamp"`
	Order           string `json:"order"`
}

// taskLog returns console lines before a time (or the newest), or after it. A page has all
// lines of its last millisecond, so that the next one can begin after it.
func (s *Server) taskLog(ctx context.Context, _ *Call, req logRequest) (eventsAnswer, error) {
	if _, err := s.find(ctx, store.Task, req.Task); err != nil {
		return eventsAnswer{}, err
	}
	earlier := req.NavigateEarlier == nil || *req.NavigateEarlier
	all := store.EventQuery{Tasks: []string{req.Task}, Types: []string{eventLog}}
	page := all
	page.Desc, page.Limit = earlier, eventPage(req.BatchSize)
	if req.FromTimestamp != nil {
		if *req.FromTimestamp <= 1 && earlier {
			return eventsAnswer{Events: []store.Doc{}}, nil // nothing is older than 1970
		}
		if earlier {
			page.To = *req.FromTimestamp - 1
		} else {
			page.From = *req.FromTimestamp + 1
		}
	}
	events, err := s.store.Events(ctx, page)
	if err != nil {
		return eventsAnswer{}, err
	}
	if n := len(events); n == page.Limit {
		last := events[n-1]
		rest := all
		rest.From, rest.To, rest.Desc = last.Timestamp, last.Timestamp, earlier
		rest.After = &store.EventCursor{Timestamp: last.Timestamp, Seq: last.Seq}
		more, err := s.store.Events(ctx, rest)
		if err != nil {
			return eventsAnswer{}, err
		}
		events = append(events, more...)
	}
	if (earlier && req.Order == "asc") || (!earlier && req.Order == "desc") {
		slices.Reverse(events)
	}
	total, err := s.store.CountEvents(ctx, all)
	return eventsAnswer{Events: bodies(events), Returned: len(events), Total: total}, err
}

type eventsRequest struct {
	Task        string `json:"task"`
	EventType   string `json:"event_type"`
	Metric      string `json:"metric"`
	Variant     string `json:"variant"`
	BatchSize   int    `json:"batch_size"`
	Order       string `json:"order"`
	ScrollID    string `json:"scroll_id"`
	ModelEvents bool   `json:"model_events"`
}

// taskEvents pages through the events of a task, oldest first unless asked otherwise.
func (s *Server) taskEvents(ctx context.Context, _ *Call, req eventsRequest) (eventsAnswer, error) {
	switch {
	case !slices.Contains(eventTypes, req.EventType) && req.EventType != "" && req.EventType != allEvents:
		return eventsAnswer{}, documents.Invalid("event_type %q is none of %s, %s", req.EventType, strings.Join(eventTypes, ", "), allEvents)
	case !slices.Contains([]string{"", "asc", "desc"}, req.Order):
		return eventsAnswer{}, documents.Invalid("order must be asc or desc, not %q", req.Order)
	}
	if _, err := s.find(ctx, ownerKind(req.ModelEvents), req.Task); err != nil {
		return eventsAnswer{}, err
	}
	q := store.EventQuery{Tasks: []string{req.Task}, Metric: req.Metric, Variant: req.Variant, Desc: req.Order == "desc"}
	if req.EventType != "" && req.EventType != allEvents {
		q.Types = []string{req.EventType}
	}
	q.Limit = eventPage(req.BatchSize)
	scrollID := req.ScrollID
	if scrollID != "" {
		after, err := parseScroll(scrollID)
		if err != nil {
			return eventsAnswer{}, err
		}
		q.After = &after
	}
	events, err := s.store.Events(ctx, q)
	if err != nil {
		return eventsAnswer{}, err
	}
	total, err := s.store.CountEvents(ctx, q)
	if n := len(events); n > 0 {
		scrollID = formatScroll(events[n-1])
	}
	return eventsAnswer{Events: bodies(events), Returned: len(events), Total: total, ScrollID: scrollID}, err
}

// A scroll id is "timestamp.seq" of the last event of a page: the server stores nothing
// between the pages.
func formatScroll(e store.Event) string { return formatInt(e.Timestamp) + "." + formatInt(e.Seq) }

func parseScroll(id string) (store.EventCursor, error) {
	at, seq, ok := strings.Cut(id, ".")
	timestamp, err := strconv.ParseInt(at, 10, 64)
	n, seqErr := strconv.ParseInt(seq, 10, 64)
	if !ok || err != nil || seqErr != nil {
		return store.EventCursor{}, documents.Refuse(subInvalidScroll, "Invalid scroll id: scroll_id=%s", id)
	}
	return store.EventCursor{Timestamp: timestamp, Seq: n}, nil
}

func bodies(events []store.Event) []store.Doc {
	docs := make([]store.Doc, len(events))
	for i, e := range events {
		docs[i] = e.Body
	}
	return docs
}

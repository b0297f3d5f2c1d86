package storetest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

func appendEvents(t *testing.T, s store.Store, events ...store.Event) {
	t.Helper()
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.AppendEvents(t.Context(), events) }); err != nil {
		t.Fatal(err)
	}
}

func event(id, task, kind, metric, variant string, iter, at int64) store.Event {
	return store.Event{ID: id, Task: task, Type: kind, Metric: metric, Variant: variant, Iter: iter, Timestamp: at, Body: store.Doc{"n": id}}
}

func found(t *testing.T, s store.Store, q store.EventQuery) []string {
	t.Helper()
	events, err := s.Events(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		if e.Body.Text("n") == "" || e.Seq == 0 {
			t.Errorf("event %q came back without its body or place", e.ID)
		}
		out = append(out, e.ID)
	}
	return out
}

func (c contract) events() {
	t, s := c.t, c.s
	appendEvents(t, s,
		event("a", "t1", "log", "", "", 0, 30),
		event("b", "t1", "log", "", "", 0, 10),
		event("c", "t1", "scalar", "m", "v", 2, 20),
		event("d", "t1", "scalar", "m", "v", 1, 20),
		event("e", "t1", "scalar", "m", "u", 1, 40),
		event("f", "t2", "log", "", "", 0, 20),
	)
	one := []string{"t1"}
	for _, c := range []struct {
		rule string
		q    store.EventQuery
		want []string
	}{
		{"no task, no event", store.EventQuery{}, nil},
		{"oldest first, then as stored", store.EventQuery{Tasks: one}, []string{"b", "c", "d", "a", "e"}},
		{"newest first", store.EventQuery{Tasks: one, Desc: true}, []string{"e", "a", "d", "c", "b"}},
		{"several tasks", store.EventQuery{Tasks: []string{"t1", "t2"}, Types: []string{"log"}}, []string{"b", "f", "a"}},
		{"one type", store.EventQuery{Tasks: one, Types: []string{"log"}}, []string{"b", "a"}},
		{"one series by iteration", store.EventQuery{Tasks: one, Metric: "m", Variant: "v", ByIter: true}, []string{"d", "c"}},
		{"all series by iteration", store.EventQuery{Tasks: one, Types: []string{"scalar"}, ByIter: true}, []string{"e", "d", "c"}},
		{"a span of time, both ends inside", store.EventQuery{Tasks: one, From: 20, To: 30}, []string{"c", "d", "a"}},
		{"a page", store.EventQuery{Tasks: one, Offset: 1, Limit: 2}, []string{"c", "d"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if diff := cmp.Diff(c.want, found(t, s, c.q)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			n, err := s.CountEvents(t.Context(), c.q)
			if c.q.Limit == 0 && (err != nil || n != len(c.want)) {
				t.Errorf("count: %d, %v, want %d", n, err, len(c.want))
			}
		})
	}
}

func (c contract) eventReplaces() {
	t, s := c.t, c.s
	appendEvents(t, s, event("a", "t", "scalar", "m", "v", 1, 10), event("b", "t", "scalar", "m", "v", 2, 10))
	again := event("a", "t", "scalar", "m", "v", 1, 10)
	again.Body = store.Doc{"n": "again"}
	appendEvents(t, s, again)
	got, err := s.Events(t.Context(), store.EventQuery{Tasks: []string{"t"}})
	if err != nil || len(got) != 2 || got[0].ID != "a" || got[0].Body.Text("n") != "again" {
		t.Errorf("got %v, %v", got, err)
	}
}

func (c contract) eventCursor() {
	t, s := c.t, c.s
	for i := range 20 {
		appendEvents(t, s, event(fmt.Sprint(i), "t", "log", "", "", 0, int64(1+i/3)))
	}
	for _, desc := range []bool{false, true} {
		q := store.EventQuery{Tasks: []string{"t"}, Desc: desc, Limit: 4}
		want := found(t, s, store.EventQuery{Tasks: []string{"t"}, Desc: desc})
		var got []string
		for {
			page, err := s.Events(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, e := range page {
				got = append(got, e.ID)
			}
			last := page[len(page)-1]
			q.After = &store.EventCursor{Timestamp: last.Timestamp, Seq: last.Seq}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("desc=%v (-want +got):\n%s", desc, diff)
		}
	}
}

func (c contract) eventsDeleted() {
	t, s := c.t, c.s
	appendEvents(t, s, event("a", "t1", "log", "", "", 0, 1), event("b", "t1", "log", "", "", 0, 2), event("c", "t2", "log", "", "", 0, 1))
	err := s.Tx(t.Context(), func(tx store.Tx) error {
		if n, err := tx.DeleteEvents(t.Context(), store.EventQuery{}); err != nil || n != 0 {
			t.Errorf("deleting the events of no task: %d, %v", n, err)
		}
		n, err := tx.DeleteEvents(t.Context(), store.EventQuery{Tasks: []string{"t1"}})
		if n != 2 {
			t.Errorf("deleted %d, want 2", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c"}, found(t, s, store.EventQuery{Tasks: []string{"t1", "t2"}})); diff != "" {
		t.Error(diff)
	}
}

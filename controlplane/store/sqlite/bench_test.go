package sqlite

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"clearmlserving/controlplane/store"
)

// BenchmarkLists asks what pages and the SDK ask of a server with 100,000 tasks.
func BenchmarkLists(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "store.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	fill(b, s, 100_000)
	path := func(parts ...string) store.Path { return parts }
	in := func(field string, values ...any) store.Expr { return store.In{Path: path(field), Values: values} }
	visible := store.And{store.Not{Expr: in("system_tags", "archived")}, store.Not{Expr: in("system_tags", "hidden")}}
	newest := []store.Order{{Path: path("last_update"), Desc: true}}
	for _, q := range []struct {
		name  string
		query store.Query
	}{
		{"newest page", store.Query{Where: visible, Order: newest, Limit: 25}},
		{"page 1000", store.Query{Where: visible, Order: newest, Offset: 25_000, Limit: 25}},
		{"first 500", store.Query{Where: visible, Limit: 500}},
		{"running services", store.Query{Where: store.And{in("type", "service"), in("status", "created", "in_progress"), in("system_tags", "serving-control-plane")}, Limit: 500}},
		{"exact name in project", store.Query{Where: store.And{in("project", "p7"), store.Regexp{Path: path("name"), Pattern: regexp.MustCompile(`^task\ 4707$`)}}, Limit: 500}},
		{"part of a name", store.Query{Where: store.And{visible, store.Regexp{Path: path("name"), Pattern: regexp.MustCompile(`9999`)}}, Order: newest, Limit: 25}},
		{"any pattern", store.Query{Where: store.And{visible, store.Regexp{Path: path("name"), Pattern: regexp.MustCompile(`(?i)TASK .*99.8$`)}}, Order: newest, Limit: 25}},
		{"one project by tag", store.Query{Where: store.And{visible, in("project", "p7"), in("tags", "t3")}, Order: newest, Limit: 25}},
		{"rare tag", store.Query{Where: store.And{visible, in("tags", "rare")}, Order: newest, Limit: 25}},
		{"common tag", store.Query{Where: store.And{visible, in("tags", "t3")}, Order: newest, Limit: 25}},
		{"by name", store.Query{Where: visible, Order: []store.Order{{Path: path("name")}}, Limit: 25}},
		{"by an unindexed field", store.Query{Where: store.And{in("project", "p7")}, Order: []store.Order{{Path: path("hyperparams", "Args", "lr", "value")}}, Limit: 25}},
	} {
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Query(b.Context(), store.Task, q.query); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Count(b.Context(), store.Task, visible); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("update", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			err := store.Update(b.Context(), s, store.Task, fmt.Sprint("id", n%100_000), func(doc store.Doc) error {
				doc["last_update"] = store.FormatTime(time.Now())
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

func fill(b *testing.B, s *Store, n int) {
	b.Helper()
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	statuses := []any{"created", "in_progress", "completed", "stopped", "published"}
	err := s.Tx(b.Context(), func(tx store.Tx) error {
		for i := range n {
			at := store.FormatTime(began.Add(time.Duration(i) * time.Minute))
			doc := store.Doc{
				"id": fmt.Sprint("id", i), "name": fmt.Sprint("task ", i), "project": fmt.Sprint("p", i%100),
				"type": "training", "status": statuses[i%len(statuses)], "created": at, "last_update": at, "last_change": at,
				"tags": []any{fmt.Sprint("t", i%10)}, "system_tags": []any{}, "last_iteration": json.Number(fmt.Sprint(i)),
				"hyperparams": map[string]any{"Args": map[string]any{"lr": map[string]any{"value": fmt.Sprint(i % 7)}}},
				"script":      map[string]any{"diff": strings.Repeat("some code\n", 100)},
			}
			switch {
			case i%2000 == 0:
				doc["type"], doc["system_tags"] = "service", []any{"serving-control-plane"}
			case i%20 == 0:
				doc["system_tags"] = []any{"archived"}
			case i%9973 == 0:
				doc["tags"] = []any{"rare"}
			}
			if err := tx.Insert(b.Context(), store.Task, doc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

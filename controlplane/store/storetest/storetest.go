// Package storetest is the one suite of tests that every store.Store must pass.
//
// It owns no database: an adapter's test opens one and hands it over. It never looks
// behind the contract.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

// Run runs the suite. open returns a store without any content; the suite doesn't close it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for name, test := range map[string]func(contract){
		"DocumentsComeBackAsTheyWereStored":       contract.documentsComeBack,
		"KindsDoNotMix":                           contract.kindsDoNotMix,
		"MissingAndTakenIDsAreTold":               contract.idsAreTold,
		"FailedTransactionLeavesNothing":          contract.failedTransaction,
		"PanickingTransactionLeavesNothing":       contract.panickingTransaction,
		"TransactionSeesItsOwnWrites":             contract.ownWrites,
		"ConcurrentUpdatesAreNotLost":             contract.concurrentUpdates,
		"EndedContextStoresNothing":               contract.endedContext,
		"FiltersMeanWhatMatchSays":                contract.filters,
		"OrderIsThatOfSort":                       contract.ordering,
		"WithoutOrderDocumentsComeAsInserted":     contract.insertionOrder,
		"PagesTogetherAreTheWhole":                contract.paging,
		"WhatLiesBeyondAPlaceIsFoundBothWays":     contract.places,
		"WhatLiesFarBehindIsFoundInOrder":         contract.farBehind,
		"ChangedDocumentsAreFoundByNewValuesOnly": contract.changedValues,
		"EventsAreOrderedAndFiltered":             contract.events,
		"EventWithTheSameIDReplaces":              contract.eventReplaces,
		"EventCursorMeetsEachEventOnce":           contract.eventCursor,
		"DeletedEventsAreGone":                    contract.eventsDeleted,
		"SettingsAreKept":                         contract.settings,
		"DistinctValuesComeOnceAndInOrder":        contract.distinctValues,
		"WhatManyHaveIsFoundLikeWhatFewHave":      contract.manyAndFew,
		"OldEventsExpireOldestFirst":              contract.eventsExpire,
		"ExportIsImportedWhole":                   contract.exported,
	} {
		t.Run(name, func(t *testing.T) { test(contract{t, open(t)}) })
	}
}

// contract is what one test of the suite works with: its test and an empty store.
type contract struct {
	t *testing.T
	s store.Store
}

func insert(t *testing.T, s store.Store, kind store.Kind, docs ...store.Doc) {
	t.Helper()
	err := s.Tx(t.Context(), func(tx store.Tx) error {
		for _, doc := range docs {
			if err := tx.Insert(t.Context(), kind, doc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, text string) store.Doc {
	t.Helper()
	doc, err := store.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func (c contract) documentsComeBack() {
	t, s := c.t, c.s
	want := parse(t, `{"id":"a","name":"<b>é\u2028 \ud83d\ude00 & \"q\"","ready":false,"last_iteration":-2147483648,
		"runtime":{"n":1.50,"e":1e-07,"big":123456789012345678901234567890,"b":true,"nul":null,"a.b":{"c d":[1,[2],{}]}},"tags":["x"],"system_tags":[]}`)
	insert(t, s, store.Task, want)
	got, err := s.Get(t.Context(), store.Task, "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read differs from written (-want +got):\n%s", diff)
	}
	want["name"], want["tags"] = "other", []any{"y", "z"}
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Put(t.Context(), store.Task, want) }); err != nil {
		t.Fatal(err)
	}
	if got, err = s.Get(t.Context(), store.Task, "a"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read differs from replaced (-want +got):\n%s", diff)
	}
}

func (c contract) kindsDoNotMix() {
	t, s := c.t, c.s
	insert(t, s, store.Task, store.Doc{"id": "same", "name": "task", "tags": []any{"x"}})
	insert(t, s, store.Model, store.Doc{"id": "same", "name": "model", "tags": []any{"x"}})
	for kind, name := range map[store.Kind]string{store.Task: "task", store.Model: "model"} {
		got, err := s.Query(t.Context(), kind, store.Query{Where: store.In{Path: store.Path{"tags"}, Values: []any{"x"}}})
		if err != nil || len(got) != 1 || got[0].Text("name") != name {
			t.Errorf("query of %s: %v, %v", kind, got, err)
		}
	}
}

func (c contract) idsAreTold() {
	t, s := c.t, c.s
	ctx := t.Context()
	insert(t, s, store.Task, store.Doc{"id": "a"})
	tx := func(do func(store.Tx) error) error { return s.Tx(ctx, do) }
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"get", func() error { _, err := s.Get(ctx, store.Task, "b"); return err }(), store.ErrNotFound},
		{"put", tx(func(tx store.Tx) error { return tx.Put(ctx, store.Task, store.Doc{"id": "b"}) }), store.ErrNotFound},
		{"delete", tx(func(tx store.Tx) error { return tx.Delete(ctx, store.Task, "b") }), store.ErrNotFound},
		{"update", store.Update(ctx, s, store.Task, "b", func(store.Doc) error { return nil }), store.ErrNotFound},
		{"insert", tx(func(tx store.Tx) error { return tx.Insert(ctx, store.Task, store.Doc{"id": "a"}) }), store.ErrExists},
		{"setting", func() error { _, err := s.Setting(ctx, "k"); return err }(), store.ErrNotFound},
		{"delete a", tx(func(tx store.Tx) error { return tx.Delete(ctx, store.Task, "a") }), nil},
		{"get deleted", func() error { _, err := s.Get(ctx, store.Task, "a"); return err }(), store.ErrNotFound},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.err, c.want)
		}
	}
	if err := tx(func(tx store.Tx) error { return tx.Insert(ctx, store.Task, store.Doc{"name": "x"}) }); err == nil {
		t.Error("a document without an id was stored")
	}
}

func (c contract) failedTransaction() {
	t, s := c.t, c.s
	ctx := t.Context()
	insert(t, s, store.Task, store.Doc{"id": "a", "name": "before"})
	stop := errors.New("stop")
	err := s.Tx(ctx, func(tx store.Tx) error {
		for _, err := range []error{
			tx.Insert(ctx, store.Task, store.Doc{"id": "b"}),
			tx.Put(ctx, store.Task, store.Doc{"id": "a", "name": "after"}),
			tx.AppendEvents(ctx, []store.Event{{ID: "e", Task: "a", Body: store.Doc{}}}),
			tx.SetSetting(ctx, "k", "v"),
		} {
			if err != nil {
				return err
			}
		}
		return stop
	})
	if err != stop { //nolint:errorlint // the very error must come back
		t.Fatalf("got %v, want the change's own error", err)
	}
	wantUntouched(t, s)
}

func (c contract) panickingTransaction() {
	t, s := c.t, c.s
	insert(t, s, store.Task, store.Doc{"id": "a", "name": "before"})
	func() {
		defer func() { _ = recover() }()
		_ = s.Tx(t.Context(), func(tx store.Tx) error {
			if err := tx.Put(t.Context(), store.Task, store.Doc{"id": "a", "name": "after"}); err != nil {
				return err
			}
			panic("handler")
		})
	}()
	wantUntouched(t, s)
	insert(t, s, store.Task, store.Doc{"id": "next"}) // the writer is free again
}

func wantUntouched(t *testing.T, s store.Store) {
	t.Helper()
	docs, err := s.Query(t.Context(), store.Task, store.Query{})
	if err != nil || len(docs) != 1 || docs[0].Text("name") != "before" {
		t.Errorf("documents after the failure: %v, %v", docs, err)
	}
	if n, err := s.CountEvents(t.Context(), store.EventQuery{Tasks: []string{"a"}}); err != nil || n != 0 {
		t.Errorf("events after the failure: %d, %v", n, err)
	}
	if v, err := s.Setting(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("setting after the failure: %q, %v", v, err)
	}
}

func (c contract) ownWrites() {
	t, s := c.t, c.s
	ctx := t.Context()
	err := s.Tx(ctx, func(tx store.Tx) error {
		if err := tx.Insert(ctx, store.Task, store.Doc{"id": "a", "tags": []any{"x"}}); err != nil {
			return err
		}
		n, err := tx.Count(ctx, store.Task, store.In{Path: store.Path{"tags"}, Values: []any{"x"}})
		if err != nil || n != 1 {
			t.Errorf("count inside: %d, %v", n, err)
		}
		if err := tx.SetSetting(ctx, "k", "v"); err != nil {
			return err
		}
		if v, err := tx.Setting(ctx, "k"); err != nil || v != "v" {
			t.Errorf("setting inside: %q, %v", v, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c contract) concurrentUpdates() {
	t, s := c.t, c.s
	const writers, times = 50, 4
	insert(t, s, store.Task, store.Doc{"id": "a", "last_iteration": json.Number("0")})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range times {
				err := store.Update(t.Context(), s, store.Task, "a", func(doc store.Doc) error {
					doc["last_iteration"] = json.Number(fmt.Sprint(doc.Int("last_iteration") + 1))
					doc.Object("runtime")[fmt.Sprint("writer ", w)] = true
					return nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
				if _, err := s.Query(t.Context(), store.Task, store.Query{}); err != nil {
					t.Errorf("query beside the writers: %v", err)
				}
			}
		})
	}
	wg.Wait()
	doc, err := s.Get(t.Context(), store.Task, "a")
	if err != nil {
		t.Fatal(err)
	}
	if doc.Int("last_iteration") != writers*times || len(doc.Object("runtime")) != writers {
		t.Errorf("%d updates of %d writers arrived, want %d of %d", doc.Int("last_iteration"), len(doc.Object("runtime")), writers*times, writers)
	}
}

func (c contract) endedContext() {
	t, s := c.t, c.s
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Tx(ctx, func(tx store.Tx) error { return tx.Insert(ctx, store.Task, store.Doc{"id": "a"}) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("transaction with an ended context: %v", err)
	}
	if n, err := s.Count(t.Context(), store.Task, nil); err != nil || n != 0 {
		t.Errorf("stored: %d, %v", n, err)
	}
}

func (c contract) settings() {
	t, s := c.t, c.s
	for _, value := range []string{"one", "two", ""} {
		if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.SetSetting(t.Context(), "key", value) }); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Setting(t.Context(), "key"); err != nil || got != value {
			t.Errorf("got %q, %v, want %q", got, err, value)
		}
	}
}

// at returns the form of a time that is some seconds after a fixed one.
func at(seconds int) string {
	return store.FormatTime(time.Date(2026, 1, 1, 0, 0, seconds, 0, time.UTC))
}

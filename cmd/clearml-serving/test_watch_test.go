package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWatchRunsAgainAtEachChangeUntilItsEnd(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(at(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("code/a.py", "1")
	write("request.json", "1")
	ctx, cancel := context.WithCancel(t.Context())
	steps := []struct {
		want string // what changed before this run
		then func()
	}{
		{"", func() { write("code/a.py", "22"); write("code/__pycache__/a.pyc", "x"); write("code/.git/index", "x") }},
		{at("code/a.py"), func() { write("code/sub/new.py", "") }},
		{at("code/sub/new.py"), func() {
			if err := os.Remove(at("request.json")); err != nil {
				t.Error(err)
			}
		}},
		{at("request.json"), cancel},
	}
	run := 0
	err := watch(ctx, []string{at("code"), at("request.json")}, func(changed string) error {
		if run >= len(steps) || changed != steps[run].want {
			t.Fatalf("run %d: %q changed", run, changed)
		}
		steps[run].then()
		run++
		return nil
	})
	if !errors.Is(err, context.Canceled) || run != len(steps) {
		t.Errorf("%v after %d runs", err, run)
	}
}

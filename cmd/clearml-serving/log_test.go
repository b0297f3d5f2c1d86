package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogLinesCanBeReadAndSplitAgain(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newLogHandler(&out, slog.LevelInfo, false))
	log.Debug("not wanted")
	log.With("endpoint", "m/1").WithGroup("worker").Info("version live", "pid", 7, "took", 1234567*time.Microsecond, "text", "two words", "empty", "")
	log.Error("load failed", "err", errors.New("line one\nline two"), slog.Group("model", "id", "5c"))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %q", len(lines), out.String())
	}
	for i, want := range []string{
		`INFO  version live endpoint=m/1 worker.pid=7 worker.took=1.23s worker.text="two words" worker.empty=""`,
		`ERROR load failed err="line one\nline two" model.id=5c`,
	} {
		date, rest, found := strings.Cut(lines[i], " ")
		_, rest, _ = strings.Cut(rest, " ")
		if _, err := time.Parse("2006-01-02", date); !found || err != nil || rest != want {
			t.Errorf("got  %s\nwant %s", rest, want)
		}
	}
}

func TestLogIsColouredOnlyWhenAsked(t *testing.T) {
	var out bytes.Buffer
	slog.New(newLogHandler(&out, slog.LevelInfo, true)).Warn("watch out", "k", 1)
	if !strings.Contains(out.String(), "\x1b[33mWARN \x1b[0m") {
		t.Errorf("no colour: %q", out.String())
	}
}

package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestLogLinesCanBeReadAndSplitAgain(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newLogHandler(&out, slog.LevelInfo, false))
	log.Debug("not wanted")
	log.With("endpoint", "m/1").WithGroup("worker").Info("version live", "pid", 7, "took", 1234567*time.Microsecond, "text", "two words", "empty", "")
	log.Error("load failed", "err", errors.New("line one\n"), slog.Group("model", "id", "5c"))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %q", len(lines), out.String())
	}
	for i, want := range []string{
		`INFO  version live endpoint=m/1 worker.pid=7 worker.took=1.23s worker.text="two words" worker.empty=""`,
		`ERROR load failed err="line one\n" model.id=5c`,
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

func TestTextsOfSeveralLinesAreIndentedBelowTheirRecord(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newLogHandler(&out, slog.LevelInfo, false))
	traceback := "Traceback (most recent call last):\r\n  File \"a.py\", line 3\n\traise ValueError('\\n')\n\nValueError: x\n"
	log.With("history", "first\nsecond", "endpoint", "m/1").WithGroup("load").Error("failed", "err", errors.New(traceback), "took", time.Second)
	_, got, _ := strings.Cut(out.String(), "ERROR ")
	const want = `failed endpoint=m/1 load.took=1s
  history:
    | first
    | second
  load.err:
    | Traceback (most recent call last):
    |   File "a.py", line 3
    |     raise ValueError('\n')
    | 
    | ValueError: x
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A record begins at the left edge of a line, and nothing else does, whatever user code
// or a client has put into a fact.
func TestNoFactPassesForARecord(t *testing.T) {
	const forged = "2026-01-01 00:00:00.000 ERROR all is lost"
	for _, text := range []string{
		"x\n" + forged, forged + "\n" + forged, "\n" + forged, "\n\n" + forged + "\n", "x\r" + forged, "x\ny\r" + forged, "x\r\n" + forged, "\r\n\r\n" + forged,
		"x\ny\x0b" + forged, "x\ny\x0c" + forged, "x\ny\x1b[2K\x1b[1G" + forged, "x\ny\u0085" + forged, "x\ny\u2028" + forged, "x\ny\u202e" + forged, "x\ny\x00\x08\x08", "\xff\n\xfe" + forged,
	} {
		for name, write := range map[string]func(*slog.Logger){
			"a fact":   func(l *slog.Logger) { l.Info("says", "text", text) },
			"of With":  func(l *slog.Logger) { l.With("text", text).Info("says") },
			"a group":  func(l *slog.Logger) { l.Info("says", slog.Group("g", "text", text)) },
			"an error": func(l *slog.Logger) { l.Info("says", "err", errors.New(text)) },
			"an event": func(l *slog.Logger) { l.Info(text) }, //nolint:sloglint // what no code of ours does
		} {
			var out bytes.Buffer
			write(slog.New(newLogHandler(&out, slog.LevelInfo, false)))
			if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Errorf("%s %q: something can't be printed in %q", name, text, out.String())
			}
			for i, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
				if i > 0 && !strings.HasPrefix(line, blockPrefix) && !strings.HasPrefix(line, "  ") {
					t.Errorf("%s %q: line %d is %q", name, text, i, line)
				}
			}
		}
	}
}

package ui

import (
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
)

func TestTheLastErrorsOfAnEndpointHaveTheirTraceback(t *testing.T) {
	at := func(second int) clearml.Time {
		return clearml.Time{Time: noon().Add(time.Duration(second) * time.Second)}
	}
	entry := func(second int, lines ...string) consoleEntry {
		return consoleEntry{At: at(second), Text: strings.Join(lines, "\n")}
	}
	const value = `2026-11-30 12:00:00.000 WARN  endpoint says part=inference endpoint=wine/2`
	got := errorsOf([]consoleEntry{
		entry(1, value, "  text:", "    | request r1: Exception [<class 'ValueError'>] no \"wine\"", "    | Traceback (most recent call last):", "    |   File \"preprocess.py\", line 7, in preprocess", "    | ValueError: no"),
		entry(2, `2026-11-30 12:00:00.100 INFO  endpoint live endpoint=wine/2`, value+` text="request r2: Exception [<class 'ValueError'>] no \"wine\"" times=41`),
		entry(3, `2026-11-30 12:00:01.000 WARN  request failed endpoint=wine/2 request_id=r3 err="the queue is full"`),
		entry(4, `2026-11-30 12:00:02.000 ERROR worker died endpoint=wine/2 worker=71 err="killed by signal 9" requests=3`, "  last_lines:", "    | Fatal: memory"),
		entry(5, "no record at all", "    | text"),
	})
	want := []lastError{
		{at(4), "ERROR", "worker died: killed by signal 9", 1, "", "Fatal: memory"},
		{at(3), "WARN", "request failed: the queue is full", 1, "r3", ""},
		{at(2), "WARN", `Exception [<class 'ValueError'>] no "wine"`, 42, "r2", "Traceback (most recent call last):\n  File \"preprocess.py\", line 7, in preprocess\nValueError: no"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d errors: %+v", len(got), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

func TestTheLastErrorsAreBounded(t *testing.T) {
	var entries []consoleEntry
	for i := range 50 {
		entries = append(entries, consoleEntry{Text: "2026-11-30 12:00:00.000 ERROR endpoint says endpoint=m\n  text:\n    | error " + strings.Repeat("x", i) + strings.Repeat("<", 5000) + "\n" + strings.Repeat("    | a line of it\n", 2000) + "    | end"})
	}
	size := 0
	for _, e := range errorsOf(entries) {
		size += len(e.Text) + len(e.Trace)
	}
	if got := errorsOf(entries); len(got) != mostErrors || size > errorsBytes+mostErrors*100 {
		t.Errorf("%d errors, %d bytes", len(got), size)
	}
}

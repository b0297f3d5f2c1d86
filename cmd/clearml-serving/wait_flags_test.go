package main

import (
	"bytes"
	"os"
	"testing"
)

// A person at a terminal sees what became of a change; a script is not held up unless it asks.
func TestCommandsWaitByThemselvesOnATerminalOnly(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal("no terminal can be made: ", err)
	}
	defer terminal.Close() //nolint:errcheck // nothing is written to it
	for _, tc := range []struct {
		name           string
		flags          waitFlags
		terminal, json bool
		waits, implied bool
	}{
		{"a script", waitFlags{implied: true}, false, false, false, false},
		{"a script with --wait", waitFlags{implied: true, wait: true}, false, false, true, false},
		{"a person", waitFlags{implied: true}, true, false, true, true},
		{"a person with --no-wait", waitFlags{implied: true, noWait: true}, true, false, false, false},
		{"a person with --json", waitFlags{implied: true}, true, true, false, false},
		{"a person, a command that deploys nothing", waitFlags{}, true, false, false, false},
	} {
		a := newApp(system{stdout: &bytes.Buffer{}})
		if tc.terminal {
			a = newApp(system{stdout: terminal})
		}
		a.print.json = tc.json
		if waits, implied := tc.flags.waits(a); waits != tc.waits || implied != tc.implied {
			t.Errorf("%s: waits %t, by itself %t", tc.name, waits, implied)
		}
	}
}

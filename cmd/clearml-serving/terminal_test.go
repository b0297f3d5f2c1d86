//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a terminal of that width. Read returns what was written to it, once.
func terminal(t *testing.T, columns uint16) (tty *os.File, read func() string) {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal("no terminal can be made: ", err)
	}
	fd := int(control.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal("no terminal can be opened: ", err)
	}
	said := make(chan string, 1)
	go func() { // ends when the terminal is closed
		var b bytes.Buffer
		_, _ = io.Copy(&b, control) // ends with an error of the closed terminal
		_ = control.Close()
		said <- b.String()
	}()
	return tty, func() string {
		if err := tty.Close(); err != nil {
			t.Error(err)
		}
		return strings.ReplaceAll(<-said, "\r\n", "\n")
	}
}

func TestATerminalGetsTablesAndNoTitle(t *testing.T) {
	home := t.TempDir()
	for _, tc := range []struct {
		args     string
		has, not string
	}{
		{"--help", "Serve the models of a ClearML server", titleLine},
		{"model add --help", "Flags of every command (clearml-serving --help explains them)", titleLine},
		{"list", "no ClearML server is configured", titleLine},
		{"list --format original", titleLine, "\x00"},
	} {
		tty, read := terminal(t, 100)
		run(system{
			args: strings.Fields(tc.args), stdin: strings.NewReader(""), stdout: tty, stderr: io.Discard,
			env: func(name string) (string, bool) {
				if name == "HOME" {
					return home, true
				}
				return "", false
			},
		})
		if said := read(); !strings.Contains(said, tc.has) || strings.Contains(said, tc.not) {
			t.Errorf("%s prints %s", tc.args, said)
		}
	}
}

func TestATableFitsTheTerminal(t *testing.T) {
	var b bytes.Buffer
	p := printer{out: &b, color: true, width: 40}
	p.table([]string{"NAME", "STATE", "NOTE"}, [][]string{{"a", "ready", ""}, {"b", "failed", strings.Repeat("why ", 10) + "it is"}})
	want := "\x1b[1mNAME\x1b[0m  \x1b[1mSTATE\x1b[0m   \x1b[1mNOTE\x1b[0m\n" +
		"a     ready\n" +
		"b     \x1b[31mfailed\x1b[0m\n    " + strings.Repeat("why ", 10) + "it is\n"
	if b.String() != want {
		t.Errorf("got\n%q, want\n%q", b.String(), want)
	}
}

func TestAModelOfNamedColumnsGetsCodeThatMakesATable(t *testing.T) {
	p, err := planRun(filepath.Join("..", "..", "modelfile", "testdata", "columns.joblib"), runFlags{})
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(p.code)
	if err != nil || !strings.Contains(string(code), `COLUMNS = ["age","city"]`) {
		t.Errorf("%v, code:\n%s", err, code)
	}
	if p.engine != "sklearn" || p.file.Packages[len(p.file.Packages)-1] != "pandas" {
		t.Errorf("engine %s, packages %v", p.engine, p.file.Packages)
	}
	if err := p.remove(); err != nil || exists(p.code) {
		t.Errorf("the code is left over: %v", err)
	}
}

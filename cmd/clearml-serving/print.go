package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"golang.org/x/sys/unix"
)

// The rules of what is printed:
//   - results go to stdout, and so do the original's lines, notices, warnings and
//     errors, because scripts look for them there;
//   - progress and the log go to stderr, and so do usage errors;
//   - with --json stdout holds one JSON value and nothing else: the result, or
//     {"error": …}; notices and warnings go to stderr;
//   - a line of the original is printed byte for byte; our own begin with a
//     capital letter ("Notice: …", "Warning: …") and end without a full stop;
//   - colours only on a terminal, never when NO_COLOR is set, and never alone:
//     the word that is coloured says the same.

// printer writes to the person or script that started the program.
type printer struct {
	out, err io.Writer
	json     bool
	color    bool
	width    int // of the terminal, 0 if it is none or not known
}

// line prints a line for people; scripts that ask for JSON do not get it.
func (p *printer) line(format string, args ...any) {
	if !p.json {
		put(p.out, format, args...)
	}
}

// notice prints what a person should know although nothing has failed.
func (p *printer) notice(format string, args ...any) {
	if p.json {
		put(p.err, format, args...)
		return
	}
	put(p.out, format, args...)
}

// result prints what a command found or did, for scripts. People have read it
// in the lines before.
func (p *printer) result(v any) error {
	if !p.json {
		return nil
	}
	text, err := indented(v)
	if err != nil {
		return err
	}
	put(p.out, "%s", text)
	return nil
}

// table prints rows in aligned columns under a heading. What is not as it should be in a
// column STATE is coloured. What would make a line longer than the terminal follows on a line
// of its own, if it is the last column.
func (p *printer) table(heading []string, rows [][]string) {
	if p.json {
		return
	}
	widths := make([]int, len(heading))
	for _, row := range append([][]string{heading}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	print := func(row []string, style func(i int) string) {
		var b strings.Builder
		gap, used := 0, 0
		for i, cell := range row {
			length := utf8.RuneCountInString(cell)
			if i > 0 && i == len(row)-1 && p.width > 0 && used+length > p.width {
				b.WriteString("\n    " + cell)
				break
			}
			if cell != "" {
				b.WriteString(strings.Repeat(" ", gap))
				b.WriteString(p.paint(style(i), cell))
				gap = 0
			}
			gap += widths[i] - length + 2
			used += widths[i] + 2
		}
		put(p.out, "%s", b.String())
	}
	print(heading, func(int) string { return bold })
	for _, row := range rows {
		print(row, func(i int) string {
			if heading[i] != "STATE" {
				return ""
			}
			return stateStyles[strings.Fields(row[i] + " -")[0]]
		})
	}
}

// section prints a table below another one, unless it has no rows.
func (p *printer) section(heading []string, rows [][]string) {
	if len(rows) > 0 {
		p.line("")
		p.table(heading, rows)
	}
}

// stateStyles has the styles of the states of endpoints.
var stateStyles = map[string]string{"failed": red, "refused": red, "degraded": yellow, "updating": yellow} //nolint:gochecknoglobals // a constant table

// The styles, as terminals understand them.
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

func (p *printer) paint(style, text string) string { return paint(p.color, style, text) }

func paint(color bool, style, text string) string {
	if !color || style == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// put writes a line. A reader that has gone away (a closed pipe) is no error of ours.
func put(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}

// isTerminal tells whether a person sees what is written there.
func isTerminal(w any) bool {
	if s, ok := w.(*spool); ok {
		w = s.w
	}
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// terminalWidth is how many characters a line has, 0 if w is no terminal.
func terminalWidth(w any) int {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(w) {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

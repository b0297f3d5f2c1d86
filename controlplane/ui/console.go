package ui

import (
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/clearml"
)

// console is one page of what a task has printed.
type console struct {
	Entries []consoleEntry
	Total   int
	// Live says that more may be printed, so the page asks Source again, by default itself.
	Live   bool
	Source string
	// Older is the address of the page before this one, "" if there is none. Past says that this
	// is not the newest page.
	Older string
	Past  bool
}

type consoleEntry struct {
	At    clearml.Time `json:"timestamp"`
	Level string       `json:"level"`
	Text  string       `json:"msg"`
}

// A page has the newest lines that fit in consoleBytes of HTML. They are read consoleStep entries
// at a time, since one entry may have many lines. Of a longer line only the beginning is shown.
const (
	consoleBytes = 100 << 10
	consoleStep  = 50
	longestLine  = 8 << 10
	entryBytes   = 150 // the HTML of an entry without its text
)

// console reads a page of what a task has printed: the newest lines, or those before the place
// that the query names. That is a time, and how many of its lines a newer page has shown.
func (v *visit) console(task string) (console, error) {
	query := v.r.URL.Query()
	at, _ := strconv.ParseInt(query.Get("at"), 10, 64) // no number: the newest page
	shown, _ := strconv.Atoi(query.Get("shown"))
	page := console{Past: at > 0}
	ask := map[string]any{"task": task, "batch_size": consoleStep, "order": "desc"}
	if page.Past {
		ask["from_timestamp"] = at + 1
	}
	skip, left := shown, consoleBytes
	for {
		var answer struct {
			Events []consoleEntry `json:"events"`
			Total  int            `json:"total"`
		}
		if err := v.api.Call(v.r.Context(), "events.get_task_log", ask, &answer); err != nil {
			return console{}, err
		}
		page.Total = answer.Total
		for _, e := range answer.Events {
			if now := e.At.Round(time.Millisecond).UnixMilli(); now != at {
				at, shown, skip = now, 0, 0
			}
			lines := strings.Split(strings.TrimSpace(e.Text), "\n")
			if skip >= len(lines) {
				skip -= len(lines)
				continue
			}
			lines = lines[:len(lines)-skip]
			skip = 0
			fit := fitting(lines, &left)
			shown += fit
			if e.Text = strings.Join(lines[len(lines)-fit:], "\n"); fit > 0 {
				page.Entries = append(page.Entries, e)
			}
			if fit < len(lines) {
				page.Older = withQuery("", "at", at, "shown", shown)
				slices.Reverse(page.Entries)
				return page, nil
			}
		}
		if len(answer.Events) < consoleStep {
			slices.Reverse(page.Entries)
			return page, nil
		}
		ask["from_timestamp"] = at
	}
}

// fitting shortens what is too long and counts how many of the last lines fit in what is left of
// a page.
func fitting(lines []string, left *int) int {
	*left -= entryBytes
	for i := len(lines) - 1; i >= 0; i-- {
		if over := len(lines[i]) - longestLine; over > 0 {
			lines[i] = fmt.Sprintf("%s… (%d more bytes)", strings.ToValidUTF8(lines[i][:longestLine], ""), over)
		}
		if *left -= len(html.EscapeString(lines[i])) + 1; *left < 0 {
			return len(lines) - 1 - i
		}
	}
	return len(lines)
}

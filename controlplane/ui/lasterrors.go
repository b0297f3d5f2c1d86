package ui

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/clearml"
)

// lastError is an error of an endpoint, from the logs of its instances. Errors that differ only in their
// request are one.
type lastError struct {
	At      clearml.Time // of the newest
	Level   string       // ERROR or WARN
	Text    string       // in one line
	Times   int
	Request string // the id of the newest request, "" for an error without one
	Trace   string // the traceback and what else was logged below
}

// The bounds of the errors on a page.
const (
	mostErrors  = 10
	errorsBytes = 40 << 10
	longestText = 1 << 10
	longestBody = 12 << 10
)

var (
	// logHead is the first line of a record in an instance's log; logFact is one of its facts.
	logHead   = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (ERROR|WARN) +(.*)$`)
	logFact   = regexp.MustCompile(` ([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)`)
	ofRequest = regexp.MustCompile(`^request(?: (\S+))?: `)
)

// errorsOf finds the errors in what instances have logged about an endpoint, the newest first.
func errorsOf(entries []consoleEntry) []lastError {
	var all []lastError
	for _, entry := range slices.Backward(entries) {
		records := strings.Split(entry.Text, "\n")
		for end := len(records); end > 0; {
			begin := end - 1
			for begin > 0 && strings.HasPrefix(records[begin], " ") {
				begin--
			}
			if e, ok := errorOf(records[begin:end]); ok {
				e.At = entry.At
				all = merge(all, e)
			}
			end = begin
		}
	}
	left := room(errorsBytes)
	for i := range all {
		all[i].Text, all[i].Trace = left.take(all[i].Text, longestText), left.take(all[i].Trace, longestBody)
	}
	return all
}

// merge adds an older error.
func merge(all []lastError, older lastError) []lastError {
	i := slices.IndexFunc(all, func(e lastError) bool { return e.Text == older.Text })
	if i < 0 {
		if len(all) < mostErrors {
			all = append(all, older)
		}
		return all
	}
	all[i].Times += older.Times
	all[i].Trace = cmp.Or(all[i].Trace, older.Trace) // a record that sums up has none
	all[i].Request = cmp.Or(all[i].Request, older.Request)
	return all
}

// errorOf reads one record of a log, with the lines below it; ok is false if it is no error.
func errorOf(lines []string) (e lastError, ok bool) {
	head := logHead.FindStringSubmatch(lines[0])
	if head == nil {
		return e, false
	}
	e.Level, e.Times = head[1], 1
	message, facts := head[2], map[string]string{}
	if at := logFact.FindStringIndex(message); at != nil {
		for _, fact := range logFact.FindAllStringSubmatch(message[at[0]:], -1) {
			text := fact[2]
			if plain, err := strconv.Unquote(text); err == nil {
				text = plain
			}
			facts[fact[1]] = text
		}
		message = message[:at[0]]
	}
	var block string // the name of the fact that the lines belong to
	var body []string
	for _, line := range lines[1:] {
		text, inside := strings.CutPrefix(line, "    | ")
		if !inside {
			block = strings.TrimSuffix(strings.TrimSpace(line), ":")
			continue
		}
		if _, known := facts[block]; !known {
			facts[block] = text
			if message == saidByEndpoint && block == "text" {
				continue // it is the title
			}
		}
		body = append(body, text)
	}
	e.Text, e.Trace = message, strings.Join(body, "\n")
	if said := cmp.Or(facts["text"], facts["err"], facts["reason"]); message == saidByEndpoint {
		e.Text = said
	} else if said != "" {
		e.Text += ": " + said
	}
	if n, err := strconv.Atoi(facts["times"]); err == nil && n > 0 {
		e.Times = n
	}
	e.Request = facts["request_id"]
	if request := ofRequest.FindStringSubmatch(e.Text); request != nil && message == saidByEndpoint {
		e.Request, e.Text = request[1], e.Text[len(request[0]):]
	}
	return e, true
}

// saidByEndpoint is the record of what user code and the runtime of its worker log.
const saidByEndpoint = "endpoint says"

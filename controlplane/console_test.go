package controlplane_test

import (
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/controlplane"
)

var (
	olderLines = regexp.MustCompile(`<a href="([^"]+)" rel="prev">Older lines</a>`)
	numbered   = regexp.MustCompile(`n(\d+)\b`)
)

func TestAPageWithAConsoleIsSmallWhateverWasLogged(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "flood")
	var id struct{ ID string }
	r.call(t, "tasks.create", map[string]any{"name": "flood - serve instance", "type": "inference", "parent": m.service}, &id)
	r.call(t, "tasks.started", map[string]any{"task": id.ID}, nil)

	// Entries of one line and of many, of one time and of many, and lines without an end.
	at, n := time.Now().Add(-time.Hour).UnixMilli(), 0
	line := func(text string) string {
		n++
		return fmt.Sprintf("n%d %s", n, text)
	}
	var events []string
	entry := func(lines ...string) {
		events = append(events, fmt.Sprintf(`{"type":"log","task":"%s","level":"WARNING","timestamp":%d,"msg":%s}`, id.ID, at, quoted(strings.Join(lines, "\n"))))
	}
	for range 700 {
		at++
		entry(line(strings.Repeat("<'&", 30)))
	}
	at++
	for range 60 {
		entry(line("at the same time"), line("again"))
	}
	var many []string
	for range 3000 {
		many = append(many, line(strings.Repeat("a\"b<", 40)))
	}
	at++
	entry(many...)
	for range 4 {
		at++
		entry(line(strings.Repeat("<", 300<<10)))
	}
	at++
	entry(line("the last"))
	if status, _, text := r.send(t, "POST", r.api+"/events.add_batch", strings.Join(events, "\n"), "Content-Type", "application/json-lines"); status != http.StatusOK {
		t.Fatal(text)
	}

	v := r.visit(t)
	for _, page := range []string{"/experiments/" + id.ID + "/console", "/services/" + m.service + "/instances/" + id.ID} {
		var pages [][]string
		for query := ""; ; {
			text := v.shows(page+query, "<h1")
			if len(text) > 200_000 {
				t.Fatalf("%s%s has %d bytes", page, query, len(text))
			}
			_, console, _ := strings.Cut(text, `class="console"`)
			var found []string
			for _, match := range numbered.FindAllStringSubmatch(console, -1) {
				found = append(found, match[1])
			}
			pages = append(pages, found)
			older := olderLines.FindStringSubmatch(text)
			if older == nil {
				break
			}
			if query = html.UnescapeString(older[1]); len(pages) > 100 {
				t.Fatalf("%s has no first page: now at %s", page, query)
			}
		}
		slices.Reverse(pages)
		got := slices.Concat(pages...)
		for i, number := range got {
			if number != fmt.Sprint(i+1) {
				t.Fatalf("%s: line %d is number %s of %d", page, i+1, number, n)
			}
		}
		if len(got) != n {
			t.Errorf("%s: %d lines of %d are shown", page, len(got), n)
		}
	}
}

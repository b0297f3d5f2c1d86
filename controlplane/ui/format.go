package ui

import (
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"clearmlserving/clearml"
)

// functions are what templates may call.
func (p *Pages) functions() template.FuncMap {
	return template.FuncMap{
		"asset":   p.assets.url,
		"ago":     func(t any) moment { return p.moment(t) },
		"bytes":   formatBytes,
		"number":  formatNumber,
		"one":     func(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) },
		"percent": func(share float64) string { return formatNumber(share*100) + " %" },
		"count":   formatCount,
		"join":    strings.Join,
		"short":   shortID,
		"file":    p.fileLink,
		"picture": p.pictureLink,
		"query":   withQuery,
		"pretty":  prettyJSON,
		"state":   stateClass,
		"lines":   strings.TrimSpace,
		"words":   func(name string) string { return strings.ReplaceAll(name, "_", " ") },
		"args":    args,
	}
}

// args hands several values to a part of a template.
func args(values ...any) []any { return values }

// moment is a time as a person reads it, with the exact one beside it.
type moment struct {
	Text, Exact, Machine string
}

func (p *Pages) moment(value any) moment {
	var at time.Time
	switch t := value.(type) {
	case time.Time:
		at = t
	case clearml.Time:
		at = t.Time
	case *clearml.Time:
		if t != nil {
			at = t.Time
		}
	}
	if at.IsZero() {
		return moment{Text: "never"}
	}
	return moment{
		Text: formatAge(p.now().Sub(at)), Exact: at.UTC().Format("2006-01-02 15:04:05 UTC"),
		Machine: at.UTC().Format(time.RFC3339),
	}
}

// formatAge says how long ago something was.
func formatAge(age time.Duration) string {
	ahead := age < -2*time.Second
	if ahead {
		age = -age
	}
	say := func(n int, unit string) string {
		if n != 1 {
			unit += "s"
		}
		if ahead {
			return fmt.Sprintf("in %d %s", n, unit)
		}
		return fmt.Sprintf("%d %s ago", n, unit)
	}
	const day = 24 * time.Hour
	switch {
	case age < 5*time.Second:
		return "just now"
	case age < time.Minute:
		return say(int(age/time.Second), "second")
	case age < time.Hour:
		return say(int(age/time.Minute), "minute")
	case age < 2*day:
		return say(int(age/time.Hour), "hour")
	case age < 60*day:
		return say(int(age/day), "day")
	case age < 730*day:
		return say(int(age/(30*day)), "month")
	}
	return say(int(age/(365*day)), "year")
}

// formatDuration says how long something took.
func formatDuration(d time.Duration) string {
	switch {
	case d <= 0:
		return "–"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return formatNumber(float64(d.Microseconds())/1000) + " ms"
	case d < time.Minute:
		return formatNumber(d.Seconds()) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func formatBytes(n any) string {
	var size float64
	if at, ok := n.(*int64); ok && at != nil {
		n = *at
	}
	switch n := n.(type) {
	case int:
		size = float64(n)
	case int64:
		size = float64(n)
	case uint64:
		size = float64(n)
	case float64:
		size = n
	}
	if size <= 0 {
		return "–"
	}
	units := []string{"B", "KB", "MB", "GB", "TB"}
	unit := 0
	for size >= 1000 && unit < len(units)-1 {
		size /= 1000
		unit++
	}
	return formatNumber(size) + " " + units[unit]
}

// formatNumber shows four digits, which is what a person compares.
func formatNumber(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return fmt.Sprint(f)
	case f == math.Trunc(f) && math.Abs(f) < 1e15:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', 4, 64)
}

// formatCount puts thin gaps between thousands.
func formatCount(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// shortID is enough of an id to tell things apart.
func shortID(id string) string {
	if len(id) <= 8 {
		return id
	}
	return id[:8]
}

// fileLink is where a browser downloads a stored file: a path of this server, so that the
// session counts there, or the address itself when it is one of the web; "" otherwise.
func (p *Pages) fileLink(uri string) string {
	if path, own := strings.CutPrefix(uri, p.opts.FilesURL+"/"); own {
		return "/files/" + path
	}
	u, err := url.Parse(uri)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return ""
	}
	return uri
}

// pictureLink is the address of a picture that the page may load: one of this server, or
// one that is in the address itself. No other is asked for, so that nobody elsewhere
// learns who looks at what.
func (p *Pages) pictureLink(uri string) template.URL {
	if strings.HasPrefix(uri, "data:image/png;base64,") || strings.HasPrefix(uri, "data:image/jpeg;base64,") {
		return template.URL(uri) //nolint:gosec // a picture in base64 holds no script
	}
	if link := p.fileLink(uri); strings.HasPrefix(link, "/files/") {
		return template.URL(link) //nolint:gosec // a path of this server
	}
	return ""
}

// withQuery makes a link of a path and pairs of names and values; empty values are left out.
func withQuery(path string, pairs ...any) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if value := fmt.Sprint(pairs[i+1]); value != "" {
			q.Set(fmt.Sprint(pairs[i]), value)
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// prettyJSON indents what is JSON and leaves the rest as it is.
func prettyJSON(text string) string {
	var value json.RawMessage
	if json.Unmarshal([]byte(text), &value) != nil {
		return text
	}
	indented, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return text
	}
	return string(indented)
}

// stateClass is how a state looks: good, busy, bad, or plain.
func stateClass(state string) string {
	switch state {
	case "ready", "completed", "published", "running":
		return "good"
	case "in_progress", "loading", "updating", "queued":
		return "busy"
	case "failed", "degraded", "aborted", "lost":
		return "bad"
	}
	return "plain"
}

package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// functions are the functions of the templates.
func (p *Pages) functions() template.FuncMap {
	return template.FuncMap{
		"asset":    p.assets.url,
		"ago":      p.moment,
		"bytes":    formatBytes,
		"number":   formatNumber,
		"one":      func(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) },
		"percent":  func(share float64) string { return formatNumber(share*100) + " %" },
		"count":    formatCount,
		"join":     strings.Join,
		"short":    shortID,
		"file":     p.fileLink,
		"picture":  p.pictureLink,
		"query":    withQuery,
		"state":    stateClass,
		"lines":    strings.TrimSpace,
		"words":    func(name string) string { return strings.ReplaceAll(name, "_", " ") },
		"args":     args,
		"revision": revisionLink,
		"at":       func(service string, endpoint any) string { return endpointLink(service, fmt.Sprint(endpoint)) },
	}
}

// args passes several values to a part of a template.
func args(values ...any) []any { return values }

// moment is a time relative to now, with the exact time.
type moment struct {
	Text, Exact, Machine string
}

func (p *Pages) moment(t interface{ UTC() time.Time }) moment {
	at := t.UTC()
	if at.IsZero() {
		return moment{Text: "never"}
	}
	return moment{humanize.RelTime(at, p.now(), "ago", "from now"), at.Format("2006-01-02 15:04:05 UTC"), at.Format(time.RFC3339)}
}

// formatDuration shows a duration with its two greatest units.
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

// formatBytes shows a size; 0 means that it is not known.
func formatBytes(size int64) string {
	if size <= 0 {
		return "–"
	}
	return humanize.IBytes(uint64(size))
}

// formatNumber shows integers in full and other numbers with four digits.
func formatNumber(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return fmt.Sprint(f)
	case f == math.Trunc(f) && math.Abs(f) < 1e15:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', 4, 64)
}

// formatCount separates thousands by thin spaces.
func formatCount(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// shortID is the first eight characters of an id.
func shortID(id string) string {
	if len(id) <= 8 {
		return id
	}
	return id[:8]
}

// fileLink is where a browser downloads a stored file: a path of this server, where the
// session is valid, or an address with http or https; "" otherwise.
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

// pictureLink is the address of a picture that a page may load: a path of this server or a
// data: address. Pages load nothing from other servers, which could trace their visitors.
func (p *Pages) pictureLink(uri string) template.URL {
	if strings.HasPrefix(uri, "data:image/png;base64,") || strings.HasPrefix(uri, "data:image/jpeg;base64,") {
		return template.URL(uri) //nolint:gosec // a picture in base64 holds no script
	}
	if link := p.fileLink(uri); strings.HasPrefix(link, "/files/") {
		return template.URL(link) //nolint:gosec // a path of this server
	}
	return ""
}

// withQuery adds pairs of names and values to a path as its query; empty values are left out.
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

// prettyJSON indents JSON and returns any other text unchanged.
func prettyJSON(text string) string {
	var out bytes.Buffer
	if json.Indent(&out, []byte(text), "", "  ") != nil {
		return text
	}
	return out.String()
}

// stateClass is the style class of a state: good, busy, bad, or plain.
func stateClass(state string) string {
	switch state {
	case "ready", "good", "completed", "published", "running", "healthy":
		return "good"
	case "in_progress", "loading", "updating", "pending", "queued", "trial":
		return "busy"
	case "failed", "degraded", "refused", "aborted", "lost", "ejected":
		return "bad"
	}
	return "plain"
}

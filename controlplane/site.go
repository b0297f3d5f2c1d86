package controlplane

import (
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/intake"
	"clearmlserving/controlplane/ui"
)

// site is the handler of the API's socket: the calls, the file server at /files/, Prometheus'
// HTTP API at /prometheus/, the web pages, and the probes. It is no ServeMux, which would redirect paths with double
// slashes: stored files may have them.
type site struct {
	calls, files http.Handler
	known        map[string]bool // the names of the calls: a browser is answered other paths with a page
	pages        *ui.Pages
	prometheus   http.Handler
	bodies       *intake.Budget
	now          func() time.Time
	draining     *atomic.Bool
}

func newSite(calls *api.Server, files, prometheus http.Handler, bodies *intake.Budget, draining *atomic.Bool, opts Options, log *slog.Logger) (*site, error) {
	pages, err := ui.New(ui.Options{
		API: inProcess{calls: calls, files: files, filesURL: opts.FilesURL}, Bodies: bodies, APIURL: opts.APIURL, FilesURL: opts.FilesURL,
		InstanceCA: opts.InstanceCA, Authorities: opts.Authorities, Recorded: opts.Recorded, Series: opts.Series, ServiceLabel: opts.ServiceLabel, Version: opts.Version, Logger: log, Now: opts.Now,
	})
	known := map[string]bool{}
	for _, c := range calls.Calls() {
		known[c.Name] = true
	}
	return &site{calls: calls, files: files, known: known, pages: pages, prometheus: prometheus, bodies: bodies, now: opts.Now, draining: draining}, err
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Clients compare our time stamps with it.
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	rest, isFile := strings.CutPrefix(r.URL.Path, "/files")
	switch {
	case isFile && (rest == "" || rest[0] == '/'):
		s.files.ServeHTTP(w, at(r, rest))
	case strings.HasPrefix(r.URL.Path, prometheusPath+"/"):
		setDeadlines(w, r)
		s.prometheus.ServeHTTP(w, r)
	case reading && r.URL.Path == "/livez", reading && r.URL.Path == "/readyz" && !s.draining.Load():
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // a prober that went away has no use for the error
	case reading && r.URL.Path == "/readyz":
		http.Error(w, "the server stops", http.StatusServiceUnavailable)
	case s.pages.Serves(r.URL.Path), reading && strings.Contains(r.Header.Get("Accept"), "text/html") && !s.known[path.Base(r.URL.Path)]:
		setDeadlines(w, r)
		s.pages.ServeHTTP(w, r)
	default:
		setDeadlines(w, r)
		s.calls.ServeHTTP(w, r)
	}
}

// at is the request as the file server sees it, below its own root.
func at(r *http.Request, path string) *http.Request {
	inner := *r
	inner.URL = &url.URL{Path: path, RawQuery: r.URL.RawQuery}
	return &inner
}

// exchange is the time to read a call; the time to answer it is twice that. Transfers of
// files have their own deadlines, which move with the transfer.
const exchange = 5 * time.Minute

// setDeadlines bounds a request. The deadline of a body is set by the socket, and moved by
// its reader.
func setDeadlines(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	now := time.Now()
	_ = conn.SetWriteDeadline(now.Add(2 * exchange)) // some listeners have no deadlines
	if r.ContentLength == 0 {
		_ = conn.SetReadDeadline(now.Add(exchange))
	}
}

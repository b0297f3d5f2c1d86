package controlplane

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"clearmlserving/controlplane/intake"
	"clearmlserving/controlplane/ui"
)

// site is the handler of the API's socket: the calls, the file server at /files/, the web
// pages, and the liveness probe. It is no ServeMux, which would redirect paths with double
// slashes: stored files may have them.
type site struct {
	calls, files http.Handler
	pages        *ui.Pages
	bodies       *intake.Budget
	log          *slog.Logger
	now          func() time.Time

	mu      sync.Mutex // guards unknown
	unknown map[string]bool
}

func newSite(calls, files http.Handler, bodies *intake.Budget, opts Options, log *slog.Logger) (*site, error) {
	pages, err := ui.New(ui.Options{
		API: inProcess{calls: calls, files: files, filesURL: opts.FilesURL}, Bodies: bodies, APIURL: opts.APIURL, FilesURL: opts.FilesURL,
		InstanceCA: opts.InstanceCA, Authorities: opts.Authorities, Version: opts.Version, Logger: log, Now: opts.Now,
	})
	return &site{calls: calls, files: files, pages: pages, bodies: bodies, log: log, now: opts.Now, unknown: map[string]bool{}}, err
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
	case reading && r.URL.Path == "/livez":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // a prober that went away has no use for the error
	case s.pages.Serves(r.URL.Path), reading && r.URL.Path == "/" && strings.Contains(r.Header.Get("Accept"), "text/html"):
		setDeadlines(w, r)
		s.pages.ServeHTTP(w, r)
	default:
		setDeadlines(w, r)
		s.call(w, r)
	}
}

// at is the request as the file server sees it, below its own root.
func at(r *http.Request, path string) *http.Request {
	inner := *r
	inner.URL = &url.URL{Path: path, RawQuery: r.URL.RawQuery}
	return &inner
}

// call answers an API call, and logs the first call of each unknown name: a newer SDK may
// need it.
func (s *site) call(w http.ResponseWriter, r *http.Request) {
	status := &statusWriter{ResponseWriter: w}
	s.calls.ServeHTTP(status, r)
	path := r.URL.Path[:min(len(r.URL.Path), longestNoted)]
	if status.code == http.StatusNotFound && s.firstTime(path) {
		s.log.Warn("unknown call", "path", path, "client", r.Header.Get("X-ClearML-Client"))
	}
}

// longestNoted is how much of an unknown path is stored and logged.
const longestNoted = 200

// firstTime says whether the path was not seen before. It remembers a few hundred, because
// clients can send random names.
func (s *site) firstTime(path string) bool {
	const remembered = 200
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown[path] || len(s.unknown) >= remembered {
		return false
	}
	s.unknown[path] = true
	return true
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// exchange is the time to read a call; the time to answer it is twice that. Transfers of
// files have their own deadlines, which move with the transfer.
const exchange = 5 * time.Minute

// setDeadlines bounds a request. The deadline of a body is set by the socket, and moved by
// its reader.
func setDeadlines(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	now := time.Now()
	err := conn.SetWriteDeadline(now.Add(2 * exchange))
	if r.ContentLength == 0 {
		err = errors.Join(err, conn.SetReadDeadline(now.Add(exchange)))
	}
	_ = err // not every listener has deadlines; then there are none
}

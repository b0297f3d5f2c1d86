// Package files is the ClearML file server on a directory or in a bucket: models and artifacts are
// uploaded, read in ranges, and deleted over HTTP, as the ClearML SDK does it.
//
// It owns everything below its directory and is its only writer. A file is visible only when it is
// complete: on a disk uploads are written to a temporary file, synced, and renamed; into a bucket
// they are streamed, and the bucket shows them at their end. The caller's Auth decides about
// access. The package never follows links, reads the meaning of content, or encodes it.
package files

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"clearmlserving/controlplane/intake"
	"clearmlserving/storage"
)

// Auth decides who may use the file server.
type Auth interface {
	// Authenticate returns nil if the caller may send such a request, ErrUnknown if it has no
	// valid credentials, ErrForbidden if they lack the permission, and any other error if that is
	// unknown. It is called from many goroutines, once per request, before the body is read.
	Authenticate(r *http.Request) error
}

// The refusals of Auth.
var (
	ErrUnknown   = errors.New("valid credentials are needed: send the Bearer token of auth.login")
	ErrForbidden = errors.New("these credentials may only read files: guests, read-only credentials, and service accounts cannot change files")
)

// Options are the storage of the files and the access to them.
type Options struct {
	// Dir is the directory of the files; it is created if missing.
	Dir string
	// Place stores the files instead, below PlaceURL, such as a bucket. Uploads and downloads are
	// streamed and not stored here.
	Place    storage.Adapter
	PlaceURL string
	// Auth checks each request except the ping. If nil, every request is refused.
	Auth Auth
	// Stall is the maximum time in which a download sends no byte, and in which 64 KiB of an
	// upload must arrive; 0 means five minutes.
	Stall time.Duration
	// Bodies bounds the memory for lists of files. If nil, the server has its own budget.
	Bodies *intake.Budget
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
}

// Server answers the file server's requests. It is safe for use by many goroutines.
type Server struct {
	opts Options
	log  *slog.Logger
	tree tree
}

// New opens the directory and removes the remains of interrupted uploads. The caller closes the
// server when no request is running.
func New(opts Options) (*Server, error) {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Stall = cmp.Or(opts.Stall, 5*time.Minute)
	if opts.Bodies == nil {
		opts.Bodies = intake.New()
	}
	s := &Server{opts: opts, log: opts.Logger}
	if opts.Place != nil {
		s.tree = &bucket{at: opts.Place, root: strings.TrimRight(opts.PlaceURL, "/") + "/"}
		return s, nil
	}
	var err error
	if s.tree, err = openDisk(opts.Dir, opts.Logger); err != nil {
		return nil, err
	}
	return s, nil
}

// Close releases the directory, if any. It may be called only after all requests have ended.
func (s *Server) Close() error { return s.tree.close() }

// ServeHTTP answers one request. It must be called without a ServeMux in between: stored names may
// contain double slashes, which a mux would redirect.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowAnyOrigin(w.Header())
	extend(http.NewResponseController(w), r, s.opts.Stall)
	if err := s.serve(w, r); err != nil {
		s.refuse(w, r, err)
	}
}

// serve routes a request. Path and body are used only after authentication, except for the ping and
// the pre-flight of browsers.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case r.Method == http.MethodOptions:
		w.WriteHeader(http.StatusOK)
		return nil
	case reading && (r.URL.Path == "/" || r.URL.Path == ""):
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("OK")) // a client that has disconnected does not need the error
		return nil
	}
	if err := s.authenticate(r); err != nil {
		return err
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return refusal(http.StatusUnsupportedMediaType, "Content-Encoding %q is not supported: send the file unencoded", enc)
	}
	switch {
	case reading:
		return s.download(w, r)
	case r.Method == http.MethodPost && r.URL.Path == "/delete_many":
		return s.deleteMany(w, r)
	case r.Method == http.MethodPost && (r.URL.Path == "/" || r.URL.Path == ""):
		return s.uploadForm(w, r)
	case r.Method == http.MethodPut:
		return s.put(w, r)
	case r.Method == http.MethodDelete:
		return s.delete(w, r)
	case r.Method == http.MethodPost:
		return refusal(http.StatusMethodNotAllowed, "POST goes to / with the path as the name of the form part; PUT stores at a path")
	}
	return refusal(http.StatusMethodNotAllowed, "%s is not supported", r.Method)
}

func (s *Server) authenticate(r *http.Request) error {
	if s.opts.Auth == nil {
		return refusal(http.StatusUnauthorized, "the file server has no credentials configured")
	}
	err := s.opts.Auth.Authenticate(r)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrForbidden):
		err = refusal(http.StatusForbidden, "%s", ErrForbidden)
	case errors.Is(err, ErrUnknown):
		err = refusal(http.StatusUnauthorized, "%s", ErrUnknown)
	default:
		return fmt.Errorf("authenticate: %w", err)
	}
	s.log.Debug("file request refused", "method", r.Method, "remote", r.RemoteAddr, "err", err)
	return err
}

// extend extends the deadline for the next byte of the answer. The reader of a body limits its
// time. Some listeners have no deadlines.
func extend(conn *http.ResponseController, r *http.Request, stall time.Duration) {
	at := time.Now().Add(stall)
	_ = conn.SetWriteDeadline(at)
	if r.ContentLength == 0 {
		_ = conn.SetReadDeadline(at)
	}
}

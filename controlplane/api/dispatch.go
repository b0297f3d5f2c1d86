package api

import (
	"cmp"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/intake"
)

const (
	// maxBody bounds a request: large configuration objects and batches of events come in
	// one piece.
	maxBody = 64 << 20
	// maxOpenBody is the bound for calls without authentication. They take no arguments.
	maxOpenBody = 8 << 10
	// maxFormBody is the bound for a form, which is decoded like query arguments, and for a
	// body beside query arguments.
	maxFormBody = 1 << 20
	// maxRest is how much of a refused request is read to keep its connection.
	maxRest = 1 << 20
)

// ServeHTTP answers one call. GET with a body, POST, and PUT are the same.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowAnyOrigin(w.Header())
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		http.Error(w, "Content-Encoding is not supported", http.StatusUnsupportedMediaType)
		return
	}
	name, version, ok := parsePath(r.URL.Path)
	m := newMeta(r, name, version)
	if !ok {
		intake.Discard(w, r, maxRest)
		send(w, s.log, m.refused(badRequest("Invalid request path %s", r.URL.Path)), nil)
		return
	}
	data, err := s.answer(w, r, name, version)
	if err != nil {
		told, trouble := asError(err)
		switch {
		case trouble && r.Context().Err() != nil:
			s.log.Debug("call cancelled by its client", "call", name, "err", err)
		case trouble:
			s.log.Error("call failed", "call", name, "err", err)
		default:
			s.log.Debug("call refused", "call", name, "code", told.Code, "subcode", told.Subcode, "err", err)
		}
		if told.Code != http.StatusRequestTimeout {
			intake.Discard(w, r, maxRest)
		}
		send(w, s.log, m.refused(told), nil)
		return
	}
	send(w, s.log, m, data)
}

// answer finds the call, checks the caller, reads the body, and runs the handler. A panic of
// a handler becomes an error: the SDK repeats a call forever if the answer is no envelope.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, name, version string) (data any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	entry, ok := s.calls[name]
	if !ok {
		s.logUnknown(r, name)
		return nil, &documents.Error{Code: http.StatusNotFound, Msg: fmt.Sprintf("Unable to find endpoint for name %s and version %s", name, version)}
	}
	worker := cmp.Or(r.Header.Get("X-ClearML-Worker"), r.Header.Get("X-Trains-Worker"))
	c := &Call{Name: name, Version: version, HTTP: r, Header: w.Header(), Worker: worker}
	if c.Identity, err = s.admit(r, entry.needs); err != nil {
		return nil, err
	}
	began := time.Now()
	body, release, err := s.readPayload(w, r, entry.needs)
	if err != nil {
		return nil, err
	}
	defer release()
	if time.Since(began) > slowBody {
		// The caller's permissions may have changed while the body arrived.
		if c.Identity, err = s.admit(r, entry.needs); err != nil {
			return nil, err
		}
	}
	return entry.answer(r.Context(), c, body)
}

// logUnknown logs the first call of each unknown name: a newer SDK may need it. It remembers
// a few hundred, because clients can send random names.
func (s *Server) logUnknown(r *http.Request, name string) {
	const remembered, longest = 200, 200
	name = name[:min(len(name), longest)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.unknown[name] && len(s.unknown) < remembered {
		s.unknown[name] = true
		s.log.Warn("unknown call", "call", name, "client", r.Header.Get("X-ClearML-Client"))
	}
}

// slowBody is the time of a body after which the caller is identified again.
const slowBody = time.Second

// admit returns the caller, or why the call is not allowed.
func (s *Server) admit(r *http.Request, needs permission) (Identity, error) {
	if needs == open {
		return Identity{}, nil
	}
	who, err := s.auth.Authenticate(r)
	switch {
	case needs == mayIfKnown:
		if err != nil {
			return Identity{}, nil //nolint:nilerr // the call is for callers without valid credentials too
		}
		return who, nil
	case err != nil:
		return Identity{}, err
	case needs == mayWrite && who.Role == RoleGuest:
		return Identity{}, &documents.Error{Code: http.StatusForbidden, Subcode: 21, Msg: "No write permission: guests may only read"}
	case needs == mayAdmin && who.Role != RoleAdmin:
		return Identity{}, &documents.Error{Code: http.StatusForbidden, Subcode: 20, Msg: "Role not allowed: only an admin may call this"}
	}
	return who, nil
}

// readPayload reads the body within the budget of all bodies and merges the query arguments
// over it. release returns its part of the budget.
func (s *Server) readPayload(w http.ResponseWriter, r *http.Request, needs permission) (_ payload, release func(), err error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	form := kind == "application/x-www-form-urlencoded"
	limit := int64(maxBody)
	switch {
	case needs == open || needs == mayIfKnown:
		limit = maxOpenBody
	case form:
		limit = maxFormBody
	}
	body, err := s.bodies.Read(w, r, limit)
	if err != nil {
		return payload{}, nil, bodyRefused(err)
	}
	if kind == "application/json-lines" {
		return payload{text: body.Text, lines: true}, body.Release, nil
	}
	args, text := r.URL.RawQuery, body.Text
	if form {
		args, text = strings.Trim(args+"&"+string(text), "&"), nil
	}
	merged, err := mergeArguments(text, args)
	if err != nil {
		body.Release()
		return payload{}, nil, err
	}
	return payload{text: merged}, body.Release, nil
}

// bodyRefused is the refusal of a body that could not be read.
func bodyRefused(err error) error {
	code := intake.Status(err)
	if code == http.StatusBadRequest {
		return badRequest("Request body broke off: %v", err)
	}
	return &documents.Error{Code: code, Msg: "Request refused: " + err.Error()}
}

// callPath is [/api]/[v2.31/]service.action[/].
var callPath = regexp.MustCompile(`^/*(?:api/+)?(?:v(\d+(?:\.\d+)?)/+)?([a-zA-Z_]\w+\.[a-zA-Z_]\w+)/?$`)

// parsePath returns the call's name and requested version. All versions get the answers of
// the newest.
func parsePath(path string) (name, version string, ok bool) {
	parts := callPath.FindStringSubmatch(path)
	if parts == nil {
		return "", newestVersion, false
	}
	return parts[2], cmp.Or(parts[1], newestVersion), true
}

// allowAnyOrigin allows calls with a token from pages of any origin. It never allows cookies
// in such a call, so a page without a token gains nothing.
func allowAnyOrigin(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Clearml-Client, X-Clearml-Worker, X-Clearml-Trx")
}

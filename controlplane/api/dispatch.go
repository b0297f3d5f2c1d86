package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
)

// maxBody is the greatest request that is read: large configuration objects and
// batches of events come in one piece.
const maxBody = 64 << 20

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
		drain(w, r)
		send(w, s.log, m.refused(badRequest("Invalid request path %s", r.URL.Path)), nil)
		return
	}
	data, err := s.answer(w, r, name, version)
	if err != nil {
		told, trouble := asError(err)
		if trouble {
			s.log.Error("call failed", "call", name, "err", err)
		} else {
			s.log.Debug("call refused", "call", name, "code", told.Code, "subcode", told.Subcode, "err", err)
		}
		drain(w, r)
		send(w, s.log, m.refused(told), nil)
		return
	}
	send(w, s.log, m, data)
}

// answer finds the call, checks the caller, reads the body, and runs the handler. A
// panic of a handler becomes an error: any answer that isn't an envelope makes the SDK
// repeat the call without end.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, name, version string) (data any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	entry, ok := s.calls[name]
	if !ok {
		return nil, &Error{Code: http.StatusNotFound, Msg: fmt.Sprintf("Unable to find endpoint for name %s and version %s", name, version)}
	}
	c := &Call{Name: name, Version: version, HTTP: r, Header: w.Header(), Worker: r.Header.Get("X-ClearML-Worker")}
	if c.Worker == "" {
		c.Worker = r.Header.Get("X-Trains-Worker")
	}
	if c.Identity, err = s.admit(r, entry.needs); err != nil {
		return nil, err
	}
	body, err := readPayload(w, r)
	if err != nil {
		return nil, err
	}
	return entry.answer(r.Context(), c, body)
}

// admit returns who calls, or why the call isn't allowed.
func (s *Server) admit(r *http.Request, needs permission) (Identity, error) {
	if needs == open {
		return Identity{}, nil
	}
	who, err := s.auth.Authenticate(r)
	switch {
	case needs == mayIfKnown:
		if err != nil {
			return Identity{}, nil //nolint:nilerr // a visitor without valid credentials is what this call is for
		}
		return who, nil
	case err != nil:
		return Identity{}, err
	case needs == mayWrite && who.Role == RoleGuest:
		return Identity{}, &Error{Code: http.StatusForbidden, Subcode: 21, Msg: "No write permission: guests may only read"}
	case needs == mayAdmin && who.Role != RoleAdmin:
		return Identity{}, &Error{Code: http.StatusForbidden, Subcode: 20, Msg: "Role not allowed: only an admin may call this"}
	}
	return who, nil
}

// readPayload reads the body and merges the query arguments over it.
func readPayload(w http.ResponseWriter, r *http.Request) (payload, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	text, err := io.ReadAll(r.Body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return payload{}, &Error{Code: http.StatusRequestEntityTooLarge, Msg: fmt.Sprintf("Request is larger than %d MiB", maxBody>>20)}
	}
	if err != nil {
		return payload{}, badRequest("Request body broke off: %v", err)
	}
	if kind == "application/json-lines" {
		return payload{text: text, lines: true}, nil
	}
	args := r.URL.RawQuery
	if kind == "application/x-www-form-urlencoded" {
		args, text = strings.Trim(args+"&"+string(text), "&"), nil
	}
	merged, err := mergeArguments(text, args)
	return payload{text: merged}, err
}

// drain reads what is left of a short body, so that the connection stays usable after
// an error; the SDK shares connections over threads.
func drain(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1<<20)) // what is longer closes the connection
}

// callPath is [/api]/[v2.31/]service.action[/].
var callPath = regexp.MustCompile(`^/*(?:api/+)?(?:v(\d+(?:\.\d+)?)/+)?([a-zA-Z_]\w+\.[a-zA-Z_]\w+)/?$`)

// parsePath takes the call's name and requested version from a path. Each version gets
// the same answers: ours are those of the newest.
func parsePath(path string) (name, version string, ok bool) {
	parts := callPath.FindStringSubmatch(path)
	if parts == nil {
		return "", newestVersion, false
	}
	if version = parts[1]; version == "" {
		version = newestVersion
	}
	return parts[2], version, true
}

// allowAnyOrigin lets pages of any origin call with a token they hold. It never lets a
// browser add its cookie, so a page without a token gains nothing.
func allowAnyOrigin(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Clearml-Client, X-Clearml-Worker, X-Clearml-Trx")
}

// Package api answers the calls of the ClearML API: the subset that the ClearML SDK,
// ClearML Serving, and our own pages and command line need, one file per ClearML
// service.
//
// It owns the table of calls, the envelope, the rules of tasks and models, and the
// permissions. It never opens a socket or a file and knows the database only as a
// store.Store.
package api

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/intake"
	"clearmlserving/controlplane/store"
)

// Options are the dependencies of the calls.
type Options struct {
	// Store keeps all state. Required; the caller closes it.
	Store store.Store
	// Auth identifies callers. Nil: the credentials and tokens in Store.
	Auth Authenticator
	// APIURL is where clients reach this server: cookies are secure when it is https.
	APIURL string
	// Version is the version of this program, for server.info.
	Version string
	// Bodies bounds the cost of all request bodies together. Nil: a new budget.
	Bodies *intake.Budget
	// Files removes the files of deleted documents, if a call requests it. Nil: none.
	Files Files
	// OnChange is called with each task, model, and project that a committed call has
	// written or removed, on the request's goroutine. It must not block.
	OnChange func(kind store.Kind, id string)
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Files is the storage of the files of models and artifacts.
type Files interface {
	// RemoveFile removes a file by its address; a missing file is no error. It is called only
	// for addresses that no model has any more, and decides whether this server may remove
	// files there. The caller gets the error.
	RemoveFile(ctx context.Context, address string) error
}

// Authenticator identifies the sender of a request.
type Authenticator interface {
	// Authenticate returns the caller's identity, or an *Error with code 401 and the reason.
	// It is called from many goroutines, before the body is read, again after a slow body,
	// and never for calls without authentication.
	Authenticate(r *http.Request) (Identity, error)
}

// Identity is the caller of a call.
type Identity struct {
	// User and Company are ids.
	User, UserName, Company, CompanyName string
	// Role has the permissions.
	Role Role
	// Via is the kind of proof: "Basic", "Bearer", or "Cookie".
	Via string
	// AccessKey is the credential, if known.
	AccessKey string
	// Service is the serving service of a RoleService.
	Service string
}

// Role is a set of permissions.
type Role string

// The roles, in ClearML's words. A guest reads; a user reads and writes; an admin
// administers users and credentials of others too. A service account reads, and writes
// what belongs to one serving service: its task, and the tasks of its instances.
const (
	RoleGuest   Role = "guest"
	RoleService Role = "service"
	RoleUser    Role = "user"
	RoleAdmin   Role = "admin"
)

// permission is what a call requires of its caller.
type permission int

const (
	open       permission = iota // no credentials; Identity is empty
	mayRead                      // every identity
	mayWrite                     // every identity but guests
	mayAdmin                     // admins
	mayIfKnown                   // no credentials; Identity is set if there are valid ones
)

// Server answers calls. It is safe for use by many goroutines.
type Server struct {
	opts   Options
	store  store.Store
	auth   Authenticator
	own    *Auth // of the credentials and tokens in store
	bodies *intake.Budget
	log    *slog.Logger
	now    func() time.Time
	lists  documents.Lists
	calls  map[string]callEntry

	mu      sync.Mutex // guards unknown; nothing else is locked under it
	unknown map[string]bool
}

// New makes a Server. It starts nothing.
func New(opts Options) *Server {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.OnChange == nil {
		opts.OnChange = func(store.Kind, string) {}
	}
	own, ok := opts.Auth.(*Auth)
	if !ok {
		own = NewAuth(AuthOptions{Store: opts.Store, Logger: opts.Logger, Now: opts.Now})
	}
	if opts.Auth == nil {
		opts.Auth = own
	}
	if opts.Bodies == nil {
		opts.Bodies = intake.New()
	}
	s := &Server{opts: opts, store: opts.Store, auth: opts.Auth, own: own, bodies: opts.Bodies, log: opts.Logger, now: opts.Now, lists: documents.NewLists(opts.Store, opts.Now), unknown: map[string]bool{}}
	s.calls = map[string]callEntry{}
	for _, c := range s.table() {
		s.calls[c.name] = c
	}
	return s
}

// table lists every call; each service's file lists its own.
func (s *Server) table() []callEntry {
	return slices.Concat(
		s.taskCalls(),
		s.modelCalls(),
		s.projectCalls(),
		s.queueCalls(),
		s.authCalls(),
		s.serverCalls(),
		s.userCalls(),
		s.eventCalls(),
		s.servingCalls(),
		s.workerCalls(),
	)
}

// CallInfo says who may make a call, for the table in docs/security.md.
type CallInfo struct {
	Name   string
	Caller string
}

// Calls lists the calls that are answered, by name.
func (s *Server) Calls() []CallInfo {
	callers := map[permission]string{
		open: "anybody", mayIfKnown: "anybody; tells more to users", mayRead: "users and guests", mayWrite: "users", mayAdmin: "admins",
	}
	var all []CallInfo
	for _, name := range slices.Sorted(maps.Keys(s.calls)) {
		all = append(all, CallInfo{Name: name, Caller: callers[s.calls[name].needs]})
	}
	return all
}

// callEntry is one line of the table: the name, the permission, and the handler (see typed
// and raw).
type callEntry struct {
	name   string
	needs  permission
	answer handler
}

// Call is the context of a call beside its request.
type Call struct {
	// Identity is the caller.
	Identity
	// Name is the service and action, such as "tasks.edit".
	Name string
	// Version is the requested API version, such as "2.23"; the newest by default.
	Version string
	// HTTP is the request, for its headers and address; its body has been read.
	HTTP *http.Request
	// Header is the header of the answer, for cookies.
	Header http.Header
	// Worker is the X-ClearML-Worker header.
	Worker string
}

// handler answers a call from its body: JSON with the query arguments merged in, {} for an
// empty body.
type handler func(ctx context.Context, c *Call, body payload) (any, error)

// payload is a body and its content type.
type payload struct {
	text []byte
	// lines says that the content type was application/json-lines: text is not one JSON value.
	lines bool
}

// typed makes a handler of a function with a request struct (or Fields). Keys that the
// struct lacks are ignored; values of a wrong type, and missing fields that are tagged
// `required:"true"`, are refused with 400/12.
func typed[Req, Resp any](answer func(context.Context, *Call, Req) (Resp, error)) handler {
	return func(ctx context.Context, c *Call, body payload) (any, error) {
		var req Req
		if body.lines {
			return nil, badRequest("%s takes one JSON object, not json-lines", c.Name)
		}
		if err := decodeRequest(body.text, &req); err != nil {
			return nil, err
		}
		if err := checkRequired(reflect.ValueOf(req)); err != nil {
			return nil, err
		}
		return answer(ctx, c, req)
	}
}

// raw makes a handler that parses the body itself: JSON or json-lines, as it was sent.
func raw[Resp any](answer func(ctx context.Context, c *Call, body []byte) (Resp, error)) handler {
	return func(ctx context.Context, c *Call, body payload) (any, error) {
		return answer(ctx, c, body.text)
	}
}

// none is the request of a call without arguments and the answer without data.
type none struct{}

// updated is the answer of most writes.
type updated struct {
	Updated int            `json:"updated"`
	Fields  map[string]any `json:"fields"`
}

// timestamp is now in the form that documents hold.
func (s *Server) timestamp() string { return store.FormatTime(s.now()) }

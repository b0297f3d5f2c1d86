package clearml

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Sentinel errors, for errors.Is.
var (
	// ErrNotFound: the task, model, project or file does not exist.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the server refuses the credentials, or they lack a permission.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrUnavailable: the server cannot be reached or does not answer as a ClearML server.
	ErrUnavailable = errors.New("unavailable")
	// ErrConflict: it was changed in between; read it again and repeat.
	ErrConflict = errors.New("changed in between")
	// ErrStatus: the status of the task forbids it.
	ErrStatus = errors.New("not allowed in this status")
	// ErrExists: an object that must be unique exists already.
	ErrExists = errors.New("exists already")
	// ErrUnsupported: the server does not know the call.
	ErrUnsupported = errors.New("not supported by the server")
	// ErrNotConfigured: no server or credentials are configured.
	ErrNotConfigured = errors.New("not configured")
)

// Error is the refusal of a call by the server.
type Error struct {
	Call    string // like "tasks.edit"
	Code    int    // the HTTP status
	Subcode int
	Msg     string
}

func (e *Error) Error() string {
	msg := cmp.Or(e.Msg, "refused without a reason")
	return fmt.Sprintf("%s: %s (%d/%d)", e.Call, msg, e.Code, e.Subcode)
}

// Is makes errors.Is find the sentinel of the error's codes.
func (e *Error) Is(target error) bool {
	code := [2]int{e.Code, e.Subcode}
	switch target {
	case ErrNotFound:
		switch code {
		case [2]int{400, 101}, [2]int{400, 201}, [2]int{400, 401}, [2]int{400, 403}, [2]int{400, 701}:
			return true
		}
		return e.Code == 404 && !e.unknownCall()
	case ErrUnauthorized:
		return e.Code == 401 || e.Code == 403
	case ErrConflict:
		return code == [2]int{400, 122} || e.Code == 409
	case ErrStatus:
		return code == [2]int{400, 110} || code == [2]int{400, 121}
	case ErrExists:
		return code == [2]int{400, 801}
	case ErrUnsupported:
		return e.unknownCall()
	default:
		return false
	}
}

// unknownCall distinguishes an unknown call of the API from an unknown file.
func (e *Error) unknownCall() bool { return e.Code == 404 && strings.Contains(e.Call, ".") }

// UnavailableError names the server that cannot be reached, and the source of its address.
type UnavailableError struct {
	Server string // "API server" or "file server"
	Host   Setting
	Err    error
}

func (e *UnavailableError) Error() string {
	from := ""
	if e.Host.From != "" {
		from = " (" + e.Host.From + ")"
	}
	return fmt.Sprintf("ClearML %s %s%s: %v", e.Server, e.Host.Value, from, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrUnavailable) true.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// LoginError is the refusal of the credentials, with their source.
type LoginError struct {
	Host        Setting
	Credentials string // source of the credentials
	Err         error  // the server's message
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("log in to the ClearML API server %s with the credentials of %s: %v", e.Host.Value, e.Credentials, e.Err)
}

// Unwrap returns the server's refusal.
func (e *LoginError) Unwrap() error { return e.Err }

// NotConfiguredError lists the places searched for a server and its credentials.
type NotConfiguredError struct {
	Looked []string
}

func (e *NotConfiguredError) Error() string {
	var b strings.Builder
	b.WriteString("no ClearML server is configured on this machine")
	for i, place := range e.Looked {
		if i == 0 {
			b.WriteString("; looked at:")
		}
		b.WriteString("\n  " + place)
	}
	b.WriteString("\nTo use a server of this machine: clearml-serving up, then in another shell: eval \"$(clearml-serving env)\"" +
		"\nTo use another one: clearml-init, or set CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY")
	return b.String()
}

// Is makes errors.Is find ErrNotConfigured. For callers that only distinguish refused from failed,
// missing credentials are refused ones.
func (e *NotConfiguredError) Is(target error) bool {
	return target == ErrNotConfigured || target == ErrUnauthorized
}

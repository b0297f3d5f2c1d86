package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// The exit codes. They are part of the command line's contract.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4
	exitTimedOut = 5
)

// exitCodesHelp stands at the end of every command's help.
const exitCodesHelp = `Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused (credentials), 5 timed out`

var (
	errNotFound = errors.New("not found")
	errTimedOut = errors.New("timed out")
	errRefused  = errors.New("refused") // an instance has refused the change
	// errToldAlready ends a command that has failed and has printed why.
	errToldAlready = errors.New("told already")
)

// hinted is an error with a next step for the person who reads it.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// hint adds a next step, best a command to paste, to an error.
func hint(err error, format string, args ...any) error {
	return &hinted{error: err, hint: fmt.Sprintf(format, args...)}
}

// marked is an error of a kind that decides the exit code but is not in its words.
type marked struct {
	error
	kind error
}

func (e *marked) Is(target error) bool { return target == e.kind }
func (e *marked) Unwrap() error        { return e.error }

// notFound makes an error that ends with the exit code for "not found".
func notFound(format string, args ...any) error {
	return &marked{error: fmt.Errorf(format, args...), kind: errNotFound}
}

// end prints an error, if there is one, and says how the program exits.
func (a *app) end(err error) int {
	if err == nil || errors.Is(err, errDeclined) {
		return exitDone
	}
	code := exitCode(err)
	if errors.Is(err, errToldAlready) {
		return code
	}
	message, next := errorText(err), errorHint(err)
	usage, isUsage := errors.AsType[*usageError](err)
	if isUsage {
		message, next = usage.problem, usage.hint
	}
	_ = a.print.result(object{{"error", object{{"message", message}, {"hint", orNull(next)}, {"code", code}}}}) // texts and a number
	out := a.sys.stdout
	switch {
	case isUsage:
		out = a.sys.stderr
		put(out, "usage: %s\n%s: error: %s", usage.command.UseLine(), usage.command.CommandPath(), message)
	case a.print.json:
		next = ""
	default:
		put(out, "\nError: %s", message)
	}
	if next != "" {
		put(out, "%s", next)
	}
	if a.debug && !isUsage {
		for cause := err; cause != nil; cause = errors.Unwrap(cause) {
			put(a.sys.stderr, "  %T: %v", cause, cause)
		}
	}
	return code
}

// crashed ends a run that a fault of ours has broken off.
func (a *app) crashed(fault any, stack []byte) int {
	err := hint(fmt.Errorf("internal error: %v", fault), "This is a fault of clearml-serving %s: please report it with the output of the same command and --debug", version)
	if a.debug {
		put(a.sys.stderr, "%s", stack)
	}
	return a.end(err)
}

// aborted ends an interrupted run, as the original does.
func (a *app) aborted() int {
	a.print.line("\nUser aborted")
	return exitDone
}

// errorText is the message without the words that only programs need.
func errorText(err error) string {
	text := err.Error()
	if errors.Is(err, serving.ErrNotFound) {
		text = strings.TrimSuffix(text, ": "+serving.ErrNotFound.Error())
	}
	return text
}

func exitCode(err error) int {
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errNotFound), errors.Is(err, serving.ErrNotFound), errors.Is(err, clearml.ErrNotFound):
		return exitNotFound
	case errors.Is(err, clearml.ErrUnauthorized):
		return exitRefused
	case errors.Is(err, errTimedOut), errors.Is(err, context.DeadlineExceeded):
		return exitTimedOut
	default:
		return exitFailed
	}
}

// isUntrusted tells of a certificate that no known authority has signed.
func isUntrusted(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return unknown
}

// errorHint finds the next step for an error: its own, or what helps with that kind.
func errorHint(err error) string {
	var h *hinted
	switch {
	case errors.As(err, &h):
		return h.hint
	case isUntrusted(err):
		return "Try: CLEARML_API_HOST_VERIFY_CERT=/path/to/ca.pem   (the server's authority, or its certificate), or REQUESTS_CA_BUNDLE with all authorities"
	case errors.Is(err, clearml.ErrUnauthorized):
		return "Try: clearml-serving doctor   (shows which credentials are used and where they come from)"
	case errors.Is(err, clearml.ErrConflict):
		return "Try: the same command again, when fewer edits are under way"
	case errors.Is(err, clearml.ErrUnavailable):
		return "Try: clearml-serving doctor   (shows which server is used; a local one is started by: clearml-serving up)"
	default:
		return ""
	}
}

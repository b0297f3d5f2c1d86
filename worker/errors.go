package worker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"clearmlserving/process"
)

var (
	// ErrOverloaded: too many requests of this endpoint wait already.
	ErrOverloaded = errors.New("too many requests are waiting for this endpoint")
	// ErrDeadline: the request's deadline passed before the answer.
	ErrDeadline = errors.New("deadline passed before the endpoint answered")
	// ErrClosed: the group or the pool is closed.
	ErrClosed = errors.New("closed")
	// ErrTooLarge: the request does not fit into a frame.
	ErrTooLarge = errors.New("request is larger than a worker takes")
)

// DiedError says that a worker died while it executed the request.
type DiedError struct {
	Endpoint string
	Death    process.Death
}

func (e *DiedError) Error() string {
	text := fmt.Sprintf("endpoint %q: worker died: %s", e.Endpoint, e.Death)
	if said := lastOutput(e.Death.LastLines); said != "" {
		text += "; it wrote last: " + said
	}
	return text
}

// lastOutput is the end of what a process wrote, short enough for an answer and
// without stacks, which clients must not see: status and log have all of it.
func lastOutput(lines []string) string {
	const most = 400
	var said []string
	for _, line := range lines {
		stack := slices.ContainsFunc([]string{" ", "\t", "Traceback ", "Current thread ", "Thread ", "Stack ", "Extension modules:"},
			func(begin string) bool { return strings.HasPrefix(line, begin) })
		if !stack && strings.TrimSpace(line) != "" {
			said = append(said, line)
		}
	}
	text := strings.Join(said[max(0, len(said)-3):], " | ")
	if len(text) > most {
		text = "…" + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return text
}

func (e *DiedError) Unwrap() error { return e.Death }

// UnavailableError says that an endpoint has no worker and will not have one soon.
type UnavailableError struct {
	Endpoint   string
	Reason     string
	RetryAfter time.Duration
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("endpoint %q has no worker now: %s", e.Endpoint, e.Reason)
}

// LoadError says why an endpoint could not be loaded.
type LoadError struct {
	Endpoint string
	// Text says what is wrong; the Python side wrote it.
	Text string
	// Cause is Text without the name of the code, "" when the failure is not in preprocess
	// code.
	Cause string
	// Traceback is the user's part of the traceback, "" when the failure is not in user code.
	Traceback string
	// LastLines is the end of what the worker wrote to stderr.
	LastLines []string
	// Death is how the worker ended while it loaded, zero when it lived.
	Death process.Death
}

func (e *LoadError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "load endpoint %q: %s", e.Endpoint, e.Text)
	if !e.Death.IsZero() && len(e.LastLines) > 0 {
		b.WriteString("; its last lines:\n" + strings.Join(e.LastLines, "\n"))
	}
	return b.String()
}

func (e *LoadError) Unwrap() error {
	if e.Death.IsZero() {
		return nil
	}
	return e.Death
}

// PythonError says that an interpreter cannot be used.
type PythonError struct {
	// Problem classifies the reason.
	Problem PythonProblem
	// Text describes the problem.
	Text string
	// Hint says what to do, with a command.
	Hint string
	Err  error
}

// PythonProblem is the reason why an interpreter is unusable.
type PythonProblem int

// The reasons.
const (
	PythonNotFound PythonProblem = iota + 1
	PythonTooOld
	PythonBroken
	PythonLacksPackage
)

func (e *PythonError) Error() string {
	s := e.Text
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *PythonError) Unwrap() error { return e.Err }

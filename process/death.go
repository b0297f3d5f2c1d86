package process

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// Death is how a process ended. It travels unchanged into errors, logs and the
// status page.
type Death struct {
	// Signal ended the process, 0 when it exited by itself.
	Signal syscall.Signal
	// Code is the exit code, -1 when a signal ended the process.
	Code int
	// OOM says that the kernel killed it for memory.
	OOM bool
	// Asked says that we wanted it to end.
	Asked bool
	// Reason says more than signal and code can, "" mostly ("no answer for 30s").
	Reason string
	// LastLines is the end of what it wrote to stderr.
	LastLines []string
	// At is when the end was noticed.
	At time.Time
}

// Error makes a Death usable as the cause of an error.
func (d Death) Error() string { return d.String() }

// String says in one line how the process ended, without its last lines.
func (d Death) String() string {
	var s string
	switch {
	case d.OOM:
		s = "out of memory: killed by the kernel"
	case d.Signal == 0:
		s = fmt.Sprintf("exited with code %d", d.Code)
	default:
		s = "killed by signal " + signalName(d.Signal)
		if d.Signal == syscall.SIGKILL && !d.Asked && !oomKnown() {
			s += " (out of memory?)"
		}
	}
	if d.Reason != "" {
		s = d.Reason + ": " + s
	}
	return s
}

// Detail is String followed by the last lines that the process wrote.
func (d Death) Detail() string {
	if len(d.LastLines) == 0 {
		return d.String()
	}
	return d.String() + "; its last lines:\n" + strings.Join(d.LastLines, "\n")
}

// IsZero says that there was no death.
func (d Death) IsZero() bool { return d.At.IsZero() }

// Verdict makes the Death of a process that was not started by this package but
// by a child of ours, which reports its wait status.
func Verdict(status syscall.WaitStatus, asked bool, oom *OOMWatch, lastLines []string) Death {
	d := Death{Code: -1, Asked: asked, LastLines: lastLines, At: time.Now()}
	switch {
	case status.Signaled():
		d.Signal = status.Signal()
	case status.Exited():
		d.Code = status.ExitStatus()
	}
	d.OOM = d.Signal == syscall.SIGKILL && !asked && oom.Struck()
	return d
}

func newDeath(state *os.ProcessState, asked bool, oom *OOMWatch, lastLines []string) Death {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return Death{Code: state.ExitCode(), Asked: asked, LastLines: lastLines, At: time.Now()}
	}
	return Verdict(status, asked, oom, lastLines)
}

func signalName(sig syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGKILL: "SIGKILL", syscall.SIGSEGV: "SIGSEGV", syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS",
		syscall.SIGFPE: "SIGFPE", syscall.SIGILL: "SIGILL", syscall.SIGTERM: "SIGTERM", syscall.SIGINT: "SIGINT",
		syscall.SIGHUP: "SIGHUP", syscall.SIGPIPE: "SIGPIPE", syscall.SIGQUIT: "SIGQUIT",
		syscall.SIGXCPU: "SIGXCPU", syscall.SIGUSR1: "SIGUSR1", syscall.SIGTRAP: "SIGTRAP", syscall.SIGSYS: "SIGSYS",
	}
	if name, ok := names[sig]; ok {
		return fmt.Sprintf("%s (%s)", name, sig)
	}
	return fmt.Sprintf("%d (%s)", int(sig), sig)
}

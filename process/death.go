package process

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Death describes how a process ended. Errors, logs and the status page use it unchanged.
type Death struct {
	// Signal is the signal that ended the process, 0 if it exited itself.
	Signal syscall.Signal
	// Code is the exit code, -1 if a signal ended the process.
	Code int
	// OOM means that the kernel killed it because of a lack of memory.
	OOM bool
	// Asked means that the service ended it.
	Asked bool
	// Reason has more than signal and code, usually "" ("no answer for 30s").
	Reason string
	// LastLines is the end of its stderr.
	LastLines []string
	// At is the time when the end was noticed.
	At time.Time
}

// Error makes a Death usable as the cause of an error.
func (d Death) Error() string { return d.String() }

// String describes the end in one line, without the last lines.
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

// IsZero reports that there was no death.
func (d Death) IsZero() bool { return d.At.IsZero() }

// Verdict creates the Death of a process that was started by a child of ours, which reports its
// wait status.
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

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return fmt.Sprintf("%s (%s)", name, sig)
	}
	return fmt.Sprintf("%d (%s)", int(sig), sig)
}

package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A guard is a process between us and a server: its parent, and the parent of all processes that the
// server leaves behind. It ends all of them when the server ends, and when this process ends for
// whatever reason, which it sees by the end of its standard input.

// Guard runs a command line as the guard of its server, and returns the exit code of the guard. It is the
// whole program of the process that Spec.Guard starts.
func Guard(command []string) int {
	runtime.LockOSThread() // the parent-death signal of the server is bound to the thread that starts it
	tell := os.NewFile(guardReports, "reports")
	if len(command) == 0 || tell == nil {
		return guardFailed("there is no command to run")
	}
	syscall.CloseOnExec(guardReports)
	if err := adoptOrphans(); err != nil {
		return guardFailed(err.Error())
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return guardFailed(err.Error())
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return guardFailed(err.Error())
	}
	started, err := os.StartProcess(path, command, &os.ProcAttr{Files: []*os.File{null, os.Stdout, os.Stderr}, Sys: sameGroup()})
	if err != nil {
		return guardFailed(err.Error())
	}
	server := started.Pid
	_, _ = fmt.Fprintf(tell, "pid %d\n", server) // the reader may be gone, which standard input tells
	go func() {
		for s := range signals {
			if number, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(server, number) // it is reaped at the end only
			}
		}
	}()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		endBelow() // wait sees the end of the server
	}()
	status, err := waitFor(server)
	if err != nil {
		return guardFailed(err.Error())
	}
	signal.Stop(signals)
	_, _ = fmt.Fprintf(tell, "status %d\n", status)
	endBelow()
	return 0
}

// guardReports is the descriptor on which a guard tells the id of its server and how it ended.
const guardReports = 3

func guardFailed(why string) int {
	_, _ = fmt.Fprintln(os.Stderr, "guard:", why)
	return 127
}

// waitFor reaps all children until one of them has ended.
func waitFor(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		switch ended, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for the server: %w", err)
		case ended == pid:
			return status, nil
		}
	}
}

// endBelow kills all processes below this one, also those that start meanwhile. A process in a driver,
// where no signal ends it, is left to its own end.
func endBelow() {
	const rounds, pause = 50, 10 * time.Millisecond
	self := os.Getpid()
	for range rounds {
		all := All()
		if all == nil { // they cannot be listed on this system: the group, with us
			_ = syscall.Kill(0, syscall.SIGKILL)
		}
		left := 0
		for _, pid := range all.Below(func(pid int) bool { return pid == self }) {
			if pid != self && !all[pid].Dead {
				left++
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if left == 0 {
			return
		}
		<-time.After(pause) // no event tells that a grandchild has ended
	}
}

// guarded is our side of a guard.
type guarded struct {
	lifeline     *os.File // its end makes the guard end all of its processes
	lifelineEnds sync.Once
	reports      *os.File
}

// close closes what is left, of no guard too.
func (g *guarded) close() {
	if g != nil {
		g.lifelineEnds.Do(func() { _ = g.lifeline.Close() })
		_ = g.reports.Close()
	}
}

// guardPatience is how long a guard may take to end its processes.
const guardPatience = 2 * time.Second

// guard puts a guard between this process and the server of a command.
func (c *Child) guard(cmd *exec.Cmd, guard []string) (childEnds []*os.File, err error) {
	input, lifeline, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	reports, told, err := os.Pipe()
	if err != nil {
		_ = input.Close()
		_ = lifeline.Close()
		return nil, err
	}
	c.guarded = &guarded{lifeline: lifeline, reports: reports}
	wrapped := exec.CommandContext(context.Background(), guard[0], append(guard[1:len(guard):len(guard)], cmd.Args...)...)
	cmd.Path, cmd.Args, cmd.Err = wrapped.Path, wrapped.Args, wrapped.Err
	cmd.Stdin, cmd.ExtraFiles = input, []*os.File{told}
	return []*os.File{input, told}, nil
}

// hear reads what a guard tells, until it has ended: the id of the server, and its status at the end.
func (c *Child) hear() (status syscall.WaitStatus, told bool) {
	lines := bufio.NewScanner(c.guarded.reports)
	for lines.Scan() {
		word, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		switch word {
		case "pid":
			c.server.Store(int64(n))
		case "status":
			status, told = syscall.WaitStatus(n), true //nolint:gosec // as it was written
		}
	}
	return status, told
}
